"""Contract tests of the streams for ingest and relay; run against Redis and the fake.

A test case subclasses `StreamsContract` and creates its streams in `make`.
"""

from __future__ import annotations

import threading
import unittest
from collections.abc import Mapping, Sequence
from typing import Protocol

from rtmanager.domain.jobs import (
    CUT_FIELDS,
    CUT_NAME_BYTES,
    CUT_VALUE_BYTES,
    ENTRY_BYTES,
    ENTRY_FIELDS,
    INPUT_STREAMS,
    Batch,
    Entry,
    EntryId,
)
from rtmanager.domain.messages import Message, Stream
from rtmanager.ports.streams import DueMessage, InputStreams, OutputStreams, StaleFencingToken
from rtmanager.tests.making import JOB_FIELDS, start_fields

START, STOP = Stream.START_JOBS, Stream.STOP_JOBS
#: Real seconds within which an immediate event must have happened.
PROMPT_S = 5.0


class Reader(InputStreams, Protocol):
    """The reading side, with a way to end a `wait`."""

    def interrupt(self) -> None:
        """End a `wait` on another thread at once."""
        ...


class StreamsUnderTest(Protocol):
    """The ports of one empty Redis, and what a test needs beside them."""

    def reader(self) -> Reader:
        """The reading side of one more instance."""
        ...

    def writer(self) -> OutputStreams:
        """The writing side of one more instance."""
        ...

    def add_entry(self, stream: Stream, fields: Mapping[str, str]) -> EntryId:
        """Add an entry as another service does."""
        ...

    def add_pairs(
        self, stream: Stream, pairs: Sequence[tuple[bytes, bytes]], entry_id: EntryId | None = None
    ) -> EntryId:
        """As `add_entry`, with bytes as names and values; names may repeat."""
        ...

    def delete_entry(self, stream: Stream, entry_id: EntryId) -> None:
        """Delete an entry, as an operator may."""
        ...

    def set_last_id(self, stream: Stream, entry_id: EntryId) -> None:
        """Set the last id of an empty stream, as an operator may."""
        ...

    def entries(self, stream: Stream) -> Sequence[Mapping[str, str]]:
        """The fields of every entry, in order."""
        ...

    def remember(self, text: str) -> None:
        """Remember a published message as the relay's Redis script does."""
        ...

    def flush(self) -> None:
        """Delete all data, as a Redis that restarts empty."""
        ...

    def refuse(self, stream: Stream) -> str:
        """Refuse reads and writes of the stream; return its name."""
        ...

    def mend(self, stream: Stream) -> None:
        """Undo `refuse`."""
        ...


class StreamsContract(unittest.TestCase):
    """Subclass it and override `make`."""

    streams: StreamsUnderTest

    def make(self) -> StreamsUnderTest:
        """Streams with nothing in them."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.streams = self.make()


class ReadingContract(StreamsContract):
    """Entries are delivered in order, until they are acknowledged."""

    def setUp(self) -> None:
        super().setUp()
        self.reader = self.streams.reader()

    def batches(self, limit: int = 100) -> Mapping[Stream, Batch]:
        return dict(zip(INPUT_STREAMS, self.reader.read(limit), strict=True))

    def read(self, limit: int = 100, reader: Reader | None = None) -> list[Entry]:
        return [entry for batch in (reader or self.reader).read(limit) for entry in batch.entries]

    def add(self, *games: str, stream: Stream = START) -> list[EntryId]:
        return [self.streams.add_entry(stream, JOB_FIELDS[stream](game_id)) for game_id in games]

    def games(self, entries: Sequence[Entry]) -> list[str]:
        return [entry.fields["game_id"] for entry in entries]

    def test_each_empty_stream_gives_a_drained_batch_without_entries(self) -> None:
        found = {stream: (list(batch.entries), batch.drained) for stream, batch in self.batches().items()}
        self.assertEqual(found, dict.fromkeys(INPUT_STREAMS, ([], True)))

    def test_every_input_stream_is_read(self) -> None:
        for stream in INPUT_STREAMS:
            self.add(f"g-{stream}", stream=stream)
        self.assertEqual({e.stream: e.fields["game_id"] for e in self.read()}, {s: f"g-{s}" for s in INPUT_STREAMS})

    def test_entries_from_before_the_first_read_are_given_too(self) -> None:
        ids = self.add("g1", "g2")
        found = self.read()
        self.assertEqual([(e.stream, e.entry_id) for e in found], [(START, i) for i in ids])
        self.assertEqual(found[0].fields, start_fields("g1"))

    def test_both_streams_are_read(self) -> None:
        self.add("g1")
        self.add("g2", stream=STOP)
        self.assertEqual({(e.stream, e.fields["game_id"]) for e in self.read()}, {(START, "g1"), (STOP, "g2")})

    def test_a_batch_that_is_as_long_as_the_limit_is_not_known_to_be_drained(self) -> None:
        self.add("g1", "g2", "g3")
        start, stop = self.reader.read(2)
        self.assertEqual((self.games(start.entries), start.drained), (["g1", "g2"], False))
        self.assertTrue(stop.drained)

    def test_what_is_acknowledged_is_not_given_again(self) -> None:
        self.add("g1", "g2")
        self.reader.acknowledge(self.read())
        self.assertEqual(self.read(), [])
        self.add("g3")
        self.assertEqual(self.games(self.read()), ["g3"])

    def test_what_is_not_acknowledged_is_given_again_before_anything_new(self) -> None:
        self.add("g1", "g2")
        first = self.read()
        self.add("g3")
        self.assertEqual(self.games(self.read())[:2], ["g1", "g2"])
        self.reader.acknowledge(first)
        self.assertEqual(self.games(self.read()), ["g3"])

    def test_another_instance_is_given_what_the_first_one_left(self) -> None:
        self.add("g1")
        self.read()
        self.assertEqual(self.games(self.read(reader=self.streams.reader())), ["g1"])

    def test_what_is_left_is_given_oldest_first_within_the_limit(self) -> None:
        self.add("g1", "g2", "g3")
        self.read()
        self.assertEqual(self.games(self.read(2)), ["g1", "g2"])

    def test_a_part_can_be_acknowledged(self) -> None:
        self.add("g1", "g2", "g3")
        self.reader.acknowledge(self.read()[1:2])
        self.assertEqual(self.games(self.read()), ["g1", "g3"])

    def test_an_entry_that_was_deleted_after_it_was_given_is_forgotten(self) -> None:
        first, _ = self.add("g1", "g2")
        self.read()
        self.streams.delete_entry(START, first)
        self.assertEqual(self.games(self.read()), ["g2"])

    def test_what_was_given_is_given_before_anything_new_though_much_before_it_was_deleted(self) -> None:
        ids = self.add("g1", "g2", "g3", "g4", "g5")
        self.read()
        self.add("g6")
        for entry_id in ids[:4]:
            self.streams.delete_entry(START, entry_id)
        self.assertEqual(self.games(self.read(2))[0], "g5")

    def test_bytes_that_are_no_text_are_escaped_and_a_nul_too(self) -> None:
        self.streams.add_pairs(START, [(b"\xff", b"a\0b"), (b"", b"\xed\xa0\x80")])
        (entry,) = self.read()
        self.assertEqual(entry.fields, {r"\xff": r"a\x00b", "": r"\xed\xa0\x80"})
        self.assertEqual((entry.size, entry.repeated, entry.excess), (7, (), None))

    def test_a_field_that_is_given_twice_is_reported(self) -> None:
        self.streams.add_pairs(START, [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"a", b"4"), (b"b", b"5")])
        (entry,) = self.read()
        self.assertEqual((entry.fields, set(entry.repeated)), ({"a": "4", "b": "5"}, {"a", "b"}))

    def test_the_largest_entry_that_is_none_too_large_is_read_whole(self) -> None:
        pairs = [(b"%03d" % n, b"v") for n in range(ENTRY_FIELDS - 1)]
        rest = ENTRY_BYTES - 4 * len(pairs) - 1
        self.streams.add_pairs(START, [*pairs, (b"r", b"x" * rest)])
        (entry,) = self.read()
        self.assertIsNone(entry.excess)
        self.assertEqual((len(entry.fields), entry.size, len(entry.fields["r"])), (ENTRY_FIELDS, ENTRY_BYTES, rest))

    def test_of_an_entry_that_is_too_large_the_beginnings_are_read_and_the_known_fields_wherever_they_stand(
        self,
    ) -> None:
        self.streams.add_pairs(STOP, [(b"x" * 5000, b"y" * ENTRY_BYTES), (b"game_id", b"g1")])
        (entry,) = self.read()
        assert entry.excess is not None
        self.assertEqual(entry.fields, {"x" * CUT_NAME_BYTES: "y" * CUT_VALUE_BYTES, "game_id": "g1"})
        self.assertEqual((entry.size, entry.excess.size), (ENTRY_BYTES + 5009, ENTRY_BYTES + 5009))
        self.assertEqual((entry.excess.fields, entry.digest), (2, entry.excess.digest))

    def test_of_an_entry_with_too_many_fields_the_first_are_read_and_the_known_ones(self) -> None:
        pairs = [(b"%d" % n, b"v") for n in range(5 * ENTRY_FIELDS)]
        known = [(b"reason", b"finished"), (b"game_id", b"g1")]
        # The field 100 occurs twice, and is not among the fields that are read.
        self.streams.add_pairs(STOP, [*pairs, *known, (b"reason", b"timeout"), (b"1", b"w"), (b"100", b"w")])
        (entry,) = self.read()
        assert entry.excess is not None
        self.assertEqual(
            entry.fields, {str(n): "v" for n in range(CUT_FIELDS)} | {"reason": "finished", "game_id": "g1"}
        )
        self.assertEqual((entry.excess.fields, set(entry.repeated)), (5 * ENTRY_FIELDS + 5, {"reason", "1"}))

    def test_entries_that_are_too_large_are_distinguished_by_what_is_not_read_of_them(self) -> None:
        large = b"y" * ENTRY_BYTES
        for end in (b"1", b"2"):
            self.streams.add_pairs(START, [(b"x", large + end)])
        first, second = self.read()
        self.assertEqual(first.fields, second.fields)
        self.assertNotEqual(first.digest, second.digest)
        self.assertEqual([entry.digest for entry in self.read()], [first.digest, second.digest])

    def test_entries_with_too_many_fields_are_distinguished_by_any_of_them(self) -> None:
        pairs = [(b"%d" % n, b"v") for n in range(5000)]
        others = [[*pairs[:n], (b"other", b"v"), *pairs[n + 1 :]] for n in (0, 999, 1000, 2500, 4999)]
        for each in (pairs, [*reversed(pairs)], pairs[:-1], *others):
            self.streams.add_pairs(STOP, each)
        digests = [entry.digest for entry in self.read()]
        self.assertEqual(len(set(digests)), len(digests))
        self.assertEqual([entry.digest for entry in self.read()], digests)

    def test_one_read_is_bounded_in_bytes_and_the_next_goes_on(self) -> None:
        ids = [self.streams.add_pairs(START, [(b"x", b"y" * 60_000)]) for _ in range(30)]
        seen: list[EntryId] = []
        while len(seen) < len(ids):
            start, *others = self.batches().values()
            self.assertEqual({(tuple(other.entries), other.drained) for other in others}, {((), True)})
            self.assertLess(sum(entry.size for entry in start.entries), 400_000)
            self.assertEqual(start.drained, len(seen) + len(start.entries) == len(ids) and start.drained)
            seen += [entry.entry_id for entry in start.entries]
            self.reader.acknowledge(start.entries)
        self.assertEqual(seen, ids)

    def test_what_was_given_of_large_entries_is_given_again_in_order(self) -> None:
        ids = [self.streams.add_pairs(START, [(b"x", b"y" * 60_000)]) for _ in range(8)]
        first = self.read()
        self.assertEqual([e.entry_id for e in self.read()], [e.entry_id for e in first])
        self.reader.acknowledge(first)
        self.assertEqual([e.entry_id for e in first] + [e.entry_id for e in self.read()], ids)

    def test_large_entries_of_one_stream_leave_room_for_one_of_the_other(self) -> None:
        for _ in range(20):
            self.streams.add_pairs(START, [(b"x", b"y" * 60_000)])
        self.add("g1", stream=STOP)
        batches = self.batches()
        start, stop = batches[START], batches[STOP]
        self.assertEqual((bool(start.entries), start.drained), (True, False))
        self.assertEqual(self.games(stop.entries), ["g1"])

    def test_ids_up_to_the_last_one_there_is_are_read_and_waited_behind(self) -> None:
        last = EntryId(2**64 - 1, 2**64 - 1)
        ids = [EntryId(2**64 - 1, 1), EntryId(2**64 - 1, 2**64 - 2), last]
        for entry_id in ids:
            self.streams.add_pairs(START, [(b"game_id", b"g1")], entry_id)
        self.add("g2", stream=STOP)
        self.assertEqual([e.entry_id for e in self.read() if e.stream is START], ids)
        self.reader.acknowledge(self.read())
        self.assertFalse(self.reader.wait(0.01))
        self.assertEqual(self.read(), [])

    def test_a_key_that_is_no_stream_keeps_no_other_from_being_read(self) -> None:
        self.streams.refuse(START)
        self.add("g1", stream=STOP)
        for _ in range(2):
            batches = self.batches()
            start, stop = batches[START], batches[STOP]
            self.assertEqual((list(start.entries), start.drained, bool(start.refused)), ([], True, True))
            self.assertEqual((self.games(stop.entries), stop.refused), (["g1"], ""))
        self.streams.mend(START)
        self.add("g2")
        self.assertEqual(set(self.games(self.read())), {"g1", "g2"})

    def test_a_wait_is_ended_by_a_large_entry_too(self) -> None:
        self.streams.add_pairs(STOP, [(b"x", b"y" * 3_000_000)])
        self.assertTrue(self.reader.wait(PROMPT_S))
        self.reader.acknowledge(self.read())
        self.assertFalse(self.reader.wait(0.01))

    def test_acknowledging_twice_or_nothing_is_fine(self) -> None:
        self.add("g1")
        entries = self.read()
        self.reader.acknowledge(entries)
        self.reader.acknowledge(entries)
        self.reader.acknowledge([])
        self.assertEqual(self.read(), [])

    def test_what_was_acknowledged_can_be_given_again_from_an_entry_on(self) -> None:
        first, _, third = self.add("g1", "g2", "g3")
        self.reader.acknowledge(self.read())
        self.assertEqual(self.reader.give_again({START: first}), {START: third})
        self.assertEqual(self.games(self.read()), ["g2", "g3"])
        self.reader.acknowledge(self.read())
        self.assertEqual(self.read(), [])

    def test_nothing_is_given_again_where_nothing_later_was_given(self) -> None:
        first, second = self.add("g1", "g2")
        self.reader.acknowledge(self.read(1))
        for last in (first, second):
            self.assertEqual(self.reader.give_again({START: last, STOP: first}), {})
        self.assertEqual(self.games(self.read()), ["g2"])

    def test_entries_under_ids_that_were_set_back_are_given(self) -> None:
        ids = self.add("g1", "g2")
        self.reader.acknowledge(self.read())
        self.assertEqual(self.reader.give_all_again(), {})
        for entry_id in ids:
            self.streams.delete_entry(START, entry_id)
        self.streams.set_last_id(START, EntryId(1, 0))
        self.streams.add_pairs(START, [(b"game_id", b"g3")], EntryId(2, 0))
        self.assertEqual(self.read(), [])
        self.assertEqual(self.reader.give_all_again(), {START: ids[-1]})
        self.assertEqual(self.reader.give_all_again(), {})
        self.assertEqual(self.games(self.read()), ["g3"])

    def test_after_a_flush_nothing_was_given(self) -> None:
        (first,) = self.add("g1")
        self.read()
        self.streams.flush()
        self.assertEqual(self.reader.give_again({START: first}), {})

    def test_reading_goes_on_after_redis_came_back_empty(self) -> None:
        self.add("g1")
        self.reader.acknowledge(self.read())
        self.streams.flush()
        self.assertEqual(self.read(), [])
        self.add("g2")
        self.assertEqual(self.games(self.read()), ["g2"])

    def test_a_wait_ends_without_an_entry_when_its_time_is_over(self) -> None:
        self.assertFalse(self.reader.wait(0.01))

    def test_a_wait_ends_at_once_when_an_entry_is_there_that_nobody_was_given(self) -> None:
        self.add("g1", stream=STOP)
        self.assertTrue(self.reader.wait(PROMPT_S))
        self.reader.acknowledge(self.read())
        self.assertFalse(self.reader.wait(0.01))

    def test_a_wait_takes_nothing(self) -> None:
        self.add("g1")
        self.reader.wait(PROMPT_S)
        self.assertEqual(self.games(self.read()), ["g1"])

    def in_thread(self, timeout_s: float) -> tuple[threading.Thread, list[bool]]:
        answers: list[bool] = []
        thread = threading.Thread(target=lambda: answers.append(self.reader.wait(timeout_s)))
        thread.start()
        self.addCleanup(thread.join)
        return thread, answers

    def test_a_wait_ends_when_an_entry_arrives(self) -> None:
        thread, answers = self.in_thread(PROMPT_S * 2)
        self.add("g1")
        thread.join(PROMPT_S)
        self.assertEqual(answers, [True])

    def test_a_wait_can_be_interrupted(self) -> None:
        thread, answers = self.in_thread(PROMPT_S * 2)
        while thread.is_alive():
            self.reader.interrupt()
            thread.join(0.005)
        self.assertEqual(answers, [False])


class WritingContract(StreamsContract):
    """Messages are added once, in order."""

    def setUp(self) -> None:
        super().setUp()
        self.writer = self.streams.writer()

    def due(self, *ids: int, stream: Stream = Stream.JOB_RESULTS) -> list[DueMessage]:
        return [DueMessage(i, Message(stream, {"n": str(i), "text": "é€"})) for i in ids]

    def numbers(self, stream: Stream = Stream.JOB_RESULTS) -> list[str]:
        return [fields["n"] for fields in self.streams.entries(stream)]

    def test_messages_are_added_in_order_with_their_fields(self) -> None:
        published = self.writer.publish(1, self.due(1, 2, 3))
        self.assertEqual((list(published.ids), dict(published.refused)), ([1, 2, 3], {}))
        self.assertEqual(self.streams.entries(Stream.JOB_RESULTS)[0], {"n": "1", "text": "é€"})
        self.assertEqual(self.numbers(), ["1", "2", "3"])

    def test_each_message_goes_to_its_stream(self) -> None:
        streams = (Stream.JOB_RESULTS, Stream.HEALTH_EVENTS, Stream.NOTIFICATION_INTENTS, Stream.DEAD_LETTERS)
        self.writer.publish(1, [due for n, s in enumerate(streams) for due in self.due(n + 1, stream=s)])
        self.assertEqual([self.numbers(stream) for stream in streams], [["1"], ["2"], ["3"], ["4"]])

    def test_a_message_that_is_there_already_is_not_added_again(self) -> None:
        self.writer.publish(1, self.due(1, 2))
        published = self.streams.writer().publish(2, self.due(1, 2, 3))
        self.assertEqual(list(published.ids), [1, 2, 3])
        self.assertEqual(self.numbers(), ["1", "2", "3"])

    def test_what_is_remembered_can_be_forgotten(self) -> None:
        self.writer.publish(1, self.due(1, 2, 3))
        self.assertEqual(self.writer.remembered(), {1, 2, 3})
        self.writer.forget([1, 3, 99])
        self.writer.forget([])
        self.assertEqual(self.writer.remembered(), {2})

    def test_another_message_of_an_id_that_is_remembered_is_added(self) -> None:
        self.writer.publish(1, self.due(1))
        for message in (
            Message(Stream.JOB_RESULTS, {"n": "other", "text": ""}),
            Message(Stream.HEALTH_EVENTS, {"n": "1"}),
        ):
            for _ in range(2):
                published = self.streams.writer().publish(1, [DueMessage(1, message)])
                self.assertEqual(list(published.ids), [1])
        self.assertEqual((self.numbers(), self.numbers(Stream.HEALTH_EVENTS)), (["1", "other"], ["1"]))
        self.assertEqual(self.writer.remembered(), {1})
        self.writer.forget([1])
        self.assertEqual(self.writer.remembered(), set())

    def test_an_id_alone_counts_where_an_older_release_may_have_remembered_it(self) -> None:
        for number in ("1", "2"):
            self.streams.remember(number)
        self.assertEqual(self.writer.remembered(), {1, 2})
        self.assertEqual(list(self.writer.publish(1, self.due(1, 2, 3), by_id={1}).ids), [1, 2, 3])
        self.assertEqual(self.numbers(), ["2", "3"])
        self.writer.forget([1, 2, 3])
        self.assertEqual(self.streams.writer().remembered(), set())

    def test_an_older_turn_than_the_last_adds_nothing(self) -> None:
        self.writer.publish(5, self.due(1))
        with self.assertRaises(StaleFencingToken) as caught:
            self.streams.writer().publish(4, self.due(2))
        self.assertEqual(caught.exception.latest, 5)
        self.assertEqual(self.numbers(), ["1"])
        self.writer.publish(5, self.due(2))
        self.assertEqual(self.numbers(), ["1", "2"])

    def test_a_refused_stream_does_not_keep_others_from_being_written(self) -> None:
        name = self.streams.refuse(Stream.JOB_RESULTS)
        due = [*self.due(1), *self.due(2, stream=Stream.HEALTH_EVENTS), *self.due(3)]
        published = self.writer.publish(1, due)
        self.assertEqual(list(published.ids), [2])
        self.assertEqual(list(published.refused), [name])
        self.assertTrue(published.refused[name])
        self.assertEqual(self.writer.remembered(), {2})
        self.streams.mend(Stream.JOB_RESULTS)
        self.assertEqual(list(self.writer.publish(1, due).ids), [1, 2, 3])
        self.assertEqual((self.numbers(), self.numbers(Stream.HEALTH_EVENTS)), (["1", "3"], ["2"]))

    def test_after_a_flush_messages_are_added_as_if_for_the_first_time(self) -> None:
        self.writer.publish(9, self.due(1))
        self.streams.flush()
        self.assertEqual(self.writer.remembered(), set())
        self.writer.publish(1, self.due(1))
        self.assertEqual(self.numbers(), ["1"])
