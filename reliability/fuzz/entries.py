"""Entries of every kind on both input streams: each is answered or dead-lettered once, valid jobs are never delayed.

A manager process reads them; in a full run it is killed and restarted half way. Meanwhile valid jobs are sent, and each
must be answered within `PROMPT_S`. At the end the run checks the manager's memory and log.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from harness.errors import WaitFailed
from harness.rtm import manager, stack
from harness.rtm.manager import ManagerProcess
from harness.waiting import wait_until
from reliability.fuzz._made_entries import Made, make

if TYPE_CHECKING:
    from redis import Redis

DEFAULT_COUNT = 20_000

#: Seconds in which a valid job is answered; a short run, which may share the machine, uses the second limit.
PROMPT_S, ANSWERED_S = 10.0, 60.0
MEMORY_MB = 300
#: The maximal line of a log, and the mean amount of log for one entry.
LINE_BYTES = 20_000
LOG_BYTES_EACH = 2_000
#: Seconds without a new result after which the rest counts as missing.
IDLE_S = 30.0
#: The size from which a run kills its manager half way.
KILLED_FROM = 5_000
#: The number of waiting entries at most: the run tests their content, not the throughput.
BACKLOG = 1_000
#: The interval of valid jobs in seconds, and how many of them include one start of a container.
PROBE_EVERY_S = 1.0
STARTS_EVERY = 8

STARTS, STOPS, RESULTS = "runtime:start_jobs", "runtime:stop_jobs", "runtime:job_results"
INTENTS, LETTERS = "notification:intents", "runtime:dead_letters"
_INPUTS = {"start": STARTS, "stop": STOPS}


def run(seed: int, count: int, report: Callable[[str], None]) -> list[str]:
    """See `reliability.fuzz`."""
    with stack.running("fuzz-entries") as here:
        return _Run(here, seed, count, report).violations()


class _Run:
    """One run on its own services."""

    def __init__(self, here: stack.Stack, seed: int, count: int, report: Callable[[str], None]) -> None:
        self._here = here
        self._rng = random.Random(seed)
        self._count = count
        self._report = report
        self._log = here.state_root.directory / "manager.log"
        self._answers: Counter[str] = Counter()
        self._letters: Counter[tuple[str, str]] = Counter()
        self._answered_at: dict[str, float] = {}
        self._found: list[str] = []
        self._received = 0
        self._done = threading.Event()
        self._deaf = threading.Event()
        self._progress = monotonic()

    def violations(self) -> list[str]:
        """Run it; return the violations."""
        process = self._start()
        reader = threading.Thread(target=self._read_results, name="fuzz-results", daemon=True)
        probing = threading.Thread(target=self._probe, name="fuzz-probes", daemon=True)
        try:
            reader.start()
            probing.start()
            expected: list[tuple[str, Made]] = []
            half = self._count // 2 if self._count >= KILLED_FROM else self._count
            expected += self._send(0, half)
            if half < self._count:
                self._check_memory(process)
                process.kill()
                process = self._start()
                expected += self._send(half, self._count)
            with suppress(WaitFailed):
                wait_until("the rest", lambda: self._over(expected), timeout_s=600, interval_s=0.2)
            self._done.set()
            probing.join(4 * PROMPT_S)
            self._deaf.set()
            reader.join(PROMPT_S)
            self._found += self._missing(expected)
            self._check_memory(process)
            self._check_intents(process)
        finally:
            self._done.set()
            self._deaf.set()
            process.kill()
        self._check_log()
        return self._found

    def _start(self) -> ManagerProcess:
        process = manager.start(self._here.environment, self._log, echo=False)
        process.wait_until_ready()
        return process

    # --- sending

    def _send(self, begin: int, end: int) -> list[tuple[str, Made]]:
        sent: list[tuple[str, Made]] = []
        with self._client() as redis:
            for made in _by_size(make(self._rng, number) for number in range(begin, end)):
                pipe = redis.pipeline(transaction=False)
                for each in made:
                    flat = [part for pair in each.pairs for part in pair]
                    pipe.execute_command("XADD", _INPUTS[each.stream], "*", *flat)
                sent += zip((entry_id.decode() for entry_id in pipe.execute()), made, strict=True)
                with suppress(WaitFailed):
                    wait_until("few to wait", lambda: begin + len(sent) - self._received < BACKLOG, timeout_s=IDLE_S)  # noqa: B023
        self._report(f"{len(sent)} entries sent, {self._received} answered or kept by then")
        return sent

    def _probe(self) -> None:
        """Add valid jobs, one after the other."""
        slowest, number = 0.0, 0
        limit_s = PROMPT_S if self._count >= KILLED_FROM else ANSWERED_S
        with self._client() as redis:
            while not self._done.wait(PROBE_EVERY_S):
                game_id, began = f"probe{number}", monotonic()
                if number % STARTS_EVERY == 0:
                    job = {"image_ref": self._here.engine.ref, "requested_at_ms": "1"}
                    redis.xadd(STARTS, {"game_id": game_id, **job})
                else:
                    redis.xadd(STOPS, {"game_id": game_id, "reason": "finished", "requested_at_ms": "1"})
                number += 1
                with suppress(WaitFailed):
                    wait_until("its result", lambda: game_id in self._answered_at, timeout_s=ANSWERED_S)  # noqa: B023
                took = self._answered_at.get(game_id, monotonic()) - began
                slowest = max(slowest, took)
                if took > limit_s:
                    self._found.append(f"a good job ({game_id}) was answered after {took:.1f} s")
        self._report(f"{number} good jobs between them, the slowest answered after {slowest:.1f} s")

    # --- receiving

    def _read_results(self) -> None:
        """Count results and dead letters as they arrive."""
        positions: dict[Any, Any] = {RESULTS: "0-0", LETTERS: "0-0"}
        with self._client() as redis:
            while True:
                found: Any = redis.xread(positions, count=500, block=500)
                if not found and self._deaf.is_set():
                    return
                for stream, entries in found:
                    positions[stream.decode()] = entries[-1][0]
                    self._progress = monotonic()
                    for _, fields in entries:
                        self._note(stream.decode(), fields)

    def _note(self, stream: str, fields: dict[bytes, bytes]) -> None:
        if stream == RESULTS:
            game_id = fields[b"game_id"].decode()
            self._answered_at.setdefault(game_id, monotonic())
            self._answers[game_id] += 1
            self._received += not game_id.startswith("probe")
            if len(fields) != 6 or not fields[b"outcome"] or len(fields[b"error_message"]) > 20_000:
                self._found.append(f"the result for {game_id!r} is none of the contract")
        else:
            self._letters[fields[b"stream"].decode(), fields[b"entry_id"].decode()] += 1
            self._received += 1
            kept = json.loads(fields[b"fields"])
            if len(fields[b"fields"]) > 500_000 or len(kept) > 36 or not fields[b"reason"]:
                self._found.append(f"the letter about {fields[b'entry_id'].decode()} is not bounded")

    def _over(self, expected: list[tuple[str, Made]]) -> bool:
        return self._received >= len(expected) or monotonic() - self._progress > IDLE_S

    def _missing(self, expected: list[tuple[str, Made]]) -> Iterator[str]:
        names = {made.game_id for _, made in expected}
        for entry_id, made in expected:
            letters = self._letters[_INPUTS[made.stream], entry_id]
            answers = self._answers[made.game_id] if made.game_id else 0
            if (letters, answers) != ((0, 1) if made.game_id else (1, 0)):
                what = {name: value[:60] for name, value in made.pairs[:5]}
                yield f"{made.stream} {entry_id} ({what}) was answered {answers} times and has {letters} dead letters"
        for name, count in self._answers.items():
            if count > 1 or (name not in names and not name.startswith("probe")):
                yield f"{count} results name {name!r}"

    # --- final checks

    def _check_memory(self, process: ManagerProcess) -> None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert match is not None
        peak = int(match[1]) // 1024
        self._report(f"memory of the manager at its highest: {peak} MB")
        if peak > MEMORY_MB:
            self._found.append(f"the manager needed {peak} MB")

    def _check_intents(self, process: ManagerProcess) -> None:
        """Every failure with an intent was published or counted; at most 60 a minute and type were published."""
        import psycopg

        with psycopg.connect(self._here.database.dsn) as connection, self._client() as redis:
            wait_until(
                "the outbox to be empty",
                lambda: connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,),
                timeout_s=30,
            )
            due = connection.execute(
                "SELECT count(*) FROM operation_log WHERE error_code IN "
                "('start_config_invalid', 'image_pull_failed', 'container_start_failed')"
            ).fetchone()
            waiting = connection.execute("SELECT coalesce(sum(left_out), 0)::int FROM intent_windows").fetchone()
            intents: Any = redis.xrange(INTENTS)
        assert due and waiting
        summaries = [fields for _, fields in intents if b":summary:" in fields[b"idempotency_key"]]
        counted = [int(json.loads(each[b"payload_json"])["error_message"].split()[0]) for each in summaries]
        sent = len(intents) - len(summaries)
        self._report(
            f"{due[0]} failures with an intent: {sent} sent, {sum(counted)} in summaries, {waiting[0]} waiting"
        )
        if sent + sum(counted) + waiting[0] != due[0]:
            self._found.append(f"of {due[0]} intents {sent} were sent, {sum(counted) + waiting[0]} counted")
        if sent > 60 * (len(summaries) + 1):
            self._found.append(f"{sent} intents were sent, with {len(summaries)} summaries")

    def _check_log(self) -> None:
        size, longest, alarming = 0, 0, list[str]()
        with self._log.open("rb") as log:
            for line in log:
                size, longest = size + len(line), max(longest, len(line))
                ours = b'"worker": "ingest"' in line or b'"worker": "outbox"' in line
                if ours and (b"does not answer" in line or b"step failed" in line):
                    alarming.append(line[:500].decode(errors="replace"))
        self._report(f"{size // 1024} KB of log, the longest line {longest} bytes")
        if longest > LINE_BYTES or size > LOG_BYTES_EACH * (self._count + 100):
            self._found.append(f"the log has {size} bytes, and a line of {longest}")
        if alarming:
            self._found.append(f"{len(alarming)} lines of the log tell of a fault, the first: {alarming[0]}")

    def _client(self) -> Redis:
        from redis import Redis

        return Redis(host=self._here.redis.host, port=self._here.redis.port)


def _by_size(entries: Iterator[Made]) -> Iterator[list[Made]]:
    """The entries in parts of limited size."""
    part: list[Made] = []
    size = 0
    for each in entries:
        part.append(each)
        size += sum(len(name) + len(value) for name, value in each.pairs)
        if size > 2_000_000 or len(part) == 200:
            yield part
            part, size = [], 0
    if part:
        yield part
