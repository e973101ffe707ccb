"""Docker's JSON read into the domain's values; one function per answer of the engine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rtmanager.domain.container import LABEL_GAME_ID, ContainerState, ContainerView
from rtmanager.operations.ports import Image
from rtmanager.workers.watching import ContainerEvent, Happening

#: States in which the exit code says something; before, Docker reports 0.
_ENDED = frozenset({ContainerState.EXITED, ContainerState.DEAD})

#: Less than an hour is told in seconds and minutes (`HumanDuration` of docker/go-units).
_UP_FOR_AN_HOUR = re.compile(r"Up (?:About an hour|[0-9]+ (?:hour|day|week|month|year)s)\b")

#: By Docker's word: of the thousands in a list, asking the enumeration would take as long as all the rest.
_STATES = {state.value: state for state in ContainerState}


def inspected(found: Mapping[str, Any]) -> ContainerView:
    """The answer of `GET /containers/{id}/json`."""
    state = ContainerState(found["State"]["Status"])
    networks = _networks(found)
    return ContainerView(
        container_id=found["Id"],
        name=found["Name"].removeprefix("/"),
        image_ref=found["Config"]["Image"],
        state=state,
        labels=found["Config"].get("Labels") or {},
        networks=frozenset(networks),
        made_for=_made_for(found),
        exit_code=found["State"]["ExitCode"] if state in _ENDED else None,
        oom_killed=bool(found["State"].get("OOMKilled")),
        addresses=_addresses(networks),
        started_at=_moment(found["State"].get("StartedAt")),
        finished_at=_moment(found["State"].get("FinishedAt")) if state in _ENDED else None,
        restart_count=int(found.get("RestartCount") or 0),
        health=_health(found["State"]),
    )


def listed(found: Mapping[str, Any]) -> ContainerView:
    """One entry of `GET /containers/json`, which knows neither exit code nor OOM nor restarts, and which gives the
    image's id instead of its name once the tag points elsewhere. Since when it runs, it says in words."""
    networks = _networks(found)
    words = str(found.get("Status") or "")
    return ContainerView(
        container_id=found["Id"],
        name=_own_name(found.get("Names") or ()),
        image_ref=found["Image"],
        state=_STATES[found["State"]],
        labels=found.get("Labels") or {},
        networks=frozenset(networks),
        made_for=_made_for(found),
        addresses=_addresses(networks),
        health="unhealthy" if "(unhealthy)" in words else "",
        up_for_an_hour=_UP_FOR_AN_HOUR.match(words) is not None,
    )


def event(found: Mapping[str, Any]) -> ContainerEvent | None:
    """One line of `GET /events`; None for what does not matter here."""
    what = str(found.get("Action") or "").partition(":")[0]
    actor = found.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    game_id = attributes.get(LABEL_GAME_ID, "")
    if found.get("Type") != "container" or what not in set(Happening) or not game_id or not actor.get("ID"):
        return None
    code = attributes.get("exitCode", "")
    return ContainerEvent(
        what=Happening(what),
        game_id=game_id,
        container_id=actor["ID"],
        time_ns=int(found.get("timeNano") or int(found.get("time") or 0) * 10**9),
        exit_code=int(code) if code.isdigit() else None,
        signal=attributes.get("signal", ""),
    )


def image(found: Mapping[str, Any]) -> Image:
    """The answer of `GET /images/{name}/json`."""
    return Image(found["Id"], (found.get("Config") or {}).get("Labels") or {})


def _made_for(found: Mapping[str, Any]) -> str:
    return str((found.get("HostConfig") or {}).get("NetworkMode") or "")


def _own_name(names: Sequence[str]) -> str:
    """The container's name among those by which links from other containers (`/other/alias`) know it."""
    for name in names:
        if name.count("/") == 1:
            return name[1:]
    return ""


def _networks(found: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return (found.get("NetworkSettings") or {}).get("Networks") or {}


def _addresses(networks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The container's address by network; IPv4 where it has both."""
    return {
        name: address
        for name, network in networks.items()
        if (address := network.get("IPAddress") or network.get("GlobalIPv6Address"))
    }


def _health(state: Mapping[str, Any]) -> str:
    """What the image's health check says; `none` is Docker's word for an image without one."""
    status = str((state.get("Health") or {}).get("Status") or "")
    return "" if status == "none" else status


def _moment(text: str | None) -> datetime | None:
    """Docker's time, which has nanoseconds; the year 1 stands for never."""
    if not text or text.startswith("0001-"):
        return None
    head, _, fraction = text.removesuffix("Z").partition(".")
    if not text.endswith("Z"):
        return datetime.fromisoformat(text)
    return datetime.fromisoformat(f"{head}.{(fraction + '000000')[:6]}+00:00")
