"""Bodies are validated strictly: anything but exactly an operation's fields is rejected without effect."""

import http.client
import json
from collections.abc import Mapping
from typing import Any

from harness import start_services
from harness.rtm import RuntimeTestCase

#: Bodies that every operation rejects.
NO_OBJECT = (b"x", b"[]", b'"text"', b"null", b"7", b"true", b"{", b"{} {}", b"{}x", b"\xff", b"{}\0", b"NaN")

#: The maximal length of a body, in bytes.
LIMIT = 64 * 1024


def setUpModule() -> None:
    start_services()


class Bodies(RuntimeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.start_runtime()

    def send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send one request with exactly these bytes; return status and body."""
        connection = http.client.HTTPConnection(self.base_url.removeprefix("http://"), timeout=30)
        try:
            url = f"/api/v1/internal/runtimes/{self.game_id}{path}"
            connection.request(method, url, body, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def bad_fields(self, name: str, good: str) -> list[bytes]:
        """Objects other than one with exactly this field and a text."""
        field, right = f'"{name}"'.encode(), f'"{name}":"{good}"'.encode()
        values = (b"1", b"null", b"true", b"[]", b"{}", b'""', b'"a\\u0000b"', b'"a\\nb"')
        wrong = [b"{%s:%s}" % (field, value) for value in values]
        return [
            *wrong,
            b"{}",
            b"",
            b'{%s,"force":true}' % right,
            b"{%s,%s}" % (right, right),
            b"{%s}x" % right,
            b"{%s}{%s}" % (right, right),
            b"{%s,}" % right,
            b"{'%s':'x'}" % name.encode(),
            b'{"%s":"x"}' % name.upper().encode(),
        ]

    def assert_refused_without_a_trace(self, method: str, path: str, bodies: list[bytes]) -> None:
        for body in bodies:
            with self.subTest(path, body=body[:60]):
                self.refused(self.send(method, path, body), 400, "invalid_request")
        self.assertEqual(self.rows("SELECT FROM operations") + self.log_rows(), [])

    def test_start_and_patch_take_an_image_ref_and_nothing_else(self) -> None:
        bodies = [*NO_OBJECT, *self.bad_fields("image_ref", self.engine.ref)]
        self.assert_refused_without_a_trace("POST", "/start", bodies)
        self.assert_refused_without_a_trace("POST", "/patch", bodies)

    def test_stop_takes_one_of_five_reasons_and_nothing_else(self) -> None:
        bodies = [*NO_OBJECT, *self.bad_fields("reason", "finished"), b'{"reason":"boredom"}', b'{"reason":"Finished"}']
        self.assert_refused_without_a_trace("POST", "/stop", bodies)

    def test_restart_takes_nothing_or_an_empty_object(self) -> None:
        self.assert_refused_without_a_trace("POST", "/restart", [*NO_OBJECT, b'{"force":true}', b'{"image_ref":"x:1"}'])
        for body in (None, b"", b"{}", b" {} \n"):
            with self.subTest(body=body):
                self.refused(self.send("POST", "/restart", body), 404, "not_found")

    def test_a_read_and_a_cleanup_take_no_body_at_all(self) -> None:
        self.assert_refused_without_a_trace("DELETE", "/container", [b"{}", b"x"])
        self.assert_refused_without_a_trace("GET", "", [b"{}", b"x"])

    def test_a_body_too_large_is_refused_before_it_is_read(self) -> None:
        huge = b'{"image_ref":"%s"}' % (b"x" * LIMIT)
        for path in ("/start", "/stop", "/restart", "/patch"):
            with self.subTest(path):
                message = self.refused(self.send("POST", path, huge), 413, "invalid_request")
                self.assertIn(str(LIMIT), message)
        self.assertEqual(self.rows("SELECT FROM operations"), [])

    def test_an_image_ref_as_long_as_a_body_may_be_is_an_image_ref_that_is_too_long(self) -> None:
        long = b'{"image_ref":"%s"}' % (b"x" * (LIMIT - 20))
        message = self.refused(self.send("POST", "/start", long), 400, "start_config_invalid")
        self.assertLess(len(message), 1000)

    def test_a_body_has_to_be_called_json(self) -> None:
        for content_type in ("application/json; charset=utf-8", "Application/JSON"):
            with self.subTest(content_type):
                answer = self.send("POST", "/stop", b'{"reason":"finished"}', {"Content-Type": content_type})
                self.refused(answer, 404, "not_found")
        for content_type in ("text/plain", "", "application/json; charset=utf-16"):
            with self.subTest(content_type):
                answer = self.send("POST", "/stop", b'{"reason":"finished"}', {"Content-Type": content_type})
                self.refused(answer, 415, "invalid_request")

    def test_a_page_in_a_browser_can_do_nothing(self) -> None:
        """A foreign origin, and one whose name was rebound to the manager's address."""
        self.post("start", {"image_ref": self.engine.ref})
        for status, headers in (
            (403, {"Origin": "https://evil.example"}),
            (403, {"Origin": "null"}),
            (403, {"Sec-Fetch-Site": "cross-site"}),
            (421, {"Host": "evil.example", "Origin": "http://evil.example"}),
        ):
            for method, path, body in (
                ("POST", "/stop", b'{"reason":"finished"}'),
                ("POST", "/restart", b""),
                ("DELETE", "/container", None),
                ("GET", "", None),
            ):
                with self.subTest(path, headers=headers):
                    self.refused(self.send(method, path, body, headers), status, "invalid_request")
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start"])

    def test_a_listed_host_is_served(self) -> None:
        self.start_runtime(HTTP_HOSTS="rtm.example.org")
        self.refused(self.send("POST", "/restart", b"", {"Host": "RTM.example.org:443"}), 404, "not_found")
        self.refused(self.send("POST", "/restart", b"", {"Host": "rtm.example.com"}), 421, "invalid_request")
