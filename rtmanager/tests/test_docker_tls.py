"""Docker behind TLS: every call, the events and the pulls; an error names the setting at fault."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path

from rtmanager.adapters.docker import Deadlines, DockerRuntime
from rtmanager.adapters.docker.events import DockerEvents
from rtmanager.adapters.docker.tls import TlsFiles
from rtmanager.domain.errors import IN_MESSAGE, FinalAnswer, Unavailable
from rtmanager.ports.runtime import PullPolicy
from rtmanager.tests.fake_daemon import AT_ONCE_S, Exchange, FakeDaemon, Feed, until
from rtmanager.tests.tls_front import SHORT_KEY, Authority, TlsFront, openssl

REF = "registry.test:5000/game:1"
PAIR = ("certificate", "key")


@unittest.skipUnless(shutil.which("openssl"), "needs openssl to make certificates")
class TlsTest(unittest.TestCase):
    home: Path
    ours: Authority
    theirs: Authority
    server: tuple[str, str]
    client: tuple[str, str]

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        home = cls.home = Path(directory.name)
        cls.ours, cls.theirs = Authority(home), Authority(home, "other")
        cls.server = cls.ours.sign("server")
        cls.client = cls.ours.sign("client")

    def setUp(self) -> None:
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)
        self.daemon.start()
        self.front = self.serve(self.server, client_ca=self.ours.certificate)

    def serve(self, pair: tuple[str, str], client_ca: str | None = None) -> TlsFront:
        front = TlsFront(self.daemon.path, pair, client_ca)
        self.addCleanup(front.close)
        return front

    def runtime(self, tls: TlsFiles | None, port: int | None = None, host: str = "127.0.0.1") -> DockerRuntime:
        made = DockerRuntime(
            f"tcp://{host}:{port or self.front.port}", tls=tls, deadlines=Deadlines(ping_s=AT_ONCE_S, query_s=AT_ONCE_S)
        )
        self.addCleanup(made.close)
        return made

    def files(self, **changes: str) -> TlsFiles:
        return TlsFiles(**{"ca": self.ours.certificate, "certificate": self.client[0], "key": self.client[1]} | changes)

    def test_calls_of_all_kinds_pass(self) -> None:
        body = {"Id": "i", "Config": {"Labels": {"large": "x" * 300_000, "com.galaxy.memory": "64m"}}}
        self.daemon.answers[f"GET /images/{REF}/json"] = lambda exchange: exchange.reply(200, body)
        self.daemon.answers["POST /images/create"] = lambda exchange: exchange.stream([{"status": "n"}] * 500)
        runtime = self.runtime(self.files())
        self.assertIn("Docker 0", runtime.ping())
        # The last label shows that the whole answer arrived; the large one is not kept.
        self.assertEqual(runtime.ensure_image(REF, PullPolicy.ALWAYS).labels, {"com.galaxy.memory": "64m"})

    def test_without_a_client_certificate_where_none_is_required(self) -> None:
        open_to_all = self.serve(self.server)
        self.runtime(TlsFiles(ca=self.ours.certificate), open_to_all.port).ping()
        self.runtime(TlsFiles(ca=self.ours.certificate), open_to_all.port, host="localhost").ping()

    def test_events_are_received_and_can_be_interrupted(self) -> None:
        feed = Feed()
        self.addCleanup(feed.end)
        self.daemon.answers["GET /_ping"] = lambda exchange: exchange.reply_raw(200, b"OK")
        self.daemon.answers["GET /events"] = feed.serve
        events = DockerEvents(f"tcp://127.0.0.1:{self.front.port}", tls=self.files())
        self.addCleanup(events.interrupt)
        events.connect()
        received: list[str] = []
        listening = threading.Thread(
            target=lambda: received.extend(getattr(each, "container_id", "?") for each in events.listen())
        )
        listening.start()
        feed.send(
            b'{"Type":"container","Action":"die","Actor":{"ID":"c1","Attributes":{"exitCode":"1",'
            b'"com.galaxy.game_id":"g1"}},"timeNano":1}\n'
        )
        until(lambda: received == ["c1"])
        events.interrupt()
        listening.join(AT_ONCE_S)
        self.assertFalse(listening.is_alive())

    def test_close_cuts_calls_that_wait(self) -> None:
        self.daemon.answers["POST /images/create"] = Exchange.hang
        self.daemon.answers["GET /containers/json"] = Exchange.hang
        self.assert_cut(lambda runtime: runtime.list_games())
        self.assert_cut(lambda runtime: runtime.ensure_image(REF, PullPolicy.ALWAYS))

    def assert_cut(self, call: Callable[[DockerRuntime], object]) -> None:
        runtime = self.runtime(self.files())
        failures: list[Unavailable] = []

        def run() -> None:
            try:
                call(runtime)
            except Unavailable as error:
                failures.append(error)

        before = len(self.daemon.requests)
        thread = threading.Thread(target=run)
        thread.start()
        until(lambda: len(self.daemon.requests) >= before + 2)
        began = time.monotonic()
        runtime.close()
        thread.join(AT_ONCE_S)
        self.assertLess(time.monotonic() - began, AT_ONCE_S)
        self.assertEqual(len(failures), 1)

    def test_a_pull_that_nobody_waits_for_is_cut(self) -> None:
        hung = threading.Event()

        def hang(exchange: Exchange) -> None:
            try:  # either call may meet the end of the connection
                exchange.stream([{"status": "Pulling"}], end=False)
                exchange.connection.recv(1)
            finally:
                hung.set()

        self.daemon.answers["POST /images/create"] = hang
        pull = self.runtime(self.files()).request_image(REF, PullPolicy.ALWAYS)
        until(lambda: "POST /images/create" in self.daemon.requests)
        pull.leave()  # type: ignore[union-attr]  # the image is missing, so there is a pull
        self.assertTrue(hung.wait(AT_ONCE_S))

    def test_a_renewed_certificate_needs_no_restart(self) -> None:
        certificate, key = self.theirs.sign("renewed")
        runtime = self.runtime(self.files(certificate=certificate, key=key))
        with self.assertRaises(Unavailable):
            runtime.ping()
        shutil.copy(self.client[1], key)
        shutil.copy(self.client[0], certificate)
        runtime.ping()

    def test_what_is_wrong_is_reported_with_its_setting(self) -> None:
        expired, expired_client = self.ours.sign("expired", days=-1), self.ours.sign("expired-client", days=-1)
        other_host, stranger = self.ours.sign("other-host", subject="DNS:other.test"), self.theirs.sign("stranger")
        garbage = self.home / "garbage.pem"
        garbage.write_text("garbage")
        encrypted = self.home / "encrypted.key"
        openssl("pkcs8", "-topk8", "-in", self.client[1], "-passout", "pass:secret", "-out", str(encrypted))
        verified = self.ours.certificate
        for expected, tls, port in (
            ("RTMANAGER_DOCKER_TLS_CA='/none' cannot be read: No such file", self.files(ca="/none"), None),
            ("RTMANAGER_DOCKER_TLS_CERT='/' cannot be read: Is a directory", self.files(certificate="/"), None),
            ("RTMANAGER_DOCKER_TLS_CA='.*' holds no certificate", self.files(ca=str(garbage)), None),
            ("are no certificate and key", self.files(certificate=str(garbage)), None),
            ("the key has a password", self.files(key=str(encrypted)), None),
            ("RTMANAGER_DOCKER_TLS_KEY='.*' is not the key of", self.files(key=self.server[1]), None),
            ("not signed by the CA of RTMANAGER_DOCKER_TLS_CA", self.files(ca=self.theirs.certificate), None),
            ("has expired; renew it on the Docker host", self.files(), self.serve(expired, verified).port),
            ("is not for the (host|address) of RTMANAGER_DOCKER_HOST", self.files(), self.serve(other_host).port),
            ("(set|check) RTMANAGER_DOCKER_TLS_CERT and", self.files(certificate="", key=""), None),
            ("RTMANAGER_DOCKER_TLS_CERT", self.files(certificate=stranger[0], key=stranger[1]), None),
            (
                "our certificate|RTMANAGER_DOCKER_TLS_CERT",
                self.files(certificate=expired_client[0], key=expired_client[1]),
                None,
            ),
        ):
            with self.subTest(expected), self.assertRaisesRegex(Unavailable, expected) as caught:
                self.runtime(tls, port).ping()
            self.assertEqual(caught.exception.remedy, IN_MESSAGE, "check would print another one")

    def test_a_certificate_of_the_right_ca_that_does_not_do_is_reported_as_such(self) -> None:
        no_ca = Authority(self.home, "no-ca", "basicConstraints=critical,CA:FALSE")
        weak = self.ours.sign("short", new_key=SHORT_KEY)
        sha1 = self.ours.sign("sha1", digest="-sha1")
        client_only = self.ours.sign("client-only", extensions="extendedKeyUsage=clientAuth")
        critical = self.ours.sign("critical", extensions="1.2.3.4=critical,ASN1:NULL")
        for expected, server, changes in (
            ("is not for a TLS server; renew it with extendedKeyUsage serverAuth", client_only, {}),
            ("has a key that is too short; renew it with an RSA key of at least 2048 bits", weak, {}),
            (r"signature that is too weak \(SHA-1, MD5\); renew it signed with SHA-256", sha1, {}),
            ("is signed by what is no CA; renew the CA", no_ca.sign("server"), {"ca": no_ca.certificate}),
            ("is not accepted: unhandled critical extension; renew it", critical, {}),
            ("TLS_CERT='.*short.pem' has a key that is too short", self.server, dict(zip(PAIR, weak, strict=True))),
            ("TLS_CERT='.*sha1.pem' has a signature", self.server, dict(zip(PAIR, sha1, strict=True))),
        ):
            with self.subTest(expected), self.assertRaisesRegex(Unavailable, expected) as caught:
                self.runtime(self.files(**changes), self.serve(server).port).ping()
            self.assertNotIn("not signed by the CA", str(caught.exception))

    def test_tls_to_a_port_in_plain_and_the_other_way_round(self) -> None:
        plain = _Plain(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
        self.addCleanup(plain.close)
        with self.assertRaisesRegex(Unavailable, "does not speak TLS there.*unset RTMANAGER_DOCKER_TLS_CA"):
            self.runtime(self.files(), plain.port).ping()
        # A daemon in Go answers in plain text; others send a TLS alert, or close the connection.
        for port in (plain.port, self.front.port):
            with self.subTest(port), self.assertRaisesRegex(Unavailable, "expects TLS.*set RTMANAGER_DOCKER_TLS_CA"):
                self.runtime(None, port).ping()

    def test_a_text_in_dockers_form_is_no_tls_port(self) -> None:
        """Such a text may come from a registry or an image."""
        body = b'{"message": "lstat /x: Client sent an HTTP request to an HTTPS server: not a directory"}'
        docker = _Plain(b"HTTP/1.0 500 No\r\n\r\n" + body)
        self.addCleanup(docker.close)
        with self.assertRaises(FinalAnswer):
            self.runtime(None, docker.port).ping()

    def test_a_server_that_sends_nothing_in_the_handshake_is_given_up(self) -> None:
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        runtime = self.runtime(self.files(), silent.getsockname()[1])
        closing = threading.Timer(0.2, runtime.close)
        closing.start()
        with self.assertRaises(Unavailable):
            runtime.ping()
        closing.join()


class _Plain:
    """Answers every connection with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                client.recv(1 << 16)
                client.sendall(self._answer)
