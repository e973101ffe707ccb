"""Configuration is read as the contract defines it, all faults are reported at once, and no secret is shown."""

from __future__ import annotations

import os
import socket
import tempfile
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from rtmanager.config import parsers
from rtmanager.config.dsn import described
from rtmanager.config.parsers import Address, InvalidSetting, RedisAddress
from rtmanager.config.settings import Config, ConfigError, unknown_names
from rtmanager.config.variables import VARIABLES
from rtmanager.domain.container import Limits
from rtmanager.domain.image_policy import ImagePattern
from rtmanager.domain.messages import Stream
from rtmanager.ports.runtime import PullPolicy

REQUIRED = {
    "RTMANAGER_POSTGRES_PRIMARY_DSN": "postgres://rtmanagerservice:S3cret@db:5432/galaxy?search_path=rtmanager",
    "RTMANAGER_REDIS_MASTER_ADDR": "redis:6379",
    "RTMANAGER_GAME_STATE_ROOT": "/srv/games",
    "RTMANAGER_LOBBY_INTERNAL_BASE_URL": "http://lobby:8095",
}

_GETADDRINFO = socket.getaddrinfo

#: The defaults of the contract, word for word.
DEFAULTS = {
    "RTMANAGER_INTERNAL_HTTP_ADDR": ":8096",
    "RTMANAGER_REDIS_PASSWORD": "",
    "RTMANAGER_DOCKER_HOST": "unix:///var/run/docker.sock",
    "RTMANAGER_DOCKER_NETWORK": "galaxy-net",
    "RTMANAGER_GAME_STATE_DIR_MODE": "0750",
    "RTMANAGER_GAME_STATE_OWNER_UID": "0",
    "RTMANAGER_GAME_STATE_OWNER_GID": "0",
    "RTMANAGER_LOBBY_INTERNAL_TIMEOUT": "2s",
    "RTMANAGER_DEFAULT_CPU_QUOTA": "1.0",
    "RTMANAGER_DEFAULT_MEMORY": "512m",
    "RTMANAGER_DEFAULT_PIDS_LIMIT": "512",
    "RTMANAGER_CONTAINER_STOP_TIMEOUT_SECONDS": "30",
    "RTMANAGER_CONTAINER_RETENTION_DAYS": "30",
    "RTMANAGER_ENGINE_STATE_MOUNT_PATH": "/var/lib/galaxy-game",
    "RTMANAGER_ENGINE_STATE_ENV_NAME": "GAME_STATE_PATH",
    "RTMANAGER_IMAGE_PULL_POLICY": "if_missing",
    "RTMANAGER_DOCKER_LOG_DRIVER": "json-file",
    "RTMANAGER_DOCKER_LOG_OPTS": "max-size=10m,max-file=3",
    "RTMANAGER_INSPECT_INTERVAL": "30s",
    "RTMANAGER_PROBE_INTERVAL": "15s",
    "RTMANAGER_PROBE_TIMEOUT": "2s",
    "RTMANAGER_PROBE_FAILURES_THRESHOLD": "3",
    "RTMANAGER_RECONCILE_INTERVAL": "5m",
    "RTMANAGER_CLEANUP_INTERVAL": "1h",
    "RTMANAGER_GAME_LEASE_TTL_SECONDS": "60",
    "RTMANAGER_LOG_LEVEL": "info",
    "RTMANAGER_SHUTDOWN_TIMEOUT": "30s",
    "OTEL_SERVICE_NAME": "galaxy-rtmanager",
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "RTMANAGER_REDIS_START_JOBS_STREAM": "runtime:start_jobs",
    "RTMANAGER_REDIS_STOP_JOBS_STREAM": "runtime:stop_jobs",
    "RTMANAGER_REDIS_JOB_RESULTS_STREAM": "runtime:job_results",
    "RTMANAGER_REDIS_HEALTH_EVENTS_STREAM": "runtime:health_events",
    "RTMANAGER_REDIS_NOTIFICATION_INTENTS_STREAM": "notification:intents",
    "RTMANAGER_REDIS_DEAD_LETTERS_STREAM": "runtime:dead_letters",
}


def config(**changes: str) -> Config:
    return Config.from_environment({**REQUIRED, **{f"RTMANAGER_{k}": v for k, v in changes.items()}})


def _numeric_only(host: str | None, port: str | None, *, flags: int = 0) -> object:
    """`socket.getaddrinfo` that fails a test on any name that needs a server."""
    if not flags & socket.AI_NUMERICHOST:
        raise AssertionError(f"{host} was looked up")
    return _GETADDRINFO(host, port, flags=flags)


class ConfigTestCase(unittest.TestCase):
    def faults(self, environment: dict[str, str]) -> list[str]:
        with self.assertRaises(ConfigError) as caught:
            Config.from_environment(environment)
        self.assertEqual(str(caught.exception), "\n".join(caught.exception.faults))
        return caught.exception.faults


class DefaultsTest(ConfigTestCase):
    def test_every_variable_of_the_contract_has_its_default(self) -> None:
        table = {variable.name: variable.default for variable in VARIABLES}
        for name, default in DEFAULTS.items():
            with self.subTest(name):
                self.assertEqual(table[name], default)

    def test_exactly_four_variables_are_required(self) -> None:
        self.assertEqual({v.name for v in VARIABLES if v.default is None}, set(REQUIRED))

    def test_setting_a_variable_to_its_default_changes_nothing(self) -> None:
        self.assertEqual(Config.from_environment({**REQUIRED, **DEFAULTS}), config())

    def test_the_defaults_of_the_dataclass_are_those_of_the_table(self) -> None:
        made = Config(
            postgres_dsn=REQUIRED["RTMANAGER_POSTGRES_PRIMARY_DSN"],
            redis_addr=RedisAddress("redis", 6379),
            game_state_root="/srv/games",
            lobby_base_url="http://lobby:8095",
        )
        self.assertEqual(made, config())

    def test_values_are_parsed(self) -> None:
        found = config()
        self.assertEqual((found.http_addr, found.redis_addr), (Address("", 8096), RedisAddress("redis", 6379)))
        self.assertEqual(found.default_limits, Limits(1.0, 512 << 20, 512))
        self.assertEqual((found.reconcile_interval_s, found.cleanup_interval_s), (300.0, 3600.0))
        self.assertEqual(found.game_state_dir_mode, 0o750)
        self.assertIs(found.image_pull_policy, PullPolicy.IF_MISSING)
        self.assertEqual(found.docker_log_options, {"max-size": "10m", "max-file": "3"})

    def test_every_variable_reaches_the_configuration(self) -> None:
        changed = {
            "RTMANAGER_INTERNAL_HTTP_ADDR": "127.0.0.1:1",
            "RTMANAGER_LOBBY_INTERNAL_TIMEOUT": "250ms",
            "RTMANAGER_SILENCE_TIMEOUT": "2500ms",
            "RTMANAGER_DEFAULT_MEMORY": "1g",
            "RTMANAGER_IMAGE_PULL_POLICY": "never",
            "RTMANAGER_REDIS_DEAD_LETTERS_STREAM": "elsewhere",
            "OTEL_SERVICE_NAME": "rtm-2",
        }
        found = Config.from_environment({**REQUIRED, **changed})
        self.assertEqual(found.http_addr, Address("127.0.0.1", 1))
        self.assertEqual((found.lobby_timeout_s, found.default_limits.memory_bytes), (0.25, 1 << 30))
        self.assertEqual(found.silence_timeout_s, 2.5)
        self.assertIs(found.image_pull_policy, PullPolicy.NEVER)
        self.assertEqual(found.streams[Stream.DEAD_LETTERS], "elsewhere")
        self.assertEqual(found.otel_service_name, "rtm-2")

    def test_a_variable_that_is_set_to_nothing_is_not_set(self) -> None:
        self.assertEqual(config(LOG_LEVEL="", DOCKER_NETWORK="  "), config())

    def test_options_of_the_log_driver_may_be_none(self) -> None:
        bounds = {"max-size": "10m", "max-file": "3"}
        for driver, given, expected in (
            ("json-file", None, bounds),
            ("local", None, bounds),
            ("journald", None, {}),
            ("json-file", "", {}),
            ("journald", " ", {}),
            ("journald", "tag=x", {"tag": "x"}),
        ):
            with self.subTest(driver, given=given):
                options = {} if given is None else {"DOCKER_LOG_OPTS": given}
                self.assertEqual(config(DOCKER_LOG_DRIVER=driver, **options).docker_log_options, expected)

    def test_images_may_be_limited(self) -> None:
        found = config(IMAGE_ALLOW="registry.example/games/**, galaxy/game:1.*", IMAGE_REQUIRE_DIGEST="on")
        self.assertEqual(
            found.image_allow,
            (
                ImagePattern("registry.example", ("games", "**"), None),
                ImagePattern("docker.io", ("galaxy", "game"), "1.*"),
            ),
        )
        self.assertTrue(found.image_require_digest)


class FaultsTest(ConfigTestCase):
    def test_a_pattern_of_images_that_is_malformed_is_a_fault_with_the_remedy(self) -> None:
        for value, part, remedy in (
            ("galaxy/* registry.example", "'registry.example'", "write registry.example/**"),
            ("*.example/x", "'*.example'", "host or host:port, without wildcards"),
            ("games*/x", "'games*'", "or ** as the last one"),
            (",", "there is none", "would allow everything"),
        ):
            [fault] = self.faults({**REQUIRED, "RTMANAGER_IMAGE_ALLOW": value})
            with self.subTest(value):
                self.assertIn(f"RTMANAGER_IMAGE_ALLOW: {value!r} is not a list of patterns", fault)
                self.assertIn(part, fault)
                self.assertIn(remedy, fault)

    def test_all_faults_are_reported_together_each_with_name_value_and_what_is_expected(self) -> None:
        faults = self.faults(
            {
                "RTMANAGER_REDIS_MASTER_ADDR": "redis",
                "RTMANAGER_GAME_STATE_ROOT": "games",
                "RTMANAGER_PROBE_INTERVAL": "soon",
                "RTMANAGER_LOG_LEVEL": "loud",
                "RTMANAGER_DEFAULT_MEMORY": "much",
            }
        )
        by_name = {fault.split(":")[0].split(" ")[0]: fault for fault in faults}
        self.assertEqual(len(faults), 7)
        for name, value in (
            ("RTMANAGER_REDIS_MASTER_ADDR", "'redis'"),
            ("RTMANAGER_GAME_STATE_ROOT", "'games'"),
            ("RTMANAGER_PROBE_INTERVAL", "'soon'"),
            ("RTMANAGER_LOG_LEVEL", "'loud'"),
            ("RTMANAGER_DEFAULT_MEMORY", "'much'"),
        ):
            self.assertIn(f"{value} is not a", by_name[name].replace("is not one", "is not a"))
        for name in ("RTMANAGER_POSTGRES_PRIMARY_DSN", "RTMANAGER_LOBBY_INTERNAL_BASE_URL"):
            self.assertIn("is not set", by_name[name])

    def test_options_that_dockers_own_log_drivers_read_only_at_a_start_are_faults_here(self) -> None:
        """Each was tested with Docker 20.10."""
        good, bad = "good", "bad"
        for options, json_file, local in (
            ("max-size=10mb", good, good),
            ("max-size=10", good, good),
            ("max-size=1.5m,max-file=2,compress=true", good, good),
            ("max-size=10 MiB", good, good),
            ("max-size=0", bad, good),
            ("max-size=-1", bad, bad),
            ("max-size=zz", bad, bad),
            ("max-size=", bad, bad),
            ("max-size=1e3", bad, bad),
            ("max-file=2", good, good),
            ("max-file=0", bad, bad),
            ("max-file=x", bad, bad),
            ("max-file=1,max-size=1m", good, bad),
            ("max-file=1,compress=false", good, good),
            ("compress=maybe", bad, bad),
            ("compress=1", bad, good),
            ("compress=true,max-size=1m", bad, good),
        ):
            for driver, expected in (("json-file", json_file), ("local", local), ("journald", good)):
                with self.subTest(options=options, driver=driver):
                    environment = {"RTMANAGER_DOCKER_LOG_DRIVER": driver, "RTMANAGER_DOCKER_LOG_OPTS": options}
                    try:
                        Config.from_environment({**REQUIRED, **environment})
                    except ConfigError as error:
                        self.assertEqual(expected, bad, error.faults)
                        self.assertRegex(error.faults[0], "^RTMANAGER_DOCKER_LOG_OPTS: ")
                    else:
                        self.assertEqual(expected, good)

    def test_two_streams_of_one_name_are_a_fault_that_names_both_variables(self) -> None:
        environment = {**REQUIRED, "RTMANAGER_REDIS_START_JOBS_STREAM": "runtime:stop_jobs"}
        text = "\n".join(self.faults(environment))
        self.assertIn("runtime:stop_jobs", text)
        for name in ("RTMANAGER_REDIS_START_JOBS_STREAM", "RTMANAGER_REDIS_STOP_JOBS_STREAM"):
            self.assertIn(name, text)

    def test_two_streams_of_one_name_are_reported_together_with_other_faults(self) -> None:
        environment = {"RTMANAGER_REDIS_START_JOBS_STREAM": "runtime:stop_jobs", "RTMANAGER_LOG_LEVEL": "loud"}
        self.assertIn("runtime:stop_jobs", "\n".join(self.faults(REQUIRED | environment)))

    def test_a_stream_in_a_key_of_the_service_is_a_fault(self) -> None:
        for stream in Stream:
            name = f"RTMANAGER_REDIS_{stream.name}_STREAM"
            (fault,) = self.faults({**REQUIRED, name: "rtmanager:outbox:check:published"})
            self.assertIn(f"{name}: 'rtmanager:outbox:check:published' is not the name of a stream", fault)

    def test_bytes_that_are_no_text_are_a_fault_of_every_variable(self) -> None:
        for variable in VARIABLES:
            for byte in ("\udcff", "\0"):
                with self.subTest(variable.name, byte=byte):
                    (fault,) = self.faults({**REQUIRED, variable.name: f"S3cret{byte}x"})
                    self.assertTrue(fault.startswith(f"{variable.name}: ") and fault.isprintable(), fault)
                    self.assertTrue(fault.endswith("is not text in UTF-8 without a NUL"), fault)
                    self.assertNotEqual("S3cret" in fault, variable.secret)

    def test_tls_to_docker_needs_a_tcp_address_and_a_key_with_its_certificate(self) -> None:
        tcp = {**REQUIRED, "RTMANAGER_DOCKER_HOST": "tcp://docker:2376"}
        for faulty, expected in (
            ({**REQUIRED, "RTMANAGER_DOCKER_TLS_CA": "/ca.pem"}, "RTMANAGER_DOCKER_TLS_CA: TLS is for a tcp://"),
            ({**tcp, "RTMANAGER_DOCKER_TLS_CERT": "/c.pem"}, "RTMANAGER_DOCKER_TLS_KEY is not set"),
            ({**tcp, "RTMANAGER_DOCKER_TLS_KEY": "/k.pem"}, "RTMANAGER_DOCKER_TLS_CERT is not set"),
            ({**tcp, "RTMANAGER_DOCKER_TLS_CA": "ca.pem"}, "RTMANAGER_DOCKER_TLS_CA: 'ca.pem' is not an absolute path"),
        ):
            with self.subTest(expected):
                (fault,) = self.faults(faulty)
                self.assertIn(expected, fault)
        found = Config.from_environment({**tcp, "RTMANAGER_DOCKER_TLS_CA": "/ca.pem"})
        self.assertEqual((found.docker_tls_ca, found.docker_tls_certificate), ("/ca.pem", ""))

    def test_options_with_which_docker_starts_nothing_are_a_fault(self) -> None:
        environment = {**REQUIRED, "RTMANAGER_DOCKER_LOG_OPTS": "max-size=10q"}
        (fault,) = self.faults(environment)
        self.assertIn("RTMANAGER_DOCKER_LOG_OPTS: Docker starts nothing with the log driver json-file", fault)
        self.assertIn("max-size=10q is not a size", fault)

    def test_a_memory_beyond_all_measure_is_a_fault_like_any_other(self) -> None:
        (fault,) = self.faults({**REQUIRED, "RTMANAGER_DEFAULT_MEMORY": "9" * 400})
        self.assertIn("RTMANAGER_DEFAULT_MEMORY", fault)

    def test_a_name_that_only_resembles_ours_is_found(self) -> None:
        names = unknown_names({**REQUIRED, "RTMANAGER_LOGLEVEL": "debug", "PATH": "/bin", "OTEL_X": "1"})
        self.assertEqual(names, ["RTMANAGER_LOGLEVEL"])


class SecretFilesTest(ConfigTestCase):
    """`<variable>_FILE` names a file with the value of a secret."""

    def setUp(self) -> None:
        self.path = Path(self.enterContext(tempfile.TemporaryDirectory())) / "secret"

    def environments(self, path: str) -> Iterator[tuple[str, dict[str, str]]]:
        """For each secret, its name and an environment in which only a file has it."""
        for variable in (each for each in VARIABLES if each.secret):
            given = {name: value for name, value in REQUIRED.items() if name != variable.name}
            yield variable.name, given | {f"{variable.name}_FILE": path}

    def test_each_secret_may_be_in_a_file(self) -> None:
        secrets = [each for each in VARIABLES if each.secret]
        self.assertGreaterEqual(len(secrets), 2)
        for end in ("", "\n", "\r\n"):
            self.path.write_bytes((REQUIRED["RTMANAGER_POSTGRES_PRIMARY_DSN"] + end).encode())
            for name, environment in self.environments(str(self.path)):
                attribute = next(each.attribute for each in secrets if each.name == name)
                found = getattr(Config.from_environment(environment), attribute)
                self.assertEqual(found, REQUIRED["RTMANAGER_POSTGRES_PRIMARY_DSN"])
                self.assertEqual(unknown_names(environment), [])

    def test_a_variable_that_is_no_secret_has_no_file(self) -> None:
        self.assertEqual(unknown_names({"RTMANAGER_LOG_LEVEL_FILE": "/x"}), ["RTMANAGER_LOG_LEVEL_FILE"])

    def test_a_file_that_cannot_be_used_is_named_without_its_content(self) -> None:
        pipe, folder = self.path.with_name("pipe"), self.path.parent
        os.mkfifo(pipe)
        for content, path, expected in (
            (b"", self.path, "(it is empty)"),
            (b" \n", self.path, "(it is empty)"),
            (b"S3cret\0", self.path, "is not text in UTF-8 without a NUL"),
            (b"S3cret\xff", self.path, "is not text in UTF-8 without a NUL"),
            (b"S3cret" * 20_000, self.path, "at most 65536 bytes"),
            (b"S3cret", pipe, "is not a regular file"),
            (b"S3cret", folder, "is not a regular file"),
            (b"S3cret", folder / "none", "No such file or directory"),
            (b"S3cret", folder / "secret" / "below", "Not a directory"),
            (b"S3cret", f"{folder}/\0", "null byte"),
        ):
            self.path.write_bytes(content)
            for name, environment in self.environments(str(path)):
                with self.subTest(name, expected=expected):
                    (fault,) = self.faults(environment)
                    self.assertTrue(fault.startswith(name) and expected in fault and fault.isprintable(), fault)
                    self.assertNotIn("S3cret", fault)

    def test_a_secret_that_is_given_in_place_of_its_file_is_not_shown(self) -> None:
        for given in ("S3cret", "postgres://u:S3cret@h/db", "./S3cret"):
            for name, environment in self.environments(given):
                (fault,) = self.faults(environment)
                self.assertIn(f"{name}_FILE: its value (not shown", fault)
                self.assertNotIn("S3cret", fault)

    def test_a_secret_that_is_given_twice_is_a_fault(self) -> None:
        for name, environment in self.environments(str(self.path)):
            (fault,) = self.faults(environment | {name: REQUIRED["RTMANAGER_POSTGRES_PRIMARY_DSN"]})
            self.assertEqual(fault, f"{name} and {name}_FILE are both set: remove one of them")
            self.assertIn("/secret", " ".join(self.faults(environment | {name: ""})))


class SecretsTest(ConfigTestCase):
    def test_no_secret_is_in_a_repr(self) -> None:
        found = config(REDIS_PASSWORD="t0psecret")
        self.assertEqual(found.redis_password, "t0psecret")
        for secret in ("S3cret", "t0psecret"):
            self.assertNotIn(secret, f"{found!r} {found}")

    def test_no_secret_is_in_a_fault(self) -> None:
        for dsn in (
            "S3cret",
            "postgres://u:S3cret@h/db?foo=bar",
            "postgres://u:%zzS3cret@h/db",
            "host=h password=S3cret foo=bar",
            "host=h password='S3cret",
            "mysql://u:S3cret@h/db",
        ):
            with self.subTest(dsn):
                (fault,) = self.faults({**REQUIRED, "RTMANAGER_POSTGRES_PRIMARY_DSN": dsn})
                self.assertIn("RTMANAGER_POSTGRES_PRIMARY_DSN", fault)
                self.assertNotIn("S3cret", fault)

    def test_a_dsn_by_which_no_connection_can_be_made_is_a_fault_with_its_reason(self) -> None:
        for parameters, expected in (
            ("port=1,2", "could not match 2 port numbers to 1 hosts"),
            ("port=99999", "a port is not from 1 to 65535"),
            ("port=" + "9" * 5000, "a port is not from 1 to 65535"),
            ("sslmode=bogus", 'invalid sslmode value: "bogus"'),
            ("sslmode='S3cret x'", 'invalid sslmode value: "…"'),
            ("target_session_attrs=nope", 'invalid target_session_attrs value: "nope"'),
            ("hostaddr=abc", "a hostaddr is no IP address"),
            ("hostaddr=127.0.0.1,::1", "could not match 1 host names to 2 hostaddr values"),
            ("service=foo", 'definition of service "foo" not found'),
            ("connect_timeout=abc", "connect_timeout is no whole number"),
            ("keepalives_count=128", "keepalives_count is no whole number up to 127"),
            ("require_auth=gss,nope", 'invalid require_auth value: "nope"'),
            ("channel_binding=nope", 'invalid channel_binding value: "nope"'),
            ("replication=database", "replication is not supported"),
            ("host=a..b", "a host is no name"),
            ("host=/" + "a" * 92, "no directory of at most 92 bytes"),
        ):
            with self.subTest(parameters), mock.patch("socket.getaddrinfo", wraps=_numeric_only):
                dsn = f"host=db password=S3cret {parameters}"
                (fault,) = self.faults({**REQUIRED, "RTMANAGER_POSTGRES_PRIMARY_DSN": dsn})
                self.assertIn(expected, fault)
                self.assertNotIn("S3cret", fault)

    def test_a_dsn_whose_server_may_be_away_is_no_fault(self) -> None:
        for dsn in (
            "host=no.such.invalid",
            "host=a,b port=1,2 hostaddr=127.0.0.1,::1",
            "hostaddr=127.0.0.1,127.0.0.2 port=,2",
            "postgres://u@[::1]/g?sslmode=verify-full&sslrootcert=/nowhere",
            "postgres:///g?host=/run/postgresql",
            "dbname=g connect_timeout=0 require_auth=scram-sha-256 channel_binding=require",
        ):
            with self.subTest(dsn), mock.patch("socket.getaddrinfo", wraps=_numeric_only):
                self.assertEqual(config(POSTGRES_PRIMARY_DSN=dsn).postgres_dsn, dsn)

    def test_a_file_whose_reading_might_not_end_is_a_fault(self) -> None:
        with tempfile.TemporaryDirectory() as home:
            pipe = f"{home}/pipe"
            os.mkfifo(pipe)
            for name, variable in {
                "sslrootcert": "PGSSLROOTCERT",
                "sslcert": "PGSSLCERT",
                "sslcrl": "PGSSLCRL",
            }.items():
                (fault,) = self.faults({**REQUIRED, "RTMANAGER_POSTGRES_PRIMARY_DSN": f"host=h {name}={pipe}"})
                self.assertIn(f"({name} is no regular file", fault)
                with mock.patch.dict("os.environ", {variable: pipe}):
                    (fault,) = self.faults({**REQUIRED, "RTMANAGER_POSTGRES_PRIMARY_DSN": "host=h"})
                self.assertIn(f"({variable} is no regular file", fault)
            with mock.patch.dict("os.environ", {"PGSERVICEFILE": pipe}):
                (fault,) = self.faults({**REQUIRED, "RTMANAGER_POSTGRES_PRIMARY_DSN": "host=h service=s"})
            self.assertIn("(PGSERVICEFILE is no regular file", fault)

    def test_hosts_of_the_environment_may_be_as_many_as_the_ports(self) -> None:
        with mock.patch.dict("os.environ", {"PGHOST": "a,b"}):
            self.assertEqual(config(POSTGRES_PRIMARY_DSN="port=1,2").postgres_dsn, "port=1,2")
        (fault,) = self.faults({**REQUIRED, "RTMANAGER_POSTGRES_PRIMARY_DSN": "port=1,2"})
        self.assertIn("could not match 2 port numbers to 1 hosts", fault)

    def test_a_variable_of_libpq_by_which_no_connection_can_be_made_is_named(self) -> None:
        for name, expected in {
            "PGSERVICE": 'definition of service "no"',
            "PGSSLMODE": 'invalid sslmode value: "no"',
        }.items():
            with self.subTest(name), mock.patch.dict("os.environ", {name: "no", "PGPASSWORD": "S3cret"}):
                (fault,) = self.faults({**REQUIRED, "RTMANAGER_POSTGRES_PRIMARY_DSN": "host=h"})
                self.assertRegex(fault, f"{expected}.*; .*{name}.* of the environment counts too")
                self.assertNotIn("S3cret", fault)

    def test_a_password_that_libpq_reads_though_it_is_not_escaped_is_no_fault(self) -> None:
        for dsn in (
            "postgres://u:p?S3cret@h/db",
            "postgres://u:p?S3cret@h/db?search_path=x",
            "postgres://u:[S3cret@h/db",
        ):
            with self.subTest(dsn):
                found = config(POSTGRES_PRIMARY_DSN=dsn)
                self.assertEqual(described(found.postgres_dsn), "postgres at h:5432/db")

    def test_a_password_that_reads_as_port_and_database_is_a_fault_and_no_secret(self) -> None:
        """Otherwise libpq and our messages would show it as a port and a database name."""
        environment = {**REQUIRED, "RTMANAGER_POSTGRES_PRIMARY_DSN": "postgres://u:pa/S3cret@h/db"}
        self.assertNotIn("S3cret", "\n".join(self.faults(environment)))


class ParserTest(unittest.TestCase):
    def check(self, parse: Callable[[str], Any], good: dict[str, Any], bad: tuple[str, ...]) -> None:
        for text, expected in good.items():
            with self.subTest(good=text):
                self.assertEqual(parse(text), expected)
        for text in bad:
            with self.subTest(bad=text[:40]), self.assertRaises(InvalidSetting):
                parse(text)

    def test_durations(self) -> None:
        good = {"500ms": 0.5, "2s": 2.0, "1.5s": 1.5, "5m": 300.0, "1h": 3600.0, "8784h": 366 * 86400.0}
        bad = (
            "",
            "2",
            "0s",
            "0ms",
            "-1s",
            "1d",
            "2 s",
            "s",
            "1e3s",
            "\u0665s",
            "8785h",
            "9" * 400 + "s",
            "1s\n",
            "2S",
            "0.9ms",
        )
        self.check(parsers.duration, good, bad)

    def test_durations_within_bounds(self) -> None:
        good = {"2s": 2.0, "2000ms": 2.0, "15s": 15.0, "0.25m": 15.0, "8.5s": 8.5}
        bad = ("", "8", "1999ms", "15001ms", "1h", "0s", "-2s", "soon")
        self.check(parsers.duration_within("2s", "15s"), good, bad)

    def test_periods_of_the_workers(self) -> None:
        for name in ("INSPECT", "PROBE", "RECONCILE", "CLEANUP"):
            fault = f"RTMANAGER_{name}_INTERVAL: '99ms' is not a duration from 100ms to 8784h"
            with self.subTest(name), self.assertRaisesRegex(ConfigError, fault):
                config(**{f"{name}_INTERVAL": "99ms"})
        self.check(parsers.period, {"100ms": 0.1, "8784h": 366 * 86400.0}, ("0.0000001ms", "8785h"))

    def test_a_duration_out_of_bounds_is_rejected_with_the_bounds(self) -> None:
        with self.assertRaises(ConfigError) as caught:
            config(SILENCE_TIMEOUT="500ms")
        fault = "RTMANAGER_SILENCE_TIMEOUT: '500ms' is not a duration from 2s to 15s"
        self.assertEqual(str(caught.exception), fault)

    def test_whole_numbers(self) -> None:
        bad = ("", "0", "11", "1.0", "+1", "-1", "0x5", "\u0665", " 5", "9" * 30, "five")
        self.check(parsers.whole(1, 10), {"1": 1, "10": 10, "05": 5}, bad)

    def test_choices(self) -> None:
        self.check(parsers.one_of("a", "b"), {"a": "a"}, ("", "A", "c", "a,b"))

    def test_listening_addresses(self) -> None:
        good = {
            ":8096": Address("", 8096),
            "h:0": Address("h", 0),
            "[::1]:80": Address("::1", 80),
            "0.0.0.0:65535": Address("0.0.0.0", 65535),
        }
        self.check(
            parsers.address, good, ("", "8096", "h", "h:", "h:65536", "::1:80", "h:x", "h h:1", "u@h:1", "http://h:1")
        )

    def test_addresses_of_redis(self) -> None:
        self.check(
            parsers.redis_address,
            {
                "h:1": RedisAddress("h", 1),
                "redis://h:1": RedisAddress("h", 1),
                "redis://h": RedisAddress("h", 6379),
                "rediss://h:1/": RedisAddress("h", 1, tls=True),
                "REDISS://[::1]:1/0": RedisAddress("::1", 1, tls=True),
            },
            ("h", "h:0", ":1", "redis://u:p@h:1", "rediss://h:1/3", "redis://h:1?db=1", "unix:///s", "http://h:1", ""),
        )

    def test_files_for_a_connection_without_tls_are_a_fault(self) -> None:
        for name, address in (("CA", "h:1"), ("CERT", "redis://h:1"), ("KEY", "rediss://h:1")):
            with self.subTest(name), self.assertRaises(ConfigError) as caught:
                config(REDIS_MASTER_ADDR=address, **{f"REDIS_TLS_{name}": "/x.pem"})
            self.assertIn(f"RTMANAGER_REDIS_TLS_{name} is set", str(caught.exception))

    def test_remote_addresses(self) -> None:
        self.check(parsers.remote_address, {"h:1": Address("h", 1)}, (":1", "h:0", "h"))

    def test_an_address_is_shown_as_it_is_written(self) -> None:
        for text in (":8096", "h:1", "[::1]:80"):
            self.assertEqual(str(parsers.address(text)), text)

    def test_urls(self) -> None:
        good = {
            "http://lobby:8095": "http://lobby:8095",
            "https://l/": "https://l",
            "http://[::1]:1/x/": "http://[::1]:1/x",
        }
        bad = (
            "",
            "lobby:8095",
            "ftp://l",
            "http://",
            "http://:80",
            "http://l:x",
            "http://l:99999",
            "http://l:0",
            "http://[l",
        )
        self.check(parsers.http_url, good, bad)

    def test_urls_without_blanks_only(self) -> None:
        self.check(parsers.http_url, {}, ("http://my lobby:8095", "http://lob\nby:8095", "http://l?", "http://l/#a"))

    def test_docker_endpoints(self) -> None:
        good = {t: t for t in ("unix:///run/docker.sock", "tcp://h:2375", "tcp://[::1]:2375", "tcp://h")}
        self.check(
            parsers.docker_host,
            good,
            (
                "",
                "/run/docker.sock",
                "unix:/run",
                "unix:///",
                "tcp://",
                "tcp:// h",
                "file:///x",
                "https://h:2376",
                "ssh://u@h",
                "tcp://a..b",
                "tcp://" + "a" * 64,
                "tcp://" + "é" * 64 + ":2375",
                "unix:///" + "a" * 107,
                "unix:///" + "é" * 60,
            ),
        )
        longest = "unix:///" + "a" * 106
        self.check(parsers.docker_host, {longest: longest, "tcp://é.test:1": "tcp://é.test:1"}, ())

    def test_names_that_no_server_of_names_takes(self) -> None:
        for name in ("a..b", "a" * 64, "é" * 64, "a." + "b" * 64, "256.1.1.1", "1.2.3.4.5", "[::1::2]"):
            self.check(parsers.address, {}, (f"{name}:1",))
            self.check(parsers.docker_host, {}, (f"tcp://{name}:1",))
            self.check(parsers.remote_address, {}, (f"{name}:1",))
            self.check(parsers.redis_address, {}, (f"redis://{name}:1",))
            self.check(parsers.http_url, {}, (f"http://{name}:1",))

    def test_paths(self) -> None:
        good = {"/a/b": "/a/b", "/a//b/": "/a/b", "/a/./b": "/a/b", "/a/..b": "/a/..b"}
        self.check(parsers.absolute_path, good, ("", "/", "//", "a/b", "./a", "/a/../b", "/..", "/a\0b"))

    def test_the_state_of_a_game_is_not_kept_where_no_directory_can_be(self) -> None:
        good = {"/var/lib/g": "/var/lib/g", "/process": "/process", "/x/proc": "/x/proc"}
        parse = parsers.path_outside("/proc", "/sys", "/dev")
        self.check(parse, good, ("/proc", "//proc/1", "/sys/x", "/./dev", "/"))
        with self.assertRaisesRegex(ConfigError, "RTMANAGER_ENGINE_STATE_MOUNT_PATH: '/dev/x' is not an abs"):
            config(ENGINE_STATE_MOUNT_PATH="/dev/x")

    def test_a_directory_of_the_system_is_no_state_root(self) -> None:
        good = ("/g", "/srv/games", "/var/lib/galaxy-games", "/home/games", "/usr/local/games", "/tmp/x", "/etcetera")
        bad = (
            "/",
            "/etc",
            "/etc/games",
            "/usr",
            "/usr/lib/x",
            "/var",
            "/var/lib",
            "/home",
            "/tmp",
            "/proc/1",
            "/dev/shm",
        )
        odd = ("//etc", "/etc/", "/./etc", "/etc/.", "/srv/../etc", "/srv/..", "//", "/var//lib/")
        self.check(parsers.state_root, dict(zip(good, good, strict=True)), (*bad, *odd))
        with self.assertRaisesRegex(
            ConfigError, "RTMANAGER_GAME_STATE_ROOT: '/var/' is not a directory for games alone.*: /var is the system's"
        ):
            config(GAME_STATE_ROOT="/var/")

    def test_the_state_of_a_game_hides_no_system_of_its_container(self) -> None:
        for path in ("/bin", "/lib64", "/usr/bin", "/etc/hosts", "/run", "//sbin"):
            with self.subTest(path), self.assertRaisesRegex(ConfigError, "RTMANAGER_ENGINE_STATE_MOUNT_PATH"):
                config(ENGINE_STATE_MOUNT_PATH=path)
        for path in ("/var/lib/x", "/data", "/mnt/x", "/srv", "/home/x", "/library", "/binary"):
            self.assertEqual(config(ENGINE_STATE_MOUNT_PATH=path).engine_state_mount_path, path)

    def test_an_ipv6_zone_is_refused_with_the_reason(self) -> None:
        zone = "[fe80::1%eth0]:80"
        for parse, text in (
            (parsers.address, zone),
            (parsers.redis_address, f"redis://{zone}"),
            (parsers.docker_host, f"tcp://{zone}"),
        ):
            with self.subTest(text), self.assertRaisesRegex(InvalidSetting, "IPv6 zone"):
                parse(text)

    def test_a_dsn_in_quotes(self) -> None:
        for quote in "'\"":
            with self.assertRaisesRegex(ConfigError, "remove the quotes"):
                config(POSTGRES_PRIMARY_DSN=f"{quote}postgres://u:S3cret@h/db{quote}")

    def test_directory_modes(self) -> None:
        good = {"0750": 0o750, "750": 0o750, "0700": 0o700, "0777": 0o777, "00750": 0o750}
        special = ("1777", "2770", "02770", "4755", "7777", "01750")
        self.check(parsers.directory_mode, good, ("", "0", "0650", "0050", "0o750", "758", "77777", "rwx", *special))

    def test_names_of_variables(self) -> None:
        self.check(parsers.environment_name, {"A_1": "A_1", "_x": "_x"}, ("", "1A", "A-B", "A=B", "A B", "\u00c4"))
        system = ("PATH", "HOME", "HOSTNAME", "LD_PRELOAD", "PYTHONHOME", "BASH_ENV")
        self.check(parsers.environment_name, {"PATHS": "PATHS", "STORAGE_PATH": "STORAGE_PATH"}, system)

    def test_names_of_networks(self) -> None:
        self.check(
            parsers.docker_name, {"galaxy-net": "galaxy-net", "a.b_c": "a.b_c"}, ("", "-a", "a b", "a/b", "a" * 129)
        )

    def test_options(self) -> None:
        good = {"a=b": {"a": "b"}, "a=b, c = d ": {"a": "b", "c": "d"}, "a=": {"a": ""}, "a=b=c": {"a": "b=c"}, "": {}}
        self.check(parsers.options, good, ("a", "=b", "a=b,", "a=b,,c=d", "a=1,a=2", "a=b, a =b"))

    def test_host_names(self) -> None:
        good = {
            "rtm.example.org": frozenset({"rtm.example.org"}),
            " RTM.example.org. , b.c:8096": frozenset({"rtm.example.org", "b.c"}),
            "": frozenset(),
        }
        bad = (
            ",",
            "a.b,",
            "a.b,,c.d",
            "*.b",
            "*",
            "http://a.b",
            "a.b/",
            "a b",
            "a..b",
            ".b",
            "käse.de",
            "a.b:x",
            "a.b:",
        )
        self.check(parsers.host_names, good, (*bad, "-a.b", "a" * 64 + ".b", "[::1]", "u@a.b"))

    def test_exporters(self) -> None:
        self.check(parsers.exporter, {"none": "none"}, ("", "otlp", "None"))

    def test_a_rule_of_the_domain_names_what_it_expects_once(self) -> None:
        with self.assertRaises(ConfigError) as caught:
            config(DEFAULT_CPU_QUOTA="fast")
        self.assertEqual(str(caught.exception).count("fast"), 1)
        self.assertIn("is not a number of cores", str(caught.exception))
