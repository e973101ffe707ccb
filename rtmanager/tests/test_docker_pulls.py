"""A pull is shared and bounded, and its error names the image or the daemon as the cause."""

from __future__ import annotations

import base64
import json
import logging
import os
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from rtmanager.adapters.docker import Deadlines, DockerRuntime
from rtmanager.adapters.docker.credentials import DockerConfig, HelperHangs
from rtmanager.adapters.docker.pulling import Progress
from rtmanager.domain.errors import TemporaryAnswer, Unavailable
from rtmanager.ports.runtime import ImageUnavailable, PullPolicy
from rtmanager.tests.fake_daemon import AT_ONCE_S, Exchange, FakeDaemon, until

REF = "registry.test:5000/galaxy/game:1.0.0"
CREATE = "POST /images/create"
INSPECT = f"GET /images/{REF}/json"
DONE = [{"status": "Pulling from galaxy/game", "id": "1.0.0"}, {"status": "Status: Downloaded newer image"}]


class Gauge:
    """Records the highest number of threads inside it at the same time."""

    def __init__(self) -> None:
        self.highest = 0
        self._now = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.highest = max(self.highest, self._now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1


def _fail(exchange: Exchange) -> None:
    exchange.stream([{"error": "manifest unknown: some text"}])


class PullTest(unittest.TestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)
        self.daemon.answers[CREATE] = self.deliver
        self.daemon.start()
        home = tempfile.TemporaryDirectory()
        self.addCleanup(home.cleanup)
        self.config = Path(home.name) / "config.json"
        environment = mock.patch.dict(os.environ, {"DOCKER_CONFIG": home.name})
        environment.start()
        self.addCleanup(environment.stop)
        self.runtime = DockerRuntime(
            self.daemon.host,
            pull_total_s=3.0,
            pull_no_progress_s=1.0,
            deadlines=Deadlines(ping_s=1.0, query_s=1.0),
            logger=logging.getLogger("rtmanager.tests.pulls"),
        )
        self.addCleanup(self.runtime.close)

    def deliver(self, exchange: Exchange) -> None:
        """Complete the pull as a registry with every image does."""
        self.daemon.answers[INSPECT] = lambda x: x.reply(200, {"Id": "sha256:1", "Config": {"Labels": {"a": "b"}}})
        exchange.stream(DONE)

    def ensure(self, policy: PullPolicy = PullPolicy.IF_MISSING, ref: str = REF) -> str:
        return self.runtime.ensure_image(ref, policy).image_id

    def assert_image_unavailable(self, expected: str) -> None:
        with self.assertRaisesRegex(ImageUnavailable, f"image {REF} cannot be pulled: .*{expected}"):
            self.ensure()

    def test_a_missing_image_is_pulled_once_and_then_present(self) -> None:
        self.assertEqual(self.ensure(), "sha256:1")
        self.assertEqual(self.ensure(), "sha256:1")
        self.assertEqual(self.daemon.count(CREATE), 1)

    def test_always_queries_the_registry_for_a_present_image(self) -> None:
        for _ in range(2):
            self.ensure(PullPolicy.ALWAYS)
        self.assertEqual(self.daemon.count(CREATE), 2)

    def test_what_is_requested_is_one_tag_or_digest_and_never_all_tags(self) -> None:
        digest = "sha256:" + "a" * 64
        for ref, tag in (("galaxy/game", "latest"), ("galaxy/game:2", "2"), (f"galaxy/game:2@{digest}", digest)):
            with self.assertRaises(ImageUnavailable):  # the pull succeeds, but this daemon only has REF
                self.ensure(ref=ref)
            query = self.daemon.queries[self.daemon.requests.index(CREATE)]
            self.assertEqual(query, {"fromImage": "galaxy/game", "tag": tag})
            self.daemon.requests.clear()
            self.daemon.queries.clear()

    def test_all_who_wait_share_one_pull_and_its_outcome(self) -> None:
        for end, outcome in ((self.deliver, "sha256:1"), (_fail, "manifest unknown")):
            self.daemon.answers.pop(INSPECT, None)
            self.daemon.requests.clear()
            together = Gauge()

            def answer(exchange: Exchange, end: Callable[[Exchange], None] = end, together: Gauge = together) -> None:
                """End the pull when all six callers have found the image missing."""
                with together:
                    until(lambda: self.daemon.count(INSPECT) >= 6)
                end(exchange)

            self.daemon.answers[CREATE] = answer
            with ThreadPoolExecutor(6) as threads:
                pulls = [threads.submit(self.ensure) for _ in range(6)]
                outcomes = [str(pull.exception() or pull.result()) for pull in pulls]
            self.assertEqual(together.highest, 1)
            for text in outcomes:
                self.assertIn(outcome, text)

    def test_an_error_that_is_null_or_empty_is_none(self) -> None:
        empty: list[dict[str, Any]] = [
            {"error": None},
            {"error": ""},
            {"error": "", "errorDetail": None, "status": "x"},
        ]
        progress = Progress(now=0)
        for line in empty:
            progress.read(line, now=1)
        for line in ({"error": "why"}, {"errorDetail": {"message": "why"}}, {"error": "", "errorDetail": "why"}):
            with self.assertRaisesRegex(ImageUnavailable, "^why$"):
                progress.read(line, now=1)
        with self.assertRaisesRegex(ImageUnavailable, "^{'code': 5}$"):
            progress.read({"errorDetail": {"code": 5}}, now=1)

    def test_a_helper_that_hangs_is_named_on_one_line(self) -> None:
        hangs = mock.patch.object(DockerConfig, "credentials", side_effect=HelperHangs("a\nb\x1b[2J had not answered"))
        with hangs, self.assertRaisesRegex(ImageUnavailable, r"a b \[2J had not answered") as caught:
            self.ensure()
        self.assertTrue(str(caught.exception).isprintable())

    def test_two_images_are_pulled_at_the_same_time(self) -> None:
        together = threading.Barrier(2, timeout=5)

        def answer(exchange: Exchange) -> None:
            together.wait()
            exchange.stream([{"error": "no such tag"}])

        self.daemon.answers[CREATE] = answer
        with ThreadPoolExecutor(2) as threads:
            errors = [threads.submit(self.ensure, ref=ref).exception() for ref in ("a:1", "b:1")]
        self.assertEqual({type(error) for error in errors}, {ImageUnavailable})

    def test_a_refusal_has_dockers_message_and_what_to_do(self) -> None:
        for explanation, remedy in (
            ("manifest for x:1 not found: manifest unknown", "check that the tag was pushed"),
            ("pull access denied for x, repository does not exist", "docker login"),
            (
                'Get "https://registry.test:5000/v2/": dial tcp: lookup registry.test: no such host',
                "reaches the registry",
            ),
            ("write /var/lib/docker/x: no space left on device", "free disk space"),
            ("something new", "is in the manager's log$"),
        ):
            with self.subTest(explanation):
                self.daemon.answers[CREATE] = partial(Exchange.refuse, status=500, message=explanation)
                self.assert_image_unavailable(remedy)
                self.daemon.answers[CREATE] = partial(
                    Exchange.stream, lines=[*DONE[:1], {"errorDetail": {"message": explanation}, "error": "short"}]
                )
                self.assert_image_unavailable(remedy)

    def test_a_daemon_that_breaks_off_in_the_middle_gives_a_temporary_answer(self) -> None:
        self.daemon.answers[CREATE] = partial(Exchange.stream, lines=DONE, end=False)
        with self.assertRaisesRegex(TemporaryAnswer, "ended prematurely"):
            self.ensure()

    def test_a_daemon_that_is_away_is_unavailable(self) -> None:
        self.daemon.stop()
        for policy in PullPolicy:
            with self.assertRaises(Unavailable):
                self.ensure(policy)

    def test_without_progress_a_pull_ends(self) -> None:
        self.daemon.answers[CREATE] = Exchange.hang
        self.assert_image_unavailable("no progress for 1 s")

    def test_counting_down_to_the_next_try_is_no_progress(self) -> None:
        line = {"status": "Retrying in 5 seconds", "id": "layer"}
        self.daemon.answers[CREATE] = lambda x: x.stream(self.paced(lambda _: line))
        self.assert_image_unavailable("no progress for 1 s")

    def test_a_pull_that_goes_on_for_ever_ends_at_the_total_limit(self) -> None:
        def line(number: int) -> dict[str, Any]:
            return {"status": "Downloading", "id": "layer", "progressDetail": {"current": number, "total": 10**9}}

        self.daemon.answers[CREATE] = lambda x: x.stream(self.paced(line))
        self.assert_image_unavailable("not complete after 3 s")

    def paced(self, line: Callable[[int], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield a line every 50 ms, for longer than any limit here."""
        for number in range(100):
            yield line(number)
            time.sleep(0.05)

    def test_when_the_daemon_hangs_with_the_pull_it_is_unavailable(self) -> None:
        def freeze(exchange: Exchange) -> None:
            self.daemon.answers["GET /version"] = Exchange.hang
            exchange.hang()

        self.daemon.answers[CREATE] = freeze
        with self.assertRaisesRegex(Unavailable, "nothing within 1 s"):
            self.ensure()

    def test_close_lets_the_waiters_go_at_once(self) -> None:
        self.daemon.answers[CREATE] = Exchange.hang
        runtime = DockerRuntime(self.daemon.host)
        with ThreadPoolExecutor(2) as threads:
            pulls = [threads.submit(runtime.ensure_image, REF, PullPolicy.ALWAYS) for _ in range(2)]
            until(lambda: self.daemon.count(CREATE) > 0)
            began = time.monotonic()
            runtime.close()
            errors = [pull.exception() for pull in pulls]
        self.assertLess(time.monotonic() - began, AT_ONCE_S)
        self.assertEqual({type(error) for error in errors}, {Unavailable})
        self.assertNotIn(f"pull {REF}", [thread.name for thread in threading.enumerate()])

    def test_the_credentials_of_dockers_configuration_are_sent_as_they_are_now(self) -> None:
        for password in ("old", "new"):
            secret = base64.b64encode(f"user:{password}".encode()).decode()
            self.config.write_text(json.dumps({"auths": {"registry.test:5000": {"auth": secret}}}))
            self.ensure(PullPolicy.ALWAYS)
            sent = json.loads(base64.urlsafe_b64decode(self.sent_credentials()))
            self.assertEqual((sent["username"], sent["password"]), ("user", password))
        self.config.write_text(json.dumps({"auths": {"another.test": {"auth": secret}}}))
        self.ensure(PullPolicy.ALWAYS)
        self.assertEqual(self.sent_credentials(), "")

    def sent_credentials(self) -> str:
        last = len(self.daemon.requests) - 1 - self.daemon.requests[::-1].index(CREATE)
        return self.daemon.headers[last].get("X-Registry-Auth", "")

    def test_credentials_that_cannot_be_read_are_left_out_and_named_when_the_registry_requires_some(self) -> None:
        self.config.write_text(json.dumps({"auths": {"registry.test:5000": {"auth": "%"}}}))
        with self.assertLogs("rtmanager.tests.pulls", "WARNING"):
            self.ensure(PullPolicy.ALWAYS)
        self.assertEqual(self.sent_credentials(), "")
        self.daemon.answers[CREATE] = partial(Exchange.refuse, status=500, message="unauthorized")
        with self.assertRaisesRegex(
            ImageUnavailable, "unauthorized .pulled without credentials: .*config.json.*base64"
        ):
            self.ensure(PullPolicy.ALWAYS)

    def test_whatever_the_stream_contains_is_one_answer_of_bounded_length(self) -> None:
        for content, expected in (
            (b"<html>oh dear</html>\n", "no JSON: '<html>"),
            (b'{"error": "' + b"x" * 300_000 + b'"}\n', "manager's log$"),
            (b'{"errorDetail": 5, "error": "oh dear"}', "manager's log$"),
            (b'{"error": null}\n', "was pulled, yet Docker does not have it"),
            (b"[" * 50_000, "no JSON"),
            (b"x" * (3 << 20), "a line that is too long"),
        ):
            with self.subTest(expected):
                self.daemon.answers[CREATE] = partial(Exchange.chunks, contents=[content])
                unreadable = expected.startswith(("no JSON", "a line"))
                with self.assertRaisesRegex(TemporaryAnswer if unreadable else ImageUnavailable, expected) as caught:
                    self.ensure()
                self.assertLess(len(str(caught.exception)), 3000)
        self.daemon.answers[CREATE] = partial(Exchange.refuse, status=500, message="x" * 300_000)
        with self.assertRaisesRegex(ImageUnavailable, "manager's log$"):
            self.ensure()

    def test_odd_lines_among_good_ones_are_passed_over(self) -> None:
        odd = b'[1]\n5\nnull\n"text"\n\n' + b"\n".join(
            (
                b'{"status": 5, "id": [1]}',
                b'{"status": "Downloading", "id": "a", "progressDetail": {"current": "x", "total": []}}',
                b'{"status": "Downloading", "id": "a", "progressDetail": 7}',
                b'{"progressDetail": null}',
            )
        )

        def deliver(exchange: Exchange) -> None:
            self.daemon.answers[INSPECT] = lambda x: x.reply(200, {"Id": "sha256:1", "Config": None})
            exchange.chunks([odd[:20], odd[20:], b"\n{}"])

        self.daemon.answers[CREATE] = deliver
        self.assertEqual(self.ensure(), "sha256:1")

    def test_progress_is_logged_at_the_ends_and_rarely_between(self) -> None:
        with self.assertLogs("rtmanager.tests.pulls") as logs:
            self.ensure()
        self.assertEqual(len(logs.output), 2)
        self.assertIn(f"pull of image {REF} started", logs.output[0])
        self.assertRegex(logs.output[1], rf"pull of image {REF} done after \d+\.\d s")


class ProgressTest(unittest.TestCase):
    def test_it_counts_layers_and_bytes(self) -> None:
        progress = Progress(now=0)
        self.assertEqual(str(progress), "0 of 0 layers, 0.0 of 0.0 MB")
        for line in (
            {"status": "Pulling from galaxy/game", "id": "1.0.0"},
            {"status": "Pulling fs layer", "id": "a", "progressDetail": {}},
            {"status": "Already exists", "id": "b", "progressDetail": {}},
            {"status": "Downloading", "id": "a", "progressDetail": {"current": 1_500_000, "total": 4_000_000}},
            {"status": "Digest: sha256:1"},
        ):
            progress.read(line, now=7)
        self.assertEqual(str(progress), "1 of 2 layers, 1.5 of 4.0 MB")
        self.assertEqual(progress.idle_s(now=9), 2)

    def test_a_line_without_anything_new_is_no_progress(self) -> None:
        progress = Progress(now=0)
        loading = {"status": "Downloading", "id": "a", "progressDetail": {"current": 1}}
        for now in range(1, 100):
            for line in ({}, {"status": ""}, {"status": None, "id": "b"}, {"x": 1}, loading, {"status": "Waiting"}):
                progress.read(line, now=now)
        self.assertEqual(progress.idle_s(now=99), 98)
        progress.read({**loading, "progressDetail": {"current": 2}}, now=99)
        self.assertEqual(progress.idle_s(now=99), 0)

    def test_layers_are_bounded(self) -> None:
        progress = Progress(now=0)
        for number in range(2_000):
            progress.read({"status": "Already exists", "id": f"{number}"}, now=1)
        self.assertRegex(str(progress), "^100[01] of 100[01] layers")
