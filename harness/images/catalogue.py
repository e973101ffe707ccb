"""Which images there are, what they are made of, and having them.

| image | environment | base from a registry |
|---|---|---|
| PostgreSQL | RTM_IT_POSTGRES_IMAGE | postgres:16-alpine |
| Redis | RTM_IT_REDIS_IMAGE | redis:7-alpine |
| game engine | RTM_IT_ENGINE_BASE_IMAGE | python:3.12-alpine |
| image registry | RTM_IT_REGISTRY_IMAGE | registry:2 |

A base that the environment names is used; one of our own finished images may be named, too, and is used as
it is, and so is RTM_IT_ENGINE_IMAGE, a finished engine image. Otherwise RTM_IT_IMAGE_SOURCE decides:
`registry`, `local` (a small Debian made here), or `auto`: what is there already, else the registry when it
answers, else local. The image registry is made at its first use and not with the others: it is on a base of its
own, whose packages take some seconds to fetch, and only tests of pulls need it.
"""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness import daemon
from harness.errors import ImageUnavailable
from harness.images import debian, registry
from harness.images.building import one_at_a_time
from harness.images.recipe import INPUTS_LABEL, Recipe, inspect, labels_of
from harness.progress import say

if TYPE_CHECKING:
    from docker import APIClient

#: The engine image's names: one image, two versions that a patch may go between.
ENGINE_TAGS = ("galaxy/game:1.0.0-rtm-it", "galaxy/game:1.0.1-rtm-it")

SOURCES = ("auto", "registry", "local")

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Service:
    """An image of the harness: its recipe, and where its base comes from."""

    recipe: Recipe
    registry_base: str
    base_variable: str
    local_base: debian.Base = debian.SERVERS


POSTGRES = Service(
    Recipe("postgres", _HERE / "dockerfiles" / "postgres"), "postgres:16-alpine", "RTM_IT_POSTGRES_IMAGE"
)
REDIS = Service(Recipe("redis", _HERE / "dockerfiles" / "redis"), "redis:7-alpine", "RTM_IT_REDIS_IMAGE")
ENGINE = Service(Recipe("engine", _HERE.parent / "engine"), "python:3.12-alpine", "RTM_IT_ENGINE_BASE_IMAGE")
REGISTRY = Service(
    Recipe("registry", _HERE / "dockerfiles" / "registry"), "registry:2", "RTM_IT_REGISTRY_IMAGE", debian.REGISTRY
)


@dataclass(frozen=True)
class EngineImage:
    """The game engine's image: its id, and the two references it goes by."""

    image_id: str
    ref: str
    patched_ref: str


def postgres() -> str:
    """The reference of the PostgreSQL image, made when missing; raises ImageUnavailable."""
    return _have(POSTGRES)


def redis() -> str:
    """The reference of the Redis image, made when missing; raises ImageUnavailable."""
    return _have(REDIS)


def image_registry() -> str:
    """The reference of the image registry's image, made when missing; raises ImageUnavailable."""
    return _have(REGISTRY)


def engine() -> EngineImage:
    """The game engine's image, made and tagged when missing; raises ImageUnavailable."""
    client = daemon.client()
    given = os.environ.get("RTM_IT_ENGINE_IMAGE")
    image = _present(client, given) if given else _have(ENGINE)
    found = inspect(client, image)
    if found is None:
        raise ImageUnavailable(f"the engine image {image} was removed just now: run again")
    for tag in ENGINE_TAGS:
        tagged = inspect(client, tag)
        if tagged is None or tagged["Id"] != found["Id"]:
            repository, _, version = tag.rpartition(":")
            client.tag(image, repository, version)
            if tagged is not None:
                _remove_if_unused(client, tagged["Id"])
    return EngineImage(found["Id"], *ENGINE_TAGS)


def ensure_all() -> dict[str, str]:
    """Have every image that the Runtime Manager itself needs; returns the reference of each by name."""
    return {"postgres": postgres(), "redis": redis(), "engine": engine().ref}


def source() -> str:
    """Where bases come from, of SOURCES; raises ImageUnavailable for another word."""
    word = os.environ.get("RTM_IT_IMAGE_SOURCE") or "auto"
    if word not in SOURCES:
        raise ImageUnavailable(f"RTM_IT_IMAGE_SOURCE is {word!r}, but must be one of {', '.join(SOURCES)}")
    return word


def up_to_date(service: Service) -> str | None:
    """The reference of the service's image when it is there and needs no work, else None."""
    client = daemon.client()
    for kind, base in _bases(service).items():
        tag = _tag(service, kind)
        if service.recipe.is_current(client, base, tag):
            return tag
    return None


def _tag(service: Service, kind: str) -> str:
    return f"rtm-harness/{service.recipe.name}:{kind}"


def _bases(service: Service) -> dict[str, str]:
    """The bases that would do, best first, by the tag of the image made on them."""
    given = os.environ.get(service.base_variable)
    if given:
        return {"given": given}
    every = {"registry": service.registry_base, "local": service.local_base.tag}
    return every if source() == "auto" else {source(): every[source()]}


def _have(service: Service) -> str:
    client = daemon.client()
    given = os.environ.get(service.base_variable)
    if given and INPUTS_LABEL in labels_of(inspect(client, given) or {"Config": {}}):
        return given  # one of our own finished images, named by hand
    if ready := up_to_date(service):
        return ready  # nearly always, and then nobody has to wait for the turn
    with one_at_a_time():
        return up_to_date(service) or _make(client, service)


def _make(client: "APIClient", service: Service) -> str:
    kind, base = _have_base(client, service)
    tag = _tag(service, kind)
    before = inspect(client, tag)
    service.recipe.build(client, base, tag)
    if before is not None:
        _remove_if_unused(client, before["Id"])
    return tag


def _have_base(client: "APIClient", service: Service) -> tuple[str, str]:
    """The first of the service's bases that can be had, which is then there; raises ImageUnavailable for the last."""
    bases = _bases(service)
    for kind in bases:
        if kind == "local":
            return kind, _local_base(client, service.local_base)
        if len(bases) > 1 and not _registry_answers():
            continue
        try:
            return kind, _present(client, bases[kind])
        except ImageUnavailable as failure:
            if len(bases) == 1:
                raise
            say(f"   {failure}")  # a registry that answers may still refuse, by a rate limit say
    raise ImageUnavailable(f"none of {', '.join(bases.values())} can be had here")


@cache
def _registry_answers() -> bool:
    return registry.answers(REDIS.registry_base)


def _present(client: "APIClient", image: str) -> str:
    if inspect(client, image) is None:
        registry.pull(image)
    return image


def _local_base(client: "APIClient", base: debian.Base) -> str:
    if inspect(client, base.tag) is None:
        debian.build(client, base)
        for old in client.images(base.tag.partition(":")[0]):
            for name in set(old["RepoTags"]) - {base.tag}:
                client.remove_image(name)
    return base.tag


def _remove_if_unused(client: "APIClient", image_id: str) -> None:
    """Remove the image that a new one replaced, unless a name or a container still holds it."""
    from docker.errors import APIError

    found = inspect(client, image_id)
    if found is None or found["RepoTags"]:
        return
    try:
        client.remove_image(image_id)
    except APIError as error:
        if error.status_code != 409:  # in use by a container, which is its owner's business
            raise
