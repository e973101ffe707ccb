"""A caller learns the kind of a failed pull, and nothing of a registry's text."""

from __future__ import annotations

import random
import unittest
from functools import partial
from typing import Any

from rtmanager.adapters.docker import Deadlines, DockerRuntime
from rtmanager.adapters.docker.registry_answers import HIDDEN, KINDS, LONGEST_READ, pull_refused
from rtmanager.domain.errors import RuntimeManagerError, TemporaryAnswer
from rtmanager.ports.runtime import ImageRefInvalid, PullPolicy
from rtmanager.tests.fake_daemon import Exchange, FakeDaemon
from rtmanager.tests.making import LogCapture

REF = "10.0.0.9:5000/x/y:1"
CREATE = "POST /images/create"

#: Texts of Docker 20.10 and of newer ones with containerd, for answers of a server at 10.0.0.9:5000.
TEXTS = {
    "error unmarshalling content: invalid character '<' looking for beginning of value": HIDDEN,
    "Head \"http://10.0.0.9:5000/v2/x/y/manifests/1\": unable to decode token response: invalid character '<'": HIDDEN,
    "received unexpected HTTP status: 500 Internal Server Error": HIDDEN,
    "received unexpected HTTP status: 404 SECRET": HIDDEN,
    'error parsing HTTP 403 response body: invalid \'<\': "<html>SECRET denied: \\"timeout\\" EOF</html>"': HIDDEN,
    "error parsing HTTP 404 response body: invalid '<': \"<html>SECRET manifest unknown, and it is cut o": HIDDEN,
    "mediaType in manifest should be 'application/vnd.docker…' not 'SECRET/unauthorized'": HIDDEN,
    "secretcode: SECRET message": HIDDEN,
    "unexpected status from HEAD request to http://10.0.0.9:5000/v2/x/y/manifests/1: 500 SECRET": HIDDEN,
    # The registry redirects to another server, whose open and closed ports are nobody's business.
    'Get "http://127.0.0.1:1/SECRET": dial tcp 127.0.0.1:1: connect: connection refused': HIDDEN,
    'Get "http://10.0.0.9:5001/SECRET": EOF': HIDDEN,
    'Get "http://user:p@db.internal/": net/http: request canceled (Client.Timeout exceeded)': HIDDEN,
    'Get "https://db.internal/": x509: certificate is valid for SECRET.internal': HIDDEN,
    "manifest for 10.0.0.9:5000/x/y:1 not found: manifest unknown: SECRET": "manifest unknown",
    "name unknown: SECRET": "name unknown",
    "unauthorized: SECRET": "unauthorized",
    'Head "http://10.0.0.9:5000/v2/x/y/manifests/1": no basic auth credentials': "unauthorized",
    "pull access denied for x/y, repository does not exist or may require 'docker login': denied: SECRET": "denied",
    "toomanyrequests: SECRET slow down": "toomanyrequests",
    'Get "http://10.0.0.9:5000/v2/": dial tcp 10.0.0.9:5000: connect: connection refused': "connection refused",
    'failed to do request: Head "https://10.0.0.9:5000/v2/": dial tcp 10.0.0.9:5000: i/o timeout': "timeout",
    'Get "https://10.0.0.9:5000/v2/": net/http: TLS handshake timeout': "timeout",
    'Get "https://10.0.0.9:5000/v2/": http: server gave HTTP response to HTTPS client': "HTTP response to HTTPS",
    'Get "https://10.0.0.9:5000/v2/": x509: certificate signed by unknown authority': "x509",
    'Get "https://10.0.0.9:5000/v2/": dial tcp: lookup x on SECRET:53: no such host': "no such host",
    'Get "https://10.0.0.9:5000/v2/": remote error: tls: SECRET': "TLS error",
    'Get "http://10.0.0.9:5000/v2/": EOF': "EOF",
    "filesystem layer verification failed for digest sha256:SECRET": "verification failed",
    "write /var/lib/docker/SECRET: no space left on device": "no space left on device",
    "no matching manifest for linux/arm64 in the manifest list entries": "no matching manifest",
}


class TextTest(unittest.TestCase):
    def test_each_text_is_reduced_to_its_kind(self) -> None:
        for text, expected in TEXTS.items():
            with self.subTest(text):
                message = pull_refused(REF, text)
                self.assertIn(expected, message)
                self.assertNotIn("secret", message.lower())
                self.assertTrue(message.startswith(f"image {REF} cannot be pulled: "))

    def test_docker_hub_has_several_servers(self) -> None:
        text = 'Get "https://auth.docker.io/token?service=registry.docker.io": dial tcp: connection refused'
        self.assertIn("connection refused", pull_refused("game:1", text))
        self.assertIn(HIDDEN, pull_refused("game:1", text.replace("auth.docker.io", "docker.io.evil")))

    def test_whatever_the_text_is_a_message_is_one_of_the_tables(self) -> None:
        source = random.Random(7)
        pieces = [*TEXTS, *(mark for kind in KINDS for mark in kind.marks), '"', "'", "\\", "\n", "\x1b[2J", "x" * 5000]
        possible = {f"image {REF} cannot be pulled: {kind.words}" for kind in KINDS}
        possible.add(f"image {REF} cannot be pulled: {HIDDEN}")
        for _ in range(2_000):
            text = "".join(source.choice(pieces) for _ in range(source.randint(0, 6)))
            self.assertIn(pull_refused(REF, text).partition(";")[0], possible)


class PullTest(unittest.TestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)
        self.daemon.start()
        self.captured = LogCapture()
        self.runtime = DockerRuntime(
            self.daemon.host, deadlines=Deadlines(ping_s=1.0, query_s=1.0), logger=self.captured.logger
        )
        self.addCleanup(self.runtime.close)

    def failure(self) -> RuntimeManagerError:
        """The error of a pull."""
        with self.assertRaises(RuntimeManagerError) as caught:
            self.runtime.ensure_image(REF, PullPolicy.ALWAYS)
        self.assertNotIn("secret", str(caught.exception).lower())
        return caught.exception

    def logged(self) -> list[Any]:
        """The text of each answer in the log, which is emptied."""
        found = [vars(each)["answer"] for each in self.captured.records if hasattr(each, "answer")]
        self.captured.records.clear()
        return found

    def test_the_whole_text_is_in_the_log_whichever_way_docker_reports_it(self) -> None:
        for text in TEXTS:
            for answer in (
                partial(Exchange.refuse, status=500, message=text),
                partial(Exchange.stream, lines=[{"errorDetail": {"message": text}, "error": "short"}]),
            ):
                self.daemon.answers[CREATE] = answer
                self.failure()
                self.assertEqual(self.logged(), [text])

    def test_a_temporary_answer_has_the_registrys_code_at_most(self) -> None:
        for status, text, expected in (
            (429, "toomanyrequests: SECRET", "answered 429 to `POST /images/create`: toomanyrequests"),
            (503, "unavailable: SECRET connection refused", f"answered 503 to `POST /images/create`: {HIDDEN}"),
        ):
            self.daemon.answers[CREATE] = partial(Exchange.refuse, status=status, message=text)
            error = self.failure()
            self.assertIsInstance(error, TemporaryAnswer)
            self.assertIn(expected, str(error))
            self.assertEqual(self.logged(), [text])

    def test_what_is_logged_is_bounded(self) -> None:
        self.daemon.answers[CREATE] = partial(Exchange.stream, lines=[{"error": "x" * 200_000}])
        self.failure()
        [text] = self.logged()
        self.assertLessEqual(len(text), LONGEST_READ)

    def test_a_reference_that_docker_refuses_is_the_callers_fault(self) -> None:
        self.daemon.answers[CREATE] = partial(Exchange.refuse, status=400, message="invalid reference format: SECRET")
        self.assertIsInstance(self.failure(), ImageRefInvalid)
