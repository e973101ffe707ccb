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
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = cli.check(config, logging.Logger("check"))
        return code, said.getvalue()

    def assert_fit(self, name: str, **changes: str) -> None:
        """`check` accepts the dependency."""
        code, said = self.check(**changes)
        self.assertEqual(code, 0, said)
        self.assertRegex(said, rf"ok +{name} ")

    def assert_unfit(self, *words: str, **changes: str) -> None:
        """`check` and `serve` reject it with these words; `serve` leaves nothing running."""
        code, said = self.check(**changes)
        self.assertEqual((code, said.count("FAILED")), (1, 1), said)
        before = set(threading.enumerate())
        with self.assertRaises(RuntimeManagerError) as caught:
            self.start_runtime(**changes)
        message = str(caught.exception)
        self.assertEqual(message.splitlines(), [message])
        self.assertIn("remedy: ", said)
        for word in words:
            self.assertIn(word, said)
            self.assertIn(word, message)
        self.assertEqual(set(threading.enumerate()) - before, set())
