"""The daemon's inventory before use: log drivers and their plugins, images, containers left by a trial."""

from __future__ import annotations

import json
import unittest
from typing import Any

from rtmanager.adapters.docker import DockerRuntime
from rtmanager.adapters.docker.survey import has_log_driver
from rtmanager.domain.container import KIND, KIND_TRIAL, LABEL_GAME_ID, LABEL_KIND, Limits, TrialSpec
from rtmanager.domain.errors import FinalAnswer, TemporaryAnswer
from rtmanager.ports.runtime import ImageUnavailable, LaunchFailed
from rtmanager.tests.fake_daemon import FakeDaemon

SPEC = TrialSpec(
    game_id="abc",
    image_ref="galaxy/game:1",
    network="galaxy-net",
    limits=Limits(0.5, 1 << 27, 64),
    state_path="/srv/games/.rtmanager-trial",
    mount_path="/state",
    environment={},
    started_at_ms=0,
    log_driver="local",
    log_options={"max-size": "1m"},
)


class SurveyTest(unittest.TestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()
        self.addCleanup(self.daemon.close)
        self.daemon.start()
        self.runtime = DockerRuntime(self.daemon.host)
        self.addCleanup(self.runtime.close)

    def answer(self, request: str, body: object, status: int = 200) -> None:
        self.daemon.answers[request] = lambda exchange: exchange.reply(status, body)

    def test_log_drivers_are_docker_s_own_those_of_plugins_and_none(self) -> None:
        self.answer("GET /info", {"Plugins": {"Log": ["json-file", "journald"]}})
        self.answer("GET /plugins", [{"Name": "loki:latest"}, {"Name": "grafana/loki:2.9"}, {}, 3])
        drivers = self.runtime.log_drivers()
        for name in ("json-file", "none", "loki", "loki:latest", "grafana/loki:2.9"):
            self.assertTrue(has_log_driver(name, drivers), name)
        for name in ("json", "loki:2.9", "grafana/loki", "", "registry:5000/loki"):
            self.assertFalse(has_log_driver(name, drivers), name)
        [query] = [json.loads(each["filters"]) for each in self.daemon.queries if "filters" in each]
        self.assertEqual(query, {"capability": ["logdriver"], "enabled": ["true"]})

    def test_an_answer_without_log_drivers_is_no_list_of_none(self) -> None:
        self.answer("GET /plugins", [])
        bodies: tuple[object, ...] = (
            {},
            [],
            None,
            {"Plugins": None},
            {"Plugins": {"Log": "json-file"}},
            {"Plugins": {"Log": []}},
        )
        for body in bodies:
            self.answer("GET /info", body)
            with self.subTest(body), self.assertRaises(TemporaryAnswer):
                self.runtime.log_drivers()

    def test_a_proxy_that_forbids_it_is_a_refusal_with_its_remedy(self) -> None:
        self.answer("GET /info", {"message": "no"}, 403)
        with self.assertRaisesRegex(FinalAnswer, "let the proxy .* pass `GET /info`"):
            self.runtime.log_drivers()

    def test_the_images_of_the_host_have_one_reference_each_and_the_oldest_is_first(self) -> None:
        newest = {"RepoTags": ["newest:1", "newest:2"], "Labels": {"com.galaxy.memory": "64m"}}
        untagged = {"RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"]}
        digest = {"RepoTags": None, "RepoDigests": [f"by/digest@sha256:{'a' * 64}"]}
        for images, expected in (
            ([], []),
            ([untagged, 3, None, {}], []),
            ([newest, untagged, digest], [f"by/digest@sha256:{'a' * 64}", "newest:1"]),
        ):
            self.answer("GET /images/json", images)
            self.assertEqual(self.runtime.local_references(), expected)

    def test_a_local_image_is_never_pulled(self) -> None:
        self.assertRaises(ImageUnavailable, self.runtime.local_image, "Up/x")
        self.answer("GET /images/here:1/json", {"Id": "sha256:1", "Config": {}})
        self.answer("GET /images/away:1/json", {"message": "No such image: away:1"}, 404)
        self.assertIsNotNone(self.runtime.local_image("here:1"))
        self.assertIsNone(self.runtime.local_image("away:1"))
        self.assertNotIn("POST /images/create", self.daemon.requests)

    def test_a_trial_is_a_game_s_container_by_another_name_and_is_removed(self) -> None:
        self.answer("POST /containers/create", {"Id": "c1"}, 201)
        self.answer("DELETE /containers/c1", None, 204)
        for any_command in (True, False):
            self.daemon.bodies.clear()
            self.runtime.try_create(SPEC, any_command=any_command)
            self.assertEqual(self.daemon.requests[-2:], ["POST /containers/create", "DELETE /containers/c1"])
            body = json.loads(self.daemon.bodies[-2])
            self.assertEqual(body["Labels"], {"com.galaxy.owner": "rtmanager", "com.galaxy.kind": "trial"})
            self.assertEqual(body["HostConfig"]["LogConfig"], {"Type": "local", "Config": {"max-size": "1m"}})
            self.assertEqual("Cmd" in body, any_command)
        self.assertEqual([each["name"] for each in self.daemon.queries if "name" in each], ["galaxy-trial-abc"] * 2)

    def test_a_trial_that_docker_refuses_has_the_reason_with_the_remedy(self) -> None:
        self.answer("POST /containers/create", {"message": "unknown log opt 'x' for local log driver"}, 400)
        with self.assertRaisesRegex(LaunchFailed, "unknown log opt.*RTMANAGER_DOCKER_LOG_DRIVER=local"):
            self.runtime.try_create(SPEC, any_command=True)

    def test_what_a_trial_left_behind_is_removed_and_nothing_else(self) -> None:
        def listed(container_id: str, network: str) -> dict[str, Any]:
            return {"Id": container_id, "State": "created", "HostConfig": {"NetworkMode": network}}

        self.answer("GET /containers/json", [listed("c1", "galaxy-net"), listed("c2", "others-net")])
        self.daemon.answers["DELETE /containers/c1"] = lambda exchange: exchange.refuse(404, "No such container: c1")
        self.runtime.remove_trials("galaxy-net")
        self.assertEqual([each for each in self.daemon.requests if "DELETE" in each], ["DELETE /containers/c1"])
        [filters] = [json.loads(each["filters"]) for each in self.daemon.queries if "filters" in each]
        self.assertEqual(filters["status"], ["created"])
        self.assertIn("com.galaxy.kind=trial", filters["label"])

    def test_no_list_of_games_has_a_trial(self) -> None:
        self.assertNotIn(LABEL_GAME_ID, SPEC.labels)
        self.assertEqual(SPEC.labels[LABEL_KIND], KIND_TRIAL)
        self.assertNotEqual(KIND_TRIAL, KIND)
        self.assertFalse(SPEC.name.startswith("galaxy-game-"))


if __name__ == "__main__":
    unittest.main()
