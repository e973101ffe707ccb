"""Logging never waits and never fails, whatever the reader does; lost lines are counted where they are missing."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import threading
import unittest
from unittest import mock

from rtmanager import log_writer
from rtmanager.log_writer import DescriptorSink, LineWriter, Sink, StreamSink, sink_of
from rtmanager.tests.operating import PATIENCE_S, wait_until


def gap(lines: int) -> bytes:
    return b"lost %d\n" % lines


class ScriptedSink:
    """Accepts as many bytes of each write as the script defines, and all after its end."""

    def __init__(self, *script: int) -> None:
        self.script = list(script)
        self.written = b""

    def write(self, data: bytes, _until: float) -> int:
        taken = min(len(data), self.script.pop(0)) if self.script else len(data)
        self.written += data[:taken]
        return taken


class GatedSink:
    """Accepts nothing until its gate opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.written = b""

    def write(self, data: bytes, _until: float) -> int:
        self.entered.set()
        self.gate.wait(PATIENCE_S)
        self.written += data
        return len(data)


class LineWriterTest(unittest.TestCase):
    def writer(self, sink: Sink, **how: int) -> LineWriter:
        return LineWriter(sink, gap, **how)

    def flush(self, writer: LineWriter) -> None:
        self.assertTrue(writer.flush(PATIENCE_S))

    def test_lines_come_in_the_order_in_which_they_were_put(self) -> None:
        sink = ScriptedSink()
        writer = self.writer(sink)
        lines = [b"%d\n" % number for number in range(5000)]
        for line in lines:
            writer.put(line)
        self.flush(writer)
        self.assertEqual(sink.written, b"".join(lines))

    def test_of_many_threads_no_line_is_lost_and_none_is_torn(self) -> None:
        sink = ScriptedSink()
        writer = self.writer(sink)

        def put(name: int) -> None:
            for number in range(500):
                writer.put(b"%d %d\n" % (name, number))

        threads = [threading.Thread(target=put, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.flush(writer)
        found = [tuple(map(int, line.split())) for line in sink.written.splitlines()]
        for name in range(8):
            self.assertEqual([number for who, number in found if who == name], list(range(500)))

    def test_what_does_not_fit_is_dropped_and_reported_where_it_is_missing(self) -> None:
        sink = GatedSink()
        writer = self.writer(sink, most_bytes=500)
        writer.put(b"first\n")
        self.assertTrue(sink.entered.wait(PATIENCE_S))
        for number in range(20):
            writer.put(b"%d\n" % number)
        self.assertEqual(writer.dropped, 14)
        sink.gate.set()
        self.flush(writer)
        writer.put(b"later\n")
        self.flush(writer)
        self.assertEqual(sink.written, b"first\n0\n1\n2\n3\n4\n5\nlost 14\nlater\n")

    def test_a_reader_that_is_gone_costs_lines_and_is_reported_when_there_is_one_again(self) -> None:
        sink = ScriptedSink(0, 0, 0)
        writer = self.writer(sink)
        for line in (b"one\n", b"two\n", b"three\n"):
            writer.put(line)
            self.flush(writer)
        self.assertEqual((writer.dropped, sink.written), (3, b""))
        writer.put(b"four\n")
        self.flush(writer)
        self.assertEqual(sink.written, b"lost 3\nfour\n")
        writer.put(b"five\n")
        self.flush(writer)
        self.assertEqual((writer.dropped, sink.written), (3, b"lost 3\nfour\nfive\n"))

    def test_a_line_that_a_full_disk_tore_stays_on_a_line_of_its_own(self) -> None:
        sink = ScriptedSink(3)
        writer = self.writer(sink)
        writer.put(b"torn line\n")
        self.flush(writer)
        writer.put(b"whole\n")
        self.flush(writer)
        self.assertEqual(sink.written, b"tor\nlost 1\nwhole\n")

    def test_the_line_about_the_lost_ones_is_reported_again_when_it_was_lost_itself(self) -> None:
        sink = ScriptedSink(0, 4, 0)
        writer = self.writer(sink)
        for line in (b"one\n", b"two\n", b"three\n", b"four\n"):
            writer.put(line)
            self.flush(writer)
        self.assertEqual(sink.written, b"lost\nlost 3\nfour\n")

    def test_a_flush_ends_at_its_deadline_and_the_next_one_does_not_wait_again(self) -> None:
        sink = GatedSink()
        writer = self.writer(sink)
        writer.put(b"x\n")
        self.assertFalse(writer.flush(0.05))
        with mock.patch.object(log_writer, "monotonic", side_effect=[0.0]):
            self.assertFalse(writer.flush(3600.0))
        sink.gate.set()
        wait_until(lambda: writer.flush(PATIENCE_S))

    def test_a_line_put_while_a_line_is_put_on_the_same_thread_is_no_deadlock(self) -> None:
        sink = ScriptedSink()
        writer = self.writer(sink)

        class Line(bytes):
            def __len__(self) -> int:  # as a destructor that runs during the call and logs
                if not inner:
                    inner.append(1)
                    writer.put(b"inner\n")
                return super().__len__()

        inner: list[int] = []
        writer.put(Line(b"outer\n"))
        self.flush(writer)
        self.assertEqual(sorted(sink.written.splitlines()), [b"inner", b"outer"])

    def test_without_a_thread_lines_wait_and_a_flush_writes_them(self) -> None:
        sink = ScriptedSink()
        writer = self.writer(sink)
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            writer.put(b"one\n")
            writer.put(b"two\n")
            self.flush(writer)
        self.assertEqual(sink.written, b"one\ntwo\n")


class SinkTest(unittest.TestCase):
    def pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        for end in ends:
            self.addCleanup(self.close, end)
        return ends

    @staticmethod
    def close(descriptor: int) -> None:
        try:
            os.close(descriptor)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise

    def assert_lost(self, descriptor: int) -> None:
        self.assertEqual(DescriptorSink(descriptor).write(b"x" * 100, float("inf")), 0)

    def test_a_pipe_whose_reader_is_gone_takes_nothing_and_raises_nothing(self) -> None:
        reader, writer = self.pipe()
        os.close(reader)
        self.assert_lost(writer)

    def test_a_closed_descriptor_takes_nothing_and_raises_nothing(self) -> None:
        _, writer = self.pipe()
        os.close(writer)
        self.assert_lost(writer)

    def test_a_full_disk_takes_nothing_and_raises_nothing(self) -> None:
        with open("/dev/full", "wb") as full:
            self.assert_lost(full.fileno())

    def test_a_pipe_that_does_not_block_is_waited_for_and_not_an_error(self) -> None:
        reader, writer = self.pipe()
        fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
        data = bytes(range(256)) * 1000
        read: list[bytes] = []

        def drain() -> None:
            while sum(map(len, read)) < len(data):
                read.append(os.read(reader, 1000))

        thread = threading.Thread(target=drain)
        thread.start()
        self.assertEqual(DescriptorSink(writer).write(data, float("inf")), len(data))
        thread.join(PATIENCE_S)
        self.assertEqual(b"".join(read), data)

    def test_a_full_pipe_that_does_not_block_is_left_at_the_deadline(self) -> None:
        _, writer = self.pipe()
        fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
        taken = DescriptorSink(writer).write(bytes(1 << 20), 0.0)
        self.assertGreater(taken, 0)
        self.assertLess(taken, 1 << 20)

    def test_without_a_thread_a_full_pipe_is_not_written_to(self) -> None:
        _, writer = self.pipe()
        fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
        DescriptorSink(writer).write(bytes(1 << 20), 0.0)
        fcntl.fcntl(writer, fcntl.F_SETFL, 0)
        lines = LineWriter(DescriptorSink(writer), gap)
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            lines.put(b"x\n")
            self.assertFalse(lines.flush(0.05))

    def test_a_pipe_that_nobody_reads_holds_up_nobody_who_logs(self) -> None:
        reader, writer = self.pipe()
        lines = LineWriter(DescriptorSink(writer), gap, most_bytes=1 << 20)
        for number in range(20_000):
            lines.put(b"%0199d\n" % number)
        self.assertFalse(lines.flush(0.01))
        self.assertGreater(lines.dropped, 10_000)
        read, lost = b"", 0
        kept: list[int] = []
        # A late writer removes a batch and makes room again, so lines may also be missing in the middle.
        while len(kept) + lost < 20_000:
            read += os.read(reader, 1 << 16)
            whole = read[: read.rfind(b"\n") + 1].splitlines()
            kept = [int(line) for line in whole if not line.startswith(b"lost")]
            lost = sum(int(line.split()[1]) for line in whole if line.startswith(b"lost"))
        self.assertEqual(kept, sorted(set(kept)))
        self.assertEqual(len(kept) + lost, 20_000)
        self.assertTrue(lines.flush(PATIENCE_S))

    def test_a_stream_that_is_closed_takes_nothing_and_raises_nothing(self) -> None:
        stream = io.StringIO()
        sink = sink_of(stream)
        self.assertIsInstance(sink, StreamSink)
        stream.close()
        self.assertEqual(sink.write(b"x", 0.0), 0)
        self.assertIsInstance(sink_of(stream), StreamSink)
