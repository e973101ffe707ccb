"""The harness for the Runtime Manager: a manager in the test's process or in its own, with everything it needs.

    from harness import start_services
    from harness.rtm import RuntimeTestCase

What any project may use is in `harness`, which imports nothing of this.
"""

from harness import daemon
from harness.rtm.case import RuntimeTestCase, unique_game_id
from harness.rtm.database import MIGRATIONS, RUNTIME_MANAGER
from harness.rtm.images import ENGINE_ALIASES, EngineImage, engine_image
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
    "engine_image",
    "unique_game_id",
]

# The daemon that managers under test use is the harness's, too.
if "RTMANAGER_DOCKER_HOST" not in daemon.ADDRESS_VARIABLES:
    daemon.ADDRESS_VARIABLES.insert(0, "RTMANAGER_DOCKER_HOST")
