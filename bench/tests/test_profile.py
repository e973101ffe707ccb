"""The profile accounts for all time of a start job, whatever its threads do besides."""

import tempfile
import threading
import unittest
from itertools import pairwise
from pathlib import Path

from bench.errors import BenchError
from bench.profile.bench import measures
from bench.profile.critical_path import Job, Part, parts, parts_of_call
from bench.profile.notes import Note, Span, Turn, read, spans, written
from bench.profile.traced import Recorder

INGEST, EXECUTOR, OPERATION, RELAY = "rtm-ingest", "rtm-executor", "rtm-operation-7", "rtm-outbox"

#: A start job from 100 to 1000, with other work of the threads.
WORK = [
    Span(INGEST, "redis.wait", 0, 110),
    Span(INGEST, "postgres.ingest, a connection", 112, 120),
    Span(INGEST, "postgres.ingest, statements", 120, 150),
    Span(INGEST, "redis.read", 125, 140),
    Span(INGEST, "postgres.ingest, commit", 150, 160),
    Span(EXECUTOR, "postgres.claim, commit", 50, 60),
    Span(INGEST, "redis.acknowledge", 165, 190),
    Span(EXECUTOR, "postgres.claim, statements", 170, 180),
    Span(EXECUTOR, "postgres.claim, commit", 180, 200),
    Span(EXECUTOR, "postgres.records_by_game", 205, 215),
    Span(OPERATION, "docker.create", 230, 300),
    Span(OPERATION, "docker.start", 310, 800),
    Span(EXECUTOR, "postgres.claim, commit", 500, 510),
    Span(OPERATION, "postgres.finish, commit", 800, 900),
    Span(RELAY, "redis.publish", 950, 1020),
]
JOB = Job(100, 1000)


class WayTest(unittest.TestCase):
    def test_the_parts_follow_each_other_and_add_up_to_the_job(self) -> None:
        found = parts(JOB, WORK)

        self.assertEqual(found[0].began_ns, JOB.began_ns)
        self.assertEqual(found[-1].ended_ns, JOB.ended_ns)
        for before, after in pairwise(found):
            self.assertEqual(before.ended_ns, after.began_ns)
        self.assertEqual(sum(part.took_ns for part in found), JOB.took_ns)

    def test_each_part_is_the_innermost_effect_of_the_thread_that_all_wait_for(self) -> None:
        self.assertEqual(
            [(part.stage, part.what, part.took_ns) for part in parts(JOB, WORK)],
            [
                (INGEST, "redis.wait", 10),
                (INGEST, "Python before postgres.ingest", 2),
                (INGEST, "postgres.ingest, a connection", 8),
                (INGEST, "postgres.ingest, statements", 5),
                (INGEST, "redis.read", 15),
                (INGEST, "postgres.ingest, statements", 10),
                (INGEST, "postgres.ingest, commit", 10),
                (EXECUTOR, "rtm-executor begins", 10),
                (EXECUTOR, "postgres.claim, statements", 10),
                (EXECUTOR, "postgres.claim, commit", 20),
                (EXECUTOR, "Python before postgres.records_by_game", 5),
                (EXECUTOR, "postgres.records_by_game", 10),
                ("rtm-operation", "rtm-operation begins", 15),
                ("rtm-operation", "docker.create", 70),
                ("rtm-operation", "Python before docker.start", 10),
                ("rtm-operation", "docker.start", 490),
                ("rtm-operation", "postgres.finish, commit", 100),
                (RELAY, "rtm-outbox begins", 50),
                (RELAY, "redis.publish", 50),
            ],
        )

    def test_a_result_that_is_read_later_than_it_is_published_is_a_part_of_its_own(self) -> None:
        last = parts(Job(100, 1050), WORK)[-1]

        self.assertEqual(last, Part(RELAY, "the result is read", 1020, 1050))

    def test_what_is_not_one_job_is_no_picture(self) -> None:
        with self.assertRaisesRegex(BenchError, "before it was asked for"):
            parts(Job(155, 1000), WORK)
        with self.assertRaisesRegex(BenchError, r"nothing that rtm-outbox did is 'redis\.publish'"):
            parts(JOB, WORK[:-1])

    def test_the_measures_add_up_to_the_whole(self) -> None:
        *each, whole = measures("start", JOB, parts(JOB, WORK))

        self.assertAlmostEqual(sum(measure.value for measure in each), whole.value)
        self.assertEqual(whole.value, JOB.took_ns / 1e6)
        self.assertIn("start, rtm-ingest: postgres.ingest", [measure.what for measure in each])

    def test_a_call_begins_and_ends_with_the_thread_that_answers_it(self) -> None:
        caller = "rtm-http-client"
        work = [
            Span(caller, "redis.ping", 104, 110),
            Span(caller, "postgres.submit, commit", 110, 140),
            Span(EXECUTOR, "postgres.claim, commit", 145, 200),
            *WORK[9:11],
            Span(OPERATION, "postgres.finish, commit", 310, 400),
            Span(caller, "postgres.record", 410, 450),
        ]

        found = parts_of_call(Job(100, 460), work)

        self.assertEqual(sum(part.took_ns for part in found), 360)
        self.assertEqual(
            [(part.stage, part.what) for part in (*found[:4], *found[-3:])],
            [
                (caller, f"{caller} begins"),
                (caller, "redis.ping"),
                (caller, "postgres.submit, commit"),
                (EXECUTOR, "rtm-executor begins"),
                (f"{caller} again", f"{caller} again begins"),
                (f"{caller} again", "postgres.record"),
                (f"{caller} again", "the answer is read"),
            ],
        )


class NotesTest(unittest.TestCase):
    def test_what_is_written_is_read_again(self) -> None:
        noted = [Note(1, "a", Turn.BEGINS, "x, y"), Note(2, "b", Turn.BECOMES, "z"), Note(3, "a", Turn.ENDS, "x")]

        self.assertEqual(list(read(written(noted))), noted)

    def test_spans_are_nested_on_a_thread_and_independent_of_other_threads(self) -> None:
        noted = [
            Note(1, "a", Turn.BEGINS, "outer"),
            Note(2, "b", Turn.BEGINS, "other"),
            Note(3, "a", Turn.BEGINS, "inner"),
            Note(4, "a", Turn.ENDS, "inner"),
            Note(5, "a", Turn.BECOMES, "next"),
            Note(6, "a", Turn.ENDS, "outer"),
            Note(7, "a", Turn.BEGINS, "still under way"),
        ]

        self.assertEqual(spans(noted), [Span("a", "outer", 1, 5), Span("a", "inner", 3, 4), Span("a", "next", 5, 6)])


class RecorderTest(unittest.TestCase):
    def test_it_notes_the_calling_thread_and_an_effect_that_fails(self) -> None:
        recorder = Recorder()

        def fail() -> None:
            with self.assertRaises(ZeroDivisionError), recorder.around("docker.start"):
                raise ZeroDivisionError

        thread = threading.Thread(target=fail, name="rtm-operation-1")
        thread.start()
        thread.join()

        (span,) = spans(recorder.notes)
        self.assertEqual((span.thread, span.what), ("rtm-operation-1", "docker.start"))
        self.assertLessEqual(span.began_ns, span.ended_ns)

    def test_a_transaction_turns_into_its_commit(self) -> None:
        recorder = Recorder()
        with recorder.around("postgres.finish, statements"):
            recorder.before("postgres.finish")

        self.assertEqual(
            [span.what for span in spans(recorder.notes)], ["postgres.finish, statements", "postgres.finish, commit"]
        )


class PictureTest(unittest.TestCase):
    def test_the_same_job_gives_the_same_file(self) -> None:
        try:
            from bench.profile import picture
        except ModuleNotFoundError as error:
            self.skipTest(f"the Python package {error.name} is missing: pip install -e '.[bench]'")
        with tempfile.TemporaryDirectory() as folder:
            first, second = Path(folder, "first.svg"), Path(folder, "second.svg")
            for path in (first, second):
                picture.draw(JOB, parts(JOB, WORK), WORK, path)

            self.assertIn("docker.create", first.read_text())
            self.assertEqual(first.read_bytes(), second.read_bytes())
