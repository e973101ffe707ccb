"""A stdlib unittest harness: real PostgreSQL, Redis, Docker networks, images and processes for plain tests.

    from harness import ServicesTestCase, start_services

    def setUpModule() -> None:
        start_services()

    class Turns(ServicesTestCase):
        def test_a_turn_is_kept(self) -> None:
            self.redis.xadd("turns", {"number": "1"})
            self.assertEqual(self.entries("turns"), [{"number": "1"}])

This package serves any project; code for a single project is in a package of its own (`harness.rtm`). The import is
quick and needs no Docker: the functions that use the Docker SDK, psycopg or redis import it. `daemon` always means the
Docker daemon. The guide is docs/harness.md.
"""

import sys

# First of all, in syntax that every Python can parse: `python3 -m harness doctor` must print this on an old Python.
if sys.version_info < (3, 11):  # noqa: UP036
    raise SystemExit("the harness needs Python 3.11 or newer, and this is " + sys.version.split()[0])

import os
import signal

# Ctrl-C during the imports below must print no traceback. The `__main__` of `harness` or `harness.rtm` replaces this.
if (
    sys.argv[:1] == ["-m"]
    and sys.orig_argv[1:3] in (["-m", "harness"], ["-m", "harness.rtm"])
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from harness.cases.docker import DockerTestCase, ServicesTestCase, check_flag, start_services
from harness.errors import DaemonUnavailable, HarnessError, ImageUnavailable, WaitFailed
from harness.fixtures import faults, scripted_registry
from harness.fixtures.certificates import Authority, Certificate
from harness.fixtures.certificates import create as create_authority
from harness.fixtures.container import Container, Mount
from harness.fixtures.container import Settings as ContainerSettings
from harness.fixtures.container import start as start_container
from harness.fixtures.container_service import ContainerService
from harness.fixtures.dockerd import OwnDaemon
from harness.fixtures.dockerd import check as check_docker_daemon
from harness.fixtures.dockerd import start as start_docker_daemon
from harness.fixtures.labelled import HOSTILE_LABELS, LabelledImage, label_image, labels_of_size
from harness.fixtures.network import Network
from harness.fixtures.network import create as create_network
from harness.fixtures.pgbouncer import PgBouncer
from harness.fixtures.pgbouncer import start as start_pgbouncer
from harness.fixtures.postgres import PLAIN, Database, Layout, Postgres
from harness.fixtures.postgres import start as start_postgres
from harness.fixtures.redis import Redis
from harness.fixtures.redis import Tls as RedisTls
from harness.fixtures.redis import start as start_redis
from harness.fixtures.registry import Registry
from harness.fixtures.registry import start as start_registry
from harness.fixtures.scripted_daemon import Reply, ScriptedDaemon
from harness.fixtures.scripted_daemon import start as start_scripted_daemon
from harness.fixtures.slow_clients import Kind as SlowKind
from harness.fixtures.slow_clients import SlowClients
from harness.fixtures.stateroot import StateRoot
from harness.fixtures.stateroot import create as create_state_root
from harness.fixtures.volume import Volume
from harness.fixtures.volume import create as create_volume
from harness.images import base_image
from harness.images.building import build_image
from harness.runs.sweep import sweep as sweep_ended_runs
from harness.waiting import wait_until

__all__ = [
    "HOSTILE_LABELS",
    "PLAIN",
    "Authority",
    "Certificate",
    "Container",
    "ContainerService",
    "ContainerSettings",
    "DaemonUnavailable",
    "Database",
    "DockerTestCase",
    "HarnessError",
    "ImageUnavailable",
    "LabelledImage",
    "Layout",
    "Mount",
    "Network",
    "OwnDaemon",
    "PgBouncer",
    "Postgres",
    "Redis",
    "RedisTls",
    "Registry",
    "Reply",
    "ScriptedDaemon",
    "ServicesTestCase",
    "SlowClients",
    "SlowKind",
    "StateRoot",
    "Volume",
    "WaitFailed",
    "base_image",
    "build_image",
    "check_docker_daemon",
    "check_flag",
    "create_authority",
    "create_network",
    "create_state_root",
    "create_volume",
    "faults",
    "label_image",
    "labels_of_size",
    "scripted_registry",
    "start_container",
    "start_docker_daemon",
    "start_pgbouncer",
    "start_postgres",
    "start_redis",
    "start_registry",
    "start_scripted_daemon",
    "start_services",
    "sweep_ended_runs",
    "wait_until",
]
