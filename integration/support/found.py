"""Compares `check` and `serve` for a dependency's initial state: both must report the same."""

import contextlib
import io
import logging
import threading

from integration.support.failing import FailingTestCase
from rtmanager import cli
from rtmanager.config.settings import Config
from rtmanager.domain.errors import RuntimeManagerError


class FoundTestCase(FailingTestCase):
    """An unfit dependency is rejected in one line, with the remedy, before anything listens."""

    def check(self, **changes: str) -> tuple[int, str]:
        """Exit code and output of `python -m rtmanager check`."""
        config = Config.from_environment(self.environment(**changes))
        with contextlib.redirect_stdout(io.StringIO()) as output:
            code = cli.check(config, logging.Logger("check"))
        return code, output.getvalue()

    def assert_fit(self, name: str, **changes: str) -> None:
        """`check` accepts the dependency."""
        code, output = self.check(**changes)
        self.assertEqual(code, 0, output)
        self.assertRegex(output, rf"ok +{name} ")

    def assert_unfit(self, *texts: str, **changes: str) -> None:
        """`check` and `serve` reject it with these words; `serve` leaves nothing running."""
        code, output = self.check(**changes)
        self.assertEqual((code, output.count("FAILED")), (1, 1), output)
        before = set(threading.enumerate())
        with self.assertRaises(RuntimeManagerError) as caught:
            self.start_runtime(**changes)
        message = str(caught.exception)
        self.assertEqual(message.splitlines(), [message])
        self.assertIn("remedy: ", output)
        for text in texts:
            self.assertIn(text, output)
            self.assertIn(text, message)
        self.assertEqual(set(threading.enumerate()) - before, set())
