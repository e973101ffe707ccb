"""Test support for the Runtime Manager: a manager in the test's process or its own, with everything it needs.

    from harness import start_services
    from harness.rtm import RuntimeTestCase

Everything that other projects may use is in `harness`, which imports nothing from here.
"""

from harness import daemon
from harness.rtm.case import RuntimeTestCase, unique_game_id
from harness.rtm.database import MIGRATIONS, RUNTIME_MANAGER
from harness.rtm.images import ENGINE_ALIASES, EngineImage, allowed_images, engine_image
from harness.rtm.in_process import LiveRuntime
from harness.rtm.lobby import Lobby
from harness.rtm.manager import ManagerProcess

__all__ = [
    "ENGINE_ALIASES",
    "MIGRATIONS",
    "RUNTIME_MANAGER",
    "EngineImage",
    "LiveRuntime",
    "Lobby",
    "ManagerProcess",
    "RuntimeTestCase",
    "allowed_images",
    "engine_image",
    "unique_game_id",
]

# The harness uses the same daemon as managers under test.
if "RTMANAGER_DOCKER_HOST" not in daemon.ADDRESS_VARIABLES:
    daemon.ADDRESS_VARIABLES.insert(0, "RTMANAGER_DOCKER_HOST")
