"""One cell: an operation, a failpoint, an action, and the verdict."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import WaitFailed
from harness.fixtures.log_tail import log_tail
from reliability.crashes.platform import Platform
from reliability.crashes.scenarios import SCENARIOS, Record, Scenario
from rtmanager.failpoints import EXIT_CODE

#: The outcome of a cell; "not reached": the operation took another path this time, and ended well.
KILLED, RAISED, NOT_REACHED, FAILED = "killed", "raised", "not reached", "FAILED"
#: Seconds at rest to wait for a failpoint of a periodic worker.
LATE_POINT_S = 2.5
#: Seconds in which a manager has ended after a signal, or has reached its failpoint.
END_TIMEOUT_S = 15.0
#: The exit code of `serve` when a dependency does not answer.
COULD_NOT_START = 1


@dataclass(frozen=True, order=True)
class Cell:
    """`action` ("exit" or "raise") at the `hit`-th time that `scenario` reaches `point`."""

    scenario: str
    point: str
    action: str = "exit"
    hit: int = 1

    @property
    def arm(self) -> str:
        """The content of the failpoints file for it."""
        return f"{self.point}={self.action}#{self.hit}"

    def __str__(self) -> str:
        return f"{self.scenario}: {self.arm}"


@dataclass(frozen=True)
class Verdict:
    """How a cell ended; `why` is the failure."""

    cell: Cell
    outcome: str
    seconds: float
    why: str = ""


def observe(platform: Platform, scenario: Scenario) -> list[str]:
    """The failpoints that the operation reaches without faults, in order; raises WaitFailed if it does not end."""
    game_id = platform.new_game("observed")
    before = _prepare(platform, scenario, game_id)
    platform.arm(scenario.arms)
    answer = scenario.request(platform, game_id)
    _start_again(platform, scenario)
    platform.wait_for_rest(lambda: scenario.fits(platform, game_id, before, answer))
    time.sleep(LATE_POINT_S)
    reached = platform.reached()
    _end(platform, game_id)
    return reached


def run(platform: Platform, cell: Cell) -> Verdict:
    """Try one cell; the platform remains usable afterwards unless the cell failed."""
    began = time.monotonic()
    try:
        outcome, why = _run(platform, cell), ""
        if outcome == NOT_REACHED:
            platform.kill()  # a manager does some things only once
            outcome = _run(platform, cell)
    except (WaitFailed, AssertionError) as failure:
        outcome, why = FAILED, f"{failure}\n{log_tail(platform.log)}"
    except Exception:  # noqa: BLE001  the matrix itself could not do it; that is no reason to leave the other cells
        outcome, why = FAILED, f"{traceback.format_exc()}\n{log_tail(platform.log)}"
    return Verdict(cell, outcome, time.monotonic() - began, why)


def _run(platform: Platform, cell: Cell) -> str:
    scenario = SCENARIOS[cell.scenario]
    game_id = platform.new_game("cell")
    before = _prepare(platform, scenario, game_id)
    platform.arm(f"{cell.arm} {scenario.arms}")
    answer = scenario.request(platform, game_id)
    reached = _wait_for_point(platform, scenario, cell, game_id, before, answer)
    _start_again(platform, scenario)
    late = _wait_for_rest(platform, scenario, lambda: scenario.fits(platform, game_id, before, answer))
    _end(platform, game_id)
    if not reached and not late:
        return NOT_REACHED
    return KILLED if cell.action == "exit" else RAISED


def _prepare(platform: Platform, scenario: Scenario, game_id: str) -> Record:
    platform.disarm()
    platform.set_clock(scenario.clock_off_s)
    scenario.prepare(platform, game_id)
    return {} if scenario.starts_up else platform.record(game_id)


def _wait_for_point(
    platform: Platform, scenario: Scenario, cell: Cell, game_id: str, before: Record, answer: int | None
) -> bool:
    """Wait until the failpoint was reached often enough, or the operation or the manager has ended."""
    over_since: float | None = None
    deadline = time.monotonic() + END_TIMEOUT_S
    while True:
        if cell.action == "exit" and platform.exit_code() == EXIT_CODE:
            return True
        if cell.action == "raise" and platform.reached().count(cell.point) >= cell.hit:
            return True
        if platform.exit_code() is not None:
            return False
        now = time.monotonic()
        if over_since is None and scenario.fits(platform, game_id, before, answer):
            over_since = now
        if now > deadline or (over_since is not None and now - over_since > LATE_POINT_S):
            return False
        time.sleep(0.05)


def _start_again(platform: Platform, scenario: Scenario) -> None:
    """Start a manager where none runs; in the scenario `shutdown`, its end is a part of the cell."""
    if scenario.name == "shutdown" and platform.manager is not None:
        platform.manager.wait(END_TIMEOUT_S)
    if platform.exit_code() is not None:
        platform.disarm()
        platform.start()


def _wait_for_rest(platform: Platform, scenario: Scenario, fits: Callable[[], bool]) -> bool:
    """Wait until the platform is at rest; return whether the manager ended at its failpoint meanwhile.

    Restarts a manager that has ended, also one that could not start because a dependency was down.
    """
    late = False

    def fits_now() -> bool:
        nonlocal late
        code = platform.exit_code()
        late = late or code == EXIT_CODE
        if code == EXIT_CODE or (scenario.starts_up and code == COULD_NOT_START):
            _start_again(platform, scenario)
        return fits()

    platform.wait_for_rest(fits_now)
    return late


def _end(platform: Platform, game_id: str) -> None:
    """Prepare the platform for the next cell: disarm the failpoints and remove the game."""
    platform.disarm()
    platform.drop_game(game_id)
