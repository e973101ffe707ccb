"""Launch and remove when Docker refuses, times out or is busy; and the request that creates a container."""

from __future__ import annotations

import time
import unittest
from functools import partial
from typing import Any
from unittest import mock

from rtmanager.adapters.docker import Deadlines, DockerRuntime, runtime
from rtmanager.adapters.docker.hardening import create_request
from rtmanager.domain.container import ContainerSpec, Limits
from rtmanager.domain.errors import Unavailable
from rtmanager.ports.runtime import ContainerNotFound, LaunchFailed, NameTaken, StillRunning
from rtmanager.tests.fake_daemon import AT_ONCE_S, Exchange, FakeDaemon

SPEC = ContainerSpec(
    game_id="g1",
    image_ref="galaxy/game:1.0.0",
    network="galaxy-net",
    limits=Limits(cpus=1.5, memory_bytes=512 << 20, pids=100),
    state_path="/games/g1",
    mount_path="/var/lib/galaxy-game",
    environment={"STORAGE_PATH": "/var/lib/galaxy-game", "GAME_STATE_PATH": "/var/lib/galaxy-game"},
    started_at_ms=1,
    log_driver="json-file",
    log_options={"max-size": "10m"},
)
CREATE, START, REMOVE = "POST /containers/create", "POST /containers/c1/start", "DELETE /containers/c1"
RENAME = "POST /containers/c1/rename"
BY_ID, BY_NAME = "GET /containers/c1/json", "GET /containers/galaxy-game-g1/json"


def _described(status: str) -> dict[str, Any]:
    return {
        "Id": "c1",
        "Name": "/galaxy-game-g1",
        "Config": {"Image": SPEC.image_ref, "Labels": None},
        "State": {"Status": status, "ExitCode": 0, "OOMKilled": False},
        "NetworkSettings": {"Networks": None},
    }


def _frame(exchange: Exchange, log: bytes) -> None:
    """Answer with a log as Docker frames it."""
    exchange.reply_raw(200, b"\2\0\0\0" + len(log).to_bytes(4, "big") + log)


class DockerAnswersTest(unittest.TestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)
        self.daemon.start()
        self.runtime = self.with_deadlines_of(30)
        self.accept(CREATE, 201, {"Id": "c1", "Warnings": []})
        self.accept(START, 204)
        self.accept(BY_ID, 200, {**_described("running"), "Image": "sha256:i1"})
        self.accept(REMOVE, 204)

    def with_deadlines_of(self, seconds: float) -> DockerRuntime:
        each = dict.fromkeys(("query_s", "create_s", "start_s", "remove_s", "stop_margin_s"), seconds)
        runtime = DockerRuntime(self.daemon.host, deadlines=Deadlines(**each))
        self.addCleanup(runtime.close)
        return runtime

    def accept(self, request: str, status: int = 200, body: object = None) -> None:
        self.daemon.answers[request] = partial(Exchange.reply, status=status, body=body)

    def refuse(self, request: str, status: int, message: str) -> None:
        self.daemon.answers[request] = partial(Exchange.refuse, status=status, message=message)

    def then(self, request: str, *answers: partial[None]) -> None:
        """Send these answers one after the other, and repeat the last one."""
        left = list(answers)
        self.daemon.answers[request] = lambda exchange: (left.pop(0) if len(left) > 1 else left[0])(exchange)


class LaunchTest(DockerAnswersTest):
    def test_a_container_that_somebody_removed_before_its_start_is_gone(self) -> None:
        self.refuse(START, 409, "container is marked for removal and cannot be started")
        with self.assertRaises(ContainerNotFound):
            self.runtime.launch(SPEC)
        self.refuse(START, 404, "No such container: c1")
        with self.assertRaises(ContainerNotFound):
            self.runtime.launch(SPEC)
        self.refuse(START, 404, 'exec: "serve": executable file not found in $PATH')
        with self.assertRaises(LaunchFailed):
            self.runtime.launch(SPEC)

    def test_what_can_be_no_container_is_not_found_without_a_request(self) -> None:
        for name in ("../../_ping", "", "..", "c1/../c2", "c1?force=1", "c 1", "c1\n", "\ud800", "-c1", "é" * 1000):
            with self.subTest(name=name):
                for each in (self.runtime.inspect, self.runtime.remove, partial(self.runtime.stop, stop_grace_s=1)):
                    with self.assertRaises(ContainerNotFound):
                        each(name)
                self.assertIn("cannot be read", self.runtime.log_tail(name))
        self.assertEqual(self.daemon.requests, [])

    def test_dockers_warnings_are_logged(self) -> None:
        self.accept(CREATE, 201, {"Id": "c1", "Warnings": ["no swap limit"]})
        with self.assertLogs("rtmanager.docker", "WARNING") as logs:
            self.assertEqual(self.runtime.launch(SPEC), "c1")
        self.assertIn("galaxy-game-g1: Docker warns: no swap limit", logs.output[0])

    def test_the_error_of_an_engine_with_too_small_limits_names_the_label_to_raise(self) -> None:
        memory = "out of its 512 MB: raise the image's label `com.galaxy.memory`, or RTMANAGER_DEFAULT_MEMORY$"
        for state, log, expected in (
            ({"ExitCode": 137, "OOMKilled": True}, b"", f"exit code 137; its log is empty; it ran {memory}"),
            ({"ExitCode": 1, "OOMKilled": True}, b"", f"it ran {memory}"),
            ({"ExitCode": 137}, b"", f"it was killed: perhaps it ran {memory}"),
            (
                {"ExitCode": 1},
                b"fork failed: Resource temporarily unavailable",
                "process limit of 100: .*pids_limit.*run --rm",
            ),
            ({"ExitCode": 1}, b"oops", "its log: oops; check the image: docker run --rm galaxy/game:1.0.0$"),
        ):
            ended = {"State": {"Status": "exited", **state}, "Config": {"Tty": False}}
            self.accept(BY_ID, 200, {**_described("exited"), **ended})
            self.daemon.answers["GET /containers/c1/logs"] = partial(_frame, log=log)
            with self.subTest(expected), self.assertRaisesRegex(LaunchFailed, expected):
                self.runtime.launch(SPEC)
        self.refuse(START, 500, "OCI runtime create failed: container init was OOM-killed (memory limit too low?)")
        with self.assertRaisesRegex(LaunchFailed, "too low.*raise the image's label `com.galaxy.memory`"):
            self.runtime.launch(SPEC)

    def test_a_refused_start_takes_the_created_container_away_by_id_and_unforced(self) -> None:
        self.refuse(START, 404, "network galaxy-net not found")
        with self.assertRaisesRegex(
            LaunchFailed, "refused to start it: network galaxy-net not found; check the network"
        ):
            self.runtime.launch(SPEC)
        self.assertEqual(self.daemon.requests[-2:], [START, REMOVE])
        self.assertEqual(self.daemon.queries[-1].get("force", "false"), "false")

    def test_a_daemon_that_goes_away_during_the_tidying_leaves_it_open(self) -> None:
        self.refuse(START, 500, "oops")
        self.daemon.answers[REMOVE] = Exchange.drop
        with self.assertRaises(Unavailable):
            self.runtime.launch(SPEC)

    def test_a_refused_start_with_a_live_process_leaves_it_open(self) -> None:
        self.refuse(START, 500, "oops")
        self.refuse(REMOVE, 409, "You cannot remove a running container")
        self.accept(BY_ID, 200, _described("running"))
        with self.assertRaisesRegex(Unavailable, "the process lives"):
            self.runtime.launch(SPEC)

    def test_silence_leaves_it_open_and_touches_nothing_more(self) -> None:
        runtime = self.with_deadlines_of(1)
        for request in (CREATE, START):
            with self.subTest(request):
                self.daemon.answers[request] = Exchange.hang
                with self.assertRaisesRegex(Unavailable, "nothing within 1 s"):
                    runtime.launch(SPEC)
                self.assertNotIn(REMOVE, self.daemon.requests)
                self.accept(CREATE, 201, {"Id": "c1"})

    def test_an_engine_that_is_going_down_has_not_answered(self) -> None:
        for message in (
            "transport is closing: unavailable",
            "failed to update store for object type *libnetwork.endpoint: open : no such file or directory",
        ):
            self.refuse(START, 500, message)
            with self.assertRaises(Unavailable):
                self.runtime.launch(SPEC)

    def test_a_name_behind_which_nobody_is_any_more_is_tried_again(self) -> None:
        taken = partial(Exchange.refuse, status=409, message="name is already in use")
        self.then(CREATE, taken, taken, partial(Exchange.reply, status=201, body={"Id": "c1"}))
        self.assertEqual(self.runtime.launch(SPEC), "c1")

    def test_a_name_that_nobody_ever_gives_back_ends_the_launch(self) -> None:
        self.refuse(CREATE, 409, 'The container name "/galaxy-game-g1" is already in use by container "p1"')
        began = time.monotonic()
        with (
            mock.patch.object(runtime, "PHANTOM_NAME_S", 2.0),
            self.assertRaisesRegex(LaunchFailed, r"2 s: .*container \"p1\".*no container has this name: .* dockerd"),
        ):
            self.runtime.launch(SPEC)
        self.assertLess(time.monotonic() - began, AT_ONCE_S)
        self.assertLess(self.daemon.count(CREATE), 10)

    def test_a_name_that_somebody_has_is_taken_at_once(self) -> None:
        self.refuse(CREATE, 409, "name is already in use")
        self.accept(BY_NAME, 200, _described("running"))
        with self.assertRaisesRegex(NameTaken, "already in use"):
            self.runtime.launch(SPEC)
        self.assertEqual(self.daemon.count(CREATE), 1)


class PromoteTest(DockerAnswersTest):
    def test_a_name_behind_which_nobody_is_any_more_is_tried_again(self) -> None:
        taken = partial(Exchange.refuse, status=409, message="name is already in use")
        self.then(RENAME, taken, taken, partial(Exchange.reply, status=204, body=None))
        self.runtime.promote("c1", SPEC)
        self.assertEqual((self.daemon.count(RENAME), self.daemon.count(START)), (3, 1))

    def test_a_name_that_somebody_has_leaves_the_container_as_it_was(self) -> None:
        self.refuse(RENAME, 409, "name is already in use")
        self.accept(BY_NAME, 200, _described("removing"))
        with self.assertRaisesRegex(NameTaken, "already in use"):
            self.runtime.promote("c1", SPEC)
        self.assertEqual([self.daemon.count(each) for each in (RENAME, START, REMOVE)], [1, 0, 0])

    def test_a_rename_that_is_refused_for_good_takes_the_container_away(self) -> None:
        self.refuse(RENAME, 500, "cannot rename this")
        with self.assertRaisesRegex(LaunchFailed, "refused to rename it: cannot rename this"):
            self.runtime.promote("c1", SPEC)
        self.assertEqual([self.daemon.count(each) for each in (START, REMOVE)], [0, 1])

    def test_a_container_that_is_gone_is_recognised_by_dockers_own_text_only(self) -> None:
        self.refuse(RENAME, 404, "No such container: c1")
        with self.assertRaises(ContainerNotFound):
            self.runtime.promote("c1", SPEC)
        self.refuse(RENAME, 404, "page not found")
        with self.assertRaises(LaunchFailed):
            self.runtime.promote("c1", SPEC)


class RemoveTest(DockerAnswersTest):
    def test_a_removal_under_way_is_waited_for(self) -> None:
        self.then(
            REMOVE,
            partial(Exchange.refuse, status=409, message="removal of container c1 is already in progress"),
            partial(Exchange.refuse, status=404, message="No such container"),
        )
        self.accept(BY_ID, 200, _described("removing"))
        self.runtime.remove("c1")

    def test_a_removal_that_does_not_end_is_given_up(self) -> None:
        self.refuse(REMOVE, 409, "removal of container c1 is already in progress")
        self.accept(BY_ID, 200, _described("removing"))
        runtime = self.with_deadlines_of(1)
        began = time.monotonic()
        with self.assertRaisesRegex(Unavailable, "already in progress"):
            runtime.remove("c1")
        self.assertLess(time.monotonic() - began, AT_ONCE_S)

    def test_a_file_system_that_is_busy_leaves_it_open(self) -> None:
        self.refuse(REMOVE, 500, "driver overlay2 failed to remove root filesystem: device or resource busy")
        self.accept(BY_ID, 200, _described("dead"))
        with self.assertRaisesRegex(Unavailable, "device or resource busy"):
            self.runtime.remove("c1")

    def test_anonymous_volumes_go_with_it_and_force_is_never_requested(self) -> None:
        self.runtime.remove("c1")
        self.assertEqual(self.daemon.requests[-2:], ["GET /version", REMOVE])  # no inspect follows
        query = self.daemon.queries[-1]
        self.assertEqual((query["v"], query["force"]), ("true", "false"))

    def test_a_live_process_and_an_absent_container_are_distinguished(self) -> None:
        self.refuse(REMOVE, 409, "You cannot remove a restarting container")
        self.accept(BY_ID, 200, _described("restarting"))
        with self.assertRaisesRegex(StillRunning, "restarting"):
            self.runtime.remove("c1")
        self.refuse(REMOVE, 404, "No such container")
        with self.assertRaises(ContainerNotFound):
            self.runtime.remove("c1")


class StopTest(DockerAnswersTest):
    def test_a_stop_may_take_its_grace_period_and_a_margin(self) -> None:
        self.daemon.answers["POST /containers/c1/stop"] = Exchange.hang
        self.runtime = self.with_deadlines_of(1)
        began = time.monotonic()
        with self.assertRaisesRegex(Unavailable, r"nothing within 2 s"):
            self.runtime.stop("c1", stop_grace_s=1)
        self.assertGreater(time.monotonic() - began, 1.9)
        self.assertEqual(self.daemon.queries[-1], {"t": "1"})


class CreateRequestTest(unittest.TestCase):
    def setUp(self) -> None:
        self.request = create_request(SPEC, SPEC.image_ref)
        self.host = self.request["HostConfig"]

    def test_the_image_keeps_its_program_and_user(self) -> None:
        self.assertEqual(self.request["Image"], "galaxy/game:1.0.0")
        for field in ("Cmd", "Entrypoint", "User", "WorkingDir"):
            self.assertNotIn(field, self.request)

    def test_the_game_is_found_by_name_and_labels(self) -> None:
        self.assertEqual(self.request["Hostname"], "galaxy-game-g1")
        self.assertEqual(self.request["Labels"], SPEC.labels)
        self.assertEqual(
            self.request["Env"], ["GAME_STATE_PATH=/var/lib/galaxy-game", "STORAGE_PATH=/var/lib/galaxy-game"]
        )

    def test_its_one_network_is_the_game_network(self) -> None:
        self.assertEqual(self.host["NetworkMode"], "galaxy-net")
        self.assertEqual(self.request["NetworkingConfig"], {"EndpointsConfig": {"galaxy-net": {}}})

    def test_limits_are_always_set_and_there_is_no_swap(self) -> None:
        self.assertEqual(self.host["NanoCpus"], 1_500_000_000)
        self.assertEqual(self.host["Memory"], 512 << 20)
        self.assertEqual(self.host["MemorySwap"], self.host["Memory"])
        self.assertEqual(self.host["PidsLimit"], 100)
        self.assertIn({"Name": "core", "Soft": 0, "Hard": 0}, self.host["Ulimits"])

    def test_its_only_way_to_the_host_is_its_state_directory(self) -> None:
        (mount,) = self.host["Mounts"]
        self.assertEqual((mount["Source"], mount["Target"]), ("/games/g1", "/var/lib/galaxy-game"))
        self.assertEqual(mount["BindOptions"], {"Propagation": "private"})
        self.assertNotIn("Binds", self.host)
        self.assertEqual((self.host["Devices"], self.host["PortBindings"]), ([], {}))
        for option in ("noexec", "nosuid", "nodev", "mode=1777"):
            self.assertIn(option, self.host["Tmpfs"]["/tmp"].split(","))
