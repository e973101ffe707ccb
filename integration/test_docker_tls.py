"""A real daemon that verifies its clients, over TLS: a game's life, its events, a pull, and wrong settings."""

import shutil
import tempfile
from pathlib import Path

from harness import check_docker_daemon, start_docker_daemon, start_services
from harness.rtm import RuntimeTestCase
from integration.support import images
from rtmanager.adapters.docker import DockerRuntime
from rtmanager.adapters.docker.tls import TlsFiles
from rtmanager.domain.errors import Unavailable
from rtmanager.ports.runtime import ImageUnavailable, PullPolicy
from rtmanager.tests.tls_front import Authority

#: The possible addresses of a daemon of the harness.
ADDRESSES = ",".join(f"IP:198.18.{number}.2" for number in range(32))


def setUpModule() -> None:
    start_services()


class Tls(RuntimeTestCase):
    def test_a_daemon_that_verifies_its_clients_is_used_like_any_other(self) -> None:
        check_docker_daemon()
        if not shutil.which("openssl"):
            self.skipTest("needs openssl to make certificates")
        directory = tempfile.TemporaryDirectory()
        self.at_end(directory.cleanup)
        home = Path(directory.name)
        ours, theirs = Authority(home), Authority(home, "other")
        certificate, key = ours.sign("server", subject=ADDRESSES)
        own = start_docker_daemon(
            arguments=[
                "--host=tcp://0.0.0.0:2376",
                "--tlsverify",
                f"--tlscacert={ours.certificate}",
                f"--tlscert={certificate}",
                f"--tlskey={key}",
            ]
        )
        self.at_end(own.close)
        own.copy_image(images.tiny("waits"))
        network = own.create_network()
        host = f"tcp://{own.address}:2376"
        client = ours.sign("client")

        self.start_runtime(
            DOCKER_HOST=host,
            DOCKER_NETWORK=network.name,
            DOCKER_TLS_CA=ours.certificate,
            DOCKER_TLS_CERT=client[0],
            DOCKER_TLS_KEY=client[1],
        )
        record = self.post("start", {"image_ref": images.tiny("waits")})
        own.client().kill(record["current_container_id"])
        self.wait_until("the end by an event", lambda: self.record()["status"] == "stopped")
        self.post("restart", {})
        self.post("stop", {"reason": "finished"})
        self.refused(self.call("POST", "/start", {"image_ref": "127.0.0.1:1/x:1"}), 500, "image_pull_failed")

        stranger, expired = theirs.sign("stranger"), ours.sign("expired", days=-1)
        for text, tls in (
            ("(set|check) RTMANAGER_DOCKER_TLS_CERT", TlsFiles(ours.certificate)),
            ("not signed by the CA of RTMANAGER_DOCKER_TLS_CA", TlsFiles(theirs.certificate, *client)),
            ("RTMANAGER_DOCKER_TLS_CERT", TlsFiles(ours.certificate, *stranger)),
            ("our certificate|RTMANAGER_DOCKER_TLS_CERT", TlsFiles(ours.certificate, *expired)),
            ("it expects TLS there; set RTMANAGER_DOCKER_TLS_CA", None),
        ):
            with self.subTest(text), self.assertRaisesRegex(Unavailable, text):
                self.connect(host, tls).ping()
        good = self.connect(host, TlsFiles(ours.certificate, *client))
        with self.assertRaises(ImageUnavailable):
            good.ensure_image("127.0.0.1:1/x:1", PullPolicy.ALWAYS)

    def connect(self, host: str, tls: TlsFiles | None) -> DockerRuntime:
        made = DockerRuntime(host, tls=tls)
        self.at_end(made.close)
        return made
