"""Containers, networks and their removal, on a real Docker daemon."""

import contextlib
import io
import secrets
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from harness import daemon, images
from harness.errors import HarnessError, ImageUnavailable, WaitFailed
from harness.fixtures import container, network, stateroot
from harness.runs import flag
from harness.runs.sweep import sweep
from harness.waiting import wait_until

IMAGE = ""


def setUpModule() -> None:
    global IMAGE
    flag.check()
    IMAGE = images.redis()


class ContainerTest(unittest.TestCase):
    def start(self, *command: str, **how: object) -> container.Container:
        started = container.start(IMAGE, entrypoint=["sh", "-c", *command], **how)  # type: ignore[arg-type]
        self.addCleanup(started.remove)
        return started

    def test_a_port_is_published_on_loopback_and_waited_for(self) -> None:
        started = container.start(IMAGE, ports=[6379])
        self.addCleanup(started.remove)
        started.wait_for_port(6379)
        host, port = started.address(6379)
        self.assertEqual(host, daemon.published_address()[1])
        self.assertGreater(port, 1024)

    def test_the_wait_ends_when_the_container_does_and_shows_its_log(self) -> None:
        started = self.start("echo something is wrong; exit 7", ports=[6379])
        began = time.monotonic()
        with self.assertRaises(WaitFailed) as failed:
            started.wait_for_port(6379)
        self.assertLess(time.monotonic() - began, container.READY_TIMEOUT_S)
        for part in ("port 6379", "exit code 7", "something is wrong", started.name):
            self.assertIn(part, str(failed.exception))

    def test_a_wait_in_vain_reports_what_it_waited_for_and_last_saw(self) -> None:
        started = self.start("echo still busy; sleep 60")
        started.wait_for_log("still busy")
        with self.assertRaisesRegex(WaitFailed, r"(?s)0\.2 s for 'ready' in the log.*still busy"):
            started.wait_for_log("ready", timeout_s=0.2)

    def test_environment_user_mount_tmpfs_and_labels_reach_the_container(self) -> None:
        directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (directory / "file").write_text("from the host")
        (directory / "file").chmod(0o644)
        directory.chmod(0o755)
        started = self.start(
            'echo "$GREETING" "$(id -u)" "$(cat /mounted/file)"; echo > /scratch/x && echo written; sleep 60',
            env={"GREETING": "hello"},
            user="65534",
            mounts=[container.Mount(directory, "/mounted", read_only=True)],
            tmpfs={"/scratch": "size=1m,mode=1777"},
            labels={"com.example": "mine"},
        )
        started.wait_for_log("written")
        self.assertIn("hello 65534 from the host", started.logs())
        self.assertEqual(started.inspect()["Config"]["Labels"]["com.example"], "mine")

    def test_others_on_its_network_find_it_by_its_aliases(self) -> None:
        made = network.create()
        self.addCleanup(made.remove)
        self.start("sleep 60", network=made.name, aliases=["shop"])
        client = self.start("getent hosts shop", network=made.name)
        self.assertEqual(client.wait_for_exit(), 0, client.logs())
        with self.assertRaisesRegex(HarnessError, "aliases shop need a network"):
            self.start("sleep 60", aliases=["shop"])

    def test_an_image_that_can_neither_be_found_nor_pulled_is_named(self) -> None:
        with self.assertRaisesRegex(ImageUnavailable, r"registry\.invalid/no/image:1"):
            container.start("registry.invalid/no/image:1")

    def test_exec_gives_exit_code_and_output(self) -> None:
        started = self.start("sleep 60")
        self.assertEqual(started.exec(["sh", "-c", "echo out; exit 3"]), (3, "out\n"))

    def test_its_end_can_be_waited_for(self) -> None:
        self.assertEqual(self.start("exit 5").wait_for_exit(), 5)

    def test_every_wait_ends_with_the_container_and_shows_its_log(self) -> None:
        """Also when it is removed meanwhile, and also a wait that depends on the container only through its probe."""
        ended = self.start("echo all is lost; exit 3", ports=[6379])
        gone = self.start("sleep 60", ports=[6379])
        gone.remove()
        waits: dict[str, Callable[[container.Container], object]] = {
            "port": lambda each: each.wait_for_port(6379),
            "http": lambda each: each.wait_for_http(6379),
            "log": lambda each: each.wait_for_log("never"),
            "wait_until": lambda each: each.wait_until("it", lambda: False),
            "exported, by the log": lambda each: wait_until("it", lambda: "never" in each.logs()),
            "exported, by name": lambda each: wait_until("it", lambda: False, watch=[each]),
        }
        for name, wait in waits.items():
            with self.subTest(name):
                began = time.monotonic()
                with self.assertRaisesRegex(WaitFailed, r"(?s)ended with exit code 3.*all is lost"):
                    wait(ended)
                with self.assertRaisesRegex(WaitFailed, f"container {gone.container_id[:12]} is gone"):
                    wait(gone)
                self.assertLess(time.monotonic() - began, container.READY_TIMEOUT_S)
        with self.assertRaisesRegex(WaitFailed, "is gone"):
            gone.wait_for_exit()

    def test_a_wait_for_a_container_that_removes_itself_ends_too(self) -> None:
        started = self.start("sleep 0.3; exit 3", auto_remove=True)
        with self.assertRaisesRegex(WaitFailed, "is gone|ended with exit code 3"):
            started.wait_for_log("never")

    def test_a_mount_of_what_is_not_there_is_refused_and_makes_nothing(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            nowhere = Path(folder, "nowhere")
            with self.assertRaisesRegex(Exception, "nowhere"):
                self.start("true", mounts=[container.Mount(nowhere, "/d")])
            self.assertFalse(nowhere.exists())

    def test_a_wait_for_its_end_in_vain_shows_its_log(self) -> None:
        started = self.start("echo still busy; sleep 60")
        started.wait_for_log("still busy")
        with self.assertRaisesRegex(WaitFailed, r"(?s)0\.1 s for the end of .*it runs.*still busy"):
            started.wait_for_exit(timeout_s=0.1)

    def test_removing_twice_is_removing_once(self) -> None:
        started = self.start("sleep 60")
        started.remove()
        started.remove()

    def test_a_container_that_cannot_start_is_not_left_there(self) -> None:
        name = f"rtm-it-{secrets.token_hex(4)}"
        with self.assertRaisesRegex(Exception, "no-such-program"):
            container.start(IMAGE, entrypoint=["/no-such-program"], name=name)
        self.assertEqual(daemon.client().containers(all=True, filters={"name": name}), [])

    def test_a_network_goes_with_the_containers_that_belong_to_it(self) -> None:
        made = network.create()
        self.addCleanup(made.remove)
        running = self.start("sleep 60", network=made.name)
        ended = self.start("exit 0", network=made.name)
        ended.wait_for_exit()
        self.assertTrue(running.ip(made.name))
        self.assertEqual(set(made.containers()), {running.container_id, ended.container_id})
        made.remove()
        self.assertEqual(daemon.client().containers(all=True, filters={"id": running.container_id}), [])

    def test_a_freeze_that_was_given_up_is_requested_again_and_no_other_refusal(self) -> None:
        from docker.errors import APIError

        client = mock.Mock()
        given_up = APIError("500", explanation="OCI runtime pause failed: unable to freeze: unknown")
        client.pause.side_effect = [given_up, None]
        container.Container("0" * 64, client).pause()
        self.assertEqual(client.pause.call_count, 2)
        client.pause.side_effect = APIError("409", explanation="is not running")
        with self.assertRaises(APIError):
            container.Container("0" * 64, client).pause()


#: A run that leaves a network, a labelled container, an unlabelled one on the network, and a state root.
_LEAVING_RUN = """
import sys
from harness import daemon
from harness.fixtures import container, network, stateroot
image = sys.argv[1]
made = network.create()
one = container.start(image)
other = daemon.client().create_container(image, host_config=daemon.client().create_host_config(network_mode=made.name))
root = stateroot.create("left")
print(made.network_id, one.container_id, other["Id"], root.directory, flush=True)
sys.stdin.read()
"""


class SweepTest(unittest.TestCase):
    def test_what_a_killed_run_left_is_swept_and_nothing_of_a_live_one(self) -> None:
        mine = container.start(IMAGE)
        self.addCleanup(mine.remove)
        my_root = stateroot.create("mine")
        self.addCleanup(my_root.remove)
        other = subprocess.Popen(
            [sys.executable, "-c", _LEAVING_RUN, IMAGE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        *ids, directory = other.stdout.readline().split()

        sweep()
        self.assertEqual(self.there(ids), ids, "the other run is alive")
        self.assertTrue(Path(directory).exists())

        other.kill()
        other.communicate()
        sweep()
        self.assertEqual(self.there(ids), [])
        self.assertFalse(Path(directory).exists())
        self.assertTrue(mine.inspect()["State"]["Running"])
        self.assertTrue(my_root.directory.exists())

    def test_a_network_that_docker_does_not_let_go_of_is_reported_and_keeps_nothing_else(self) -> None:
        other = subprocess.run(
            [sys.executable, "-c", f"import os{_LEAVING_RUN}os._exit(9)", IMAGE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        network_id, *_, directory = other.stdout.split()
        errors = io.StringIO()
        with (
            mock.patch.object(network, "remove", side_effect=WaitFailed("it has active endpoints")),
            contextlib.redirect_stderr(errors),
        ):
            swept = sweep()

        self.assertNotIn(daemon.client().inspect_network(network_id)["Name"], swept.networks)
        self.assertIn("left behind: it has active endpoints; a restart", errors.getvalue())
        self.assertFalse(Path(directory).exists())
        self.assertEqual(self.there([network_id]), [network_id])
        sweep()
        self.assertEqual(self.there([network_id]), [])

    def there(self, ids: list[str]) -> list[str]:
        client = daemon.client()
        found = {each["Id"] for each in client.containers(all=True) + client.networks()}
        return [each for each in ids if each in found]
