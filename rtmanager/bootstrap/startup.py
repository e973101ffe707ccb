"""Checks the dependencies at a start, and waits for those that do not answer yet.

At boot, services start in any order. The start waits for PostgreSQL, Redis and Docker in parallel, with one deadline
for all. It does not wait after an answer: a wrong password, an unknown database or a missing network would be the same
a minute later. (Docker restores its networks before it answers.)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Event
from time import monotonic

from rtmanager.adapters.redis_access import WritesRefused
from rtmanager.bootstrap.dependencies import Check
from rtmanager.domain.errors import RuntimeManagerError, Unavailable, with_remedy
from rtmanager.ports.runtime import StateRootUnfit
from rtmanager.threads import side_by_side

#: Seconds between two checks of a dependency that does not answer.
PAUSE_S = 0.5
#: The systems that the start waits for.
WAITED_FOR = frozenset({"PostgreSQL", "Redis", "Docker"})


class StartupFailed(RuntimeManagerError):
    """The manager cannot start; the message is one line with the cause and the remedy."""


class Startup:
    """Checks every dependency; `wait_s` is its total waiting time."""

    def __init__(self, wait_s: float, logger: logging.Logger) -> None:
        self._wait_s = wait_s
        self._logger = logger
        #: Set when a dependency has given an answer that will not change.
        self._hopeless = Event()

    def run(self, checks: Sequence[Check]) -> None:
        """Run the checks: systems in parallel, the checks of one system in their order.

        Raises `StartupFailed` for the first answer that will not change, otherwise for the first system that did not
        answer.
        """
        systems: dict[str, list[Check]] = {}
        for check in checks:
            systems.setdefault(check.system, []).append(check)
        until = monotonic() + self._wait_s
        failures = side_by_side(
            lambda of_system: self._run_in_turn(of_system, until), list(systems.values()), len(systems), "rtm-start"
        )
        failed = [failure for failure in failures if failure is not None]
        for check, error in sorted(failed, key=lambda failure: isinstance(failure[1], Unavailable)):
            raise StartupFailed(f"{check.name}: {with_remedy(error, check.remedy)}") from error

    def _run_in_turn(self, checks: Sequence[Check], until: float) -> tuple[Check, RuntimeManagerError] | None:
        """Return the check that failed, and its error."""
        for check in checks:
            try:
                self._run_until(check, until)
            except WritesRefused as error:
                # It passes, as a failover does; jobs wait for it.
                self._logger.warning("redis takes no writes, waiting for it", extra={"error": with_remedy(error)})
            except StateRootUnfit as error:
                # Running games must be watched and stopped, whether or not another one can start.
                self._logger.warning("the state root can take no games", extra={"error": with_remedy(error)})
            except RuntimeManagerError as error:
                if not isinstance(error, Unavailable):
                    self._hopeless.set()
                return check, error
        return None

    def _run_until(self, check: Check, until: float) -> None:
        """Repeat the check until there is an answer, or no time for another one. Raises the last error."""
        began, waits = monotonic(), False
        while True:
            try:
                check.run()
            except WritesRefused:
                raise
            except Unavailable as error:
                if until - monotonic() < PAUSE_S or check.system not in WAITED_FOR:
                    raise
                if not waits:
                    waits = True
                    self._logger.warning(
                        "dependency does not answer, the start waits for it",
                        extra={"dependency": check.name, "error": with_remedy(error, check.remedy)},
                    )
                if self._hopeless.wait(PAUSE_S):
                    raise
            else:
                if waits:
                    self._logger.info(
                        "dependency answers, the start goes on",
                        extra={"dependency": check.name, "waited_s": round(monotonic() - began, 1)},
                    )
                return
