"""What a container writes, and the waits for what it does."""

import re
import ssl
import time
from typing import Any

from harness import DockerTestCase, HarnessError, WaitFailed, base_image, create_authority
from harness.fixtures.container import Container
from harness.runs import flag

#: Answers 204 to requests with a header that is right, and 401 to others; by TLS where there is a certificate.
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

    def test_a_log_that_goes_on_is_followed_no_longer_than_was_said(self) -> None:
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


class WaitTest(ShellTestCase):
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

    def test_without_a_health_check_that_is_said_at_once(self) -> None:
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
