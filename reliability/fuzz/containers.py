"""Foreign containers, lists and events of any content end no pass and no feed, and change no other game's record.

Each input is a list of containers, the answer about each of them, and a stream of events. A scripted daemon sends them
on a socket through the real adapter to the real watchers, which write to a real PostgreSQL. The input includes valid
games that run, that have crashed and that are gone: for these the decisions are known.
"""

from __future__ import annotations

import copy
import json
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from harness import start_postgres
from harness.rtm import RUNTIME_MANAGER
from integration.support.stores import insert_record, migrated
from rtmanager.adapters.docker import Deadlines, DockerRuntime
from rtmanager.adapters.docker.events import DockerEvents
from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.postgres.findings import PostgresFindings
from rtmanager.adapters.postgres.records import PostgresRecords
from rtmanager.domain.container import ContainerState
from rtmanager.domain.drift import Placement
from rtmanager.domain.errors import Unavailable
from rtmanager.domain.game import container_name, is_game_id
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.ports.watching import ProbeBy
from rtmanager.tests.fake_daemon import Exchange, FakeDaemon
from rtmanager.tests.making import IMAGE, NETWORK, record
from rtmanager.tests.watching import FakeProbes, UnthreadedQueue
from rtmanager.workers.failures import GameFailures
from rtmanager.workers.inspector import Inspector
from rtmanager.workers.prober import Prober
from rtmanager.workers.reconcile.game import GameReconciler
from rtmanager.workers.reconcile.listener import EventListener
from rtmanager.workers.reconcile.scan import DriftScan
from rtmanager.workers.reconcile.sightings import RunSightings
from rtmanager.workers.reconcile.strays import StrayRegistry

DEFAULT_COUNT = 10_000

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * 10**9
#: The maximal length of a log line, in bytes.
LONGEST_LINE = 8000
#: The number of inspections of a game that is not settled at once; the real queue would retry for ever.
ROUNDS = 3

#: One of this many lists ends early.
CUT_EVERY = 29
#: Games whose decisions are known, by the fate of their containers.
LIVES, CRASHED, GONE = "game-lives", "game-crashed", "game-gone"
#: A recorded game whose container's answers are generated.
ODD = "game-odd"
EXIT_CODE = 3

_ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**31, 2**63, 10**30, 1.5, -0.0, float("nan"), float("inf"),
    "", "²", "0", "137", "a\0b", "\ud800", "\udc00\ud800", "\u202e\u2028", "\x1b[2J", "🎮" * 50, "x" * 3000,
    "'; DROP TABLE runtime_records; --", "../../etc/passwd", "%s%n", "running", "exited", "hibernating",
    "0000-00-00T00:00:00Z", "10000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "1e400",
    [], ["x"], [[[[]]]], {}, {"": ""}, {"x": {"y": [None]}},
)  # fmt: skip
_ODD_BYTES = (b"\xff\xfe", b"\0", b'"', b"\\", b"}", b"]", b",", b"\n", b"\\u0000", b"\\ud800", b"1e400", b"9" * 5000)

_NO_EVENTS = (b"<html>", b"null", b"17", b"[]", b"{", b"[" * 20_000, b'"' + b"x" * 99_999)
_NO_LISTS = (b"null", b"{}", b"", b"<html>", b"[", b'[{"Id":"', b'"x"', b'{"message":"no"}')
_LOGS = (b"", b"turn 1\n", b"\xff\0\xed\xa0\x80" * 50, bytes(7), b"\1\0\0\0\0\0\0\3abc", b"[" * 500)


class LogCheck(logging.Handler):
    """Checks log records: each line must be bounded, and none may come from a defect."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.violations: list[str] = []
        self.logger = logging.Logger("fuzz", logging.DEBUG)
        self.logger.addHandler(self)

    def emit(self, line: logging.LogRecord) -> None:
        if line.exc_info:
            self.violations.append(f"a traceback: {line.getMessage()}: {line.exc_info[1]!r}")
        text = f"{line.getMessage()} {[each for name, each in vars(line).items() if name not in ('msg', 'args')]}"
        if len(text) > LONGEST_LINE:
            self.violations.append(f"a log line of {len(text)} characters: {text[:200]}")


class Answers(dict[str, Callable[[Exchange], None]]):
    """The daemon's answers: `made` by path, and 404 for other containers."""

    def __init__(self, always: dict[str, Callable[[Exchange], None]]) -> None:
        super().__init__(always)
        self.made: dict[str, bytes] = {}
        self.events: list[bytes] = []
        self["GET /events"] = lambda exchange: exchange.chunks(iter(self.events))
        self["GET /_ping"] = lambda exchange: exchange.reply(200, "OK")

    def get(self, request: str, default: Any = None) -> Any:
        content = self.made.get(request)
        if content is None:
            return super().get(request, default) or (lambda exchange: exchange.refuse(404, "No such container"))

        def answer(exchange: Exchange) -> None:
            exchange.send_response(200)
            exchange.send_header("Content-Type", "application/json")
            exchange.send_header("Content-Length", str(len(content)))
            exchange.end_headers()
            exchange.wfile.write(content)

        return answer


class World:
    """The watchers of one instance, on a scripted daemon and a real database."""

    def __init__(self, database: Database, stack: ExitStack) -> None:
        self.database = database
        self.log_check = LogCheck()
        self.daemon = FakeDaemon()
        stack.callback(self.daemon.close)
        self.daemon.date = NOW
        self.answers = Answers(self.daemon.answers)
        self.daemon.answers = self.answers
        self.daemon.start()
        deadlines = Deadlines(log_s=5)
        self.runtime = DockerRuntime(self.daemon.host, deadlines=deadlines, logger=self.log_check.logger)
        stack.callback(self.runtime.close)
        self.feed = DockerEvents(self.daemon.host, deadlines=deadlines)
        stack.callback(self.feed.interrupt)
        self.records, self.findings = PostgresRecords(database), PostgresFindings(database, 1)
        self.passes = 0
        self._watch()

    def _watch(self) -> None:
        logger, failures = self.log_check.logger, GameFailures(self.log_check.logger)
        strays, placement = StrayRegistry(logger), Placement(NETWORK, lambda game_id: f"/games/{game_id}")
        sightings = RunSightings()
        game_reconciler = GameReconciler(
            records=self.records,
            findings=self.findings,
            runtime=self.runtime,
            placement=placement,
            strays=strays,
            clock=lambda: NOW,
            written=lambda _: None,
            later=lambda game_id, hint, delay_s: self.reconcile_queue.add(game_id, hint, delay_s=delay_s),
            logger=logger,
            sightings=sightings,
        )
        self.reconcile_queue = UnthreadedQueue(game_reconciler.settle)
        reconcile_queue = cast(Any, self.reconcile_queue)
        self.listener = EventListener(self.feed, reconcile_queue, missed=self._count_pass, logger=logger)
        self.drift_scan = DriftScan(
            findings=self.findings,
            runtime=self.runtime,
            reconcile_queue=reconcile_queue,
            strays=strays,
            sightings=sightings,
            placement=placement,
            clock=lambda: NOW,
            logger=logger,
            failures=failures,
        )
        shared: dict[str, Any] = {
            "records": self.records,
            "findings": self.findings,
            "leases": self.findings,
            "runtime": self.runtime,
            "clock": lambda: NOW,
            "written": lambda _: None,
            "period_s": 30.0,
            "logger": logger,
            "failures": failures,
        }
        self.inspector = Inspector(**shared, threads=1)
        self.prober = Prober(**shared, probes=FakeProbes(), by=lambda: ProbeBy.CONTAINER_IP, timeout_s=1, threshold=3)

    def _count_pass(self) -> None:
        self.passes += 1

    def put(self, records: list[RuntimeRecord]) -> None:
        """Replace all rows by these records."""
        with self.database.transaction("test") as connection:
            for table in ("runtime_records", "operation_log", "health_snapshots", "outbox", "alarms", "last_exits"):
                connection.execute(f"DELETE FROM {table}".encode())
            for each in records:
                insert_record(connection, each)

    def reconcile(self) -> None:
        """Reconcile the named games, as often as necessary."""
        for _ in range(ROUNDS):
            if not self.reconcile_queue.run():
                return
        self.reconcile_queue.named.clear()

    def record(self, game_id: str) -> RuntimeRecord | None:
        return self.records.get(game_id)


class Input:
    """One generated input."""

    def __init__(self, chance: random.Random, number: int) -> None:
        self.chance = chance
        self.number = number
        self.ids = {game_id: f"{chance.getrandbits(256):064x}" for game_id in (LIVES, CRASHED, GONE, ODD)}
        #: Foreign containers without a record.
        self.strangers = [f"{chance.getrandbits(256):064x}" for _ in range(chance.randint(0, 4))]
        self.is_list = chance.random() > 0.05
        #: Whether the list ends early, though its answer is complete.
        self.is_cut = self.is_list and number % CUT_EVERY == 0

    def records(self) -> list[RuntimeRecord]:
        started = NOW - timedelta(hours=2)
        return [
            record(game_id, current_container_id=container_id, started_at=started)
            for game_id, container_id in self.ids.items()
        ]

    def answers(self) -> dict[str, bytes]:
        """By request: the list, and the answer about each container."""
        entries = [_bytes(_listed(self.ids[LIVES], LIVES)), _bytes(_listed(self.ids[CRASHED], CRASHED, "exited"))]
        made = {
            self.ids[LIVES]: _bytes(_inspected(self.ids[LIVES], LIVES)),
            self.ids[CRASHED]: _bytes(_inspected(self.ids[CRASHED], CRASHED, "exited")),
            self.ids[ODD]: self._spoilt(_inspected(self.ids[ODD], ODD, self._state())),
        }
        entries.append(self._spoilt(_listed(self.ids[ODD], ODD, self._state())))
        for stranger in self.strangers:
            game_id = self.chance.choice((LIVES, CRASHED, GONE, ODD, "a\0b", "x" * 2000, "game-strange"))
            changes = {"Names": [f"/odd-{self.number}"]}
            entries.append(self._spoilt(_listed(stranger, game_id, self._state()) | changes))
            inspected = _inspected(stranger, game_id, self._state()) | {"Name": f"/odd-{self.number}"}
            made[stranger] = self._spoilt(inspected)
        self.chance.shuffle(entries)
        answers = {f"GET /containers/{container_id}/json": content for container_id, content in made.items()}
        named = self.chance.choice((LIVES, CRASHED, ODD))
        answers[f"GET /containers/{container_name(named)}/json"] = made[self.ids[named]]
        answers |= {f"GET /containers/{container_id}/logs": self._log() for container_id in made}
        whole = b"[" + b",".join(entries) + b"]"
        cut = whole[: self.chance.randrange(1, len(whole))] if self.is_cut else whole
        answers["GET /containers/json"] = cut if self.is_list else self._no_list()
        return answers

    def events(self) -> list[bytes]:
        """The lines of a stream; the last ones report that the crashed game died, and that the other one is gone."""
        lines = [self._event() for _ in range(self.chance.randint(0, 12))]
        at = NOW_NS + self.number * 1000 + 1
        lines.append(_line(_event("die", self.ids[CRASHED], CRASHED, at)))
        lines.append(_line(_event("destroy", self.ids[GONE], GONE, at)))
        whole = b"".join(lines)
        if self.chance.random() < 0.5:
            return [whole]
        size = self.chance.choice((1, 7, 100)) if len(whole) < 9000 else 5000
        return [whole[begin : begin + size] for begin in range(0, len(whole), size)]

    def _event(self) -> bytes:
        action = self.chance.choice(("die", "destroy", "oom", "kill", "start", "exec_die: x"))
        game_id = self.chance.choice((LIVES, ODD, "a\0b", "x" * 2000, "../x"))
        container_id = self.chance.choice((*self.ids.values(), *self.strangers, "", "a b"))
        at = self.chance.choice((0, NOW_NS, NOW_NS + self.number * 1000, 2**62, 2**63 - 1))
        event = _event(action, container_id, game_id, at)
        if self.chance.random() < 0.4:
            odd = {name: self.chance.choice(_ODD_VALUES) for name in ("exitCode", "signal", "name", "image", "execID")}
            event["Actor"]["Attributes"] |= odd
        if self.chance.random() < 0.05:
            event["Actor"]["Attributes"] |= {f"label-{number}": "x" * 900 for number in range(100)}
        kind = self.chance.random()
        if kind < 0.1:
            return self.chance.choice(_NO_EVENTS) + b"\n"
        return self._spoilt(event, 0.5).replace(b"\n", b" ") + b"\n"

    def _state(self) -> str:
        return self.chance.choice(("running", "exited", "paused", "removing", "dead", "created", "hibernating"))

    def _log(self) -> bytes:
        return self.chance.choice(_LOGS)

    def _no_list(self) -> bytes:
        return self.chance.choice(_NO_LISTS)

    def _spoilt(self, value: dict[str, Any], share: float = 0.7) -> bytes:
        """The JSON of a value with, mostly, some odd member or byte."""
        if self.chance.random() > share:
            return _bytes(value)
        value = copy.deepcopy(value)
        for _ in range(self.chance.randint(0, 4)):
            where, name = self.chance.choice(list(_places(value)))
            if self.chance.random() < 0.2:
                del where[name]
            else:
                where[name] = copy.deepcopy(self.chance.choice(_ODD_VALUES))
        if self.chance.random() < 0.05:
            value["Labels"] = {f"label-{number}": "x" * 900 for number in range(100)}
        text = _bytes(value)
        if self.chance.random() < 0.15:
            begin = self.chance.randrange(10, max(11, len(text) - 1))
            text = text[:begin] + self.chance.choice(_ODD_BYTES) + text[begin + self.chance.randint(0, 2) :]
        return text


def run(seed: int, count: int, report: Callable[[str], None]) -> list[str]:
    """See the package."""
    violations: list[str] = []
    with start_postgres() as server, ExitStack() as stack:
        database = migrated(server.create_database(RUNTIME_MANAGER).dsn)
        stack.callback(database.close)
        world = World(database, stack)
        for number in range(count):
            chance = random.Random(f"{seed}/{number}")
            try:
                found = _check(world, Input(chance, number))
            except Exception as error:  # noqa: BLE001 - that is what the fuzzer searches for
                found = [f"{type(error).__name__}: {error}"]
            found += world.log_check.violations
            world.log_check.violations.clear()
            violations += [f"input {number} of seed {seed}: {each}" for each in found]
            if number % 1000 == 999:
                report(f"{number + 1} inputs, {len(violations)} violations, {world.passes} passes for events")
            if len(violations) > 50:
                break
    return violations


def _check(world: World, made: Input) -> list[str]:
    world.put(made.records())
    world.answers.made, world.answers.events = made.answers(), made.events()
    for kept in (world.daemon.requests, world.daemon.queries, world.daemon.headers, world.daemon.bodies):
        kept.clear()
    world.daemon.versions.clear()
    world.daemon.connections.clear()
    world.feed._seen.clear()  # one feed is used for all inputs, whose times are similar
    ended = False
    try:
        world.listener.step()
    except Unavailable as error:
        ended = "its events ended" in str(error)
    found = [] if ended else ["the feed did not come to the end of its stream"]
    world.reconcile()
    found += _wrong(world, made, "events")
    try:
        world.drift_scan.step()
        world.reconcile()
        world.inspector.step()
        world.prober.step()
    except Unavailable as error:
        if made.is_list and not made.is_cut:
            found.append(f"a pass ended: {error}")
    else:
        if not made.is_list:
            found.append("what is no list was taken for one")
    return found + _wrong(world, made, "a pass")


def _wrong(world: World, made: Input, after: str) -> list[str]:
    expected = {
        LIVES: (Status.RUNNING, made.ids[LIVES]),
        CRASHED: (Status.STOPPED, made.ids[CRASHED]),
        GONE: (Status.REMOVED, None),
    }
    found = []
    for game_id, what in expected.items():
        known = world.record(game_id)
        state = (known.status, known.current_container_id) if known else None
        if state != what:
            found.append(f"after {after} {game_id} is {state}, expected {what}")
    odd = world.record(ODD)
    if odd is None or odd.status is Status.REMOVED:
        found.append(f"after {after} a container that is there is recorded as gone")
    for row in world.database.read("records", b"SELECT game_id, current_container_id FROM runtime_records", {}):
        if not is_game_id(row["game_id"]) or row["current_container_id"] == "":
            found.append(f"after {after} there is a record {dict(row)!r}")
    return found


def _listed(container_id: str, game_id: str, state: str = "running") -> dict[str, Any]:
    return {
        "Id": container_id,
        "Names": [f"/{container_name(game_id)}"],
        "Image": IMAGE,
        "ImageID": "sha256:0",
        "Labels": _labels(game_id),
        "State": state,
        "Status": "Up 2 minutes",
        "HostConfig": {"NetworkMode": NETWORK},
        "NetworkSettings": {"Networks": {NETWORK: {"IPAddress": "127.0.0.1", "GlobalIPv6Address": ""}}},
    }


def _inspected(container_id: str, game_id: str, state: str = "running") -> dict[str, Any]:
    return {
        "Id": container_id,
        "Name": f"/{container_name(game_id)}",
        "Image": "sha256:0",
        "State": {
            "Status": state,
            "ExitCode": EXIT_CODE if state == ContainerState.EXITED else 0,
            "OOMKilled": False,
            "StartedAt": "2025-12-31T23:00:00.123456789Z",
            "FinishedAt": "2025-12-31T23:59:00Z" if state == ContainerState.EXITED else "0001-01-01T00:00:00Z",
            "Health": {"Status": "healthy"},
        },
        "RestartCount": 0,
        "Config": {"Image": IMAGE, "Labels": _labels(game_id), "Tty": False},
        "HostConfig": {"NetworkMode": NETWORK},
        "NetworkSettings": {"Networks": {NETWORK: {"IPAddress": "127.0.0.1", "GlobalIPv6Address": ""}}},
    }


def _event(action: str, container_id: str, game_id: str, time_ns: int) -> dict[str, Any]:
    return {
        "Type": "container",
        "Action": action,
        "Actor": {"ID": container_id, "Attributes": {**_labels(game_id), "exitCode": str(EXIT_CODE)}},
        "time": time_ns // 10**9,
        "timeNano": time_ns,
    }


def _labels(game_id: str) -> dict[str, str]:
    return {
        "com.galaxy.owner": "rtmanager",
        "com.galaxy.kind": "game-engine",
        "com.galaxy.game_id": game_id,
        "com.galaxy.engine_image_ref": IMAGE,
        "com.galaxy.started_at_ms": "1",
    }


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every member of the objects and lists in a value, as its container and its key there."""
    for name in list(value) if isinstance(value, dict) else range(len(value)):
        if name != "Id":  # the request names the container's id: with another id the answer would be about another one
            yield value, name
        if isinstance(value[name], dict | list) and value[name]:
            yield from _places(value[name])


def _bytes(value: Any) -> bytes:
    """As Go encodes it, except that halves of surrogate pairs stay escaped."""
    return json.dumps(value, separators=(",", ":")).encode()


def _line(value: Any) -> bytes:
    return _bytes(value) + b"\n"
