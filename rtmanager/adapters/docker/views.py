"""Docker's JSON read into the domain's values; one function per answer of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtmanager.domain.container import ContainerState, ContainerView
from rtmanager.operations.ports import Image

#: States in which the exit code says something; before, Docker reports 0.
_ENDED = frozenset({ContainerState.EXITED, ContainerState.DEAD})


def inspected(found: Mapping[str, Any]) -> ContainerView:
    """The answer of `GET /containers/{id}/json`."""
    state = ContainerState(found["State"]["Status"])
    return ContainerView(
        container_id=found["Id"],
        name=found["Name"].removeprefix("/"),
        image_ref=found["Config"]["Image"],
        state=state,
        labels=found["Config"].get("Labels") or {},
        networks=frozenset(found["NetworkSettings"].get("Networks") or ()),
        exit_code=found["State"]["ExitCode"] if state in _ENDED else None,
        oom_killed=bool(found["State"].get("OOMKilled")),
    )


def listed(found: Mapping[str, Any]) -> ContainerView:
    """One entry of `GET /containers/json`, which knows neither exit code nor OOM, and which gives the image's
    id instead of its name once the tag points elsewhere."""
    return ContainerView(
        container_id=found["Id"],
        name=_own_name(found.get("Names") or ()),
        image_ref=found["Image"],
        state=ContainerState(found["State"]),
        labels=found.get("Labels") or {},
        networks=frozenset((found.get("NetworkSettings") or {}).get("Networks") or ()),
    )


def image(found: Mapping[str, Any]) -> Image:
    """The answer of `GET /images/{name}/json`."""
    return Image(found["Id"], (found.get("Config") or {}).get("Labels") or {})


def _own_name(names: list[str] | tuple[str, ...]) -> str:
    """The container's name among those by which links from other containers (`/other/alias`) know it."""
    return next((name[1:] for name in names if name.count("/") == 1), "")
