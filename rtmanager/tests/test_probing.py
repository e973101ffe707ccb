"""Every engine is probed once and within its time, and one engine never affects the result of another."""

from __future__ import annotations

import errno
import os
import resource
import selectors
import socket
import struct
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from rtmanager.adapters.probing import LONGEST_HEAD, RESOLVERS, EngineAnswer, EngineProbes
from rtmanager.ports.watching import ProbeTarget
from rtmanager.tests.operating import PATIENCE_S, wait_until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
#: Timeout of probes that get no answer; all others end sooner, within PATIENCE_S.
SHORT_S = 1.0
#: Seconds between two bytes of a server that drips.
DRIP_S = 0.01
LOOPBACK = "127.0.0.1"


class Engine:
    """A server on one thread: sends `answer` to a request (empty: it hangs), and waits until the client closes.

    Or it `closes` after the answer, `resets` instead of one, or `drips` a byte every `DRIP_S` without end.
    """

    def __init__(
        self,
        answer: bytes = b"",
        *,
        closes: bool = False,
        resets: bool = False,
        drips: bool = False,
        host: str = LOOPBACK,
    ) -> None:
        self.requests: list[bytes] = []
        self.accepted = 0
        self.most_open = 0
        self._answer, self._closes, self._resets, self._drips = answer, closes, resets, drips
        self._open: dict[socket.socket, bytes] = {}
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=1024)
        self.host, self.port = host, int(self._listener.getsockname()[1])
        self._listener.setblocking(False)
        self._ready = selectors.DefaultSelector()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self._open)

    def target(self, key: str = "g1") -> ProbeTarget:
        return ProbeTarget(key, self.host, self.port)

    def close(self) -> None:
        self._over.set()
        self._thread.join(PATIENCE_S)

    def _serve(self) -> None:
        self._ready.register(self._listener, selectors.EVENT_READ)
        while not self._over.is_set():
            self._ready.select(DRIP_S)
            self._accept()
            self._receive_all()
            if self._drips:
                for client in [client for client, received in self._open.items() if received]:
                    self._send(client, b"x")
        for client in list(self._open):
            self._leave(client)
        self._ready.close()
        self._listener.close()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return
        client.setblocking(False)
        # A connection that was closed before must not count beside the new one.
        self._receive_all()
        self._open[client] = b""
        self._ready.register(client, selectors.EVENT_READ)
        self.accepted += 1
        self.most_open = max(self.most_open, self.open)

    def _receive_all(self) -> None:
        for key, _ in self._ready.select(0):
            client = key.fileobj
            if client is not self._listener and isinstance(client, socket.socket):
                # Read to the end: the close may follow an unread request.
                while client in self._open:
                    try:
                        received = client.recv(65536)
                    except BlockingIOError:
                        break
                    except ConnectionError:
                        received = b""
                    if received:
                        self._receive(client, received)
                    else:
                        self._leave(client)

    def _receive(self, client: socket.socket, received: bytes) -> None:
        self._open[client] += received
        if not self._open[client].endswith(b"\r\n\r\n"):
            return
        self.requests.append(self._open[client])
        if self._resets:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self._send(client, self._answer)
        if self._closes or self._resets:
            self._leave(client)

    def _send(self, client: socket.socket, what: bytes) -> None:
        try:
            client.send(what)
        except ConnectionError:
            self._leave(client)

    def _leave(self, client: socket.socket) -> None:
        if self._open.pop(client, None) is not None:
            self._ready.unregister(client)
            client.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def free_port() -> int:
    """A port without a listener."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def only_descriptors(count: int) -> Iterator[None]:
    """Limit this process to so many more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hoard: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 16, hard))
    try:
        while True:
            try:
                hoard.append(os.open(os.devnull, os.O_RDONLY))
            except OSError as error:
                assert error.errno == errno.EMFILE
                break
        for _ in range(count):
            os.close(hoard.pop())
        yield
    finally:
        for descriptor in hoard:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class ProbingTest(unittest.TestCase):
    def engine(
        self,
        answer: bytes = b"",
        *,
        closes: bool = False,
        resets: bool = False,
        drips: bool = False,
        host: str = LOOPBACK,
    ) -> Engine:
        engine = Engine(answer, closes=closes, resets=resets, drips=drips, host=host)
        self.addCleanup(engine.close)
        return engine

    def probes(self, *, path: str = "/healthz", parallel: int | None = 500) -> EngineProbes:
        probes = EngineProbes(path=path, parallel=parallel)
        self.addCleanup(probes.close)
        return probes

    def answer_of(self, target: ProbeTarget, timeout_s: float = PATIENCE_S) -> EngineAnswer:
        return self.probes().probe([target], timeout_s)[target.key]


class AnswerTest(ProbingTest):
    def test_200_is_good_as_soon_as_the_head_is_complete(self) -> None:
        # The engine keeps the connection open: the probe does not wait for its end.
        answer = self.answer_of(self.engine(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").target())
        self.assertEqual(answer, EngineAnswer(200, ""))
        self.assertTrue(answer.good)

    def test_the_question_is_a_plain_get_that_ends_the_connection(self) -> None:
        engine = self.engine(OK)
        self.probes(path="/live").probe([engine.target()], PATIENCE_S)
        request_line, *headers = engine.requests[0].decode().split("\r\n")
        self.assertEqual(request_line, "GET /live HTTP/1.1")
        self.assertIn(f"Host: {LOOPBACK}:{engine.port}", headers)
        self.assertIn("Connection: close", headers)
        self.assertTrue(any(header.startswith("User-Agent: ") for header in headers))

    def test_any_other_status_is_a_failure_that_names_it(self) -> None:
        for status in (204, 404, 503):
            with self.subTest(status):
                answer = self.answer_of(self.engine(f"HTTP/1.1 {status} So\r\n\r\n".encode()).target())
                self.assertEqual(answer, EngineAnswer(status, f"status {status}"))
                self.assertFalse(answer.good)

    def test_a_redirect_is_not_followed(self) -> None:
        elsewhere = self.engine(OK)
        location = f"http://{LOOPBACK}:{elsewhere.port}/healthz"
        engine = self.engine(f"HTTP/1.1 301 Moved\r\nLocation: {location}\r\n\r\n".encode())
        self.assertEqual(self.answer_of(engine.target()), EngineAnswer(301, "status 301"))
        self.assertEqual(elsewhere.accepted, 0)

    def test_the_forms_of_a_good_head_that_are_rare_are_understood(self) -> None:
        for head in (
            b"HTTP/1.0 200\r\n\r\n",
            b"HTTP/1.1 200 OK\nServer: x\n\n",
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ):
            with self.subTest(head):
                self.assertEqual(self.answer_of(self.engine(head).target()), EngineAnswer(200, ""))

    def test_what_is_not_http_is_reported_at_once(self) -> None:
        for reply in (
            b"SSH-2.0-x",
            b"HTTP/2 200\r\n\r\n",
            b"HTTP/1.1 two hundred\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n",
            b"\n",
        ):
            with self.subTest(reply):
                self.assertEqual(self.answer_of(self.engine(reply).target()), EngineAnswer(None, "not an HTTP answer"))

    def test_a_head_is_read_up_to_its_limit(self) -> None:
        def head(length: int) -> bytes:
            begin, end = b"HTTP/1.1 200 OK\r\nX: ", b"\r\n\r\n"
            return begin + b"x" * (length - len(begin) - len(end)) + end

        self.assertTrue(self.answer_of(self.engine(head(LONGEST_HEAD)).target()).good)
        self.assertEqual(
            self.answer_of(self.engine(head(LONGEST_HEAD + 1)).target()),
            EngineAnswer(None, "the head of the answer is too long"),
        )

    def test_a_connection_that_ends_early_is_no_answer(self) -> None:
        for reply in (b"", b"HTTP/1.1 200 OK\r\nServer: x\r\n"):
            with self.subTest(reply):
                self.assertEqual(
                    self.answer_of(self.engine(reply, closes=True).target()),
                    EngineAnswer(None, "connection closed before the answer was complete"),
                )

    def test_a_reset_is_reported(self) -> None:
        self.assertEqual(
            self.answer_of(self.engine(resets=True).target()), EngineAnswer(None, "connection reset by peer")
        )

    def test_a_refused_connection_is_reported(self) -> None:
        self.assertEqual(
            self.answer_of(ProbeTarget("g1", LOOPBACK, free_port())), EngineAnswer(None, "connection refused")
        )

    def test_an_impossible_port_is_reported(self) -> None:
        self.assertEqual(
            self.answer_of(ProbeTarget("g1", LOOPBACK, 70000)), EngineAnswer(None, "there is no such port")
        )

    def test_a_proxy_of_the_environment_is_not_used(self) -> None:
        proxy, engine = self.engine(OK), self.engine(OK)
        url = f"http://{LOOPBACK}:{proxy.port}"
        with mock.patch.dict(os.environ, {"HTTP_PROXY": url, "http_proxy": url, "ALL_PROXY": url}):
            self.assertTrue(self.answer_of(engine.target()).good)
        self.assertEqual((proxy.accepted, engine.accepted), (0, 1))

    def test_an_ipv6_address_is_probed(self) -> None:
        try:
            engine = self.engine(OK, host="::1")
        except OSError as error:
            self.skipTest(f"no IPv6 here: {error}")
        self.assertTrue(self.answer_of(engine.target()).good)
        self.assertIn(f"\r\nHost: [::1]:{engine.port}\r\n".encode(), engine.requests[0])


class NameTest(ProbingTest):
    @contextmanager
    def resolving(self, resolve: Callable[..., object]) -> Iterator[None]:
        with mock.patch.object(socket, "getaddrinfo", resolve):
            yield

    def test_an_address_is_not_looked_up(self) -> None:
        getaddrinfo = mock.Mock(side_effect=AssertionError("looked up"))
        with self.resolving(getaddrinfo):
            self.assertTrue(self.answer_of(self.engine(OK).target()).good)
            self.answer_of(ProbeTarget("g1", "::1", free_port()))
        getaddrinfo.assert_not_called()

    def test_the_first_address_of_a_name_that_answers_counts(self) -> None:
        engine = self.engine(OK)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, engine.port)) for host in ("127.0.0.2", LOOPBACK)]
        with self.resolving(lambda *_args, **_kwargs: found):
            self.assertTrue(self.answer_of(ProbeTarget("g1", "engine", engine.port)).good)
        self.assertIn(f"\r\nHost: engine:{engine.port}\r\n".encode(), engine.requests[0])

    def test_a_name_that_is_not_known_is_reported(self) -> None:
        unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        with self.resolving(mock.Mock(side_effect=unknown)):
            answer = self.answer_of(ProbeTarget("g1", "nobody", 80))
        self.assertEqual(answer, EngineAnswer(None, "name cannot be resolved: Name or service not known"))

    def test_a_name_that_is_none_is_reported(self) -> None:
        for host in ("a..b", "a" * 70):
            with self.subTest(host):
                answer = self.answer_of(ProbeTarget("g1", host, 80))
                self.assertEqual(answer, EngineAnswer(None, "name cannot be resolved: not a valid name"))

    def test_a_lookup_that_hangs_holds_up_neither_the_others_nor_the_end(self) -> None:
        engine, found = self.engine(OK), threading.Event()
        self.addCleanup(found.set)
        with self.resolving(lambda *_args, **_kwargs: found.wait(PATIENCE_S) and []):
            answers = self.probes().probe([ProbeTarget("lost", "engine", 80), engine.target("found")], SHORT_S)
            self.assertFalse(found.is_set())
        self.assertEqual(answers["lost"], EngineAnswer(None, f"name not resolved within {SHORT_S:g} s"))
        self.assertTrue(answers["found"].good)


class TimeTest(ProbingTest):
    def test_an_engine_that_hangs_has_one_timeout(self) -> None:
        self.assertEqual(
            self.answer_of(self.engine().target(), SHORT_S), EngineAnswer(None, f"no answer within {SHORT_S:g} s")
        )

    def test_a_drip_gains_no_time(self) -> None:
        engine = self.engine(b"HTTP/1.1 200 OK\r\nX: ", drips=True)
        self.assertEqual(
            self.answer_of(engine.target(), SHORT_S), EngineAnswer(None, f"no answer within {SHORT_S:g} s")
        )
        self.assertEqual(len(engine.requests), 1)

    def probe_300_that_hang(self, parallel: int) -> tuple[Engine, float]:
        engine = self.engine()
        targets = [engine.target(f"g{number}") for number in range(300)]
        begin = time.monotonic()
        answers = self.probes(parallel=parallel).probe(targets, 2.0)
        took_s = time.monotonic() - begin
        self.assertEqual(answers, dict.fromkeys((t.key for t in targets), EngineAnswer(None, "no answer within 2 s")))
        wait_until(lambda: engine.accepted == 300 and engine.open == 0)
        return engine, took_s

    def test_all_that_hang_are_waited_for_together(self) -> None:
        engine, took_s = self.probe_300_that_hang(parallel=300)
        self.assertEqual(engine.most_open, 300)
        self.assertGreaterEqual(took_s, 2.0)

    def test_only_so_many_are_probed_at_once_and_waiting_for_a_turn_takes_nobodys_time(self) -> None:
        engine, took_s = self.probe_300_that_hang(parallel=150)
        self.assertEqual(engine.most_open, 150)
        # The second half had its own full timeout.
        self.assertGreaterEqual(took_s, 4.0)

    def test_one_that_hangs_takes_one_turn_and_the_rest_pass(self) -> None:
        silent, engine = self.engine(), self.engine(OK)
        targets = [silent.target("silent"), *(engine.target(f"g{number}") for number in range(50))]
        answers = self.probes(parallel=2).probe(targets, 1.0)
        self.assertEqual([key for key, answer in answers.items() if not answer.good], ["silent"])
        self.assertEqual(engine.most_open, 1)

    def test_nobody_to_probe_takes_no_time(self) -> None:
        self.assertEqual(self.probes().probe([], PATIENCE_S), {})


class InterruptTest(ProbingTest):
    def test_an_interrupted_probe_returns_what_it_has(self) -> None:
        silent, engine, probes = self.engine(), self.engine(OK), self.probes(parallel=2)
        targets = [engine.target("good"), silent.target("silent"), silent.target("asked"), silent.target("waits")]
        answers: dict[str, EngineAnswer] = {}
        probing = threading.Thread(target=lambda: answers.update(probes.probe(targets, 60.0)))
        probing.start()
        wait_until(lambda: len(silent.requests) == 2)
        probes.interrupt()
        probing.join(PATIENCE_S)
        self.assertFalse(probing.is_alive())
        self.assertEqual(answers, {"good": EngineAnswer(200, "")})
        wait_until(lambda: silent.open == 0)
        self.assertEqual(silent.accepted, 2)

    def test_an_interruption_does_not_reach_the_next_probe(self) -> None:
        engine, probes = self.engine(OK), self.probes()
        probes.interrupt()
        self.assertTrue(probes.probe([engine.target()], PATIENCE_S)["g1"].good)
        probes.interrupt()
        self.assertTrue(probes.probe([engine.target()], PATIENCE_S)["g1"].good)

    def test_an_interruption_after_the_end_does_nothing(self) -> None:
        probes = EngineProbes()
        probes.close()
        probes.interrupt()


class DescriptorTest(ProbingTest):
    def test_whom_no_descriptor_was_left_for_is_missing(self) -> None:
        probes = self.probes(parallel=5)
        # The listener accepts nothing: that would take a descriptor, too.
        with socket.create_server((LOOPBACK, 0)) as listener:
            targets = [ProbeTarget(f"g{number}", LOOPBACK, listener.getsockname()[1]) for number in range(5)]
            with only_descriptors(2):
                answers = probes.probe(targets, SHORT_S)
        self.assertEqual(answers, dict.fromkeys(("g0", "g1"), EngineAnswer(None, f"no answer within {SHORT_S:g} s")))

    def test_without_any_descriptor_nobody_is_blamed(self) -> None:
        probes = self.probes(parallel=None)
        targets = [ProbeTarget("address", LOOPBACK, 80), ProbeTarget("name", "engine", 80)]
        unknown = mock.Mock(side_effect=socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
        with mock.patch.object(socket, "getaddrinfo", unknown), only_descriptors(0):
            self.assertEqual(probes.probe(targets, 0.01), {})

    def test_those_who_wait_for_a_turn_are_not_given_up_with_whom_no_descriptor_was_left_for(self) -> None:
        probes = self.probes(parallel=2)
        with socket.create_server((LOOPBACK, 0)) as listener:
            targets = [ProbeTarget(key, LOOPBACK, listener.getsockname()[1]) for key in ("asked", "lacks", "later")]
            with only_descriptors(1):
                answers = probes.probe(targets, SHORT_S)
        self.assertEqual(sorted(answers), ["asked", "later"])

    def test_by_default_half_of_what_the_limit_leaves_is_used(self) -> None:
        engine, probes = self.engine(), self.probes(parallel=None)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        before = descriptors()
        # The engine's ends also belong to this process.
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + 61, hard))
        probes.probe([engine.target(f"g{number}") for number in range(40)], 1.0)
        self.assertEqual(engine.most_open, 30)

    def test_probes_leave_nothing_open(self) -> None:
        silent, engine, probes = self.engine(), self.engine(OK), self.probes(parallel=20)
        targets = [
            *(engine.target(f"good-{number}") for number in range(40)),
            *(silent.target(f"silent-{number}") for number in range(10)),
            ProbeTarget("refused", LOOPBACK, free_port()),
            ProbeTarget("name", "localhost", engine.port),
        ]
        before, threads = descriptors(), set(threading.enumerate())
        for _ in range(10):
            self.assertEqual(len(probes.probe(targets, 0.2)), len(targets))
        wait_until(lambda: engine.open + silent.open == 0)
        self.assertEqual(descriptors(), before)
        # The resolver's threads stay, and their number is bounded.
        names = [thread for thread in threading.enumerate() if thread not in threads]
        self.assertTrue(all(thread.name.startswith("rtm-probe-names") for thread in names))
        self.assertLessEqual(len(names), RESOLVERS)

    def test_the_end_gives_back_the_loop(self) -> None:
        before = descriptors()
        EngineProbes().close()
        self.assertEqual(descriptors(), before)

    def test_probes_that_are_dropped_give_back_theirs(self) -> None:
        before = descriptors()
        EngineProbes().probe([self.engine(OK).target()], PATIENCE_S)
        self.doCleanups()
        self.assertEqual(descriptors(), before)


class DefectTest(ProbingTest):
    def test_a_defect_is_not_taken_for_an_engines_fault(self) -> None:
        engine = self.engine(OK)
        broken = mock.patch("rtmanager.adapters.probing._answer_in", side_effect=ZeroDivisionError)
        with broken, self.assertRaises(ZeroDivisionError):
            self.answer_of(engine.target())


if __name__ == "__main__":
    unittest.main()
