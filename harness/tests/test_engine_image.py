"""The engine image under the hardening that the Runtime Manager gives each game."""

import http.client
import json
import os
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

from harness import images
from harness.fixtures import container
from harness.images import ENGINE_TAGS
from harness.images.recipe import inspect, labels_of
from harness.runs import flag

STATE = "/var/lib/galaxy-game"
ENGINE_UID = 10001
RACES = {"races": [{"raceName": "Terrans"}]}

IMAGE: images.EngineImage


def setUpModule() -> None:
    global IMAGE
    flag.check()
    IMAGE = images.engine()


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

    def test_one_image_has_both_tags(self) -> None:
        from harness import daemon

        found = [inspect(daemon.client(), tag) for tag in ENGINE_TAGS]
        self.assertEqual([image and image["Id"] for image in found], [IMAGE.image_id] * 2)

    def test_its_labels_carry_its_limits(self) -> None:
        from harness import daemon

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
                self.assertEqual(engine.stop(grace_s=10), 0)
                self.assertLess(time.monotonic() - began, 5)

    def test_it_runs_as_a_user_of_its_own(self) -> None:
        engine = self.start()
        self.assertEqual(engine.exec(["id", "-u"]), (0, f"{ENGINE_UID}\n"))
