"""A container's output, and the waits for its actions."""

import re
import ssl
import struct
import time
from typing import Any

import docker

from harness import (
    DockerTestCase,
    HarnessError,
    Reply,
    WaitFailed,
    base_image,
    create_authority,
    start_scripted_daemon,
    wait_until,
)
from harness.fixtures import streams
from harness.fixtures.container import Container, http_status
from harness.fixtures.log_tail import log_tail
from harness.runs import flag

#: Answers 204 to requests with the right header, and 401 to others; with TLS where there is a certificate.
SERVER = """
import http.server, os, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204 if self.headers.get("X-Key") == "secret" else 401)
        self.end_headers()
server = http.server.HTTPServer(("", 80), Handler)
if os.path.exists("/tls"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/tls/cert", "/tls/key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def setUpModule() -> None:
    flag.check()


class ShellTestCase(DockerTestCase):
    def start(self, script: str = "exec sleep 600", **settings: Any) -> Container:
        return self.start_container(base_image(), entrypoint=["sh", "-c", script], **settings)


class LogTest(ShellTestCase):
    def test_each_stream_alone_and_both(self) -> None:
        made = self.start("echo out; echo error >&2")
        made.wait_for_exit()
        self.assertEqual((made.logs(stderr=False), made.logs(stdout=False)), ("out\n", "error\n"))
        self.assertEqual(sorted(made.logs().split()), ["error", "out"])

    def test_it_is_followed_line_by_line_as_it_comes_until_the_end(self) -> None:
        made = self.start("mkfifo /tmp/go; echo one; read go < /tmp/go; printf 'two\\r\\n\\nlast'")
        lines = made.follow()
        self.assertEqual(next(lines), "one")
        made.exec(["sh", "-c", "echo > /tmp/go"])
        self.assertEqual(list(lines), ["two", "", "last"])

    def test_one_stream_is_followed_alone(self) -> None:
        made = self.start("echo out; echo error >&2")
        self.assertEqual(list(made.follow(stdout=False)), ["error"])

    def test_a_log_that_goes_on_is_followed_no_longer_than_its_limit(self) -> None:
        made, began = self.start("while true; do echo again; sleep 0.1; done"), time.monotonic()
        with self.assertRaisesRegex(WaitFailed, "(?s)for 0.5 s, and it goes on.*again"):
            list(made.follow(timeout_s=0.5))
        silent = self.start()
        with self.assertRaisesRegex(WaitFailed, "goes on"):
            list(silent.follow(timeout_s=0.2))
        self.assertLess(time.monotonic() - began, 10)

    def test_a_follower_may_stop_before_the_end(self) -> None:
        made = self.start("while true; do echo again; sleep 0.1; done")
        for line in made.follow():
            self.assertEqual(line, "again")
            break
        self.assertIsNone(made.exit_code())


class ExecTest(ShellTestCase):
    def test_it_has_an_environment_and_a_directory(self) -> None:
        done = self.start().exec(["sh", "-c", "echo $GREETING; pwd"], env={"GREETING": "a=b c"}, working_dir="/etc")
        self.assertEqual(done, (0, "a=b c\n/etc\n"))

    def test_one_that_takes_too_long_is_given_up_with_what_it_wrote(self) -> None:
        made, began = self.start(), time.monotonic()
        with self.assertRaisesRegex(WaitFailed, r"0.5 s for .*sleep 600.*it wrote .begun"):
            made.exec(["sh", "-c", "echo begun; sleep 600"], timeout_s=0.5)
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(made.exec(["true"], timeout_s=30), (0, ""))


class OutputTest(ShellTestCase):
    def exec_of(self, output: bytes) -> tuple[int, str]:
        """The result of an exec when Docker's answer and the output arrive in one piece."""
        head = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        with start_scripted_daemon(behind=None) as odd:
            odd.answer("POST /containers/*/exec", Reply(201, {"Id": "e"}))
            odd.answer("POST /exec/*/start", Reply(raw=head + output))
            odd.answer("GET /exec/*/json", Reply(200, {"ExitCode": 0}))
            return Container("c", docker.APIClient(odd.host, version="1.41")).exec(["true"])

    def test_output_that_comes_with_the_head_of_the_answer_is_not_lost(self) -> None:
        frames = [struct.pack(">BxxxL", number % 2 + 1, 5) + b"hello" for number in range(3000)]
        self.assertEqual(self.exec_of(b"".join(frames)), (0, "hello" * 3000))
        self.assertEqual(self.exec_of(b""), (0, ""))

    def test_output_that_breaks_off_is_no_output(self) -> None:
        for cut in (3, 8, 10):
            with self.subTest(cut), self.assertRaisesRegex(HarnessError, "broke off within a frame"):
                self.exec_of((struct.pack(">BxxxL", 1, 5) + b"hello")[:cut])

    def test_a_message_shows_a_part_of_what_is_long(self) -> None:
        made = self.start("head -c 3000000 /dev/zero | tr '\\0' x; echo the end; exec sleep 600")
        made.wait_for_log("the end")
        with self.assertRaises(WaitFailed) as failed:
            wait_until("it", lambda: made.logs() == "", timeout_s=0.1, describe=lambda _: "y" * 1_000_000)
        self.assertLess(len(str(failed.exception)), 30_000)
        self.assertIn("the end", str(failed.exception))
        with self.assertRaises(WaitFailed) as failed:
            made.exec(["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; sleep 600"], timeout_s=1)
        self.assertLess(len(str(failed.exception)), 30_000)

    def test_a_line_of_any_length_is_followed(self) -> None:
        chunks = [b"x" * 1000] * 50_000
        began = time.thread_time()
        self.assertEqual([len(each) for each in streams.lines([*chunks, b"\r\n", b"a\nb"])], [50_000_000, 1, 1])
        self.assertLess(time.thread_time() - began, 5)

    def test_the_end_of_a_large_log_of_a_program_is_shown(self) -> None:
        log = self.state_root.directory / "log"
        log.write_text("x" * 3_000_000 + "\nthe end\n")
        self.assertRegex(log_tail(log), r"\n    the end$")
        self.assertLess(len(log_tail(log)), 20_000)


class AddressTest(ShellTestCase):
    def web(self, **settings: Any) -> Container:
        made = self.start("exec python3 -m http.server 80 --directory /tmp", ports=[80], **settings)
        made.wait_for_http(80)
        return made

    def test_it_is_that_of_the_last_start_and_connection(self) -> None:
        network = self.create_network()
        made = self.web(network=network.name)

        def new_network() -> None:
            network.disconnect(made)
            network.connect(made)

        def new_start() -> None:
            made.stop(0)
            self.docker.start(made.container_id)

        for again in (new_network, new_start, made.restart):
            again()
            made.wait_for_http(80, timeout_s=10)
            made.wait_for_port(80, timeout_s=10)
            self.assertEqual(http_status(*made.address(80), "/"), 200)

    def test_a_port_that_is_never_published_is_not_waited_for(self) -> None:
        made, outside = self.web(), self.start(network="none", ports=[80])
        began = time.monotonic()
        for wait in (made.wait_for_port, made.wait_for_http, made.wait_for_address):
            with self.assertRaisesRegex(WaitFailed, "publishes no port 81, only 80: name it in ports="):
                wait(81)
            with self.assertRaisesRegex(WaitFailed, "publishes no port: its network is none"):
                getattr(outside, wait.__name__)(80)
        with self.assertRaisesRegex(HarnessError, "wait for a log instead"):
            made.wait_for_port("53/udp")
        self.assertLess(time.monotonic() - began, 15)

    def test_a_wait_for_a_port_that_is_not_published_now_keeps_its_limit(self) -> None:
        network = self.create_network()
        made = self.web(network=network.name)
        network.disconnect(made)
        began = time.monotonic()
        for wait in (made.wait_for_port, made.wait_for_http, made.wait_for_address):
            with self.assertRaisesRegex(WaitFailed, "waited 0.2 s"):
                wait(80, timeout_s=0.2)
        self.assertLess(time.monotonic() - began, 15)


class WaitTest(ShellTestCase):
    def test_a_service_may_take_its_time_for_an_answer(self) -> None:
        slow = SERVER.replace("        self.send_response", "        time.sleep(1.5)\n        self.send_response")
        made = self.start_container(base_image(), entrypoint=["python3", "-c", "import time" + slow], ports=[80])
        made.wait_for_http(80, status=401, timeout_s=15)
        with self.assertRaisesRegex(WaitFailed, "timed out"):
            made.wait_for_http(80, status=401, timeout_s=0.5)

    def test_every_wait_watches_other_containers_too(self) -> None:
        made, other = self.start(), self.start("echo other words; exit 3")
        for wait in (made.wait_until, self.wait_until):
            with self.assertRaisesRegex(WaitFailed, "(?s)ended with exit code 3.*other words"):
                wait("it", lambda: False, watch=[other])

    def test_a_log_is_waited_for_by_a_pattern_and_so_many_times(self) -> None:
        made = self.start("for n in 1 2 3; do echo ready $n; sleep 0.2; done; exec sleep 600")
        made.wait_for_log(re.compile(r"^ready \d$", re.MULTILINE), times=3)
        self.assertEqual(made.logs().count("ready"), 3)
        with self.assertRaisesRegex(WaitFailed, "/re.dy/ in the log of .* 4 times"):
            made.wait_for_log(re.compile("re.dy"), times=4, timeout_s=0.2)
        with self.assertRaisesRegex(WaitFailed, "'re.dy' in the log"):
            made.wait_for_log("re.dy", timeout_s=0.2)

    def test_a_health_check_is_waited_for(self) -> None:
        check = {"test": ["CMD-SHELL", "test -e /tmp/well || { echo not well; false; }"], "interval": 100_000_000}
        made = self.start("sleep 0.5; touch /tmp/well; exec sleep 600", healthcheck=check)
        made.wait_for_health()
        self.assertEqual(made.inspect()["State"]["Health"]["Status"], "healthy")
        ill = self.start(healthcheck=check)
        with self.assertRaisesRegex(WaitFailed, "exit code 1: not well"):
            ill.wait_for_health(timeout_s=3)

    def test_without_a_health_check_that_is_reported_at_once(self) -> None:
        with self.assertRaisesRegex(HarnessError, "has no health check: give one with healthcheck="):
            self.start().wait_for_health()

    def test_http_is_waited_for_with_a_status_and_headers(self) -> None:
        made = self.start_container(base_image(), entrypoint=["python3", "-c", SERVER], ports=[80])
        made.wait_for_http(80, status=401)
        made.wait_for_http(80, status=(200, 204), headers={"X-Key": "secret"})
        with self.assertRaisesRegex(WaitFailed, "answering 200 or 204; last seen: status 401"):
            made.wait_for_http(80, status=(200, 204), timeout_s=0.2)

    def test_http_is_waited_for_by_tls(self) -> None:
        with create_authority() as authority:
            server = authority.issue("server", ("127.0.0.1",))
            made = self.start_container(
                base_image(),
                entrypoint=["python3", "-c", SERVER],
                ports=[80],
                files={"/tls/cert": server.cert, "/tls/key": server.key},
            )
            ours = ssl.create_default_context(cafile=str(authority.ca))
            made.wait_for_http(80, status=401, tls=ours)
            with self.assertRaisesRegex(WaitFailed, "(?i)https://.*certificate verify failed"):
                made.wait_for_http(80, status=401, tls=ssl.create_default_context(), timeout_s=0.5)
