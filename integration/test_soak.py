"""A long run with random interference: records, containers and snapshots agree, and memory does not grow.

`make soak` takes an hour with thirty games and two managers; the suite runs a short form. The failure contains the
seed, and RTM_SOAK_SEED repeats it, as far as timing is reproducible.
"""

import json
import os
import secrets
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from harness import start_services
from harness.rtm import unique_game_id
from harness.rtm.manager import ManagerProcess
from integration.support.interference import Interference
from integration.support.proxied import ProxiedTestCase
from integration.support.watched import WatchedTestCase

#: Minutes and games of the short form.
MINUTES, GAMES = "0.4", "6"
#: Seconds between two steps, and between two samples of the managers' memory.
PAUSE_S = 0.4
SAMPLE_S = 10.0
#: Memory is compared from this length of the run on, in minutes: it needs time to settle and to grow.
JUDGED_FROM_MINUTES = 10.0
#: The maximal ratio of memory, descriptors and threads, last quarter to second.
GROWTH = 1.10

SETTINGS = {
    "PROBE_INTERVAL": "2s",
    "PROBE_TIMEOUT": "1s",
    "INSPECT_INTERVAL": "5s",
    "RECONCILE_INTERVAL": "5s",
    "CONTAINER_STOP_TIMEOUT_SECONDS": "2",
    "CRASH_RESTART": "on",
    "CRASH_RESTART_FIRST_PAUSE": "1s",
}


def setUpModule() -> None:
    start_services()


class Soak(ProxiedTestCase, WatchedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.minutes = float(os.environ.get("RTM_SOAK_MINUTES") or MINUTES)
        self.seed = int(os.environ.get("RTM_SOAK_SEED") or secrets.randbelow(1 << 30))
        count = int(os.environ.get("RTM_SOAK_GAMES") or GAMES)
        self.games = [unique_game_id(f"soak{number}") for number in range(count)]
        self.samples: list[list[dict[str, int]]] = []

    def test_after_any_interference_everything_agrees_and_nothing_has_grown(self) -> None:
        managers = [self.start_process(**SETTINGS) for _ in range(2)]
        interference = Interference(self, self.games, self.docker_proxy, self.seed)
        with self.subTest(seed=self.seed):
            self.interfere(interference, managers)
            interference.end()
            self.wait_until("all operations to end", self.nothing_is_due, 120)
            self.wait_until(
                "everything to agree", lambda: not self.disagreements(), 90, describe=lambda _: self.described()
            )
            # Some jobs may be unread when nothing was due.
            self.assertEqual(len(self.results(interference.jobs)), interference.jobs, "one result for each job")
            self.assertEqual([each.exit_code for each in managers], [None, None])
            self.report(interference)
            self.assert_nothing_has_grown()

    def interfere(self, interference: Interference, managers: list[ManagerProcess]) -> None:
        until = time.monotonic() + self.minutes * 60
        next_sample = 0.0
        while time.monotonic() < until:
            interference.step()
            if time.monotonic() >= next_sample:
                self.samples.append([_taken(each.pid) for each in managers])
                next_sample = time.monotonic() + SAMPLE_S
            time.sleep(PAUSE_S)

    def nothing_is_due(self) -> bool:
        return not self.rows("SELECT FROM operations WHERE state <> 'done'") and not self.rows("SELECT FROM outbox")

    def described(self) -> str:
        return "; ".join(self.disagreements())

    def disagreements(self) -> list[str]:
        """Inconsistencies between records, containers and snapshots."""
        return [problem for game_id in self.games for problem in self.problems_of(game_id)]

    def problems_of(self, game_id: str) -> list[str]:
        record = self.record(game_id)
        alive = {each["Id"] for each in self.containers(game_id) if each["State"]["Running"]}
        recorded = {record["current_container_id"]} if record and record["status"] == "running" else set()
        problems = [] if alive == recorded else [f"{game_id} lives in {alive}, recorded is {recorded}"]
        if recorded:
            [snapshot] = self.rows("SELECT container_id, status FROM health_snapshots WHERE game_id = %s", game_id)
            # `oom` stays the last known status of a container that runs on.
            if {snapshot["container_id"]} != recorded or snapshot["status"] not in ("healthy", "oom"):
                problems.append(f"{game_id} runs in {recorded}, its snapshot is {snapshot}")
        return problems

    def report(self, interference: Interference) -> None:
        """Write and print the steps and the observations of a long run."""
        counts: dict[str, int] = {}
        for each in self.entries("runtime:health_events"):
            counts[each["event_type"]] = counts.get(each["event_type"], 0) + 1
        found = {
            "seed": self.seed,
            "minutes": self.minutes,
            "games": len(self.games),
            "interference": dict(interference.done),
            "jobs": interference.jobs,
            "health events": counts,
            "managers": [_quarters([sample[index] for sample in self.samples]) for index in range(2)],
        }
        if self.minutes >= JUDGED_FROM_MINUTES:
            folder = Path("artifacts")
            folder.mkdir(exist_ok=True)
            (folder / "soak.json").write_text(json.dumps(found, indent=1))
            sys.stderr.write(json.dumps(found, indent=1) + "\n")

    def assert_nothing_has_grown(self) -> None:
        if self.minutes < JUDGED_FROM_MINUTES:
            return
        for index in range(2):
            for what, quarters in _quarters([sample[index] for sample in self.samples]).items():
                self.assertLess(
                    quarters[3], quarters[1] * GROWTH + 3, f"manager {index}: {what} by quarters {quarters}"
                )


def _taken(pid: int) -> dict[str, int]:
    """Resident memory in KiB, descriptors and threads of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "rss_kib": int(status["VmRSS"].split()[0]),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
    }


def _quarters(samples: list[dict[str, int]]) -> dict[str, list[Any]]:
    """The median of each quarter of the run, for each measured quantity."""
    size = max(1, len(samples) // 4)
    parts = [samples[index * size : (index + 1) * size] or samples[-1:] for index in range(4)]
    return {what: [round(statistics.median(each[what] for each in part)) for part in parts] for what in samples[0]}
