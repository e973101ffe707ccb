"""The game engine's image, in addition to those of the harness.

| image | environment | base from a registry |
|---|---|---|
| game engine | RTM_IT_ENGINE_BASE_IMAGE | python:3.12-alpine |

RTM_IT_ENGINE_IMAGE names a finished engine image, which is used as it is. Everything else is as for the harness's
images.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from harness import daemon
from harness.errors import ImageUnavailable
from harness.fixtures import registry
from harness.images import catalogue
from harness.images.catalogue import USUAL, Origin, Service
from harness.images.recipe import Recipe, inspect

#: Names of the engine image for users and documents; each leads to the engine that was built last. No test uses them: a
#: checkout with another engine moves them.
ENGINE_ALIASES = ("galaxy/game:1.0.0-rtm-it", "galaxy/game:1.0.1-rtm-it")

# The letter `h`: a hash of digits alone would be a number, which may not begin with 0 in a version.
ENGINE = Service(
    Recipe("engine", Path(__file__).parent / "engine"),
    Origin("python:3.12-alpine", "RTM_IT_ENGINE_BASE_IMAGE"),
    forms=tuple(f"{alias}.h{{}}" for alias in ENGINE_ALIASES),
    aliases=ENGINE_ALIASES,
)

#: Registries that tests name and that do not exist.
_NOWHERE = ("registry.invalid", "127.0.0.1:1", "127.0.0.1:9")

#: Every image that a Runtime Manager needs.
NEEDED = {**USUAL, "game engine": ENGINE}


@dataclass(frozen=True)
class EngineImage:
    """The game engine's image: its id, and two references, the versions before and after a patch."""

    image_id: str
    ref: str
    patched_ref: str


def engine_image() -> EngineImage:
    """The game engine's image, built when missing; raises ImageUnavailable."""
    given = os.environ.get("RTM_IT_ENGINE_IMAGE")
    names = catalogue.name_given(ENGINE, given) if given else catalogue.have(ENGINE)
    found = inspect(daemon.client(), names[0])
    if found is None:
        raise ImageUnavailable(f"the engine image {names[0]} was removed just now: run again")
    return EngineImage(found["Id"], *names)


def allowed_images() -> str:
    """RTMANAGER_IMAGE_ALLOW for tests: every image without a registry, and those of all registries started so far.

    A manager refuses a registry on a loopback address that is not listed.
    """
    first, slash, _ = os.environ.get("RTM_IT_ENGINE_IMAGE", "").partition("/")
    of_engine = {first} if slash and ("." in first or ":" in first) else set()
    return " ".join(["**", *(f"{host}/**" for host in sorted({*_NOWHERE, *registry.started, *of_engine}))])
