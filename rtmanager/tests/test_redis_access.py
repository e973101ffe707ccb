"""Checks of Redis: the tested commands are those used and documented; an unsuitable server is named with a remedy."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

import redis

from rtmanager.adapters import redis_access
from rtmanager.adapters.redis_access import RedisUnfit, Tls, WritesRefused, acl_rules, commands, examine, refused_write
from rtmanager.adapters.redis_streams import RedisStreams
from rtmanager.domain.errors import RuntimeManagerError, Unavailable
from rtmanager.domain.jobs import INPUT_STREAMS
from rtmanager.domain.messages import Stream
from rtmanager.tests.tls_front import SHORT_KEY, Authority, TlsFront

ROOT = Path(__file__).parents[2]
NAMES = {stream: f"runtime:{stream.name.lower()}" for stream in Stream} | {
    Stream.NOTIFICATION_INTENTS: "notification:intents"
}
#: Methods of the client that are not commands, and those whose command has another name.
NO_COMMANDS = {"client", "close", "connection_pool", "execute", "execute_command", "pipeline", "register_script"}
RENAMED = {"client_id": "client|id", "client_unblock": "client|unblock", "xgroup_create": "xgroup|create"}
RENAMED |= {"xgroup_setid": "xgroup|setid", "xinfo_groups": "xinfo|groups"}

PIPELINED = "Command # 2 (SADD a) of pipeline caused error: "
WRONG_TYPE = redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")


class Scripted:
    """A connection whose server answers by command."""

    def __init__(self, **answers: object) -> None:
        self._answers = answers
        self._waiting: list[object] = []
        self.disconnected = False

    def pack_commands(self, commands: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
        return commands

    def send_packed_command(self, commands: list[tuple[object, ...]]) -> None:
        self._waiting += [self._answers.get(str(command[0]), b"QUEUED") for command in commands]

    def read_response(self) -> object:
        answer = self._waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def disconnect(self) -> None:
        self.disconnected = True


def hello(version: str, mode: str = "standalone", role: str = "master") -> list[object]:
    fields = [b"server", b"redis", b"version", version.encode(), b"proto", 2, b"mode", mode.encode()]
    return [*fields, b"role", role.encode(), b"modules", []]


class Rules(unittest.TestCase):
    def test_the_line_of_the_documentation_is_that_of_the_code(self) -> None:
        text = (ROOT / "docs" / "failures.md").read_text()
        self.assertIn(f"    ACL SETUSER rtmanager on >the-password {acl_rules(NAMES)}\n", text)

    def test_every_command_that_the_adapter_uses_is_tried_or_optional(self) -> None:
        used: set[str] = set()
        for path in (ROOT / "rtmanager" / "adapters").glob("redis_*.py"):
            if path.name == "redis_access.py":
                continue
            text = path.read_text()
            called = re.findall(r"redis\.p?call\('(\w+)'(?:, '([A-Z]+)')?", text)
            subcommands = redis_access._SUBCOMMANDS
            used |= {f"{name}|{sub}".lower() if name in subcommands else name.lower() for name, sub in called}
            methods = re.findall(r"(?:_client|_waiter|_reader|pipe|waiter|connection)\.([a-z_]+)\(", text)
            used |= {RENAMED.get(name, name) for name in methods} - NO_COMMANDS
        tried = {redis_access._command(each) for each in commands(NAMES)} | set(redis_access._OPTIONAL)
        not_redis = {name for name in used if name.startswith(("read_", "send_", "pack_", "disconnect"))}
        self.assertEqual(used - tried - not_redis, set())
        self.assertLess({"xadd", "sadd", "xreadgroup", "xgroup|create"}, used)


class Examined(unittest.TestCase):
    def assert_unfit(self, *expected: str, **answers: object) -> None:
        with self.assertRaises(RedisUnfit) as caught:
            examine(Scripted(**answers), NAMES, "redis at h:1")
        text = f"{caught.exception} {caught.exception.remedy}"
        self.assertEqual(text.splitlines(), [text])
        for part in expected:
            self.assertIn(part, text)

    def test_one_that_allows_everything_is_taken(self) -> None:
        for version in ("7.0.15", "8.0-rc1", "255.255.255", "7.2.4", "df-1.0"):
            self.assertEqual(examine(Scripted(HELLO=hello(version)), NAMES, "redis"), version)

    def test_one_that_is_too_old_is_refused_by_its_version(self) -> None:
        self.assert_unfit("6.2.14 is too old", "7.0", HELLO=hello("6.2.14"))
        self.assert_unfit(
            "5.0.3 is too old", HELLO=redis.ResponseError("unknown command"), INFO=b"redis_version:5.0.3\r\n"
        )

    def test_without_hello_and_info_the_commands_decide(self) -> None:
        refused = redis.exceptions.NoPermissionError("no")
        self.assertEqual(examine(Scripted(HELLO=redis.ResponseError("unknown"), INFO=refused), NAMES, "redis"), "")

    def test_other_kinds_are_refused(self) -> None:
        self.assert_unfit("Redis Cluster", HELLO=hello("7.0.0", "cluster"))
        self.assert_unfit("Sentinel", HELLO=hello("7.0.0", "sentinel"))
        for answer in (
            redis.exceptions.MovedError("1 h:1"),
            redis.exceptions.ClusterDownError("the cluster is down"),
            redis.exceptions.ClusterCrossSlotError("Keys in request don't hash to the same slot"),
        ):
            self.assert_unfit("Redis Cluster", HELLO=hello("7.0.0"), XADD=answer)

    def test_a_write_that_is_refused_is_reported_with_its_cause_and_remedy(self) -> None:
        for answer, cause, remedy in (
            (redis.ReadOnlyError("You can't write against a read only replica."), "a replica now", "name the primary"),
            (redis.exceptions.OutOfMemoryError("command not allowed"), "memory is full", "raise maxmemory"),
            (redis.ResponseError("MISCONF Errors writing to the AOF file"), "cannot save", "its disk is full"),
            (redis.ResponseError("NOREPLICAS Not enough good replicas"), "fewer replicas", "min-replicas-to-write"),
        ):
            with self.assertRaises(type(answer)) as raised:
                examine(Scripted(HELLO=hello("7.0.0"), SADD=answer), NAMES, "redis")
            for error in (raised.exception, type(answer)(f"{PIPELINED}{answer}")):
                refused = refused_write(error, "redis at h:1")
                assert refused is not None
                self.assertIsInstance(refused, Unavailable)
                self.assertRegex(str(refused), f"^redis at h:1 takes no writes, .*{cause}.*: {str(answer)[:6]}")
                self.assertIn(remedy, refused.remedy or "")

    def test_a_replica_that_takes_writes_is_one(self) -> None:
        for answers in (
            {"HELLO": hello("7.0.0", role="replica")},
            {"HELLO": dict(zip(*[iter(hello("7.0.0", role="replica"))] * 2, strict=True))},
            {"HELLO": redis.ResponseError("unknown command"), "INFO": b"redis_version:7.0.0\r\nrole:slave\r\n"},
        ):
            with self.assertRaises(redis.ReadOnlyError) as raised:
                examine(Scripted(**answers), NAMES, "redis")
            self.assertRegex(str(refused_write(raised.exception, "redis")), "it is a replica now: READONLY")

    def test_no_other_error_is_a_refused_write(self) -> None:
        for error in (redis.ResponseError("ERR OOM"), redis.ResponseError(""), redis.ConnectionError("no"), WRONG_TYPE):
            self.assertIsNone(refused_write(error, "redis"), repr(error))

    def test_a_key_of_another_type_is_written_to(self) -> None:
        self.assertEqual(examine(Scripted(HELLO=hello("7.0.0"), SADD=WRONG_TYPE), NAMES, "redis"), "7.0.0")

    def test_writes_that_are_kept_back_are_reported(self) -> None:
        with self.assertRaisesRegex(WritesRefused, "answers, and to no write"):
            examine(Scripted(HELLO=hello("7.0.0"), SADD=redis.TimeoutError("Timeout")), NAMES, "redis")

    def test_what_is_for_a_while_is_not_taken_for_a_refusal_of_rights(self) -> None:
        with self.assertRaises(redis.BusyLoadingError):
            examine(Scripted(HELLO=hello("7.0.0"), XADD=redis.BusyLoadingError("loading")), NAMES, "redis")

    def test_a_policy_that_removes_streams_is_warned_of(self) -> None:
        for policy, warned in (("noeviction", 0), ("volatile-lru", 0), ("allkeys-lru", 1), ("allkeys-random", 1)):
            info = f"# Memory\r\nmaxmemory:0\r\nmaxmemory_policy:{policy}\r\n".encode()
            found = redis_access.warnings(Scripted(INFO=info), NAMES)
            self.assertEqual(len(found), warned, policy)
            for warning in found:
                self.assertRegex(warning, f"{policy}.*remedy: CONFIG SET maxmemory-policy noeviction")
        for answer in (b"", redis.exceptions.NoPermissionError("no"), redis.ResponseError("unknown command"), 3):
            self.assertEqual(redis_access.warnings(Scripted(INFO=answer), NAMES), [])

    def test_a_stream_of_few_nodes_is_warned_of(self) -> None:
        for entries, nodes, few in ((0, 0, False), (100_000, 100, False), (100_001, 100, True), (40_000, 1, True)):
            found = redis_access.warnings(Scripted(EVALSHA=[b"1-1", entries, nodes]), NAMES)
            self.assertEqual(len(found), len(INPUT_STREAMS) if few else 0, (entries, nodes))
        self.assertRegex(found[0], "runtime:start_jobs.*remedy: CONFIG SET stream-node-max-entries 100")
        for answer in ([], [None, None], redis.exceptions.NoPermissionError("no"), redis.ResponseError("NOSCRIPT")):
            self.assertEqual(redis_access.warnings(Scripted(EVALSHA=answer), NAMES), [])

    def test_without_a_multi_nothing_is_tried(self) -> None:
        self.assert_unfit("MULTI", HELLO=hello("7.0.0"), MULTI=redis.exceptions.NoPermissionError("no"))

    def test_a_connection_that_stays_in_a_transaction_is_given_up(self) -> None:
        connection = Scripted(HELLO=hello("7.0.0"), DISCARD=redis.exceptions.NoPermissionError("no"))
        with self.assertRaises(RedisUnfit):
            examine(connection, NAMES, "redis")
        self.assertTrue(connection.disconnected)


class Strangers(unittest.TestCase):
    """The port belongs to a program other than Redis."""

    def serve(self, answer: bytes | None) -> int:
        """Start a server that sends this answer to any data and closes; None: it sends nothing. Returns the port."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)

        def run() -> None:
            kept = []
            while True:
                try:
                    line, _ = listening.accept()
                except OSError:
                    return
                if answer is None:
                    kept.append(line)
                    continue
                with line, contextlib.suppress(OSError):
                    line.recv(1000)
                    line.sendall(answer)

        threading.Thread(target=run, daemon=True).start()
        return int(listening.getsockname()[1])

    def connect_error(self, port: int, tls: Tls | None = None) -> RuntimeManagerError:
        streams = RedisStreams("127.0.0.1", port, password="", tls=tls, names=NAMES, output_maxlen=1000, silence_s=2)
        with contextlib.closing(streams), self.assertRaises(RuntimeManagerError) as caught:
            streams.ping()
        message = str(caught.exception)
        self.assertIn(f"127.0.0.1:{port}", message)
        self.assertEqual(message.splitlines(), [message])
        return caught.exception

    def test_each_is_named_by_what_it_answers_with_tls_or_without(self) -> None:
        for answer, name in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "an HTTP server answers there"),
            (b"ERROR\r\n", "memcached"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "something else than Redis answers there: b'SSH-2.0"),
            (b"\0\xff\x1b[2J\n", "something else than Redis"),
            (b"N", "something else than Redis"),
        ):
            for tls in (None, Tls()):
                with self.subTest(name, tls=tls):
                    error = self.connect_error(self.serve(answer), tls)
                    self.assertIsInstance(error, RedisUnfit)
                    self.assertIn(name, str(error))
                    self.assertIn("RTMANAGER_REDIS_MASTER_ADDR", error.remedy or "")

    @unittest.skipUnless(shutil.which("openssl"), "needs openssl to make certificates")
    def test_a_certificate_that_does_not_do_is_distinguished_from_one_of_another_authority(self) -> None:
        with tempfile.TemporaryDirectory() as home:
            ours, theirs = Authority(Path(home)), Authority(Path(home), "other")
            good, short = ours.sign("good"), ours.sign("short", new_key=SHORT_KEY)
            client_only = ours.sign("client-only", extensions="extendedKeyUsage=clientAuth")
            for expected, pair, tls in (
                ("is not for a TLS server: renew it with", client_only, Tls(ours.certificate)),
                ("has a key that is too short: renew it with", short, Tls(ours.certificate)),
                ("name the authority that signed it in", good, Tls(theirs.certificate)),
                ("renew it with an RSA key", good, Tls(ours.certificate, *short)),
            ):
                front = TlsFront("/nothing", pair)
                with self.subTest(expected), contextlib.closing(front):
                    error = self.connect_error(front.port, tls)
                    self.assertIsInstance(error, RedisUnfit)
                    self.assertIn(expected, error.remedy or "")

    def test_a_file_whose_reading_might_not_end_is_named_and_not_opened(self) -> None:
        with tempfile.TemporaryDirectory() as home:
            pipe = str(Path(home, "pipe"))
            os.mkfifo(pipe)
            for path in (pipe, "/dev/zero"):
                for name, tls in (("CA", Tls(path)), ("CERT", Tls("", path)), ("KEY", Tls("", __file__, path))):
                    with self.subTest(name, path=path):
                        error = self.connect_error(self.serve(b""), tls)
                        self.assertIsInstance(error, RedisUnfit)
                        self.assertIn(f"{path} cannot be read: it is no regular file", str(error))
                        self.assertEqual(error.remedy, f"correct RTMANAGER_REDIS_TLS_{name}")
                with mock.patch.dict("os.environ", {"SSL_CERT_FILE": path}):
                    self.assertEqual(self.connect_error(self.serve(b""), Tls()).remedy, "correct SSL_CERT_FILE")

    def test_a_key_log_that_cannot_be_written_is_named(self) -> None:
        with tempfile.TemporaryDirectory() as home:
            pipe = str(Path(home, "pipe"))
            os.mkfifo(pipe)
            for path in (pipe, f"{home}/none/log", home):
                with self.subTest(path), mock.patch.dict("os.environ", {"SSLKEYLOGFILE": path}):
                    error = self.connect_error(self.serve(b""), Tls())
                    self.assertIn(f"SSLKEYLOGFILE='{path}' cannot be written", str(error))
                    self.assertEqual(error.remedy, "correct SSLKEYLOGFILE")
                    self.assertIsInstance(self.connect_error(self.serve(b"")), Unavailable, "no TLS is wanted")

    def test_one_that_sends_nothing_is_silence_with_a_likely_cause(self) -> None:
        for tls in (None, Tls()):
            error = self.connect_error(self.serve(None), tls)
            self.assertIsInstance(error, Unavailable)
            self.assertIn("accepts connections and says nothing", str(error))

    def test_one_that_ends_each_connection_without_an_answer_is_silence(self) -> None:
        self.assertIsInstance(self.connect_error(self.serve(b"")), Unavailable)

    def test_a_command_that_another_program_answers_ends_nothing(self) -> None:
        streams = RedisStreams(
            "127.0.0.1", self.serve(b"HTTP/1.1 400 no\r\n"), password="", names=NAMES, output_maxlen=1, silence_s=2
        )
        with contextlib.closing(streams), self.assertRaisesRegex(Unavailable, "HTTP/1.1 400"):
            streams.require()
