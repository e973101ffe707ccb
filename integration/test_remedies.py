"""Each cause has its remedy: the messages of `check` for every kind of wrong dependency.

Real servers cover what they can; a server with one fixed answer covers the rest. Poolers, schemas, rights and TLS have
their own tests: `test_postgres_found`, `test_redis_found`, `test_docker_tls`.
"""

import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from harness import start_redis, start_services
from harness.fixtures.listening import free_port
from harness.tests import plain_user
from integration.support.commands import CommandTestCase, needs_mount
from integration.test_postgres_found import PostgresFoundTestCase

#: A name that no resolver has, by RFC 2606.
NOWHERE = "nowhere.invalid"
PASSWORD = "password"


def setUpModule() -> None:
    start_services()


@contextmanager
def answering_with(answer: bytes) -> Iterator[str]:
    """The address of a server that sends this answer to any data, or nothing if it is empty."""

    def answer_all(line: socket.socket) -> None:
        with line, suppress(OSError):
            while line.recv(1 << 16):
                if answer:
                    line.sendall(answer)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer_all, args=server.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        accepting.join()


class RemediesTestCase(PostgresFoundTestCase):
    def assert_remedy(self, name: str, cause: str, remedy: str, **changes: str) -> None:
        """The check fails for this cause, and its message contains this remedy and no other."""
        with self.subTest(cause):
            code, output = self.check(**changes)
            lines = output.replace("\n" + " " * 20, " ").splitlines()
            [line] = [each for each in lines if each.startswith(f"FAILED  {name:<10}")]
            self.assertEqual(code, 1)
            self.assertRegex(line, cause)
            self.assertRegex(line, remedy)
            if PASSWORD not in remedy.lower():
                self.assertNotIn(PASSWORD, line.lower())


class Postgres(RemediesTestCase):
    def test_each_cause_has_its_remedy(self) -> None:
        stranger = "another program than PostgreSQL has this port"
        body = b"SFATAL\0VFATAL\0C57P03\0MDas Datenbanksystem startet\0\0"
        starting = b"E" + (len(body) + 4).to_bytes(4, "big") + body
        for answer, cause, remedy, more in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "invalid response", stranger, ""),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "expected authentication", stranger, "&sslmode=disable"),
            (starting, "Das Datenbanksystem startet", "wait until it takes connections", "&sslmode=disable"),
            (b"", "does not answer: connection timeout", "are host and port of .*_DSN right", ""),
        ):
            with answering_with(answer) as at:
                self.assert_remedy("postgres", cause, remedy, POSTGRES_PRIMARY_DSN=self.dsn(at) + more)
        self.assert_remedy("postgres", "resolve host", "resolver know it", POSTGRES_PRIMARY_DSN=self.dsn(NOWHERE))
        refused = self.dsn(f"127.0.0.1:{free_port()}")
        self.assert_remedy("postgres", "refused", "is it running", POSTGRES_PRIMARY_DSN=refused)

    def dsn(self, where: str) -> str:
        return f"postgres://rtmanagerservice@{where}/galaxy?search_path=rtmanager"

    def test_out_of_connections(self) -> None:
        import psycopg

        dsn = self.services.postgres.dsn(self.database.name, "rtmanagerservice")
        with ExitStack() as others:
            with suppress(psycopg.OperationalError):
                for _ in range(1_000):
                    others.enter_context(psycopg.connect(dsn))
            self.assert_remedy("postgres", "connection slots are reserved", "raise max_connections")

    def test_a_server_that_takes_encrypted_connections_only(self) -> None:
        rules = "(echo host all postgres all trust; echo hostssl all all all trust) > $PGDATA/pg_hba.conf"
        self.assertEqual(self.services.postgres.container.exec(["sh", "-c", rules])[0], 0)
        self.administer("SELECT pg_reload_conf()")
        self.assert_remedy("postgres", "no encryption", r"TLS \(sslmode\)")


class RedisAndDocker(RemediesTestCase):
    own_server = False

    def test_each_cause_of_redis_has_its_remedy(self) -> None:
        for answer, cause, remedy in (
            (b"-LOADING Redis is loading the dataset in memory\r\n", "loading", "wait: it reads what it has saved"),
            (b"-MASTERDOWN Link with MASTER is down\r\n", "MASTER is down", "name the primary"),
            (b"-DENIED Redis is running in protected mode\r\n", "protected mode", "set a password or bind"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "an HTTP server answers there", "another program than Redis"),
        ):
            with answering_with(answer) as at:
                self.assert_remedy("redis", cause, remedy, REDIS_MASTER_ADDR=at)
        nowhere, refused = f"{NOWHERE}:6379", f"127.0.0.1:{free_port()}"
        self.assert_remedy("redis", "Name or service not known", "resolver know it", REDIS_MASTER_ADDR=nowhere)
        self.assert_remedy("redis", "refused", r"does it listen there \(bind\)", REDIS_MASTER_ADDR=refused)

    def test_of_a_real_redis_as_well(self) -> None:
        server = self.own(start_redis())
        where = {"REDIS_MASTER_ADDR": server.address}
        login = "are RTMANAGER_REDIS_USERNAME and RTMANAGER_REDIS_PASSWORD right"
        self.assert_remedy("redis", "without any password", login, **where, REDIS_PASSWORD="s3cret")
        with server.client() as client:
            client.config_set("requirepass", "s3cret")
            self.assert_remedy("redis", "Authentication required", login, **where)
            self.assert_remedy("redis", "invalid username-password pair", login, **where, REDIS_PASSWORD="wrong")
            client.config_set("requirepass", "")
            client.config_set("maxclients", 1)
            self.assert_remedy("redis", "max number of clients", "raise maxclients", **where)

    def test_each_cause_of_docker_has_its_remedy(self) -> None:
        there = "check that Docker runs there"
        no_socket = self.enterContext(tempfile.NamedTemporaryFile()).name
        for host, cause, remedy in (
            ("unix:///nowhere.sock", "No such file", there),
            (f"unix://{no_socket}", "refused", there),
            (f"tcp://127.0.0.1:{free_port()}", "refused", there),
            (f"tcp://{NOWHERE}:2375", "Name or service not known", "check the name of the host"),
        ):
            self.assert_remedy("docker", cause, remedy, DOCKER_HOST=host)
        for status, cause in ((404, "answered 404"), (503, "cannot serve now")):
            page = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
            with answering_with(page) as at:
                self.assert_remedy("docker", cause, "no proxy answers in its place", DOCKER_HOST=f"tcp://{at}")


class StateRoots(CommandTestCase):
    def assert_refused(self, *texts: str, before: tuple[str, ...] = (), **changes: str) -> None:
        _, output = self.command("check", self.environment(**changes), "--json", only_stdout=True, before=before)
        [root] = [each for each in json.loads(output)["checks"] if each["name"] == "state root"]
        self.assertEqual((root["ok"], root["remedy"]), (False, ""), root)
        for text in texts:
            self.assertIn(text, root["message"])

    def test_each_cause_has_its_remedy(self) -> None:
        base = self.state_root.directory
        (base / "file").write_text("no directory")
        (base / "link").symlink_to(base)
        (base / "up").symlink_to("/")
        for name, text in {
            "nowhere": "create it, or correct RTMANAGER_GAME_STATE_ROOT",
            "file": "move away what stands there",
            "link": "put the directory itself there",
            "up/etc": "lead to /etc, which is the system's",
        }.items():
            with self.subTest(name):
                self.assert_refused(text, GAME_STATE_ROOT=str(base / name))

    @needs_mount
    def test_a_file_system_that_is_read_only(self) -> None:
        script = 'mount -t tmpfs -o ro none "$1" && shift && exec "$@"'
        games = str(self.state_root.folder("games"))
        self.assert_refused("mount it writable", before=("unshare", "--mount", "sh", "-c", script, "sh", games))


class PlainUser(CommandTestCase):
    def test_a_user_who_may_use_neither_the_socket_nor_the_root_gets_the_remedy(self) -> None:
        plain_user.check()
        games = self.state_root.folder("games")
        run = plain_user.python(
            *("-m", "rtmanager", "check", "--json"),
            cwd=plain_user.ROOT,
            environment=self.environment(),
            in_group=False,
        )
        found = {each["name"]: each for each in json.loads(run.stdout)["checks"]}
        self.assertEqual(run.returncode, 1)
        self.assertIn("Permission denied; let this user use it: add the user to the group", found["docker"]["message"])
        self.assertIn(f"{games}: this process (user {plain_user.UID}) has no perm", found["state root"]["message"])
        self.assertEqual({found[name]["ok"] for name in ("directory", "container")}, {None})
