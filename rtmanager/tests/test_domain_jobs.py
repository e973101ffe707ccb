"""Any entry of an input stream becomes a request, a refusal or a dead letter; and the order of entries."""

from __future__ import annotations

import json
import random
import unittest
from collections.abc import Mapping

from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.jobs import (
    CUT_NAME_BYTES,
    CUT_VALUE_BYTES,
    ENTRY_BYTES,
    JOB_STREAMS,
    Batch,
    Entry,
    EntryId,
    Excess,
    read_job,
    ready_entries,
)
from rtmanager.domain.messages import Message, Stream
from rtmanager.domain.operation import KINDS, OpKind, OpSource, Request, StopReason
from rtmanager.tests.making import IMAGE, entry, start_fields, stop_fields

START, STOP = Stream.START_JOBS, Stream.STOP_JOBS


def read(stream: Stream, fields: Mapping[str, str]) -> Request | Message:
    return read_job(entry(stream, 5, fields, 1), f"prod:{stream}").becomes


class JobTestCase(unittest.TestCase):
    def request(self, stream: Stream, fields: Mapping[str, str]) -> Request:
        becomes = read(stream, fields)
        assert isinstance(becomes, Request)
        return becomes

    def assert_refused(self, code: ErrorCode, stream: Stream, fields: Mapping[str, str], *parts: str) -> None:
        problem = self.request(stream, fields).problem
        assert problem is not None, fields
        self.assertIs(problem[0], code)
        self.assertLess(len(problem[1]), 1000)
        for part in parts:
            self.assertIn(part, problem[1])

    def assert_dead(self, fields: Mapping[str, str]) -> Message:
        becomes = read(START, fields)
        assert isinstance(becomes, Message)
        self.assertIs(becomes.stream, Stream.DEAD_LETTERS)
        return becomes


class GoodJobTest(JobTestCase):
    def test_a_start_job_becomes_a_start(self) -> None:
        self.assertEqual(
            read(START, start_fields("g1")),
            Request("g1", OpKind.START, OpSource.LOBBY_STREAM, "prod:start_jobs:5-1", image_ref=IMAGE),
        )

    def test_a_stop_job_becomes_a_stop_for_each_reason(self) -> None:
        for reason in ("orphan_cleanup", "cancelled", "finished", "admin_request", "timeout"):
            with self.subTest(reason):
                self.assertEqual(
                    read(STOP, stop_fields("g1", reason=reason)),
                    Request("g1", OpKind.STOP, OpSource.LOBBY_STREAM, "prod:stop_jobs:5-1", reason=reason),
                )
        self.assertEqual(len(StopReason), 5)

    def test_the_oldest_and_the_latest_time_are_taken(self) -> None:
        for time in ("0", "9" * 18):
            self.assertIsNone(self.request(START, start_fields(requested_at_ms=time)).problem)

    def test_unknown_fields_are_no_fault(self) -> None:
        self.assertIsNone(self.request(STOP, stop_fields(comment="x" * 9999)).problem)

    def test_a_stop_does_not_care_for_an_image(self) -> None:
        self.assertEqual(self.request(STOP, stop_fields(image_ref="NOT GOOD")).image_ref, "")


class JobStreamsTest(unittest.TestCase):
    def test_every_stream_of_jobs_is_read_as_a_kind_of_its_own(self) -> None:
        self.assertEqual(set(JOB_STREAMS), {each for each in Stream if each.endswith("_jobs")})
        kinds = [each.kind for each in JOB_STREAMS.values()]
        self.assertEqual(len(kinds), len(set(kinds)), "two streams of one kind")

    def test_a_stream_has_the_field_that_its_kind_takes(self) -> None:
        for stream, job_stream in JOB_STREAMS.items():
            self.assertEqual(set(job_stream.checks), {KINDS[job_stream.kind].takes} - {""}, stream)

    def test_what_a_stream_requests_beside_the_game_is_kept_by_the_request(self) -> None:
        for stream, job_stream in JOB_STREAMS.items():
            for name in job_stream.checks:
                with self.subTest(stream=stream, field=name):
                    becomes = read(stream, {"game_id": "g1", name: "kept"})
                    assert isinstance(becomes, Request)
                    self.assertEqual(getattr(becomes, name), "kept")


class MalformedJobTest(JobTestCase):
    def test_a_bad_image_is_start_config_invalid(self) -> None:
        for image_ref in ("", "NOT GOOD", "game:", "x" * 10_000, r"game\x00", r"game\xff:1", "game:1.0.0 "):
            with self.subTest(image_ref[:20]):
                fields = start_fields(image_ref=image_ref)
                self.assert_refused(ErrorCode.START_CONFIG_INVALID, START, fields, "image_ref")

    def test_a_missing_image_is_start_config_invalid(self) -> None:
        fields = start_fields()
        del fields["image_ref"]
        self.assert_refused(ErrorCode.START_CONFIG_INVALID, START, fields, "image_ref")

    def test_a_malformed_game_id_that_can_be_read_is_answered(self) -> None:
        for game_id in ("a.b", "../etc", "-a", " ", "é", "x" * 52, "x" * 200, r"g\x00", r"g\xff"):
            with self.subTest(game_id[:20]):
                self.assert_refused(ErrorCode.START_CONFIG_INVALID, START, start_fields(game_id), "game_id")
                self.assert_refused(ErrorCode.INVALID_REQUEST, STOP, stop_fields(game_id), "game_id")
                self.assertEqual(self.request(STOP, stop_fields(game_id)).game_id, game_id)

    def test_an_unknown_reason_is_an_invalid_request_that_names_the_known_ones(self) -> None:
        for reason in ("", "Finished", "finished ", "bored", "x" * 100_000):
            with self.subTest(reason[:20]):
                fields = stop_fields(reason=reason)
                self.assert_refused(ErrorCode.INVALID_REQUEST, STOP, fields, "reason", "orphan_cleanup", "timeout")

    def test_a_missing_reason_is_an_invalid_request(self) -> None:
        fields = stop_fields()
        del fields["reason"]
        self.assert_refused(ErrorCode.INVALID_REQUEST, STOP, fields, "reason")

    def test_a_time_that_is_none_is_an_invalid_request(self) -> None:
        for time in ("", "now", "-1", "1.5", "1e3", "\u0665", "9" * 19, "9" * 100_000, " 1", r"1\x00"):
            with self.subTest(time[:20]):
                self.assert_refused(
                    ErrorCode.INVALID_REQUEST, START, start_fields(requested_at_ms=time), "requested_at_ms"
                )
                self.assert_refused(
                    ErrorCode.INVALID_REQUEST, STOP, stop_fields(requested_at_ms=time), "requested_at_ms"
                )

    def test_what_is_kept_of_a_huge_value_is_bounded(self) -> None:
        huge = "x" * 1_000_000
        self.assertLess(len(self.request(START, start_fields(image_ref=huge)).image_ref), 600)
        self.assertLess(len(self.request(STOP, stop_fields(reason=huge)).reason), 600)

    def test_the_answer_to_a_malformed_job_still_names_its_source(self) -> None:
        self.assertEqual(self.request(START, start_fields("a.b")).source_ref, "prod:start_jobs:5-1")


class DeadLetterTest(JobTestCase):
    def test_an_entry_that_names_no_game_is_a_dead_letter(self) -> None:
        for fields in ({}, {"game_id": ""}, {"image_ref": IMAGE}, {"GAME_ID": "g1"}):
            with self.subTest(fields):
                letter = self.assert_dead(fields)
                self.assertEqual(letter.fields["stream"], "prod:start_jobs")
                self.assertEqual(letter.fields["entry_id"], "5-1")
                self.assertIn("game_id", letter.fields["reason"])
                self.assertEqual(json.loads(letter.fields["fields"]), fields)

    def test_a_name_that_no_person_could_read_is_a_dead_letter(self) -> None:
        for game_id in ("x" * 201, "x" * 1_000_000, "g\n1", "g\x1b[31m", "\u200b", "\u202eg1"):
            with self.subTest(game_id[:10]):
                self.assertLess(len(self.assert_dead(start_fields(game_id)).fields["reason"]), 400)


class BytesTest(JobTestCase):
    """Entries as Redis stores them, of any size."""

    def job(self, stream: Stream, *pairs: tuple[bytes, bytes], repeated: tuple[bytes, ...] = ()) -> Request | Message:
        size = sum(len(name) + len(value) for name, value in pairs)
        excess = None
        if size > ENTRY_BYTES:
            pairs = tuple((name[:CUT_NAME_BYTES], value[:CUT_VALUE_BYTES]) for name, value in pairs)
            excess = Excess(size, len(pairs), "d1gest")
        entry = Entry.of(stream, EntryId(5, 1), pairs, repeated=repeated, excess=excess)
        return read_job(entry, f"prod:{stream}").becomes

    def refusal(self, stream: Stream, *pairs: tuple[bytes, bytes], repeated: tuple[bytes, ...] = ()) -> tuple[str, str]:
        becomes = self.job(stream, *pairs, repeated=repeated)
        assert isinstance(becomes, Request) and becomes.problem is not None
        return becomes.problem[0].value, becomes.problem[1]

    def letter(self, *pairs: tuple[bytes, bytes]) -> Mapping[str, str]:
        becomes = self.job(START, *pairs)
        assert isinstance(becomes, Message)
        return becomes.fields

    GOOD_STOP = ((b"game_id", b"g1"), (b"reason", b"finished"), (b"requested_at_ms", b"1"))

    def test_a_field_that_is_given_twice_is_an_invalid_request_that_names_it(self) -> None:
        for again in (*self.GOOD_STOP[1:], (b"reason", b"timeout")):
            code, message = self.refusal(STOP, *self.GOOD_STOP, again)
            self.assertEqual(code, "invalid_request")
            self.assertIn(repr(again[0].decode()), message)
        code, _ = self.refusal(STOP, *self.GOOD_STOP, (b"note", b"1"), (b"note", b"1"))
        self.assertEqual(code, "invalid_request")

    def test_a_game_that_is_named_twice_is_a_dead_letter_though_both_are_the_same(self) -> None:
        self.assertIn("more than one game_id", self.letter(*self.GOOD_STOP, (b"game_id", b"g1"))["reason"])

    def test_what_is_given_twice_in_what_was_not_read_of_an_entry_counts_too(self) -> None:
        large = (b"note", b"x" * ENTRY_BYTES)
        code, message = self.refusal(STOP, *self.GOOD_STOP, large, repeated=(b"other",))
        self.assertEqual((code, "'other'" in message), ("invalid_request", True))
        becomes = self.job(STOP, *self.GOOD_STOP, large, repeated=(b"game_id",))
        self.assertIsInstance(becomes, Message)

    def test_an_entry_that_is_too_large_is_an_invalid_request_that_names_its_size_and_the_limit(self) -> None:
        code, message = self.refusal(STOP, *self.GOOD_STOP, (b"note", b"x" * ENTRY_BYTES))
        self.assertEqual(code, "invalid_request")
        self.assertIn(str(ENTRY_BYTES), message)
        self.assertIn(str(ENTRY_BYTES + 43), message)

    def test_nothing_becomes_valid_by_being_cut_off(self) -> None:
        size = ENTRY_BYTES + 1
        image = (b"image_ref", b"x" * size)
        self.assertEqual(self.refusal(START, (b"game_id", b"g1"), image)[0], "start_config_invalid")
        self.assertEqual(self.refusal(STOP, (b"game_id", b"g1"), (b"reason", b"x" * size))[0], "invalid_request")
        at = (b"requested_at_ms", b"1" * size)
        self.assertIn("requested_at_ms", self.refusal(STOP, *self.GOOD_STOP[:2], at)[1])
        self.assertIn("cannot be the name", self.letter((b"game_id", b"g" * size))["reason"])

    def test_a_letter_keeps_the_first_kilobyte_of_each_field_and_size_and_digest_of_the_whole(self) -> None:
        for value in (b"y" * 5000, b"y" * (ENTRY_BYTES + 1)):
            letter = self.letter((b"x", value), (b"z" * 500, b""))
            kept = json.loads(letter["fields"])
            self.assertEqual(kept, {"x": "y" * 1024, "z" * 128: ""})
            self.assertEqual(letter["size"], str(len(value) + 501))
            self.assertTrue(letter["digest"])

    def test_a_letter_of_a_small_entry_has_all_of_it_and_nothing_more(self) -> None:
        self.assertEqual(set(self.letter((b"x", b"y" * 1024))), {"stream", "entry_id", "reason", "fields"})

    def test_a_letter_keeps_so_many_fields_and_so_many_bytes_only(self) -> None:
        many = self.letter(*((b"%d" % n, b"v") for n in range(100)))
        self.assertEqual(len(json.loads(many["fields"])), 36)
        self.assertEqual(many["size"], "290")
        wide = self.letter(*((b"%d" % n, b"\xff" * 1000) for n in range(60)))
        self.assertLess(len(wide["fields"]), 100_000)
        self.assertGreater(len(json.loads(wide["fields"])), 10)

    def test_the_digest_of_a_small_entry_is_that_of_earlier_releases(self) -> None:
        pairs = [(name.encode(), value.encode()) for name, value in start_fields("g1").items()]
        self.assertEqual(Entry.of(START, EntryId(5, 1), pairs).digest, "e8d709cf342fc654")

    def test_digits_of_other_scripts_are_no_time_and_whitespace_is_no_part_of_a_word(self) -> None:
        for at in ("²", "\uff11\uff12", "\u0661", "1 ", "\t1", "1\n", "\u30001"):
            self.assertIn(
                "requested_at_ms", self.refusal(STOP, *self.GOOD_STOP[:2], (b"requested_at_ms", at.encode()))[1]
            )

    def test_names_of_games_that_no_person_could_read_are_letters_whatever_their_bytes(self) -> None:
        for name in (b"\xe2\x80\x8fg", b"g\xe2\x80\xae", b"\xc2\xa0", b"g\x7f", b"\xef\xbb\xbfg1", b"\xff" * 51):
            self.assertIn("game_id", self.letter((b"game_id", name))["reason"])


class EntryIdTest(unittest.TestCase):
    def test_ids_compare_as_numbers_and_come_back_as_text(self) -> None:
        texts = ["1-0", "2-0", "2-9", "2-10", "10-0", "18446744073709551615-18446744073709551615"]
        ids = [EntryId.parse(text) for text in texts]
        self.assertEqual(ids, sorted(ids))
        self.assertEqual([str(entry_id) for entry_id in ids], texts)


class Group:
    """A minimal consumer group: two streams, a limit, and the entries delivered but not acknowledged."""

    def __init__(self, streams: Mapping[Stream, list[Entry]]) -> None:
        self.streams = streams
        self.visible = dict.fromkeys(streams, 0)
        self.given = dict.fromkeys(streams, 0)
        self.pending: dict[Stream, list[Entry]] = {stream: [] for stream in streams}

    def read(self, limit: int) -> list[Batch]:
        batches = []
        for stream, entries in self.streams.items():
            if self.pending[stream]:
                batches.append(Batch(self.pending[stream][:limit], drained=False))
                continue
            begin, end = self.given[stream], min(self.given[stream] + limit, self.visible[stream])
            self.given[stream] = end
            self.pending[stream] = entries[begin:end]
            batches.append(Batch(entries[begin:end], drained=end - begin < limit))
        return batches

    def acknowledge(self, entries: list[Entry]) -> None:
        for stream in self.pending:
            self.pending[stream] = [e for e in self.pending[stream] if e not in entries]


class ReadyEntriesTest(unittest.TestCase):
    def positions(self, *batches: Batch) -> list[int]:
        return [e.entry_id.milliseconds for e in ready_entries(batches)]

    def batch(self, stream: Stream, *ids: int, drained: bool) -> Batch:
        return Batch([entry(stream, i) for i in ids], drained)

    def test_two_drained_streams_are_merged_by_id(self) -> None:
        start, stop = self.batch(START, 1, 4, drained=True), self.batch(STOP, 2, 3, 9, drained=True)
        self.assertEqual(self.positions(start, stop), [1, 2, 3, 4, 9])

    def test_a_stream_that_has_more_holds_back_what_may_come_after_it(self) -> None:
        start, stop = self.batch(START, 1, 4, drained=False), self.batch(STOP, 2, 4, 9, drained=True)
        self.assertEqual(self.positions(start, stop), [1, 2, 4])

    def test_two_streams_that_have_more_go_as_far_as_the_nearer_one(self) -> None:
        start, stop = self.batch(START, 5, 8, drained=False), self.batch(STOP, 1, 2, drained=False)
        self.assertEqual(self.positions(start, stop), [1, 2])

    def test_nothing_gives_nothing(self) -> None:
        self.assertEqual(ready_entries([]), [])
        self.assertEqual(ready_entries([Batch([], True), Batch([], True)]), [])

    def history(self, seed: int) -> None:
        rng = random.Random(seed)
        streams: dict[Stream, list[Entry]] = {START: [], STOP: []}
        order: list[Entry] = []
        for millisecond in range(rng.randrange(1, 60)):
            for stream in (START, STOP):
                for sequence in range(rng.choice((0, 0, 1, 1, 3))):
                    streams[stream].append(entry(stream, millisecond, sequence=sequence))
                    order.append(streams[stream][-1])
        order.sort(key=lambda e: e.position)
        group, taken = Group(streams), list[Entry]()
        moment = -1
        while len(taken) < len(order):
            # Time passes for both streams alike; any instance with the ingest lock sees the same group.
            moment += rng.choice((0, 0, 1, 5))
            for stream, entries in streams.items():
                group.visible[stream] = sum(e.entry_id.milliseconds <= moment for e in entries)
            ready = ready_entries(group.read(rng.randrange(1, 6)))
            if rng.random() < 0.2:
                continue  # this instance died before it accepted an entry
            # A lost acknowledgement repeats entries; the store recognises them by their ids.
            taken += [e for e in ready if e not in taken]
            if rng.random() > 0.2:
                group.acknowledge(ready)
        self.assertEqual(taken, order)

    def test_order_is_kept_and_nothing_lost_or_doubled_whatever_batches_two_streams_give(self) -> None:
        for seed in range(150):
            with self.subTest(seed=seed):
                self.history(seed)
