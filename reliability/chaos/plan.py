"""The plan of a run, a pure function of the seed: faults with times and targets, and each client's requests.

A fault has a begin and a duration, and reserves its target: no other fault affects it at the same time. At most two
lasting faults overlap. A client has a script of pauses and steps. The results depend on the machine; the attempts do
not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

#: The dependencies that a manager can be disconnected from.
DEPENDENCIES = ("postgres", "redis", "docker")
#: The faults of a proxy; the first two are over at once.
LINES = ("cut", "reset", "refuse", "black_hole", "half_open", "delay", "slow")
AT_ONCE = ("cut", "reset")

#: The number of lasting faults that may overlap.
MOST_AT_ONCE = 2

#: Mean pause between two faults, in seconds.
PAUSE_S = 2.2
#: Mean seconds between two steps of a client. Docker starts few containers a second, and a backlog of jobs keeps games
#: busy, whose requests are then rejected.
JOB_PAUSE_S, CALL_PAUSE_S = 2.0, 0.7
#: Seconds at the end of a round in which no fault begins, so that running faults meet requests.
LAST_S = 4.0


@dataclass(frozen=True)
class Fault:
    """A fault that begins `at_s` seconds into its round and is reverted `lasts_s` later."""

    at_s: float
    lasts_s: float
    kind: str
    #: The target: an instance's number, a game's, a server's name; "all" for all instances.
    target: str
    #: The variant, where there are several.
    how: str = ""
    #: The instance whose proxy it affects; empty for all.
    instance: str = ""

    @property
    def what(self) -> str:
        """The kind's first word: the kind of target."""
        return self.kind.partition(" ")[0]

    @property
    def holds(self) -> frozenset[str]:
        """What no other fault may need meanwhile."""
        more = {"daemon": {"containers"}, "container": {"a container"}}.get(self.what, set())
        return frozenset({self.target} | more)

    @property
    def needs(self) -> frozenset[str]:
        """What no other fault may hold: without their daemon, containers cannot be changed."""
        more = {"daemon": {"a container"}, "container": {"containers"}, "stranger": {"containers"}}
        return frozenset({self.target} | more.get(self.what, set()))


@dataclass(frozen=True)
class Step:
    """One step of a client: after `pause_s`, request `what` for game number `game`, from instance `instance`."""

    pause_s: float
    what: str
    game: int
    instance: int = 0


@dataclass(frozen=True)
class Size:
    """The size of a platform, and whether its Docker daemon may be stopped."""

    managers: int = 3
    games: int = 8
    job_clients: int = 3
    callers: int = 4
    own_daemon: bool = False
    #: The kinds of fault that occur; all of them when empty.
    kinds: tuple[str, ...] = ()
    #: The directory of the release that the managers start with; this one when empty.
    code: str = ""


@dataclass(frozen=True)
class Round:
    """One period of faults."""

    lasts_s: float
    faults: tuple[Fault, ...]
    jobs: tuple[tuple[Step, ...], ...]
    calls: tuple[tuple[Step, ...], ...]


def plan(seed: int, number: int, lasts_s: float, size: Size) -> Round:
    """Round `number` of a seed."""
    random = Random(f"{seed}/{number}")
    faults = tuple(_faults(random, lasts_s, size))
    jobs = tuple(tuple(_script(random, lasts_s, size, _JOBS, JOB_PAUSE_S)) for _ in range(size.job_clients))
    calls = tuple(tuple(_script(random, lasts_s, size, _CALLS, CALL_PAUSE_S)) for _ in range(size.callers))
    return Round(lasts_s, faults, jobs, calls)


#: Kinds of fault with their weight, their shortest and their longest duration.
_KINDS: dict[str, tuple[int, float, float]] = {
    "manager killed": (10, 0.3, 6.0),
    "managers killed": (3, 0.3, 5.0),
    "manager terminated": (5, 0.0, 3.0),
    "manager frozen": (7, 1.0, 12.0),
    "manager with a wrong clock": (3, 6.0, 15.0),
    "line": (22, 1.0, 11.0),
    "server killed": (5, 0.0, 4.0),
    "server restarted": (5, 0.0, 4.0),
    "container killed": (6, 0.0, 0.0),
    "container crashed": (3, 0.0, 0.0),
    "container removed": (5, 0.0, 0.0),
    "container stopped": (3, 0.0, 0.0),
    "container restarted": (4, 0.0, 0.0),
    "container started": (3, 0.0, 0.0),
    "container paused": (4, 1.0, 10.0),
    "container off the network": (2, 1.0, 8.0),
    "stranger": (3, 0.0, 0.0),
}
_DAEMON_KINDS: dict[str, tuple[int, float, float]] = {
    "daemon restarted": (3, 0.0, 4.0),
    "daemon killed": (4, 0.0, 6.0),
    "daemon frozen": (2, 1.0, 8.0),
    "daemon exchanged": (4, 3.0, 12.0),
}
DAEMON_WAYS = ("live-restore", "no live-restore")
#: Seconds by which the clock of a manager's host is off.
CLOCK_WAYS = ("-86400", "-600", "600", "86400")


def _faults(random: Random, lasts_s: float, size: Size) -> Iterator[Fault]:
    every = _KINDS | (_DAEMON_KINDS if size.own_daemon else {})
    kinds = {kind: every[kind] for kind in every if not size.kinds or kind in size.kinds}
    under_way: list[Fault] = []
    at_s = random.uniform(0.5, 2.0)
    while at_s < lasts_s - LAST_S:
        under_way = [each for each in under_way if each.at_s + each.lasts_s > at_s]
        fault = _fault(random, at_s, kinds, size)
        held = frozenset[str]().union(*(each.holds for each in under_way))
        lasting = sum(each.lasts_s > 0 for each in under_way)
        if not fault.needs & held and not (fault.lasts_s > 0 and lasting >= MOST_AT_ONCE):
            under_way.append(fault)
            yield fault
        at_s += random.expovariate(1 / PAUSE_S)


def _fault(random: Random, at_s: float, kinds: dict[str, tuple[int, float, float]], size: Size) -> Fault:
    names = list(kinds)
    [kind] = random.choices(names, [kinds[name][0] for name in names])
    _, shortest, longest = kinds[kind]
    lasts_s = random.uniform(shortest, longest)
    instance = str(random.randrange(size.managers))
    what = kind.partition(" ")[0]
    if what == "line":
        how = random.choice(LINES)
        who = random.choice([instance, instance, "all"])
        lasting = 0.0 if how in AT_ONCE else lasts_s
        return Fault(at_s, lasting, kind, random.choice(DEPENDENCIES), how, who)
    target = {
        "manager": instance,
        "managers": "all",
        "server": random.choice(DEPENDENCIES[:2]),
        "daemon": "docker",
        "container": f"game {random.randrange(size.games)}",
        "stranger": f"game {random.randrange(size.games)}",
    }[what]
    ways = DAEMON_WAYS if what == "daemon" else CLOCK_WAYS if kind.endswith("clock") else ("",)
    how = random.choice(ways)
    return Fault(at_s, lasts_s, kind, target, how)


#: The steps of clients, with their weights.
_JOBS = {
    "start": 30,
    "start another version": 3,
    "stop": 20,
    "start twice": 4,
    "stop twice": 3,
    "malformed image": 2,
    "malformed reason": 2,
    "malformed time": 2,
    "no game": 2,
    "unknown game": 2,
    "image that is nowhere": 2,
    "taken name": 2,
}
_CALLS = {
    "start": 20,
    "stop": 12,
    "restart": 14,
    "patch": 10,
    "patch back": 6,
    "cleanup": 8,
    "read": 8,
    "list": 3,
    "operations": 3,
    "health": 3,
    "malformed body": 2,
    "taken name": 2,
    "unknown game": 2,
}


def _script(random: Random, lasts_s: float, size: Size, deeds: dict[str, int], pause_s: float) -> Iterator[Step]:
    names, weights = list(deeds), list(deeds.values())
    at_s = 0.0
    while True:
        pause = random.expovariate(1 / pause_s)
        at_s += pause
        if at_s >= lasts_s:
            return
        [what] = random.choices(names, weights)
        yield Step(pause, what, random.randrange(size.games), random.randrange(size.managers))
