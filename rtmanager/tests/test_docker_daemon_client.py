"""An absent, slow, broken or stopping daemon is `Unavailable`, within the deadline and with a remedy."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from unittest import mock

from docker.constants import DEFAULT_DOCKER_API_VERSION

from rtmanager.adapters.docker import Deadlines, DockerRuntime
from rtmanager.adapters.docker.sockets import DeadlineSocket
from rtmanager.adapters.docker.versions import NEWEST
from rtmanager.domain.errors import DependencyError, FinalAnswer, InvalidValue, TemporaryAnswer, Unavailable
from rtmanager.ports.runtime import ContainerNotFound
from rtmanager.tests.fake_daemon import AT_ONCE_S, Exchange, FakeDaemon, until

QUICK = Deadlines(ping_s=1.0, query_s=1.0, list_s=1.0)
LIST = "GET /containers/json"


def _nothing(exchange: Exchange) -> None:
    exchange.reply(200, [])


class EngineTest(unittest.TestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)
        self.daemon.answers[LIST] = _nothing
        self.runtime = DockerRuntime(self.daemon.host, deadlines=QUICK)
        self.addCleanup(self.runtime.close)

    def assert_unavailable(self, expected: str) -> None:
        began = time.monotonic()
        with self.assertRaisesRegex(Unavailable, f"(?s)Docker at {self.daemon.host}.*{expected}"):
            self.runtime.list_games()
        self.assertLess(time.monotonic() - began, AT_ONCE_S)

    def test_an_absent_daemon_is_noticed_at_a_call_and_used_when_it_is_back(self) -> None:
        self.assert_unavailable("No such file or directory; check that Docker runs")
        for _ in range(2):
            self.daemon.start()
            self.assertEqual(self.runtime.list_games(), [])
            self.daemon.stop()
            self.assert_unavailable("No such file or directory")

    def test_silence_ends_at_the_deadline(self) -> None:
        self.daemon.start()
        self.daemon.answers[LIST] = Exchange.hang
        self.assert_unavailable("nothing within 1 s")

    def test_a_deadline_is_for_the_whole_answer_and_not_from_byte_to_byte(self) -> None:
        def drip(exchange: Exchange) -> None:
            exchange.send_response(200)
            exchange.send_header("Content-Length", "1000")
            exchange.end_headers()
            while not exchange.server.daemon_is_closed.wait(0.05):
                exchange.wfile.write(b" ")

        self.daemon.start()
        self.daemon.answers[LIST] = drip
        self.assert_unavailable("nothing within 1 s to `GET /containers/json`")

    def test_a_connection_that_ends_before_the_head_is_no_answer_and_one_that_ends_after_it_cannot_be_read(
        self,
    ) -> None:
        def half(exchange: Exchange) -> None:
            exchange.stream([{}], end=False)

        self.daemon.start()
        self.daemon.answers[LIST] = Exchange.drop
        self.assert_unavailable("broke off before the answer was complete")
        self.daemon.answers[LIST] = half
        with self.assertRaisesRegex(TemporaryAnswer, "cannot be read .*ended prematurely"):
            self.runtime.list_games()

    def test_what_closing_cuts_short_is_no_answer(self) -> None:
        def closing(exchange: Exchange) -> None:
            exchange.stream([{}], end=False)
            self.runtime.close()

        self.daemon.start()
        self.daemon.answers[LIST] = closing
        with self.assertRaises(Unavailable) as caught:
            self.runtime.list_games()
        self.assertIs(type(caught.exception), Unavailable)

    def test_an_answer_that_is_not_docker_is_no_answer(self) -> None:
        def html(exchange: Exchange) -> None:
            exchange.send_response(200)
            exchange.send_header("Content-Length", "6")
            exchange.end_headers()
            exchange.wfile.write(b"<html>")

        self.daemon.start()
        self.daemon.answers[LIST] = html
        self.assert_unavailable("check that Docker runs there")

    def test_a_refusal_is_reported_with_its_status_and_its_request(self) -> None:
        self.daemon.start()
        for status, expected in ((403, "answered 403"), (503, "answered 503"), (500, "answered 500")):
            self.daemon.answers[LIST] = partial(Exchange.refuse, status=status, message="not for you")
            with self.assertRaises(DependencyError) as caught:
                self.runtime.list_games()
            message = f"Docker at {self.daemon.host} {expected} to `GET /containers/json`: not for you"
            if status == 403:
                message += "; let the proxy or the authorization plugin before Docker pass `GET /containers/json`"
            self.assertEqual(str(caught.exception), message)
        self.daemon.answers[LIST] = partial(Exchange.refuse, status=500, message="no space left on device")
        self.assert_unavailable("cannot serve now, it answered 500 to `GET /containers/json`: no space")

    def test_the_remedy_of_no_connection_fits_its_cause(self) -> None:
        for error, expected in (
            (PermissionError(errno.EACCES, "Permission denied"), "group of the socket"),
            (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "name of the host"),
            (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
            (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "check that Docker runs"),
        ):
            with mock.patch.object(DeadlineSocket, "connect", side_effect=error):
                self.assert_unavailable(f"{error.strerror}; .*{expected}")

    def test_a_refusal_without_a_fact_about_the_container_is_final_or_temporary(self) -> None:
        self.daemon.start()
        kinds = {400: FinalAnswer, 403: FinalAnswer, 404: FinalAnswer, 500: FinalAnswer, 503: TemporaryAnswer}
        for status, kind in kinds.items():
            self.daemon.answers["GET /containers/g1/json"] = partial(
                Exchange.refuse, status=status, message="some text"
            )
            with self.assertRaisesRegex(kind, "some text"):
                self.runtime.inspect("g1")
        self.daemon.answers["GET /containers/g1/json"] = lambda x: x.refuse(404, "No such container: g1")
        with self.assertRaises(ContainerNotFound):
            self.runtime.inspect("g1")

    def test_the_api_version_is_the_older_of_both_sides(self) -> None:
        self.daemon.start()
        for theirs, version in (("1.40", "v1.40"), ("9.99", f"v{DEFAULT_DOCKER_API_VERSION}")):
            with self.subTest(theirs=theirs):
                self.daemon.api_version = theirs
                runtime = DockerRuntime(self.daemon.host)
                self.addCleanup(runtime.close)
                runtime.list_games()
                self.assertEqual(self.daemon.versions[-1], version)

    def test_the_api_version_is_agreed_once_and_again_with_another_engine(self) -> None:
        self.daemon.start()
        self.runtime.list_games()
        self.runtime.list_games()
        self.assertEqual(self.daemon.count("GET /version"), 1)
        self.daemon.api_version = "1.40"
        self.daemon.answers[LIST] = lambda x: x.refuse(400, "client version 1.41 is too new")
        self.assert_unavailable("too new")
        self.daemon.answers[LIST] = _nothing
        self.runtime.list_games()
        self.assertEqual(self.daemon.versions[-1], "v1.40")

    def test_close_ends_calls_in_flight_and_leaves_nothing(self) -> None:
        self.daemon.start()
        self.daemon.answers[LIST] = Exchange.hang
        threads_before = threading.active_count()
        patient = DockerRuntime(self.daemon.host)
        with ThreadPoolExecutor(8) as threads:
            calls = [threads.submit(patient.list_games) for _ in range(8)]
            until(lambda: self.daemon.count(LIST) == 8)
            began = time.monotonic()
            patient.close()
            errors = [call.exception() for call in calls]
        self.assertLess(time.monotonic() - began, AT_ONCE_S)
        self.assertEqual({type(error) for error in errors}, {Unavailable})
        self.assertIn("this service is stopping", str(errors[0]))
        self.daemon.stop()
        until(lambda: threading.active_count() <= threads_before)

    def test_many_lives_leave_no_descriptor_and_no_thread(self) -> None:
        self.daemon.start()
        self.runtime.list_games()
        descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        for _ in range(50):
            runtime = DockerRuntime(self.daemon.host)
            runtime.list_games()
            runtime.close()
        until(lambda: threading.active_count() <= threads)
        until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)

    def test_many_threads_share_one_client(self) -> None:
        self.daemon.start()
        with ThreadPoolExecutor(64) as threads:
            patient = DockerRuntime(self.daemon.host)
            self.addCleanup(patient.close)
            found = list(threads.map(lambda _: patient.list_games(), range(640)))
        self.assertEqual(len(found), 640)

    def test_an_api_that_both_do_not_support_is_named_with_what_to_do(self) -> None:
        self.daemon.start()
        for answer, expected in (
            (
                {"ApiVersion": "1.99", "MinAPIVersion": "1.90"},
                "speaks API 1.90 to 1.99.*1.24 to 1.*pip install --upgrade",
            ),
            ({"ApiVersion": "1.20"}, "speaks API 1.20.*install Docker 20.10"),
            ({"ApiVersion": None}, "None as the version.*is it a Docker"),
            ({"ApiVersion": 1.41}, "1.41 as the version"),
            ({"ApiVersion": "1.41/../../x"}, "as the version"),
            ({}, "None as the version"),
            ([], "no JSON object"),
            ("<html>", "no JSON object"),
        ):
            self.daemon.answers["GET /version"] = partial(Exchange.reply, status=200, body=answer)
            with self.subTest(expected), self.assertRaisesRegex(Unavailable, expected):
                self.runtime.list_games()
        self.assertEqual(self.daemon.versions, [])

    def test_the_newest_api_that_both_support_is_used(self) -> None:
        self.daemon.start()
        self.daemon.answers["GET /containers/json"] = partial(Exchange.reply, status=200, body=[])
        for answer, version in (
            ({"ApiVersion": "1.41", "MinAPIVersion": "1.12"}, "v1.41"),
            ({"ApiVersion": "1.99", "MinAPIVersion": "1.24"}, f"v{NEWEST}"),
            ({"ApiVersion": "1.99", "MinAPIVersion": NEWEST}, f"v{NEWEST}"),
            ({"ApiVersion": "1.99", "MinAPIVersion": "new"}, f"v{NEWEST}"),
            ({"ApiVersion": "1.24", "MinAPIVersion": None}, "v1.24"),
        ):
            self.daemon.answers["GET /version"] = partial(Exchange.reply, status=200, body=answer)
            with self.subTest(version):
                runtime = DockerRuntime(self.daemon.host)
                self.addCleanup(runtime.close)
                runtime.list_games()
                self.assertEqual(self.daemon.versions[-1], version)

    def test_a_daemon_that_supports_it_no_more_is_queried_again_and_named(self) -> None:
        self.daemon.start()
        self.daemon.answers["GET /containers/json"] = partial(
            Exchange.refuse, status=400, message="client version 1.41 is too old. Minimum supported API version is 1.90"
        )
        with self.assertRaisesRegex(Unavailable, "too old"):
            self.runtime.list_games()
        newer = {"ApiVersion": "1.99", "MinAPIVersion": "1.90"}
        self.daemon.answers["GET /version"] = partial(Exchange.reply, status=200, body=newer)
        with self.assertRaisesRegex(Unavailable, "speaks API 1.90 to 1.99"):
            self.runtime.list_games()

    def test_whatever_is_in_dockers_configuration_calls_are_made(self) -> None:
        self.daemon.start()
        self.daemon.answers["GET /containers/json"] = partial(Exchange.reply, status=200, body=[])
        with tempfile.TemporaryDirectory() as home, mock.patch.dict(os.environ, {"DOCKER_CONFIG": home}):
            for content in ('{"proxies": null}', "[]", "{", '{"proxies": {"default": 5}}', '{"auths": 5}', "5"):
                with self.subTest(content):
                    Path(home, "config.json").write_text(content)
                    runtime = DockerRuntime(self.daemon.host)
                    self.addCleanup(runtime.close)
                    self.assertEqual(runtime.list_games(), [])

    def test_a_proxy_of_the_environment_is_not_used(self) -> None:
        self.daemon.start()
        with mock.patch.dict(os.environ, {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}):
            self.assertEqual(self.runtime.list_games(), [])

    def test_a_host_that_cannot_be_read_is_refused_at_once(self) -> None:
        for host in (
            "",
            "unix://",
            "ssh://x",
            "tcp://",
            "tcp://x:0",
            "tcp://x:99999",
            "https://x:2376",
            "/var/run/docker.sock",
        ):
            with self.assertRaisesRegex(InvalidValue, "expected unix:///path/to/socket or tcp://host:port"):
                DockerRuntime(host)

    def test_tcp_is_supported_as_well(self) -> None:
        refused = DockerRuntime("tcp://127.0.0.1:1")
        self.addCleanup(refused.close)
        with self.assertRaisesRegex(Unavailable, "Docker at tcp://127.0.0.1:1 does not answer: Connection refused"):
            refused.ping()
