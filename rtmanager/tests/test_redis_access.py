"""What is tried of Redis is what is used, and what the documentation says that a user needs."""

from __future__ import annotations

import re
import unittest
from pathlib import Path

import redis

from rtmanager.adapters import redis_access
from rtmanager.adapters.redis_access import RedisUnfit, acl_rules, commands, examine
from rtmanager.domain.messages import Stream

ROOT = Path(__file__).parents[2]
NAMES = {stream: f"runtime:{stream.name.lower()}" for stream in Stream} | {
    Stream.NOTIFICATION_INTENTS: "notification:intents"
}
#: Methods of the client that are no commands, and those whose command has another name.
NO_COMMANDS = {"client", "close", "connection_pool", "execute", "pipeline", "register_script"}
RENAMED = {"client_id": "client|id", "client_unblock": "client|unblock", "xgroup_create": "xgroup|create"}
RENAMED |= {"xgroup_setid": "xgroup|setid", "xinfo_groups": "xinfo|groups"}


class Scripted:
    """A connection whose server answers by command."""

    def __init__(self, **answers: object) -> None:
        self._answers = answers
        self._waiting: list[object] = []
        self.disconnected = False

    def pack_commands(self, asked: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
        return asked

    def send_packed_command(self, asked: list[tuple[object, ...]]) -> None:
        self._waiting += [self._answers.get(str(command[0]), b"QUEUED") for command in asked]

    def read_response(self) -> object:
        answer = self._waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def disconnect(self) -> None:
        self.disconnected = True


def hello(version: str, mode: str = "standalone") -> list[object]:
    return [b"server", b"redis", b"version", version.encode(), b"proto", 2, b"mode", mode.encode(), b"modules", []]


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
            used |= {name.lower() for name in re.findall(r"redis\.p?call\('(\w+)'", text)}
            methods = re.findall(r"(?:_client|_waiter|_reader|pipe|waiter|connection)\.([a-z_]+)\(", text)
            used |= {RENAMED.get(name, name) for name in methods} - NO_COMMANDS
        tried = {redis_access._command(each) for each in commands(NAMES)} | set(redis_access._OPTIONAL)
        not_redis = {name for name in used if name.startswith(("read_", "send_", "pack_", "disconnect"))}
        self.assertEqual(used - tried - not_redis, set())
        self.assertLess({"xadd", "sadd", "xreadgroup", "xgroup|create"}, used)


class Examined(unittest.TestCase):
    def assert_unfit(self, *words: str, **answers: object) -> None:
        with self.assertRaises(RedisUnfit) as caught:
            examine(Scripted(**answers), NAMES, "redis at h:1")
        told = f"{caught.exception} {caught.exception.remedy}"
        self.assertEqual(told.splitlines(), [told])
        for word in words:
            self.assertIn(word, told)

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

    def test_what_is_for_a_while_is_not_taken_for_a_refusal(self) -> None:
        for answer in (
            redis.ReadOnlyError("You can't write against a read only replica."),
            redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
            redis.ResponseError("MISCONF Errors writing to the AOF file"),
        ):
            self.assertEqual(examine(Scripted(HELLO=hello("7.0.0"), XADD=answer), NAMES, "redis"), "7.0.0")
        with self.assertRaises(redis.BusyLoadingError):
            examine(Scripted(HELLO=hello("7.0.0"), XADD=redis.BusyLoadingError("loading")), NAMES, "redis")

    def test_without_a_multi_nothing_is_tried(self) -> None:
        self.assert_unfit("MULTI", HELLO=hello("7.0.0"), MULTI=redis.exceptions.NoPermissionError("no"))

    def test_a_connection_that_stays_in_a_transaction_is_given_up(self) -> None:
        connection = Scripted(HELLO=hello("7.0.0"), DISCARD=redis.exceptions.NoPermissionError("no"))
        with self.assertRaises(RedisUnfit):
            examine(connection, NAMES, "redis")
        self.assertTrue(connection.disconnected)
