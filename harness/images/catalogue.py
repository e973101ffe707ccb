"""The catalogue of images, their bases, and their creation.

| image | environment | base from a registry |
|---|---|---|
| a base for anything | RTM_IT_BASE_IMAGE | python:3.12-alpine |
| PostgreSQL | RTM_IT_POSTGRES_IMAGE | postgres:16-alpine |
| Redis | RTM_IT_REDIS_IMAGE | redis:7-alpine |
| image registry | RTM_IT_REGISTRY_IMAGE | registry:2 |

A base from the environment takes precedence; a finished image of the harness is used as it is. Otherwise
RTM_IT_IMAGE_SOURCE decides: `registry`, `local` (a small Debian built here), or `auto`: what exists already, else the
registry when it answers, else local. The image registry is built at its first use and not with the others. Its base is
a different one, whose packages take some seconds to download, and only tests of pulls need it.

Every image is named by a hash of its inputs, and no name of another hash is moved or removed: several checkouts can
share one daemon. An image that lacks one of its names is built again.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness import daemon
from harness.errors import ImageUnavailable
from harness.images import debian, registry
from harness.images.building import content_tag, one_at_a_time
from harness.images.recipe import BASE_LABEL, INPUTS_LABEL, Recipe, inspect, labels_of
from harness.progress import report

if TYPE_CHECKING:
    from docker import APIClient

SOURCES = ("auto", "registry", "local")


@dataclass(frozen=True)
class Origin:
    """The source of a base: a registry, the variable that overrides it, or Debian's packages."""

    registry: str
    variable: str
    local: debian.Base = debian.SERVERS


@dataclass(frozen=True)
class Service:
    """An image that is built: its recipe, its base, and its names."""

    recipe: Recipe
    base: Origin
    #: Its names, with `{}` for the hash; when empty, one name in the harness's own repository.
    forms: tuple[str, ...] = ()
    #: Names without a hash, for users.
    aliases: tuple[str, ...] = ()

    def names(self, content: str) -> tuple[str, ...]:
        """The names of the image with the content hash `content`."""
        return tuple(form.format(content) for form in self.forms or (f"rtm-harness/{self.recipe.name}:{{}}",))


_FILES = Path(__file__).parent / "dockerfiles"

BASE = Origin("python:3.12-alpine", "RTM_IT_BASE_IMAGE")
POSTGRES = Service(Recipe("postgres", _FILES / "postgres"), Origin("postgres:16-alpine", "RTM_IT_POSTGRES_IMAGE"))
REDIS = Service(Recipe("redis", _FILES / "redis"), Origin("redis:7-alpine", "RTM_IT_REDIS_IMAGE"))
REGISTRY = Service(
    Recipe("registry", _FILES / "registry"), Origin("registry:2", "RTM_IT_REGISTRY_IMAGE", debian.REGISTRY)
)

#: The images that nearly every project needs, by their names in the doctor's output.
USUAL = {"PostgreSQL": POSTGRES, "Redis": REDIS}


def base_image() -> str:
    """The reference of an image with a shell and Python 3 as `python3`; raises ImageUnavailable.

    It is built from Debian's packages where no registry answers; RTM_IT_BASE_IMAGE names another one.
    """
    client = daemon.client()
    there = (base for base in _bases(BASE).values() if inspect(client, base) is not None)
    return next(there, None) or _have_base(client, BASE)


def postgres() -> str:
    """The reference of the PostgreSQL image, built when missing; raises ImageUnavailable."""
    return have(POSTGRES)[0]


def redis() -> str:
    """The reference of the Redis image, built when missing; raises ImageUnavailable."""
    return have(REDIS)[0]


def image_registry() -> str:
    """The reference of the image registry's image, built when missing; raises ImageUnavailable."""
    return have(REGISTRY)[0]


def ensure(wanted: Mapping[str, Service]) -> dict[str, str]:
    """Build missing images; returns the reference of each by name. Raises ImageUnavailable."""
    return {name: have(service)[0] for name, service in wanted.items()}


def source() -> str:
    """The source of bases, one of SOURCES; raises ImageUnavailable for an invalid value."""
    word = os.environ.get("RTM_IT_IMAGE_SOURCE") or "auto"
    if word not in SOURCES:
        raise ImageUnavailable(f"RTM_IT_IMAGE_SOURCE is {word!r}, but must be one of {', '.join(SOURCES)}")
    return word


def up_to_date(service: Service) -> str | None:
    """The reference of the service's image when it exists and is current, else None."""
    names = _ready(daemon.client(), service)
    return names[0] if names else None


def have(service: Service) -> tuple[str, ...]:
    """The names of the service's image, built when missing; raises ImageUnavailable."""
    client = daemon.client()
    if ready := _ready(client, service):
        return ready  # the usual case, without the lock
    with one_at_a_time():
        return _ready(client, service) or _make(client, service)


def _bases(origin: Origin) -> dict[str, str]:
    """The possible bases, best first, by their source."""
    given = os.environ.get(origin.variable)
    if given:
        return {"given": given}
    every = {"registry": origin.registry, "local": origin.local.tag}
    return every if source() == "auto" else {source(): every[source()]}


def _ready(client: "APIClient", service: Service) -> tuple[str, ...] | None:
    given = os.environ.get(service.base.variable)
    if given and INPUTS_LABEL in labels_of(inspect(client, given) or {"Config": {}}):
        # A finished image of the harness that the user named.
        return name_given(service, given) if service.forms else (given,)
    return next((names for base in _bases(service.base).values() if (names := _current(client, service, base))), None)


def _current(client: "APIClient", service: Service, base: str) -> tuple[str, ...] | None:
    """The names of the image on the current `base`, when all of them exist.

    When the base was removed, the names of an existing image that was built on it.
    """
    if base_now := inspect(client, base):
        base_ids = [str(base_now["Id"])]
    else:
        same = client.images(filters={"label": f"{INPUTS_LABEL}={service.recipe.inputs(base)}"})
        base_ids = [str((each.get("Labels") or {}).get(BASE_LABEL)) for each in same]
    every = (service.names(_content(service, base, each)) for each in base_ids)
    return next((names for names in every if _are_one_image(client, names, service.aliases)), None)


def _content(service: Service, base: str, base_id: str) -> str:
    return content_tag(service.recipe.inputs(base) + base_id)


def _are_one_image(client: "APIClient", names: tuple[str, ...], aliases: tuple[str, ...]) -> bool:
    """Whether all `names` lead to one image, and every alias to some image.

    A user who removed one of them expects a new build.
    """
    found = [inspect(client, name) for name in names]
    ids = {image["Id"] if image else None for image in found}
    return len(ids) == 1 and None not in ids and all(inspect(client, alias) for alias in aliases)


def _make(client: "APIClient", service: Service) -> tuple[str, ...]:
    base = _have_base(client, service.base)
    base_now = inspect(client, base)
    names = service.names(_content(service, base, str(base_now["Id"] if base_now else "")))
    moved = [*names[1:], *service.aliases]
    before = {image["Id"] for name in (names[0], *moved) if (image := inspect(client, name))}
    # Without the cache: it would restore the layers of an image that a user removed.
    service.recipe.build(client, base, names[0], cached=False)
    for name in moved:
        _tag(client, names[0], name)
    for image_id in before:
        _remove_if_unused(client, image_id)
    return names


def name_given(service: Service, image: str) -> tuple[str, ...]:
    """Give a finished image the names of the service's, by its id; raises ImageUnavailable."""
    client = daemon.client()
    found = inspect(client, _present(client, image))
    if found is None:
        raise ImageUnavailable(f"the image {image} was removed just now: run again")
    names = service.names(content_tag(found["Id"]))
    for name in [*names, *(alias for alias in service.aliases if inspect(client, alias) is None)]:
        _tag(client, found["Id"], name)
    return names


def _tag(client: "APIClient", image: str, name: str) -> None:
    repository, _, version = name.rpartition(":")
    client.tag(image, repository, version)


def _have_base(client: "APIClient", origin: Origin) -> str:
    """Provide the first available base; raises ImageUnavailable when none is."""
    bases = _bases(origin)
    for kind in bases:
        if kind == "local":
            return _local_base(client, origin.local)
        if len(bases) > 1 and not _registry_answers():
            continue
        try:
            return _present(client, bases[kind])
        except ImageUnavailable as failure:
            if len(bases) == 1:
                raise
            report(f"   {failure}")  # a registry that answers may still refuse, by a rate limit for example
    raise ImageUnavailable(f"none of {', '.join(bases.values())} can be had here")


@cache
def _registry_answers() -> bool:
    return registry.answers(REDIS.base.registry)


def _present(client: "APIClient", image: str) -> str:
    if inspect(client, image) is None:
        registry.pull(image)
    return image


def _local_base(client: "APIClient", base: debian.Base) -> str:
    if inspect(client, base.tag) is None:
        debian.build(client, base)
    return base.tag


def _remove_if_unused(client: "APIClient", image_id: str) -> None:
    """Remove the image that a new one replaced, unless a name or a container still uses it."""
    from docker.errors import APIError

    found = inspect(client, image_id)
    if found is None or found["RepoTags"]:
        return
    try:
        client.remove_image(image_id)
    except APIError as error:
        if error.status_code != 409:  # 409: a container uses it
            raise
