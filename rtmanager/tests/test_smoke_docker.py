"""One container through the production adapter, wherever a Docker daemon answers; part of the default run."""

from __future__ import annotations

import unittest

from rtmanager.adapters.docker import DockerRuntime
from rtmanager.domain.container import ContainerSpec, ContainerState, Limits
from rtmanager.fakes.docker_world import DockerWorld, docker_host, why_no_docker
from rtmanager.ports.runtime import ContainerNotFound, PullPolicy


class DockerSmokeTest(unittest.TestCase):
    def test_a_container_lives_and_dies(self) -> None:
        why_not = why_no_docker(docker_host())
        if why_not:
            self.skipTest(why_not)
        world = DockerWorld(docker_host())
        self.addCleanup(world.close)
        runtime = DockerRuntime(docker_host())
        self.addCleanup(runtime.close)

        image_ref = world.image("waits")
        runtime.ensure_image(image_ref, PullPolicy.NEVER)
        self.assertTrue(runtime.network_exists(world.network))
        container_id = runtime.launch(
            ContainerSpec(
                game_id=world.game_id(),
                image_ref=image_ref,
                network=world.network,
                limits=Limits(cpus=0.5, memory_bytes=32 << 20, pids=16),
                state_path=world.state_path,
                mount_path="/var/lib/galaxy-game",
                environment={},
                started_at_ms=0,
                log_driver="json-file",
                log_options={"max-size": "1m"},
            )
        )
        self.assertEqual(runtime.inspect(container_id).state, ContainerState.RUNNING)
        self.assertIn(container_id, [view.container_id for view in runtime.list_games()])
        runtime.stop(container_id, stop_grace_s=10)
        self.assertEqual(runtime.inspect(container_id).state, ContainerState.EXITED)
        runtime.remove(container_id)
        with self.assertRaises(ContainerNotFound):
            runtime.inspect(container_id)
