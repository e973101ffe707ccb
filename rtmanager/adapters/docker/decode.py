"""Docker's answers decoded into our own values: one function per source, and none of them raises.

What others wrote is cleaned (what cannot be printed, among it NUL and halves of surrogate pairs, becomes U+FFFD), cut
to a length, and checked for its type. What cannot be read is unknown: an empty text, None, `ContainerState.UNKNOWN`.
A text that was cleaned or cut can never be taken for a game id, an image reference or an address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rtmanager.domain.container import (
    LABEL_CPU_QUOTA,
    LABEL_DEPLOYMENT,
    LABEL_GAME_ID,
    LABEL_IMAGE_REF,
    LABEL_KIND,
    LABEL_MEMORY,
    LABEL_OWNER,
    LABEL_PIDS_LIMIT,
    ContainerState,
    ContainerView,
)
from rtmanager.domain.outage import RuntimeRun
from rtmanager.domain.text import BIDI_CONTROLS
from rtmanager.ports.runtime import Image
from rtmanager.ports.watching import ContainerEvent, ContainerEventKind, UnreadableEvent

#: Characters that are kept of a name, a label or a reference; of a word such as a state.
NAME, WORD = 512, 64
#: Networks that are read of one container.
MOST_NETWORKS = 256
#: Years of which a time is believed: no program of the world had nanoseconds before, or will have them after.
FIRST_YEAR, LAST_YEAR = 1970, 2261
#: Exit codes and counts that the database can hold.
_MOST = 2**31 - 1
_LATEST_NS = 2**63 - 1

#: States in which the exit code says something; before, Docker reports 0.
_ENDED = frozenset({ContainerState.EXITED, ContainerState.DEAD})

#: Less than an hour is told in seconds and minutes (`HumanDuration` of docker/go-units).
_UP_FOR_AN_HOUR = re.compile(r"Up (?:About an hour|[0-9]+ (?:hour|day|week|month|year)s)\b")

#: By Docker's word: of the thousands in a list, asking the enumeration would take as long as all the rest.
_STATES = {state.value: state for state in ContainerState}
_HAPPENINGS = {happening.value: happening for happening in ContainerEventKind}

_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_DOCKER_ID = re.compile(r"[0-9a-f]{64}")
_IMAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+/@-]{0,255}")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{2,45}")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,12}))?(Z|[+-][0-9]{2}:[0-9]{2})"
)
#: What neither a log line nor PostgreSQL should be given. Line ends and tabs are left in logs of engines.
_UNPRINTABLE_IN_LOG = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{BIDI_CONTROLS}]")

_CONTAINER_LABELS = (LABEL_OWNER, LABEL_KIND, LABEL_DEPLOYMENT, LABEL_GAME_ID, LABEL_IMAGE_REF)
_IMAGE_LABELS = (LABEL_CPU_QUOTA, LABEL_MEMORY, LABEL_PIDS_LIMIT)

#: What stands for a character that cannot be kept, and for the end of a text that was cut.
REPLACED, CUT = "\ufffd", "…"


def text(found: object, limit: int = NAME) -> str:
    """A text as our own: printable, on one line, of bounded length; empty for what is no text."""
    if not isinstance(found, str):
        return ""
    if len(found) <= limit and found.isprintable():
        return found
    kept = found if len(found) <= limit else found[:limit] + CUT
    return "".join(each if each.isprintable() else REPLACED for each in kept)


def is_whole_id(text: str) -> bool:
    """Whether it is a container's id as Docker makes them, uncut."""
    return _DOCKER_ID.fullmatch(text) is not None


def inspected(found: object, asked_for: str = "") -> ContainerView:
    """The answer of `GET /containers/{id}/json`; `asked_for` is the id or name that the question had."""
    answer = _members(found)
    said, config = _members(answer.get("State")), _members(answer.get("Config"))
    state, word = _state(said.get("Status"))
    networks = _networks(answer)
    ended = state in _ENDED
    return ContainerView(
        # Who was asked for by a whole id is who is told of, whatever else the answer says.
        container_id=asked_for if is_whole_id(asked_for) else _container_id(answer.get("Id")),
        name=text(answer.get("Name")).removeprefix("/"),
        image_ref=text(config.get("Image")),
        state=state,
        state_word=word,
        labels=_labels(config.get("Labels"), _CONTAINER_LABELS),
        networks=frozenset(networks),
        made_for=_made_for(answer),
        exit_code=_whole(said.get("ExitCode"), -_MOST, _MOST) if ended else None,
        oom_killed=said.get("OOMKilled") is True,
        addresses=_addresses(networks),
        started_at=_moment(said.get("StartedAt")),
        finished_at=_moment(said.get("FinishedAt")) if ended else None,
        restart_count=_whole(answer.get("RestartCount"), 0, _MOST) or 0,
        health=_health(said),
        image_id=_image_id(answer.get("Image")),
    )


def listed(found: object) -> ContainerView | None:
    """One entry of `GET /containers/json`; None for one without an id.

    A list knows neither exit code nor OOM nor restarts, and gives the image's id instead of its name once the tag
    points elsewhere. Since when a container runs, it says in words.
    """
    entry = _members(found)
    container_id = _container_id(entry.get("Id"))
    if not container_id:
        return None
    networks = _networks(entry)
    words = text(entry.get("Status"), NAME)
    state, word = _state(entry.get("State"))
    return ContainerView(
        container_id=container_id,
        name=_own_name(entry.get("Names")),
        image_ref=text(entry.get("Image")),
        state=state,
        state_word=word,
        labels=_labels(entry.get("Labels"), _CONTAINER_LABELS),
        networks=frozenset(networks),
        made_for=_made_for(entry),
        addresses=_addresses(networks),
        health="unhealthy" if "(unhealthy)" in words else "",
        up_for_an_hour=_UP_FOR_AN_HOUR.match(words) is not None,
    )


def event(found: object) -> ContainerEvent | UnreadableEvent | None:
    """One event of `GET /events`; None for what does not matter here.

    The attributes are one map of labels and of what Docker adds, and labels win: of `die` the `exitCode`, of `kill`
    the `signal`. So the first is not read at all, inspect tells it; of the second it is known whether a label has
    its name, since Docker sets it with no other event.
    """
    members = _members(found)
    if not members:
        return UnreadableEvent("it is no object")
    if members.get("Type") != "container":
        return None
    action = members.get("Action")
    if not isinstance(action, str):
        return UnreadableEvent("its action is no text")
    what = _HAPPENINGS.get(action.partition(":")[0])
    if what is None:
        return None
    actor = _members(members.get("Actor"))
    attributes = _members(actor.get("Attributes"))
    game_id = text(attributes.get(LABEL_GAME_ID))
    container_id = _container_id(actor.get("ID"))
    if not container_id:
        return UnreadableEvent(f"it names no container: {text(actor.get('ID'), WORD)!r}")
    if not game_id:
        return None
    return ContainerEvent(
        what=what,
        game_id=game_id,
        container_id=container_id,
        time_ns=_time_ns(members),
        signal=text(attributes.get("signal"), WORD) if what is ContainerEventKind.KILL else "",
        signal_is_label=what is not ContainerEventKind.KILL and "signal" in attributes,
    )


def image(found: object) -> Image:
    """The answer of `GET /images/{name}/json`."""
    answer = _members(found)
    config = _members(answer.get("Config"))
    return Image(_image_id(answer.get("Id")), _labels(config.get("Labels"), _IMAGE_LABELS))


def image_listed(found: object) -> tuple[list[str], Mapping[str, str]]:
    """One entry of `GET /images/json`: the references by which it is known, and its labels of an engine's."""
    entry = _members(found)
    names = [*_texts(entry.get("RepoTags")), *_texts(entry.get("RepoDigests"))]
    return names, _labels(entry.get("Labels"), _IMAGE_LABELS)


def log_drivers(found: object) -> frozenset[str]:
    """The log drivers that the answer of `GET /info` has; empty when it cannot be read."""
    return frozenset(_texts(_members(_members(found).get("Plugins")).get("Log")))


def plugin_name(found: object) -> str:
    """The name, with its tag, of one entry of `GET /plugins`."""
    return text(_members(found).get("Name"))


def platform_of_image(found: object) -> str:
    """For which system and processor an image was made, such as `linux/amd64`; empty when it does not say both."""
    return _platform(found, "Os", "Architecture")


def platform_of_host(found: object) -> str:
    """The same of the daemon, from the answer of `GET /version`."""
    return _platform(found, "Os", "Arch")


def image_run_by(found: object) -> str:
    """The id of the image that a container runs, from the answer about the container; empty when it has none."""
    return _image_id(_members(found).get("Image"))


def networks_called(found: object, name: str) -> frozenset[str]:
    """The ids of the networks of this very name in the answer of `GET /networks`."""
    networks = map(_members, _list_of(found))
    return frozenset(str(network.get("Id")) for network in networks if network.get("Name") == name)


def daemon(found: object) -> tuple[str, str]:
    """The id and the host's name of a daemon, from the answer of `GET /info`; empty what it does not give."""
    answer = _members(found)
    return text(answer.get("ID")), text(answer.get("Name"))


def root_directory(found: object) -> str:
    """Where a daemon keeps its data on its host, from the answer of `GET /info`; empty when it does not say."""
    return text(_members(found).get("DockerRootDir"))


def present_run(info: object, networks: object) -> RuntimeRun:
    """The daemon's present run, from `GET /info` and from its default bridge, which each start makes anew."""
    bridges = [each for each in map(_members, _list_of(networks)) if each.get("Name") == "bridge"]
    began_at = _moment(bridges[0].get("Created")) if len(bridges) == 1 else None
    return RuntimeRun(began_at, _members(info).get("LiveRestoreEnabled") is True)


def log(found: object, limit: int) -> str:
    """The end of what a process wrote, at most `limit` characters."""
    if not isinstance(found, bytes | bytearray):
        return ""
    # A character has at most four bytes, so this leaves enough.
    end = bytes(found[-4 * limit - 4 :]).decode(errors="replace")
    return _UNPRINTABLE_IN_LOG.sub(REPLACED, end)[-limit:].strip("\n")


def _members(found: object) -> Mapping[str, Any]:
    """The members of a JSON object; none of anything else."""
    return found if isinstance(found, dict) else {}


def _list_of(found: object) -> list[object]:
    return found if isinstance(found, list) else []


def _whole(found: object, lowest: int, highest: int) -> int | None:
    """A whole number within bounds; a truth value is none."""
    return found if type(found) is int and lowest <= found <= highest else None


def _platform(found: object, system: str, processor: str) -> str:
    parts = [text(_members(found).get(name), WORD).lower() for name in (system, processor)]
    return "/".join(parts) if all(parts) else ""


def _image_id(found: object) -> str:
    return found if isinstance(found, str) and _IMAGE_ID.fullmatch(found) else ""


def _container_id(found: object) -> str:
    return found if isinstance(found, str) and _CONTAINER_ID.fullmatch(found) else ""


def _state(found: object) -> tuple[ContainerState, str]:
    """The state; with Docker's own word when we do not know it."""
    state = _STATES.get(found) if isinstance(found, str) else None
    if state is None or state is ContainerState.UNKNOWN:
        return ContainerState.UNKNOWN, text(found, WORD)
    return state, ""


def _labels(found: object, wanted: tuple[str, ...]) -> dict[str, str]:
    """The labels that are read here, and never the whole mapping: it has no upper bound."""
    labels = _members(found)
    return {name: text(label) for name in wanted if isinstance(label := labels.get(name), str)}


def _texts(found: object) -> list[str]:
    """The texts of a list, at most so many as are read of one container's networks."""
    return [text(each) for each in _list_of(found)[:MOST_NETWORKS]]


def _made_for(found: Mapping[str, Any]) -> str:
    return text(_members(found.get("HostConfig")).get("NetworkMode"))


def _own_name(names: object) -> str:
    """The container's name among those by which links from other containers (`/other/alias`) know it."""
    for name in names if isinstance(names, list) else ():
        if isinstance(name, str) and name.count("/") == 1:
            return text(name[1:])
    return ""


def _networks(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    networks = _members(_members(found.get("NetworkSettings")).get("Networks"))
    if len(networks) > MOST_NETWORKS:
        networks = dict(list(networks.items())[:MOST_NETWORKS])
    return {text(name): _members(network) for name, network in networks.items()}


def _addresses(networks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The container's address by network; IPv4 where it has both."""
    addresses = {}
    for name, network in networks.items():
        address = _address(network.get("IPAddress")) or _address(network.get("GlobalIPv6Address"))
        if address:
            addresses[name] = address
    return addresses


def _address(found: object) -> str:
    return found if isinstance(found, str) and _ADDRESS.fullmatch(found) else ""


def _health(state: Mapping[str, Any]) -> str:
    """What the image's health check says; `none` is Docker's word for an image without one."""
    status = text(_members(state.get("Health")).get("Status"), WORD)
    return "" if status == "none" else status


def _moment(found: object) -> datetime | None:
    """Docker's time, which has nanoseconds; the year 1 stands for never."""
    parts = _TIME.fullmatch(found) if isinstance(found, str) and len(found) <= WORD else None
    if parts is None:
        return None
    seconds, fraction, offset = parts[1], (parts[2] or "")[:6].ljust(6, "0"), parts[3].replace("Z", "+00:00")
    try:
        moment = datetime.fromisoformat(f"{seconds}.{fraction}{offset}")
    except ValueError:  # a month 13, a leap second, an offset of a day
        return None
    return moment if FIRST_YEAR <= moment.year <= LAST_YEAR else None


def _time_ns(found: Mapping[str, Any]) -> int:
    """When it happened; 0 when that is not known."""
    exactly = _whole(found.get("timeNano"), 1, _LATEST_NS)
    return exactly or (_whole(found.get("time"), 1, _LATEST_NS // 10**9) or 0) * 10**9
