"""Docker's events: each arrives once and at once, none is lost between two streams, a lost line is detected."""

from __future__ import annotations

import json
import time
import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from unittest import mock

from rtmanager.adapters.docker import Deadlines, events, skim
from rtmanager.adapters.docker.events import DockerEvents
from rtmanager.domain.errors import DependencyError, FinalAnswer, TemporaryAnswer, Unavailable
from rtmanager.ports.watching import ContainerEvent, ContainerEventKind, UnreadableEvent
from rtmanager.tests.fake_daemon import AT_ONCE_S, Exchange, FakeDaemon, Feed, until

EVENTS, PING = "GET /events", "GET /_ping"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
NOW_NS = NOW_S * 10**9
SHORT_S, PATIENT_S = 0.2, 10.0


def line(action: str = "die", time_ns: int = NOW_NS, **changes: Any) -> bytes:
    """An event as Docker writes it; `attributes` adds to those of the container."""
    attributes = {"com.galaxy.game_id": "g1", "image": "galaxy/game:1.0.0", **changes.pop("attributes", {})}
    values: dict[str, Any] = {
        "Type": "container",
        "Action": action,
        "Actor": {"ID": "c1", "Attributes": attributes},
        "time": time_ns // 10**9,
        "timeNano": time_ns,
    }
    return json.dumps(values | changes).encode() + b"\n"


def died(time_ns: int = NOW_NS) -> ContainerEvent:
    """The decoded form of such an event."""
    return ContainerEvent(ContainerEventKind.DIE, "g1", "c1", time_ns)


class DockerEventsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)
        self.daemon.date = NOW
        self.daemon.answers[PING] = partial(Exchange.reply, status=200, body="OK")
        self.daemon.answers[EVENTS] = self.serve
        self.daemon.start()
        self.streams: list[Feed] = []
        self.feed = self.make()

    def make(self, window_s: float = PATIENT_S, ping_s: float = PATIENT_S) -> DockerEvents:
        feed = DockerEvents(self.daemon.host, window_s=window_s, deadlines=Deadlines(ping_s=ping_s))
        self.addCleanup(feed.interrupt)
        return feed

    def serve(self, exchange: Exchange) -> None:
        stream = Feed()
        self.addCleanup(stream.end)
        self.streams.append(stream)
        stream.serve(exchange)

    def connected(self) -> Feed:
        """Connect, and return the stream that this opens."""
        self.feed.connect()
        return self.streams[-1]

    def received_slowly(self, stream: Feed) -> list[ContainerEvent | UnreadableEvent]:
        """All items from a stream that has ended, read more slowly than its lines arrive."""
        until(lambda: stream.taken)
        found = []
        with self.assertRaises(Unavailable):
            for event in self.feed.listen():
                found.append(event)
                time.sleep(0.001)
        return found

    def event_queries(self) -> list[dict[str, str]]:
        """The query of each request for events."""
        return [
            query for request, query in zip(self.daemon.requests, self.daemon.queries, strict=True) if request == EVENTS
        ]

    def since(self) -> str:
        """The start time in the last request for events."""
        return self.event_queries()[-1]["since"]

    def received(self, *lines: bytes) -> list[ContainerEvent]:
        """The events from a stream of these lines, all of which must be readable."""
        found = self.items(*lines)
        events = [event for event in found if isinstance(event, ContainerEvent)]
        self.assertEqual(events, found)
        return events

    def items(self, *lines: bytes) -> list[ContainerEvent | UnreadableEvent]:
        """All items from a stream of these lines."""
        stream = self.connected()
        for each in lines:
            stream.send(each)
        stream.end()
        found: list[ContainerEvent | UnreadableEvent] = []
        with self.assertRaises(Unavailable):
            found.extend(self.feed.listen())
        return found

    # ── the requests ──

    def test_it_requests_what_matters_about_our_containers_from_a_moment_before_now_by_the_daemons_clock(self) -> None:
        self.feed.connect()
        (query,) = self.event_queries()
        self.assertEqual(
            json.loads(query["filters"]),
            {
                "type": ["container"],
                "event": ["destroy", "die", "kill", "oom"],
                "label": ["com.galaxy.owner=rtmanager", "com.galaxy.kind=game-engine"],
            },
        )
        self.assertEqual(query["since"], f"{NOW_S - 1}.000000000")

    def test_listening_without_a_connection_is_a_mistake(self) -> None:
        with self.assertRaises(RuntimeError):
            next(self.feed.listen())

    # ── the events ──

    def test_an_event_is_received_at_once(self) -> None:
        stream = self.connected()
        listening = self.feed.listen()
        for number in range(3):
            began = time.monotonic()
            stream.send(line(time_ns=NOW_NS + number))
            self.assertEqual(next(listening), died(NOW_NS + number))
            self.assertLess(time.monotonic() - began, AT_ONCE_S)

    def test_a_burst_is_taken_while_an_event_is_seen_to(self) -> None:
        many = 3000  # more than the sockets of both ends hold
        stream = self.connected()
        listening = self.feed.listen()
        stream.send(line())
        self.assertEqual(next(listening), died())
        for number in range(1, many):
            stream.send(line(time_ns=NOW_NS + number))
        until(lambda: stream.taken)
        self.assertEqual([next(listening) for _ in range(1, many)], [died(NOW_NS + each) for each in range(1, many)])

    def test_a_listening_that_is_given_up_ends_at_once(self) -> None:
        stream = self.connected()
        listening = self.feed.listen()
        stream.send(line())
        self.assertEqual(next(listening), died())
        began = time.monotonic()
        listening.close()  # type: ignore[attr-defined]  # a generator
        self.assertLess(time.monotonic() - began, AT_ONCE_S)
        self.feed.connect()

    def test_an_event_that_comes_in_two_pieces_is_one(self) -> None:
        stream = self.connected()
        whole = line()
        stream.send(whole[:40])
        stream.send(whole[40:])
        self.assertEqual(next(self.feed.listen()), died())

    def test_events_that_come_in_one_piece_are_all_received(self) -> None:
        self.assertEqual(self.received(line() + line(time_ns=NOW_NS + 1)), [died(), died(NOW_NS + 1)])

    def test_a_kill_carries_its_signal_and_a_death_no_exit_code(self) -> None:
        found = self.received(
            line("kill", attributes={"signal": "15"}),
            line("oom"),
            line("die", attributes={"exitCode": "137"}),
            line("destroy"),
        )
        self.assertEqual(
            [(event.what, event.signal) for event in found],
            [
                (ContainerEventKind.KILL, "15"),
                (ContainerEventKind.OOM, ""),
                (ContainerEventKind.DIE, ""),
                (ContainerEventKind.DESTROY, ""),
            ],
        )

    def test_what_is_not_about_a_game_is_passed_over(self) -> None:
        others = (
            line(Type="network", Action="destroy"),
            line(attributes={"com.galaxy.game_id": ""}),
            line(Actor={"ID": "c1", "Attributes": None}),
            line("start"),
            line("exec_die: ls"),
            line("health_status: healthy"),
            b"\n",
        )
        self.assertEqual(self.received(*others, line()), [died()])

    def test_the_time_of_an_old_daemon_has_whole_seconds(self) -> None:
        self.assertEqual(self.received(line(timeNano=None)), [died()])

    # ── from one stream to the next ──

    def test_the_end_of_the_window_is_no_error_and_the_next_stream_begins_where_this_one_was(self) -> None:
        self.feed = self.make(SHORT_S)
        self.daemon.date = NOW + timedelta(seconds=5)
        self.feed.connect()
        self.daemon.date = NOW + timedelta(seconds=9)
        self.assertEqual(list(self.feed.listen()), [])
        self.feed.connect()
        self.assertEqual(self.since(), f"{NOW_S + 5}.000000000")

    def test_what_was_received_is_not_passed_on_again_and_what_comes_between_two_streams_is_not_missed(self) -> None:
        self.feed = self.make(SHORT_S)
        first, second, third = (died(NOW_NS + number) for number in range(3))
        stream = self.connected()
        stream.send(line(time_ns=first.time_ns) + line(time_ns=second.time_ns))
        self.assertEqual(list(self.feed.listen()), [first, second])
        stream = self.connected()
        self.assertEqual(self.since(), f"{NOW_S}.000000001")
        stream.send(line(time_ns=second.time_ns) + line(time_ns=third.time_ns))
        self.assertEqual(list(self.feed.listen()), [third])

    def test_an_event_of_which_half_came_before_the_windows_end_is_received_from_the_next_stream(self) -> None:
        self.feed = self.make(SHORT_S)
        stream = self.connected()
        stream.send(line(time_ns=NOW_NS + 1) + line(time_ns=NOW_NS + 7)[:40])
        self.assertEqual(list(self.feed.listen()), [died(NOW_NS + 1)])
        stream = self.connected()
        self.assertEqual(self.since(), f"{NOW_S}.000000001")
        stream.send(line(time_ns=NOW_NS + 1) + line(time_ns=NOW_NS + 7))
        self.assertEqual(list(self.feed.listen()), [died(NOW_NS + 7)])

    def test_the_window_ends_though_events_come_all_the_time(self) -> None:
        def endless(exchange: Exchange) -> None:
            def lines() -> Iterator[bytes]:
                number = 0
                while not exchange.server.daemon_is_closed.wait(0.01):
                    number += 1
                    yield line(time_ns=NOW_NS + number)

            exchange.chunks(lines())

        self.daemon.answers[EVENTS] = endless
        self.feed = self.make(SHORT_S)
        self.feed.connect()
        began = time.monotonic()
        self.assertGreater(len(list(self.feed.listen())), 1)
        self.assertLess(time.monotonic() - began, AT_ONCE_S)

    def test_a_daemon_whose_clock_was_set_back_is_listened_to_by_its_new_clock(self) -> None:
        self.feed = self.make(SHORT_S)
        for hours in (0, -1, -1):
            self.daemon.date = NOW + timedelta(hours=hours)
            self.feed.connect()
            self.assertEqual(list(self.feed.listen()), [])
        self.assertEqual(self.since(), f"{NOW_S - 3600}.000000000")

    def test_an_event_is_forgotten_after_enough_others(self) -> None:
        first, second, third = (line(time_ns=NOW_NS + number) for number in range(3))
        with mock.patch.object(events, "REMEMBERED", 2):
            found = self.received(first, second, third, third, first)
        self.assertEqual([event.time_ns - NOW_NS for event in found], [0, 1, 2, 0])

    # ── a broken stream ──

    def test_a_stream_that_ends_or_is_cut_is_unavailable_and_the_next_one_goes_on_from_the_last_event(self) -> None:
        ends: tuple[Callable[[], None], ...] = (
            lambda: self.streams[-1].end(),
            lambda: self.streams[-1].cut(),
            self.daemon.stop,
        )
        for number, end in enumerate(ends):
            stream = self.connected()
            listening = self.feed.listen()
            stream.send(line(time_ns=NOW_NS + number))
            self.assertEqual(next(listening), died(NOW_NS + number))
            end()
            with self.assertRaisesRegex(Unavailable, "its events (ended|broke off)"):
                next(listening)
        self.daemon.start()
        stream = self.connected()
        self.assertEqual(self.since(), f"{NOW_S}.000000002")
        stream.send(line(time_ns=NOW_NS + 2) + line(time_ns=NOW_NS + 3))
        self.assertEqual(next(self.feed.listen()), died(NOW_NS + 3))

    def test_what_cannot_be_read_is_reported_as_that_and_ends_nothing(self) -> None:
        bad = (
            b"<html>\n",
            b'{"Type":"container"\n',
            b"[1]\n",
            b"null\n",
            b"17\n",
            b'"die"\n',
            b"{}\n",
            b"[" * 100_000 + b"\n",
            b'{"Type": "container", "Action": 1e400}\n',
            b"\xff\xfe\n",
            line(Actor=None),
            line(Actor=["c1"]),
            line(Actor={"ID": "", "Attributes": {"com.galaxy.game_id": "g1"}}),
            line(Actor={"ID": "../c1", "Attributes": {"com.galaxy.game_id": "g1"}}),
            line(Action=None),
        )
        found = self.items(*bad, line())
        self.assertEqual([type(each) for each in found], [UnreadableEvent] * len(bad) + [ContainerEvent])
        self.assertLess(max(len(each.why) for each in found if isinstance(each, UnreadableEvent)), 200)

    def test_a_line_without_an_end_is_given_up_and_what_follows_it_is_received(self) -> None:
        with mock.patch.object(skim, "LONGEST_REDUCED", 1 << 17):
            endless = (b"1," * 50_000 for _ in range(10))
            found = self.items(*endless, b"\n", line())
        self.assertEqual([type(each) for each in found], [UnreadableEvent, ContainerEvent])

    def test_an_event_with_megabytes_of_labels_is_an_event(self) -> None:
        labels = {f"label-{number}": "x" * 1000 for number in range(3000)} | {"one": "\\" * 1_000_000}
        self.assertEqual(self.received(line(attributes=labels), line(time_ns=NOW_NS + 1)), [died(), died(NOW_NS + 1)])

    def test_events_that_come_faster_than_they_are_handled_are_reported_as_lost(self) -> None:
        with mock.patch.object(events, "MOST_WAITING", 1000):
            stream = self.connected()
            for number in range(100):
                stream.send(line(time_ns=NOW_NS + number + 1))
            stream.end()
            found = self.received_slowly(stream)
        self.assertIn(UnreadableEvent, [type(each) for each in found])
        self.assertIn(died(NOW_NS + 1), found)

    def test_lines_of_hardly_any_bytes_are_bounded_by_their_number(self) -> None:
        with mock.patch.object(events, "MOST_WAITING", 10_000):
            stream = self.connected()
            stream.send(b"[]\n" * 10_000 + line())
            stream.end()
            found = self.received_slowly(stream)
        self.assertLess(len(found), 1000)

    def test_labels_with_dockers_own_names_mean_nothing(self) -> None:
        labels = {"exitCode": "²", "signal": "28", "name": "x", "image": "y", "execID": "z"}
        (kill, death) = self.received(line("kill", attributes=labels), line("die", attributes=labels))
        self.assertEqual((kill.signal, kill.signal_is_label), ("28", False))
        self.assertEqual((death.signal, death.signal_is_label), ("", True))

    def test_an_event_has_the_deployment_of_its_container(self) -> None:
        (labelled, other) = self.received(line(attributes={"com.galaxy.deployment": "deployment-2"}), line("oom"))
        self.assertEqual((labelled.deployment, other.deployment), ("deployment-2", ""))

    def test_two_events_of_an_old_daemon_in_one_second_are_two(self) -> None:
        self.assertEqual(self.received(line(timeNano=None), line(timeNano=None)), [died(), died()])

    def test_an_event_whose_time_cannot_be_is_received_and_moves_nothing(self) -> None:
        self.feed = self.make(SHORT_S)
        for time_ns in (2**62, -5, 1e400, "now", None, True, 10**30):
            stream = self.connected()
            stream.send(line(timeNano=time_ns, time=time_ns if time_ns != 2**62 else 5))
            self.assertEqual(len(list(self.feed.listen())), 1, time_ns)
            self.feed.connect()
            self.assertEqual(self.since(), f"{NOW_S}.000000000")
            list(self.feed.listen())

    def test_an_engine_that_does_not_answer_is_unavailable(self) -> None:
        self.feed = self.make(ping_s=SHORT_S)
        self.enterContext(mock.patch.object(events, "FIRST_WINDOW_S", SHORT_S / 10))
        for request in (PING, EVENTS):
            for silence in (Exchange.hang, Exchange.drop):
                with self.subTest(request), mock.patch.dict(self.daemon.answers, {request: silence}):
                    began = time.monotonic()
                    with self.assertRaises(Unavailable) as caught:
                        self.feed.connect()
                    self.assertEqual(caught.exception.dependency, "docker")
                    if silence is Exchange.hang:
                        self.assertIn(f"nothing within {SHORT_S:g} s", str(caught.exception))
                    self.assertLess(time.monotonic() - began, AT_ONCE_S)
            self.feed.connect()
        self.daemon.stop()
        with self.assertRaisesRegex(Unavailable, "No such file or directory"):
            self.feed.connect()

    def test_a_refusal_of_an_engine_is_final_or_temporary_with_its_text(self) -> None:
        kinds = {400: FinalAnswer, 403: FinalAnswer, 404: FinalAnswer, 500: FinalAnswer, 503: TemporaryAnswer}
        for request in (PING, EVENTS):
            for status, kind in kinds.items():
                refuse = partial(Exchange.refuse, status=status, message="some text")
                with (
                    self.subTest(request, status=status),
                    mock.patch.dict(self.daemon.answers, {request: refuse}),
                    self.assertRaisesRegex(DependencyError, "some text") as caught,
                ):
                    self.feed.connect()
                self.assertIs(type(caught.exception), kind)
                if kind is FinalAnswer:
                    self.assertIn(request, str(caught.exception))

    def test_a_proxy_that_does_not_pass_the_events_is_no_silence(self) -> None:
        for status, kind in {401: FinalAnswer, 403: FinalAnswer, 404: TemporaryAnswer}.items():
            refuse = partial(Exchange.reply_raw, status=status, content=b"<html><h1>Forbidden</h1></html>")
            with (
                self.subTest(status=status),
                mock.patch.dict(self.daemon.answers, {EVENTS: refuse}),
                self.assertRaises(DependencyError) as caught,
            ):
                self.feed.connect()
            self.assertIs(type(caught.exception), kind)
            if kind is FinalAnswer:
                self.assertIn("let the proxy", str(caught.exception))

    def test_a_refusal_that_breaks_off_is_unavailable_too(self) -> None:
        def half(exchange: Exchange) -> None:
            exchange.send_response(500)
            exchange.send_header("Content-Length", "100")
            exchange.end_headers()
            exchange.wfile.write(b"some text")
            exchange.close_connection = True

        self.daemon.answers[EVENTS] = half
        with self.assertRaises(Unavailable):
            self.feed.connect()

    def test_an_answer_without_a_date_cannot_be_read(self) -> None:
        for request in (PING, EVENTS):
            with (
                self.subTest(request),
                mock.patch.object(Exchange, "date_time_string", return_value=""),
                self.assertRaisesRegex(TemporaryAnswer, f"{request.split('/')[1]} has no date"),
            ):
                self.feed.connect()
            self.feed._since_ns = NOW_NS

    def test_the_first_stream_after_a_failure_is_a_short_one(self) -> None:
        self.connected().end()
        with self.assertRaises(Unavailable):
            list(self.feed.listen())
        began = time.monotonic()
        with mock.patch.object(events, "FIRST_WINDOW_S", SHORT_S):
            self.feed.connect()
            self.assertEqual(list(self.feed.listen()), [])
        self.assertLess(time.monotonic() - began, PATIENT_S)
        self.assertFalse(self.feed._failed)

    def test_events_of_another_engine_with_an_older_version_are_received(self) -> None:
        self.feed.connect()
        self.daemon.api_version = "1.40"
        self.daemon.answers[EVENTS] = lambda x: x.refuse(400, "client version 1.41 is too new")
        with self.assertRaisesRegex(Unavailable, "too new"):
            self.feed.connect()
        self.daemon.answers[EVENTS] = self.serve
        self.feed.connect()
        self.assertEqual(self.daemon.versions[-1], "v1.40")

    # ── the end ──

    def collect(self, received: list[ContainerEvent]) -> None:
        for event in self.feed.listen():
            assert isinstance(event, ContainerEvent)
            received.append(event)

    def test_an_interruption_ends_a_listening_on_another_thread_at_once_and_without_an_error(self) -> None:
        stream = self.connected()
        received: list[ContainerEvent] = []
        with ThreadPoolExecutor(1) as thread:
            listening = thread.submit(self.collect, received)
            stream.send(line())
            until(lambda: bool(received) or listening.done())
            began = time.monotonic()
            self.feed.interrupt()
            listening.result(PATIENT_S)
        self.assertLess(time.monotonic() - began, AT_ONCE_S)
        self.assertEqual(received, [died()])

    def test_an_interruption_between_connecting_and_listening_counts(self) -> None:
        self.feed.connect()
        self.feed.interrupt()
        self.assertEqual(list(self.feed.listen()), [])

    def test_after_an_interruption_nothing_is_requested_any_more(self) -> None:
        self.feed.interrupt()
        with self.assertRaises(Unavailable):
            self.feed.connect()
        self.assertEqual(self.daemon.requests, [])
