"""The engine image, with the hardening that the Runtime Manager applies, and with other checkouts on the daemon."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import harness
from harness import daemon
from harness.fixtures import container, dockerd
from harness.images.recipe import BASE_LABEL, inspect, labels_of
from harness.rtm import ENGINE_ALIASES, EngineImage, engine_image
from harness.runs import flag

STATE = "/var/lib/galaxy-game"
ENGINE_UID = 10001
RACES = {"races": [{"raceName": "Terrans"}]}

IMAGE: EngineImage


def setUpModule() -> None:
    global IMAGE
    flag.check()
    IMAGE = engine_image()


class EngineImageTest(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        if os.geteuid() == 0:
            os.chown(self.directory, ENGINE_UID, ENGINE_UID)
        else:
            self.directory.chmod(0o777)

    def start(self, **more: Any) -> container.Container:
        engine = container.start(
            IMAGE.ref,
            ports=[8080],
            env={"GAME_STATE_PATH": STATE},
            mounts=[container.Mount(self.directory, STATE)],
            tmpfs={"/tmp": "size=16m"},
            host_config={
                "read_only": True,
                "cap_drop": ["ALL"],
                "security_opt": ["no-new-privileges"],
                "mem_limit": "128m",
                "pids_limit": 64,
                **more,
            },
        )
        self.addCleanup(engine.remove)
        engine.wait_for_http(8080, "/healthz")
        return engine

    def call(self, engine: container.Container, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection(*engine.address(8080), timeout=5)
        self.addCleanup(connection.close)
        connection.request(method, f"/api/v1/admin/{path}", json.dumps(body))
        return json.loads(connection.getresponse().read())

    def test_one_image_has_both_names(self) -> None:
        found = [inspect(daemon.client(), name) for name in (IMAGE.ref, IMAGE.patched_ref)]
        self.assertEqual([image and image["Id"] for image in found], [IMAGE.image_id] * 2)

    def test_its_labels_carry_its_limits(self) -> None:
        labels = labels_of(inspect(daemon.client(), IMAGE.ref) or {})
        limits = {name: labels[f"com.galaxy.{name}"] for name in ("cpu_quota", "memory", "pids_limit")}
        self.assertEqual(limits, {"cpu_quota": "0.5", "memory": "128m", "pids_limit": "64"})

    def test_a_game_goes_on_in_another_container(self) -> None:
        first = self.start()
        self.call(first, "POST", "init", RACES)
        self.call(first, "PUT", "turn")
        first.remove()
        self.assertEqual(self.call(self.start(), "GET", "status")["turn"], 1)

    def test_sigterm_ends_it_at_once_and_well_with_and_without_an_init(self) -> None:
        for init in (False, True):
            with self.subTest(init=init):
                engine = self.start(init=init)
                began = time.monotonic()
                self.assertEqual(engine.stop(stop_grace_s=10), 0)
                self.assertLess(time.monotonic() - began, 5)

    def test_it_runs_as_a_user_of_its_own(self) -> None:
        engine = self.start()
        self.assertEqual(engine.exec(["id", "-u"]), (0, f"{ENGINE_UID}\n"))


class CheckoutsTest(unittest.TestCase):
    """Two checkouts with different engines on one daemon; the test's own, since it removes images."""

    own: ClassVar[dockerd.OwnDaemon]
    base: ClassVar[str]

    @classmethod
    def setUpClass(cls) -> None:
        dockerd.check()
        made_on = labels_of(inspect(daemon.client(), IMAGE.ref) or {})[BASE_LABEL]
        cls.base = (inspect(daemon.client(), made_on) or {})["RepoTags"][0]
        cls.own = dockerd.start()
        cls.addClassCleanup(cls.own.close)
        cls.own.copy_image(cls.base)

    def checkout(self, difference: str) -> Path:
        """A copy of the harness with another engine."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        original = Path(harness.__file__).parent
        shutil.copytree(original, folder / "harness", ignore=shutil.ignore_patterns("tests", "__pycache__"))
        with next(folder.rglob("engine.py")).open("a") as source:
            source.write(f"\n# {difference}\n")
        return folder

    def engine_of(self, checkout: Path) -> EngineImage:
        """The engine image that a process of the checkout uses."""
        script = "from harness.rtm import engine_image; e = engine_image(); print(e.image_id, e.ref, e.patched_ref)"
        settings = {name: value for name, value in os.environ.items() if name != "RTMANAGER_DOCKER_HOST"}
        settings |= {"DOCKER_HOST": self.own.url, "PYTHONPATH": str(checkout), "RTM_IT_ENGINE_BASE_IMAGE": self.base}
        command = [sys.executable, "-c", script]
        run = subprocess.run(command, env=settings, cwd=checkout, capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stderr)
        return EngineImage(*run.stdout.split())

    def ids(self, *names: str) -> list[str | None]:
        """The ids of the images with these names."""
        found = [inspect(self.own.client(), name) for name in names]
        return [image["Id"] if image else None for image in found]

    def test_each_has_its_own_engine_and_what_is_removed_is_built_again(self) -> None:
        mine, theirs = self.checkout("mine"), self.checkout("theirs")
        with ThreadPoolExecutor(4) as threads:
            engine, other, *again = threads.map(self.engine_of, (mine, theirs, mine, theirs))
        self.assertEqual(len({engine.ref, engine.patched_ref, other.ref, other.patched_ref}), 4)
        self.assertEqual(again, [engine, other])
        self.assertEqual((self.engine_of(mine), self.engine_of(theirs)), (engine, other))
        removals = ([engine.ref], [engine.ref, engine.patched_ref], [ENGINE_ALIASES[0]], [engine.image_id])
        for removed in removals:
            with self.subTest(removed=removed):
                before = self.engine_of(mine)
                for name in removed:
                    found = before.image_id if name.startswith("sha256:") else name
                    self.own.client().remove_image(found, force=True)
                after = self.engine_of(mine)
                self.assertNotEqual(after.image_id, before.image_id)
                self.assertEqual(self.ids(engine.ref, engine.patched_ref), [after.image_id] * 2)
                self.assertEqual(self.ids(before.image_id), [None])
        self.assertEqual(self.ids(other.ref, other.patched_ref), [other.image_id] * 2)
        self.own.client().remove_image(self.base, force=True)
        self.assertEqual(self.engine_of(theirs), other)
