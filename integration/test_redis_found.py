"""Redis's initial state: users and their rights, TLS, a cluster, a Sentinel."""

import contextlib
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from harness import (
    Authority,
    Redis,
    RedisTls,
    create_authority,
    faults,
    images,
    start_container,
    start_redis,
    start_services,
)
from harness.fixtures import listening
from integration.support.found import FoundTestCase
from rtmanager.adapters.redis_access import RedisUnfit, acl_rules
from rtmanager.adapters.redis_streams import RedisStreams
from rtmanager.config.settings import Config
from rtmanager.domain.jobs import EntryId
from rtmanager.domain.messages import Stream

NAMES = Config.from_environment(
    {
        "RTMANAGER_POSTGRES_PRIMARY_DSN": "postgres://u@h/g",
        "RTMANAGER_REDIS_MASTER_ADDR": "h:1",
        "RTMANAGER_GAME_STATE_ROOT": "/g",
        "RTMANAGER_LOBBY_INTERNAL_BASE_URL": "http://h",
    }
).streams
SECRET = "hush-hush"


def setUpModule() -> None:
    start_services()


class RedisFoundTestCase(FoundTestCase):
    """One server for each class; its content belongs to the test."""

    server: Redis
    users: Mapping[str, str] = {}

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = cls.start_server()
        cls.addClassCleanup(cls.server.close)

    @classmethod
    def start_server(cls) -> Redis:
        return start_redis()

    def setUp(self) -> None:
        super().setUp()
        from dataclasses import replace

        self.services = replace(self.services, redis=self.server)
        self.redis = self.server.client()
        self.addCleanup(self.redis.close)
        self.redis.flushall()

    def as_user(self, name: str, password: str = SECRET) -> dict[str, str]:
        return {"REDIS_USERNAME": name, "REDIS_PASSWORD": password}

    def user(self, name: str, rules: str) -> dict[str, str]:
        """Create an ACL user; return a manager's settings for it."""
        self.redis.execute_command("ACL", "SETUSER", name, "reset", "on", f">{SECRET}", *rules.split())
        return self.as_user(name)


class Users(RedisFoundTestCase):
    def test_the_rules_of_the_documentation_are_enough(self) -> None:
        # Applied as it is written there.
        page = (Path(__file__).parents[1] / "docs" / "failures.md").read_text()
        [line] = re.findall(r"^    (ACL SETUSER rtmanager .*)$", page, re.MULTILINE)
        self.redis.execute_command(*line.split())
        self.start_runtime(**self.as_user("rtmanager", "the-password"))
        game = self.start_game()
        self.assert_serves()
        self.assert_runs(game)
        self.redis.xadd("runtime:stop_jobs", {"nonsense": "1"})
        self.wait_until("the dead letter", lambda: self.redis.xlen("runtime:dead_letters"))
        self.assert_serves()
        log = [entry for entry in self.redis.acl_log() if entry["username"] == "rtmanager"]
        self.assertEqual([entry for entry in log if "setinfo" not in str(entry)], [])

    def test_a_user_without_dangerous_commands_is_enough(self) -> None:
        self.start_runtime(**self.user("safe", "~* +@all -@dangerous"))
        self.assert_serves()

    def test_what_a_user_lacks_is_named(self) -> None:
        keys = "~runtime:* ~notification:*"
        for rules, texts in {
            f"{keys} +@all": ("SADD rtmanager:outbox:", "GET rtmanager:outbox:"),
            "~* +@all -@scripting": ("EVALSHA", "SCRIPT LOAD"),
            "~* +@all -xautoclaim": ("XAUTOCLAIM runtime:start_jobs runtime:stop_jobs",),
            "%R~* +@all": ("XADD runtime:job_results", "XACK"),
            "~runtime:* ~rtmanager:* +@all": ("XADD notification:intents",),
            "~* +@all -@transaction": ("MULTI",),
            "~* +@all -xgroup|create": ("XGROUP CREATE",),
            "~* +@all -@connection": ("setname",),
            "~*": ("setname",),
        }.items():
            with self.subTest(rules):
                self.assert_unfit("ACL SETUSER", "~rtmanager:outbox:*", *texts, **self.user("poor", rules))
        self.assertEqual(self.redis.keys("*"), [], "nothing was changed")

    def limited(self, rules: str) -> RedisStreams:
        """The streams, connected as a user with these rights."""
        self.user("poor", rules)
        return RedisStreams(
            self.server.host,
            self.server.port,
            username="poor",
            password=SECRET,
            names=NAMES,
            output_maxlen=1000,
            silence_s=8,
        )

    def test_every_single_command_and_key_of_the_rules_is_needed_or_optional(self) -> None:
        every = acl_rules(NAMES).split()
        # EXEC would end what MULTI begins, and is not tried; HELLO needs no right.
        optional = {"+info", "+client|unblock", "+xinfo|stream", "+hello", "+exec", "+xpending", "+xtrim"}
        for rule in every:
            if rule.startswith(("~", "+")) and rule not in optional:
                rules = " ".join(each for each in every if each != rule)
                with self.subTest(rule):
                    with contextlib.closing(self.limited(rules)) as streams, self.assertRaises(RedisUnfit) as caught:
                        streams.ping()
                    name = rule[1:].replace("*", "").replace("|", " ")
                    self.assertIn(name.lower(), str(caught.exception).lower().replace("|", " "))

    def test_a_user_who_may_not_trim_deletes_nothing_and_that_is_reported(self) -> None:
        key = NAMES[Stream.START_JOBS]
        for number in (1, 2):
            self.redis.xadd(key, {"game_id": "g"}, id=f"{number}-0")
        self.redis.xgroup_create(key, "rtmanager", id="2-0")
        for right in ("+xtrim", "+xpending"):
            with self.subTest(right):
                rules = " ".join(each for each in acl_rules(NAMES).split() if each != right)
                with contextlib.closing(self.limited(rules)) as streams:
                    last = EntryId(2, 0)
                    trimmed = streams.trim(Stream.START_JOBS, older_than=last, durable=last, limit=10)
                self.assertEqual((trimmed.deleted, trimmed.first), (0, None))
                self.assertIn("can't run this command", trimmed.refused)
        self.assertEqual(self.redis.xlen(key), 2)

    def test_a_login_that_fails_is_reported_without_the_password(self) -> None:
        self.user("rtmanager", acl_rules(NAMES))
        self.assert_unfit("RTMANAGER_REDIS_USERNAME", **self.as_user("rtmanager", "not-this-one"))
        self.assert_unfit("RTMANAGER_REDIS_USERNAME", **self.as_user("nobody", "not-this-one"))
        self.assertNotIn("not-this-one", self.check(**self.as_user("nobody", "not-this-one"))[1])

    def test_a_right_that_is_taken_while_it_serves_is_reported_and_no_result_is_lost(self) -> None:
        self.start_runtime(**self.user("rtmanager", acl_rules(NAMES)))
        self.wait_for_answers(self.submit("before"))
        self.redis.execute_command("ACL", "SETUSER", "rtmanager", "-sadd")
        self.wait_until_readyz_reports("redis", "SADD")
        waits = self.submit("waits")
        self.wait_until_logged("dependency=redis")
        self.assertEqual(self.answers(waits), [0])
        self.redis.execute_command("ACL", "SETUSER", "rtmanager", "+sadd")
        self.wait_for_answers(waits)
        self.assert_serves()


class Kinds(FoundTestCase):
    def test_a_node_of_a_cluster_is_refused_with_slots_and_without(self) -> None:
        node = self.own(start_redis(settings={"cluster-enabled": "yes"}))
        self.assert_unfit("Redis Cluster", "cluster-enabled no", REDIS_MASTER_ADDR=node.address)
        with node.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        self.assert_unfit("Redis Cluster", REDIS_MASTER_ADDR=node.address)

    def test_a_sentinel_is_refused(self) -> None:
        if not listening.shares_our_network():
            self.skipTest("the daemon's host network is not this process's")
        port = listening.free_port()
        script = (
            f"touch /tmp/s && exec redis-server /tmp/s --sentinel --port {port} --bind 127.0.0.1 --protected-mode no"
        )
        sentinel = self.own(start_container(images.redis(), entrypoint=["sh", "-c", script], network="host"))
        sentinel.wait_for_log("Sentinel ID")
        self.assert_unfit("Sentinel", "not supported", REDIS_MASTER_ADDR=f"127.0.0.1:{port}")

    def test_a_command_that_was_renamed_is_reported(self) -> None:
        server = self.own(start_redis(settings={"rename-command": "XAUTOCLAIM other"}))
        self.assert_unfit("XAUTOCLAIM", "rename-command", REDIS_MASTER_ADDR=server.address)


class Refusing(RedisFoundTestCase):
    """Redis answers, and rejects writes: `check` reports it, and `serve` waits until it accepts them."""

    def assert_waited_for(self, *texts: str) -> None:
        code, output = self.check()
        self.assertEqual((code, output.count("FAILED")), (1, 1), output)
        self.assertIn("remedy: ", output)
        self.start_runtime()
        self.wait_until_readyz_reports("redis", *texts)
        for text in texts:
            self.assertIn(text, output)
        self.assertTrue(self.lines_logged("redis takes no writes, waiting for it", "remedy: "))

    def test_full_memory(self) -> None:
        self.redis.config_set("maxmemory", 1)
        self.addCleanup(self.redis.config_set, "maxmemory", 0)
        self.assert_waited_for("its memory is full")
        self.redis.config_set("maxmemory", 0)
        self.assert_serves()

    def test_too_few_replicas(self) -> None:
        self.redis.config_set("min-replicas-to-write", 1)
        self.addCleanup(self.redis.config_set, "min-replicas-to-write", 0)
        self.assert_waited_for("min-replicas-to-write")
        self.redis.config_set("min-replicas-to-write", 0)
        self.assert_serves()

    def test_a_replica_that_becomes_the_primary(self) -> None:
        self.redis.replicaof("127.0.0.1", 1)
        self.addCleanup(self.redis.replicaof, "NO", "ONE")
        self.assert_waited_for("is a replica now")
        self.redis.replicaof("NO", "ONE")
        self.assert_serves()

    def test_clients_that_are_paused(self) -> None:
        self.addCleanup(self.redis.execute_command, "CLIENT", "UNPAUSE")
        for which, text in (("ALL", "answers no command in time"), ("WRITE", "to no write")):
            # Not for ever: UNPAUSE itself waits for the end of ALL.
            self.redis.execute_command("CLIENT", "PAUSE", 5_000 if which == "ALL" else 600_000, which)
            code, output = self.check()
            self.assertEqual((code, text in output, "CLIENT UNPAUSE" in output), (1, True, True), output)
        self.start_runtime()
        self.redis.execute_command("CLIENT", "UNPAUSE")
        self.assert_serves()

    def test_a_policy_that_removes_streams_is_warned_of(self) -> None:
        self.redis.config_set("maxmemory-policy", "allkeys-lru")
        self.addCleanup(self.redis.config_set, "maxmemory-policy", "noeviction")
        code, output = self.check()
        self.assertEqual(code, 0, output)
        self.assertRegex(output, "warning redis +maxmemory-policy is allkeys-lru.*remedy: ")
        self.start_runtime()
        self.assert_serves()
        self.assertEqual(len(self.lines_logged("redis can be used, but not as it should be", "maxmemory-policy")), 1)

    def test_answers_that_are_cut_off_are_reported_as_such(self) -> None:
        self.start_runtime()
        self.wait_for_answers(self.submit("before"))
        self.redis.config_set("client-output-buffer-limit", "normal 20000 20000 1")
        self.addCleanup(self.redis.config_set, "client-output-buffer-limit", "normal 0 0 0")
        waits = self.submit("waits")
        self.wait_until_logged("worker=ingest", "client-output-buffer-limit")
        self.wait_until_readyz_reports("redis", "ends the connection at each read")
        self.redis.config_set("client-output-buffer-limit", "normal 0 0 0")
        self.wait_for_answers(waits)
        self.assert_serves()


class Strangers(FoundTestCase):
    def test_postgresql_at_the_address_is_named(self) -> None:
        postgres = self.services.postgres
        for scheme in ("", "rediss://"):
            address = f"{scheme}{postgres.host}:{postgres.port}"
            self.assert_unfit("PostgreSQL answers there", f"{postgres.port}", REDIS_MASTER_ADDR=address)

    def test_a_silent_server_is_reported(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            self.assert_unfit("accepts connections and says nothing", address, REDIS_MASTER_ADDR=address)

    def test_another_server_that_takes_the_port_while_it_serves_is_reported(self) -> None:
        redis, postgres = self.services.redis, self.services.postgres
        way = self.own(faults.before((redis.host, redis.port)))
        self.start_runtime(REDIS_MASTER_ADDR=f"{way.host}:{way.port}")
        self.assert_serves()
        way.lead_to((postgres.host, postgres.port))
        way.cut()
        self.wait_until_readyz_reports("PostgreSQL answers there")
        waits = self.submit("waits")
        way.lead_to((redis.host, redis.port))
        self.wait_for_answers(waits)
        self.assert_serves()


class Encrypted(RedisFoundTestCase):
    authority: Authority

    @classmethod
    def start_server(cls) -> Redis:
        cls.authority = create_authority()
        cls.addClassCleanup(cls.authority.close)
        return start_redis(tls=RedisTls(cls.authority, cls.authority.issue("server", ("127.0.0.1", "localhost"))))

    def trusting(self, **more: str) -> dict[str, str]:
        return {"REDIS_MASTER_ADDR": self.server.tls_address, "REDIS_TLS_CA": str(self.authority.ca), **more}

    def test_it_serves_by_tls(self) -> None:
        self.start_runtime(**self.trusting(), **self.user("rtmanager", acl_rules(NAMES)))
        self.assert_serves()
        clients = self.redis.client_list()
        self.assertTrue(any(each["name"] == "rtmanager" for each in clients))

    def test_each_mismatch_has_its_own_remedy(self) -> None:
        plain, encrypted = self.server.address, self.server.tls_address
        with create_authority() as stranger:
            self.assert_unfit("RTMANAGER_REDIS_TLS_CA", **self.trusting(REDIS_TLS_CA=str(stranger.ca)))
        self.assert_unfit("speaks TLS only", "rediss://", REDIS_MASTER_ADDR=encrypted.removeprefix("rediss://"))
        # It takes the whole timeout for a silent Redis, so it runs once.
        code, output = self.check(**self.trusting(REDIS_MASTER_ADDR=f"rediss://{plain}"))
        self.assertEqual((code, "speaks no TLS" in output, "write redis://" in output), (1, True, True), output)
        self.assert_unfit("cannot be read", "RTMANAGER_REDIS_TLS_CA", **self.trusting(REDIS_TLS_CA="/nowhere/ca.pem"))
        key = {"REDIS_TLS_CERT": str(self.authority.ca), "REDIS_TLS_KEY": str(self.authority.issue("other").key)}
        self.assert_unfit("files for TLS", **self.trusting(**key))

    def test_a_certificate_that_expired_or_is_for_another_host_is_reported(self) -> None:
        for name, hosts, days, text in (
            ("expired", ("127.0.0.1",), -1, "expired"),
            ("elsewhere", ("elsewhere.example",), 2, "subjectAltName"),
        ):
            with (
                self.subTest(name),
                start_redis(tls=RedisTls(self.authority, self.authority.issue(name, hosts, days))) as it,
            ):
                self.assert_unfit(text, **self.trusting(REDIS_MASTER_ADDR=it.tls_address))

    def test_a_server_that_requires_a_certificate_of_ours_gets_one(self) -> None:
        server = self.authority.issue("strict", ("127.0.0.1",))
        with start_redis(tls=RedisTls(self.authority, server, clients_have_one=True)) as strict:
            where = self.trusting(REDIS_MASTER_ADDR=strict.tls_address)
            self.assert_unfit("RTMANAGER_REDIS_TLS_CERT", **where)
            mine = self.authority.issue("client")
            self.assert_fit("redis", **where, REDIS_TLS_CERT=str(mine.cert), REDIS_TLS_KEY=str(mine.key))
