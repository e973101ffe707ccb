"""Unusual entries: large, wide, with duplicate fields. Each is answered or kept, and none delays a valid one."""

import json
import re
from pathlib import Path
from typing import Any

from harness import start_services
from harness.fixtures import faults
from harness.rtm import RuntimeTestCase
from harness.rtm.manager import ManagerProcess

STARTS, STOPS, LETTERS = "runtime:start_jobs", "runtime:stop_jobs", "runtime:dead_letters"
INTENTS = "notification:intents"

#: Seconds in which a valid job is answered, whatever precedes it.
PROMPT_S = 10.0
MEMORY_MB = 300


def setUpModule() -> None:
    start_services()


class Large(RuntimeTestCase):
    def environment(self, **changes: str) -> dict[str, str]:
        """The longer timeout keeps a Redis that processes a large entry from counting as silent on a busy machine."""
        return super().environment(**{"SILENCE_TIMEOUT": "15s", **changes})

    def tearDown(self) -> None:
        self.services.redis.flush()  # some hundred megabytes
        super().tearDown()

    def add_letters(self, count: int, size: int) -> list[str]:
        """Add entries of this size without a game; return their ids."""
        return [str(self.redis.xadd(STARTS, {"x": b"y" * (size - 1)})) for _ in range(count)]

    def add_raw(self, stream: str, *parts: bytes | str) -> str:
        """Add an entry of these names and values, in which a name may occur twice; return its id."""
        return str(self.redis.execute_command("XADD", stream, "*", *parts))

    def assert_good_job_is_answered(self, before: int) -> None:
        """A job of an unknown game is answered, after `before` other results."""
        self.add_stop_job(game_id="good")
        self.assertEqual(self.results(before + 1, PROMPT_S)[-1]["game_id"], "good")

    def letters(self, count: int) -> list[dict[str, str]]:
        def found() -> list[dict[str, str]]:
            letters = self.entries(LETTERS)
            return letters if len(letters) >= count else []

        return self.wait_until(f"{count} letters", found)

    def assert_unimpressed(self, process: ManagerProcess) -> None:
        """The manager's memory has not grown, and it has recorded no outage."""
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert peak is not None
        self.assertLess(int(peak[1]) // 1024, MEMORY_MB)
        lines = self.log.read_text().splitlines()
        workers = [line for line in lines if '"worker": "ingest"' in line or '"worker": "outbox"' in line]
        self.assertEqual([line for line in workers if "does not answer" in line or "failed" in line], [])
        letters = [line for line in lines if "dead letters" in line]
        self.assertLess(max(map(len, letters), default=0), 2_000)


class Bytes(Large):
    def test_large_entries_without_a_game_are_kept_in_short_and_a_good_job_does_not_wait(self) -> None:
        """The first ten were delivered to a manager that was killed before it accepted them."""
        self.redis.xgroup_create(STARTS, "rtmanager", id="0", mkstream=True)
        sizes = dict.fromkeys(self.add_letters(10, 10000000), 10000000)
        self.redis.xreadgroup("rtmanager", "ingest", {STARTS: ">"}, count=10)
        process = self.start_process()
        sizes |= dict.fromkeys(self.add_letters(10, 10000000), 10000000)
        sizes |= dict.fromkeys(self.add_letters(50, 1000000), 1000000)

        self.assert_good_job_is_answered(0)

        letters = self.letters(len(sizes))
        self.assertEqual({each["entry_id"]: int(each["size"]) for each in letters}, sizes)
        self.assertEqual(len(letters), len(sizes))
        for letter in letters:
            self.assertEqual(json.loads(letter["fields"]), {"x": "y" * 1024})
            self.assertRegex(letter["digest"], "^[0-9a-f]{40}$")
        self.assert_unimpressed(process)

    def test_a_large_entry_that_names_a_game_is_answered_in_its_turn_wherever_it_is_large(self) -> None:
        process = self.start_process()
        large = b"y" * 10_000_000
        wide = [part for number in range(100_000) for part in (b"f%d" % number, b"")]
        nameless = [b""] * 200_000
        stop = ("game_id", "g", "reason", "finished", "requested_at_ms", "1")
        self.add_raw(STARTS, "game_id", "a", "image_ref", large)
        self.add_raw(STOPS, "note", large, *stop)
        self.add_raw(STOPS, *wide, *stop)
        self.add_raw(STOPS, *nameless, *stop)
        self.add_raw(STOPS, large, "v", *stop)
        self.assert_good_job_is_answered(5)

        answers = [(each["game_id"], each["error_code"]) for each in self.results()]
        self.assertEqual(answers[0], ("a", "start_config_invalid"))
        self.assertEqual(answers[1:-1], [("g", "invalid_request")] * 4)
        messages = [each["error_message"] for each in self.results()]
        self.assertIn("65536 bytes in 128 fields", messages[1])
        self.assertIn("given more than once", messages[3])
        self.assertLess(max(map(len, messages)), 1_000)
        self.assert_unimpressed(process)

    def test_a_field_that_is_given_twice_makes_an_entry_malformed(self) -> None:
        self.start_runtime()
        stop = ("game_id", "g", "reason", "finished", "requested_at_ms", "1")
        self.add_raw(STOPS, *stop, "reason", "finished")
        self.add_raw(STOPS, *stop, "note", "1", "note", "2")
        self.add_raw(STARTS, "game_id", "g", "image_ref", self.engine.ref, "image_ref", "", "requested_at_ms", "1")
        twice = self.add_raw(STOPS, *stop, "game_id", "g")

        results = self.results(3)

        self.assertEqual([(each["game_id"], each["error_code"]) for each in results], [("g", "invalid_request")] * 3)
        [letter] = self.letters(1)
        self.assertEqual((letter["entry_id"], "more than one game_id" in letter["reason"]), (twice, True))

    def test_over_a_slow_connection_large_entries_delay_a_good_job_little_and_are_no_outage(self) -> None:
        redis = self.services.redis
        line = faults.before((redis.host, redis.port))
        self.addCleanup(line.close)
        process = self.start_process(REDIS_MASTER_ADDR=f"{line.host}:{line.port}")
        line.slow(150_000)
        self.add_letters(5, 10_000_000)
        self.add_letters(8, 60_000)
        self.assert_good_job_is_answered(0)
        self.letters(13)
        self.assert_unimpressed(process)

    def test_a_key_that_is_no_stream_holds_up_no_job_of_the_other_stream_and_is_reported(self) -> None:
        self.redis.set(STARTS, "no stream")
        self.start_runtime()
        self.assert_good_job_is_answered(0)
        self.wait_until("the report", lambda: f"{STARTS} is no stream" in self.log.read_text())
        self.redis.delete(STARTS)
        self.add_job("start", game_id="a", image_ref="NOT good")
        self.assertEqual(self.results(2)[1]["error_code"], "start_config_invalid")


class ManyFailures(Large):
    """Above the limit, intents are only counted, and one summary contains their number."""

    def sent(self) -> tuple[int, list[int]]:
        """The number of intents of single failures, and the counts in the summaries."""
        intents: list[dict[str, Any]] = self.entries(INTENTS)
        keys = [each["idempotency_key"] for each in intents]
        self.assertEqual(len(set(keys)), len(keys))
        summaries = [each for each in intents if ":summary:" in each["idempotency_key"]]
        texts = [json.loads(each["payload_json"])["error_message"] for each in summaries]
        return len(intents) - len(summaries), [int(text.split()[0]) for text in texts]

    def left_out(self) -> int:
        [row] = self.rows("SELECT coalesce(sum(left_out), 0)::int AS left_out FROM intent_windows")
        return int(row["left_out"])

    def end_minute(self) -> None:
        self.rows("UPDATE intent_windows SET began_at = began_at - interval '61 s' RETURNING 1")

    def add_failures(self, begin: int, end: int) -> None:
        with self.redis.pipeline(transaction=False) as pipe:
            for number in range(begin, end):
                pipe.xadd(STARTS, {"game_id": f"g{number}", "image_ref": "NOT good", "requested_at_ms": "1"})
            pipe.execute()

    def test_each_of_many_failures_is_told_or_counted_once_though_the_manager_is_killed_between_both(self) -> None:
        process = self.start_process(INTENTS_PER_MINUTE="5", FAILPOINTS="redis.publish.after=exit")
        self.add_failures(0, 300)
        self.wait_until("the manager to die when it has published", lambda: process.exit_code is not None)
        self.assertNotEqual(self.sent()[0], 0)
        self.assertEqual(self.left_out(), 0)
        self.end_minute()
        self.start_process(INTENTS_PER_MINUTE="5")
        self.results(300)
        self.wait_until("all to be counted", lambda: sum(self.sent()[1], self.sent()[0] + self.left_out()) == 300)
        self.assertLessEqual(self.sent()[0], 10)
        self.end_minute()

        self.wait_until("the summary, though nothing else fails", lambda: sum(self.sent()[1], self.sent()[0]) == 300)

        # The manager commits what it published after Redis has it.
        self.wait_until("the count to be taken back", lambda: self.left_out() == 0)
        self.assertEqual(len(self.sent()[1]), 1)
