"""The list of cells, and their parallel execution."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from queue import Empty, SimpleQueue
from typing import TypeVar

from harness.fixtures import registry
from harness.fixtures.postgres import Postgres
from reliability.crashes import cells
from reliability.crashes.cells import Cell, Verdict
from reliability.crashes.platform import REST_TIMEOUT_S, Platform
from reliability.crashes.scenarios import IDLE, SCENARIOS, Scenario
from rtmanager.failpoints import POINTS

T = TypeVar("T")

#: Read-only calls: a stop before the call or after the answer leaves the same state, so that one of the two failpoints
#: covers both.
QUESTIONS = frozenset(
    f"{place}.{name}"
    for place, names in (
        (
            "postgres",
            "live_operation verdict busy alarms records_of stopped_before now restarts_since record records "
            "records_by_game health log daemon deployment_id latest images turn_holder name_holder namesakes",
        ),
        ("redis", "ping wait remembered"),
        ("docker", "version info network image images first_start inspect list logs events plugins"),
    )
    for name in names.split()
)
#: Effects for which every occurrence in an operation is a separate cell; elsewhere the first one covers all.
EACH_TIME = ("docker.create", "docker.start", "docker.stop", "docker.remove", "postgres.finish", "redis.publish")
#: The number of occurrences of these in one operation at most.
MOST_TIMES = 4
#: Platforms with their own Docker daemon at a time: each start of a daemon takes a second of both processors.
MOST_DAEMONS = 3
#: Connections to PostgreSQL that a platform may use: two managers, each of 19, and the matrix itself.
CONNECTIONS_PER_PLATFORM = 45
ACTIONS = ("exit", "raise")


#: The operations in which failpoints of an idle manager are tried, too: these are independent of the running operation.
WITH_BACKGROUND = ("start job", "restart", "container killed", "start-up")


class Reached:
    """The failpoints that each scenario reaches without faults, and those of an idle manager."""

    def __init__(self, by_scenario: dict[str, list[str]], idle: Collection[str] = ()) -> None:
        self.by_scenario = by_scenario
        self.idle = idle

    def cells(self, actions: Sequence[str] = ACTIONS, *, every: bool = False) -> list[Cell]:
        """The cells, grouped by scenario; with `every`, failpoints of an idle manager in each scenario."""
        return [
            Cell(scenario, point, action, hit)
            for scenario, reached in self.by_scenario.items()
            for point, times in sorted(Counter(reached).items())
            if not _is_double(point) and (every or scenario in WITH_BACKGROUND or point not in self.idle)
            for action in actions
            for hit in range(1, _hits(point, times) + 1)
        ]

    def never(self) -> set[str]:
        """Failpoints that no scenario reaches."""
        return set(POINTS) - {point for reached in self.by_scenario.values() for point in reached}


def _is_double(point: str) -> bool:
    effect, _, side = point.rpartition(".")
    return side == "before" and effect in QUESTIONS


def _hits(point: str, times: int) -> int:
    return min(times, MOST_TIMES) if point.rpartition(".")[0] in EACH_TIME else 1


def sample(found: Sequence[Cell], count: int, seed: int) -> list[Cell]:
    """Choose `count` random cells, of as many failpoints as possible."""
    chance = random.Random(seed)
    shuffled = chance.sample(list(found), len(found))
    first: dict[str, Cell] = {}
    for cell in shuffled:
        first.setdefault(cell.point, cell)
    return list(first.values())[:count]


def settings(side_by_side: int) -> dict[str, str]:
    """Return the settings of a PostgreSQL server that has enough connections for the platforms."""
    return {"max_connections": str((side_by_side + MOST_DAEMONS) * CONNECTIONS_PER_PLATFORM)}


class Matrix:
    """Platforms to run cells on in parallel; created when first needed."""

    def __init__(
        self, postgres: Postgres, side_by_side: int, stack: ExitStack, patience_s: float = REST_TIMEOUT_S
    ) -> None:
        self._postgres = postgres
        self._patience_s = patience_s
        self._threads = side_by_side
        self._stack = stack
        self._shop = stack.enter_context(registry.start())  # before the platforms: containers of its images end first
        self._lock = threading.Lock()
        #: The free platforms without and with their own daemon.
        self._free: dict[bool, SimpleQueue[Platform]] = {False: SimpleQueue(), True: SimpleQueue()}
        self._daemons = threading.BoundedSemaphore(MOST_DAEMONS)

    def observe(self, names: Sequence[str] = tuple(SCENARIOS)) -> Reached:
        """Run each scenario once without a fault."""

        def one(name: str) -> list[str]:
            try:
                scenario = SCENARIOS.get(name, IDLE)
                return self._on_a_platform(scenario, lambda platform: cells.observe(platform, scenario))
            except Exception as error:
                error.add_note(f"without a fault, in the scenario {name!r}")
                raise

        with ThreadPoolExecutor(self._threads) as threads:
            found = list(threads.map(one, [*names, IDLE.name]))
        return Reached(dict(zip(names, found, strict=False)), set(found[-1]))

    def run(self, todo: Sequence[Cell]) -> Iterator[Verdict]:
        """Run the cells; yield the verdicts in their order."""
        with ThreadPoolExecutor(self._threads) as threads:
            yield from threads.map(self._run, todo)

    def _run(self, cell: Cell) -> Verdict:
        return self._on_a_platform(SCENARIOS[cell.scenario], lambda platform: cells.run(platform, cell))

    def _on_a_platform(self, scenario: Scenario, work: Callable[[Platform], T]) -> T:
        """Run `work` on a free platform; one on which a cell failed is kept for inspection, without its manager."""
        free = self._free[scenario.own_daemon]
        with self._daemons if scenario.own_daemon else nullcontext():
            try:
                platform = free.get_nowait()
            except Empty:
                platform = self._made(scenario.own_daemon)
            done = work(platform)
            if isinstance(done, Verdict) and done.outcome == cells.FAILED:
                platform.kill()  # else its connections to PostgreSQL are missing to the other cells
            else:
                free.put(platform)
        return done

    def _made(self, own_daemon: bool) -> Platform:
        with self._lock:
            made = Platform(self._postgres, self._shop, "crashes", self._patience_s, own_daemon=own_daemon)
            return self._stack.enter_context(made)
