"""The deletion of old data: its order, its bounds, the instance that does it, and that nothing is repeated."""

from __future__ import annotations

import random
import threading
import unittest
from collections import Counter
from collections.abc import Callable
from tempfile import TemporaryDirectory
from unittest import mock

from rtmanager.adapters.free_space import Free, FreeSpace
from rtmanager.bootstrap.watchers import _retentions
from rtmanager.config.settings import Config, ConfigError
from rtmanager.domain.errors import Unavailable
from rtmanager.domain.jobs import EntryId
from rtmanager.domain.messages import Stream, epoch_ms
from rtmanager.domain.record import Status
from rtmanager.fakes import FakeImage
from rtmanager.fakes.findings import MemoryFindings
from rtmanager.fakes.store import CALL_POSITION
from rtmanager.metrics import Metrics
from rtmanager.ports.streams import Trimmed
from rtmanager.tests.making import ended, job, record, request, start_fields
from rtmanager.tests.operating import WorldTestCase
from rtmanager.tests.test_workers_streams import StreamsTestCase
from rtmanager.workers.free_space import FreeSpaceMeter
from rtmanager.workers.image_retention import ImageRetention, PullNotes
from rtmanager.workers.purge import BATCH, Purge, Retentions

START = Stream.START_JOBS
DAY_S = 86400.0
WEEK, MONTH = 7 * DAY_S, 30 * DAY_S
YEAR_2100 = 4_102_444_800_000
ALL = Retentions(MONTH, MONTH, WEEK, 90 * DAY_S)


class PurgeTest(StreamsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.deleted: Counter[str] = Counter()
        self.queue = self.store.queue(1)
        self.reading = self.ingest()

    def purge(self, keep: Retentions = ALL, *, owner: int = 1, steady: Callable[[], bool] = lambda: True) -> Purge:
        return Purge(
            streams=self.streams,
            store=self.store.purge,
            leases=MemoryFindings(self.store, owner),
            keep=keep,
            period_s=3600.0,
            deleted=lambda what, rows: self.deleted.update({what: rows}),
            logger=self.world.captured.logger,
            steady=steady,
            pause_s=0.0,
        )

    def whole_pass(self, keep: Retentions = ALL, *, owner: int = 1) -> Counter[str]:
        self.deleted.clear()
        purge = self.purge(keep, owner=owner)
        while purge.step():
            pass
        return +self.deleted

    def take_over(self) -> None:
        """Read, claim and complete all entries of the streams."""
        self.reading.step()
        while operations := self.queue.claim(100):
            for operation in operations:
                self.queue.finish(operation, ended())

    def days(self, count: float) -> None:
        self.world.clock.advance(count * DAY_S)

    def test_entries_go_first_and_then_the_rows_that_recognise_them(self) -> None:
        for game_id in ("g1", "g2", "g3"):
            self.streams.add(START, start_fields(game_id))
        self.streams.add(START, {"who": "nobody"})
        self.streams.add(START, start_fields("g4"))
        self.take_over()
        self.days(8)
        self.assertEqual(self.whole_pass(), {"start_jobs": 4})
        self.days(30)
        self.assertEqual(self.whole_pass(), {"operations": 3, "dead_letters": 1})

    def test_entries_behind_one_from_a_clock_that_was_ahead_are_deleted_in_time(self) -> None:
        ahead = EntryId(YEAR_2100, 0)
        for number in range(5):
            self.streams.add(START, start_fields(f"g{number}"), ahead if number == 1 else None)
        self.streams.add(START, {"who": "nobody"})
        last = self.streams.add(START, start_fields("last"))
        self.assertEqual(last.milliseconds, YEAR_2100)
        self.take_over()
        self.days(6)
        self.assertEqual(self.whole_pass(), {})
        self.days(2)
        self.assertEqual(self.whole_pass(), {"start_jobs": 6})
        self.days(30)
        self.assertEqual(self.whole_pass(), {"operations": 5, "dead_letters": 1})

        # A copy of Redis that was made before gives it again.
        kept = set(self.store.operations)
        self.streams.flush()
        self.streams.add(START, start_fields("g1"), ahead)
        self.reading.step()
        self.assertEqual(set(self.store.operations), kept)

    def test_the_mark_of_an_id_that_was_ahead_is_an_ordinary_one_when_its_time_is_over(self) -> None:
        self.store.forgotten_ahead[START] = EntryId(epoch_ms(self.world.clock()) + 1, 5)
        again = job(START, epoch_ms(self.world.clock()))
        self.assertFalse(self.store.is_forgotten(again))
        self.days(0.1)
        self.assertTrue(self.store.is_forgotten(again))

    def test_the_age_of_an_entry_begins_with_its_acceptance(self) -> None:
        """A Redis whose clock is behind assigns ids with old times."""
        for number in range(1, 4):
            self.streams.add(START, start_fields(f"g{number}"), EntryId(number, 0))
        self.take_over()
        self.assertEqual(self.whole_pass(), {})
        self.days(8)
        self.assertEqual(self.whole_pass(), {"start_jobs": 2})

    def test_more_entries_than_one_batch_are_deleted_in_one_pass(self) -> None:
        count = 2 * BATCH + 3
        for number in range(count):
            self.streams.add(START, start_fields(f"g{number}"))
        while len(self.store.operations) < count:
            self.reading.step()
        self.days(8)
        self.assertEqual(self.whole_pass(), {"start_jobs": count - 1})

    def test_what_is_kept_for_ever_stays(self) -> None:
        self.streams.add(START, start_fields())
        self.streams.add(START, start_fields("g2"))
        self.take_over()
        self.days(4000)
        self.assertEqual(self.whole_pass(Retentions(0, 0, 0, 0)), {})
        # A row whose entry is still in the stream stays: the entry may be read again.
        self.assertEqual(self.whole_pass(Retentions(MONTH, MONTH, 0, 0)), {})

    def test_no_entry_is_deleted_that_is_not_taken_over(self) -> None:
        self.streams.add(START, start_fields("g1"))
        self.streams.add(START, start_fields("g2"))
        self.take_over()
        self.days(40)
        waiting = self.streams.add(START, start_fields("g3"))
        self.streams.add_group(START, "audit", waiting)
        self.days(40)
        self.whole_pass()
        self.assertEqual([fields["game_id"] for fields in self.streams.entries(START)], ["g2", "g3"])
        self.reading.step()
        self.assertIn(f"prod:start_jobs:{waiting}", self.refs())

    def test_a_group_that_does_not_come_on_is_named_once(self) -> None:
        first = self.streams.add(START, start_fields("g1"))
        self.streams.add(START, start_fields("g2"))
        self.streams.add_group(START, "audit", first)
        self.take_over()
        self.days(8)
        purge = self.purge()
        for _ in range(3):
            while purge.step():
                pass
        logged = [each for each in self.world.captured.records if "are not deleted" in each.getMessage()]
        self.assertEqual(len(logged), 1)
        self.assertIn("'audit'", logged[0].__dict__["error"])

    def test_the_right_that_a_user_lacks_is_named(self) -> None:
        self.streams.add(START, start_fields("g1"))
        self.take_over()
        with mock.patch.object(self.streams, "trim", return_value=Trimmed(refused="NOPERM")):
            self.days(100)
            self.assertEqual(self.whole_pass(), {}, "what may still be in the stream is remembered")
        (logged,) = [each for each in self.world.captured.records if "are not deleted" in each.getMessage()]
        self.assertIn("+xpending +xtrim", logged.__dict__["error"])

    def test_nothing_is_done_twice_whatever_redis_gives_again_after_the_deletion(self) -> None:
        for seed in range(40):
            with self.subTest(seed=seed):
                self.setUp()
                self.live_a_while(random.Random(seed))

    def live_a_while(self, dice: random.Random) -> None:
        """Random jobs, days, passes and restores of Redis: each entry becomes one operation."""
        done: Counter[str] = Counter()
        added, number = set(), 0
        for _ in range(60):
            match dice.choice(("add", "add", "take", "days", "pass", "back", "letter", "hold")):
                case "add":
                    number += 1
                    added.add(f"prod:start_jobs:{self.streams.add(START, start_fields(f'g{number}'))}")
                case "letter":
                    self.streams.add(START, {"who": "nobody"})
                case "take":
                    self.reading.step()
                    for operation in self.queue.claim(100):
                        done[operation.request.source_ref] += 1
                        self.queue.finish(operation, ended())
                case "days":
                    self.days(dice.choice((0.1, 5, 20, 40)))
                case "pass":
                    self.whole_pass()
                case "back":
                    self.streams.lose_acknowledgements()
                case "hold":
                    self.streams.add_group(START, "audit", self.streams.add(START, {"who": "nobody"}))
        for _ in range(3):
            self.streams.lose_acknowledgements()
            self.reading.step()
            for operation in self.queue.claim(1000):
                done[operation.request.source_ref] += 1
                self.queue.finish(operation, ended())
        self.assertEqual(done, dict.fromkeys(added, 1))

    def test_entries_that_come_again_and_are_forgotten_are_logged(self) -> None:
        self.streams.add(START, start_fields("g1"))
        self.streams.add(START, start_fields("g2"))
        kept = self.streams.add(START, start_fields("g3"))
        self.take_over()
        self.days(40)
        self.whole_pass()
        self.store.forgotten[START] = kept
        self.streams.lose_acknowledgements()
        self.reading.step()
        self.assertIn("entries came again whose operations were deleted, they are not done again", self.messages())

    def messages(self) -> list[str]:
        return self.world.captured.messages

    def test_nothing_is_deleted_while_the_clock_cannot_be_believed(self) -> None:
        self.queue.submit(request("g1"))
        self.take_over()
        self.days(40)
        purge = self.purge(steady=lambda: False)
        self.assertFalse(purge.step())
        self.assertEqual(len(self.store.operations), 1)

    def test_one_instance_makes_the_pass(self) -> None:
        self.queue.submit(request("g1"))
        self.take_over()
        self.days(40)
        self.assertTrue(MemoryFindings(self.store, 2).mine("purge", 3600.0))
        self.assertEqual(self.whole_pass(), {})
        self.assertEqual(self.whole_pass(owner=2), {"operations": 1})

    def test_a_pass_that_met_silence_begins_anew(self) -> None:
        self.queue.submit(request("g1"))
        self.take_over()
        self.days(40)
        purge = self.purge()
        self.store.trouble.fail_call(3)
        with self.assertRaises(Unavailable):
            while purge.step():
                pass
        while purge.step():
            pass
        self.assertEqual(self.deleted["operations"], 1)

    def test_a_stop_ends_the_pause_between_two_batches(self) -> None:
        purge = Purge(
            streams=self.streams,
            store=self.store.purge,
            leases=MemoryFindings(self.store),
            keep=ALL,
            period_s=1.0,
            deleted=lambda *_: None,
            logger=self.world.captured.logger,
            pause_s=10_000.0,
        )
        purge.interrupt()
        self.assertTrue(purge.step())


class ImagesTest(WorldTestCase):
    """Only images that the manager pulled, and that nothing refers to, are removed."""

    def setUp(self) -> None:
        super().setUp()
        self.images, self.docker = self.world.store.images, self.world.docker
        self.removed: list[int] = []
        self.notes = PullNotes(self.images, self.world.runtime.port, self.world.captured.logger)

    def whole_pass(self, keep_s: float = WEEK) -> int:
        self.removed.clear()
        retention = ImageRetention(
            self.images,
            self.world.runtime.port,
            keep_s=keep_s,
            removed=lambda: self.removed.append(1),
            logger=self.world.captured.logger,
        )
        for _ in retention.whole_pass():
            pass
        return len(self.removed)

    def pull(self, reference: str, full: str | None = None) -> None:
        """Record a pull by the manager; Docker lists the image as `full`."""
        self.docker.present[full or reference] = FakeImage()
        self.notes.note(reference, f"sha256:{full or reference}")

    def weeks(self, count: float) -> None:
        self.world.clock.advance(count * WEEK)

    def after_two_weeks(self) -> int:
        """Make a pass that finds the image unused, and one two weeks later; returns the number of removed images."""
        first = self.whole_pass()
        self.weeks(2)
        return first + self.whole_pass()

    def test_one_that_nothing_names_is_removed_after_its_time_and_forgotten(self) -> None:
        self.pull("r.test/game:1.0.0")
        self.assertEqual(self.whole_pass(), 0)
        self.weeks(0.5)
        self.assertEqual(self.whole_pass(), 0)
        self.weeks(1)
        self.assertEqual(self.whole_pass(), 1)
        self.assertNotIn("r.test/game:1.0.0", self.docker.present)
        self.assertEqual(list(self.images.remembered("in memory")), [])

    def test_nothing_is_removed_unless_a_retention_is_set(self) -> None:
        self.pull("r.test/game:1.0.0")
        self.weeks(100)
        self.assertEqual((self.whole_pass(0.0), self.whole_pass(0.0)), (0, 0))

    def test_an_image_that_somebody_else_put_there_is_left(self) -> None:
        self.docker.present["r.test/loaded:1.0.0"] = FakeImage()
        self.assertEqual(self.after_two_weeks(), 0)
        self.assertIn("r.test/loaded:1.0.0", self.docker.present)

    def test_one_that_a_record_or_a_waiting_operation_names_is_left_however_it_is_written(self) -> None:
        digest = f"sha256:{'a' * 64}"
        for named, pulled in (
            ("r.test/game:1.0.0", "r.test/game:1.0.0"),
            ("game", "docker.io/library/game:latest"),
            ("index.docker.io/library/game:1.0.0", "game:1.0.0"),
            (f"r.test/game@{digest}", "r.test/game:1.0.0"),
            ("r.test/game:2.0.0", f"r.test/game@{digest}"),
        ):
            for status in (Status.RUNNING, Status.STOPPED):
                with self.subTest(named=named, pulled=pulled, status=status):
                    self.setUp()
                    self.pull(pulled)
                    self.world.store.put_record(record("g1", status, current_image_ref=named))
                    self.assertEqual(self.after_two_weeks(), 0)
            with self.subTest(operation=named):
                self.setUp()
                self.pull(pulled)
                self.world.store.add_row(request("g1", image_ref=named), CALL_POSITION)
                self.assertEqual(self.after_two_weeks(), 0)

    def test_another_one_of_its_repository_and_a_record_that_is_removed_do_not_keep_it(self) -> None:
        self.pull("r.test/game:1.0.0")
        self.world.store.put_record(record("g1", Status.RUNNING, current_image_ref="r.test/game:1.0.1"))
        self.world.store.put_record(record("g2", Status.REMOVED, current_image_ref="r.test/game:1.0.0"))
        self.assertEqual(self.after_two_weeks(), 1)

    def test_one_that_is_needed_between_the_check_and_the_removal_is_left(self) -> None:
        self.pull("r.test/game:1.0.0")
        self.whole_pass()
        self.weeks(2)
        seen = self.images.named
        with mock.patch.object(self.images, "named", side_effect=[seen(), {"r.test/game:1.0.0"}]):
            self.assertEqual(self.whole_pass(), 0)
        self.assertIn("r.test/game:1.0.0", self.docker.present)

    def test_one_that_is_another_by_now_is_forgotten_and_left(self) -> None:
        self.pull("r.test/game:1.0.0")
        self.notes.note("r.test/game:1.0.0", "sha256:before")
        self.assertEqual(self.after_two_weeks(), 1)
        self.assertIn("r.test/game:1.0.0", self.docker.present)
        self.assertEqual(list(self.images.remembered("in memory")), [])

    def test_a_start_that_pulls_is_remembered_and_one_that_finds_its_image_is_not(self) -> None:
        self.docker.registry["r.test/game:1.0.0"] = FakeImage()
        self.world.do(request("g1", image_ref="r.test/game:1.0.0"))
        self.world.do(request("g2"))
        self.assertEqual(list(self.images.remembered("in memory")), ["r.test/game:1.0.0"])

    def test_a_pull_that_cannot_be_remembered_harms_no_start(self) -> None:
        self.world.store.trouble.available = False
        self.notes.note("r.test/game:1.0.0", "sha256:x")
        self.assertIn("pull is not remembered, the image is kept", self.world.captured.messages)


class SettingsTest(unittest.TestCase):
    REQUIRED = {
        "RTMANAGER_POSTGRES_PRIMARY_DSN": "postgresql://u@h/d",
        "RTMANAGER_REDIS_MASTER_ADDR": "h:1",
        "RTMANAGER_GAME_STATE_ROOT": "/games",
        "RTMANAGER_LOBBY_INTERNAL_BASE_URL": "http://lobby",
    }

    def keep(self, **changes: str) -> Retentions:
        named = {f"RTMANAGER_{name}": value for name, value in changes.items()}
        return _retentions(Config.from_environment({**self.REQUIRED, **named}))

    def test_the_log_is_kept_for_ever_unless_a_retention_is_set(self) -> None:
        self.assertEqual(self.keep(), Retentions(MONTH, MONTH, WEEK, 0.0))
        self.assertEqual(self.keep(OPERATION_LOG_RETENTION="2160h").operation_log_s, 90 * DAY_S)

    def test_operations_are_kept_for_as_long_as_restarts_are_counted(self) -> None:
        keep = self.keep(OPERATIONS_RETENTION="1h", CRASH_RESTART="on", CRASH_RESTART_WINDOW="10h")
        self.assertEqual(keep.operations_s, 20 * 3600.0)
        self.assertEqual(self.keep(OPERATIONS_RETENTION="0", CRASH_RESTART="on").operations_s, 0.0)

    def test_what_is_no_retention_is_refused_with_what_is_expected(self) -> None:
        for text in ("-1h", "1s", "30d", "forever", "00", "100000h"):
            with self.subTest(text), self.assertRaises(ConfigError) as caught:
                self.keep(OPERATIONS_RETENTION=text)
            expected = f"RTMANAGER_OPERATIONS_RETENTION: {text!r} is not 0, which keeps for ever"
            self.assertIn(expected, caught.exception.faults[0])


class FreeSpaceTest(unittest.TestCase):
    def test_what_is_left_of_a_file_system_is_measured(self) -> None:
        with TemporaryDirectory() as folder:
            found = FreeSpace(lambda: folder).measure()
        assert found is not None
        self.assertGreater(found.bytes, 0)

    def test_a_directory_that_is_gone_or_not_visible_has_no_free_space(self) -> None:
        self.assertIsNone(FreeSpace(lambda: "/no/such/directory").measure())
        self.assertIsNone(FreeSpace(lambda: None).measure())

    def test_a_file_system_that_hangs_holds_up_one_thread_and_nobody_else(self) -> None:
        go_on, begun = threading.Event(), []

        def hang(_path: str) -> object:
            begun.append(1)
            go_on.wait()
            raise OSError

        space = FreeSpace(lambda: "/")
        with mock.patch("os.statvfs", hang), mock.patch("rtmanager.adapters.free_space.LIMIT_S", 0.01):
            self.assertIsNone(space.measure())
            self.assertIsNone(space.measure())
            go_on.set()
        self.assertEqual(len(begun), 1)

    def test_places_of_which_nothing_is_known_have_no_value(self) -> None:
        metrics = Metrics()
        free_bytes, free_inodes = (metrics.gauge(name, "h", "place") for name in ("free_bytes", "free_inodes"))

        def silent() -> Free:
            raise Unavailable("docker", "away")

        places = {"a": lambda: Free(7, 3), "b": lambda: Free(8, None), "c": lambda: None, "d": silent}
        meter = FreeSpaceMeter(places, free_bytes=free_bytes, free_inodes=free_inodes)
        self.assertFalse(meter.step())
        text = metrics.render()
        for line in ('free_bytes{place="a"} 7', 'free_bytes{place="b"} 8', 'free_inodes{place="a"} 3'):
            self.assertIn(line, text)
        self.assertEqual(text.count("{"), 3)
