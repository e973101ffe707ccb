"""Decodes Docker's answers into domain values: one function per source; none raises.

Text from outside is cleaned, cut to a length, and checked for its type. Unprintable characters, NUL and lone surrogates
become U+FFFD. An unreadable value becomes unknown: an empty text, None, or `ContainerState.UNKNOWN`.
Text that was cleaned or cut never passes for a game id, an image reference or an address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from rtmanager.domain.container import (
    KIND,
    LABEL_CPU_QUOTA,
    LABEL_DEPLOYMENT,
    LABEL_GAME_ID,
    LABEL_IMAGE_REF,
    LABEL_KIND,
    LABEL_MEMORY,
    LABEL_OWNER,
    LABEL_PIDS_LIMIT,
    OWNER,
    ContainerState,
    ContainerView,
)
from rtmanager.domain.outage import RuntimeRun
from rtmanager.domain.text import BIDI_CONTROLS
from rtmanager.ports.runtime import Image
from rtmanager.ports.watching import ContainerEvent, ContainerEventKind, UnreadableEvent

#: Characters kept of a name, a label or a reference, and of a word such as a state.
NAME, WORD = 512, 64
#: Networks read per container.
MOST_NETWORKS = 256
#: Years of a plausible time; nanoseconds since 1970 fit into 64 bits until then.
FIRST_YEAR, LAST_YEAR = 1970, 2261
#: Largest exit code or count that the database can store.
_MOST = 2**31 - 1
_LATEST_NS = 2**63 - 1

#: States with a meaningful exit code; before them Docker reports 0.
_ENDED = frozenset({ContainerState.EXITED, ContainerState.DEAD})

#: Below an hour Docker's uptime is in seconds and minutes (`HumanDuration` of docker/go-units).
_UP_FOR_AN_HOUR = re.compile(r"Up (?:About an hour|[0-9]+ (?:hour|day|week|month|year)s)\b")

#: By Docker's word: for lists of thousands the enum's constructor would double the time.
_STATES = {state.value: state for state in ContainerState}
_HAPPENINGS = {happening.value: happening for happening in ContainerEventKind}

_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_DOCKER_ID = re.compile(r"[0-9a-f]{64}")
_IMAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+/@-]{0,255}")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{2,45}")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,12}))?(Z|[+-][0-9]{2}:[0-9]{2})"
)
#: Characters that neither a log line nor PostgreSQL should receive. Logs of engines keep line ends and tabs.
_UNPRINTABLE_IN_LOG = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{BIDI_CONTROLS}]")

_CONTAINER_LABELS = (LABEL_OWNER, LABEL_KIND, LABEL_DEPLOYMENT, LABEL_GAME_ID, LABEL_IMAGE_REF)
_IMAGE_LABELS = (LABEL_CPU_QUOTA, LABEL_MEMORY, LABEL_PIDS_LIMIT)

#: Marks a replaced character, and the end of a text that was cut.
REPLACED, CUT = "\ufffd", "…"


def text(found: object, limit: int = NAME) -> str:
    """Return a printable text on one line, cut to `limit` characters; empty when the value is no text."""
    if not isinstance(found, str):
        return ""
    if len(found) <= limit and found.isprintable():
        return found
    kept = found if len(found) <= limit else found[:limit] + CUT
    return "".join(each if each.isprintable() else REPLACED for each in kept)


def is_whole_id(text: str) -> bool:
    """Return whether the text is a full container id in Docker's form."""
    return _DOCKER_ID.fullmatch(text) is not None


def inspected(found: object, wanted_id: str = "") -> ContainerView:
    """Decode the answer of `GET /containers/{id}/json`; `wanted_id` is the requested id or name."""
    answer = _members(found)
    run_state, config = _members(answer.get("State")), _members(answer.get("Config"))
    state, word = _state(run_state.get("Status"))
    networks = _networks(answer)
    ended = state in _ENDED
    return ContainerView(
        # A requested full id is the container's id, whatever the answer contains.
        container_id=wanted_id if is_whole_id(wanted_id) else _container_id(answer.get("Id")),
        name=text(answer.get("Name")).removeprefix("/"),
        image_ref=text(config.get("Image")),
        state=state,
        state_word=word,
        labels=_labels(config.get("Labels"), _CONTAINER_LABELS),
        networks=frozenset(networks),
        made_for=_made_for(answer),
        exit_code=_whole(run_state.get("ExitCode"), -_MOST, _MOST) if ended else None,
        oom_killed=run_state.get("OOMKilled") is True,
        addresses=_addresses(networks),
        started_at=_moment(run_state.get("StartedAt")),
        finished_at=_moment(run_state.get("FinishedAt")) if ended else None,
        restart_count=_whole(answer.get("RestartCount"), 0, _MOST) or 0,
        health=_health(run_state),
        image_id=_image_id(answer.get("Image")),
    )


def listed(found: object) -> ContainerView | None:
    """Decode one entry of `GET /containers/json`; None for an entry without an id.

    A list has no exit code, OOM flag or restart count. It shows the image's id once the tag points elsewhere.
    The start time is available as words only.
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
    """Decode one event of `GET /events`; None for an irrelevant event.

    Attributes merge the labels with Docker's own keys, and labels win: over `exitCode` of `die` and `signal` of `kill`.
    So `exitCode` is not read; an inspect gives it. Docker sets `signal` on `kill` only; on any other event it is a
    label.
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
        deployment=text(attributes.get(LABEL_DEPLOYMENT)),
    )


def image(found: object) -> Image:
    """Decode the answer of `GET /images/{name}/json`."""
    answer = _members(found)
    config = _members(answer.get("Config"))
    return Image(_image_id(answer.get("Id")), _labels(config.get("Labels"), _IMAGE_LABELS))


def names_of_image(found: object) -> list[str]:
    """Return the references in one entry of `GET /images/json`."""
    entry = _members(found)
    return [*_texts(entry.get("RepoTags")), *_texts(entry.get("RepoDigests"))]


def log_drivers(found: object) -> frozenset[str]:
    """Return the log drivers from the answer of `GET /info`; empty when it cannot be read."""
    return frozenset(_texts(_members(_members(found).get("Plugins")).get("Log")))


def plugin_name(found: object) -> str:
    """Return the name, with its tag, of one entry of `GET /plugins`."""
    return text(_members(found).get("Name"))


def platform_of_image(found: object) -> str:
    """Return an image's platform, such as `linux/amd64`; empty unless system and processor are both given."""
    return _platform(found, "Os", "Architecture")


def platform_of_host(found: object) -> str:
    """Return the daemon's platform from the answer of `GET /version`; empty unless complete."""
    return _platform(found, "Os", "Arch")


def image_run_by(found: object) -> str:
    """Return the id of the image that a container runs; empty when the answer has none."""
    return _image_id(_members(found).get("Image"))


def networks_called(found: object, name: str) -> frozenset[str]:
    """Return the ids of the networks with exactly this name in the answer of `GET /networks`."""
    networks = map(_members, _list_of(found))
    return frozenset(str(network.get("Id")) for network in networks if network.get("Name") == name)


def subnets(found: object, name: str) -> tuple[list[IPv4Network | IPv6Network], frozenset[str]]:
    """Return subnets and gateways of the networks with exactly this name in the answer of `GET /networks`."""
    networks = [each for each in map(_members, _list_of(found)) if each.get("Name") == name]
    configs = [
        _members(config)
        for network in networks
        for config in _list_of(_members(network.get("IPAM")).get("Config"))[:MOST_NETWORKS]
    ]
    return (
        [subnet for config in configs if (subnet := _subnet(config.get("Subnet"))) is not None],
        frozenset(filter(None, (_shortest(config.get("Gateway")) for config in configs))),
    )


def addressed(found: object) -> tuple[str, bool, frozenset[str]] | None:
    """Decode an entry of `GET /containers/json`: its id, whether it is a game, its addresses; None without an id."""
    entry = _members(found)
    container_id = _container_id(entry.get("Id"))
    labels = _labels(entry.get("Labels"), _CONTAINER_LABELS)
    is_game = labels.get(LABEL_OWNER) == OWNER and labels.get(LABEL_KIND) == KIND
    return (container_id, is_game, addresses_in(entry)) if container_id else None


def addresses_in(found: object) -> frozenset[str]:
    """Return all addresses of a container, in their shortest form, from its list entry or its inspection."""
    members = [
        network.get(name)
        for network in _networks(_members(found)).values()
        for name in ("IPAddress", "GlobalIPv6Address")
    ]
    return frozenset(filter(None, map(_shortest, members)))


def daemon(found: object) -> tuple[str, str]:
    """Return a daemon's id and host name from the answer of `GET /info`; empty where missing."""
    answer = _members(found)
    return text(answer.get("ID")), text(answer.get("Name"))


def root_directory(found: object) -> str:
    """Return the daemon's data directory from the answer of `GET /info`; empty when missing."""
    return text(_members(found).get("DockerRootDir"))


def present_run(info: object, networks: object) -> RuntimeRun:
    """Decode the daemon's current run from `GET /info` and its default bridge, which each start creates anew."""
    bridges = [each for each in map(_members, _list_of(networks)) if each.get("Name") == "bridge"]
    began_at = _moment(bridges[0].get("Created")) if len(bridges) == 1 else None
    members = _members(info)
    return RuntimeRun(began_at, members.get("LiveRestoreEnabled") is True, _moment(members.get("SystemTime")))


def log(found: object, limit: int) -> str:
    """Return the end of a process's output, at most `limit` characters."""
    if not isinstance(found, bytes | bytearray):
        return ""
    # A character has at most four bytes.
    end = bytes(found[-4 * limit - 4 :]).decode(errors="replace")
    return _UNPRINTABLE_IN_LOG.sub(REPLACED, end)[-limit:].strip("\n")


def _members(found: object) -> Mapping[str, Any]:
    """Return the members of a JSON object; empty for anything else."""
    return found if isinstance(found, dict) else {}


def _list_of(found: object) -> list[object]:
    return found if isinstance(found, list) else []


def _whole(found: object, lowest: int, highest: int) -> int | None:
    """Return an integer within the bounds; None for anything else, including a boolean."""
    return found if type(found) is int and lowest <= found <= highest else None


def _platform(found: object, system: str, processor: str) -> str:
    parts = [text(_members(found).get(name), WORD).lower() for name in (system, processor)]
    return "/".join(parts) if all(parts) else ""


def _image_id(found: object) -> str:
    return found if isinstance(found, str) and _IMAGE_ID.fullmatch(found) else ""


def _container_id(found: object) -> str:
    return found if isinstance(found, str) and _CONTAINER_ID.fullmatch(found) else ""


def _state(found: object) -> tuple[ContainerState, str]:
    """Return the state, and Docker's own word for a state that is unknown here."""
    state = _STATES.get(found) if isinstance(found, str) else None
    if state is None or state is ContainerState.UNKNOWN:
        return ContainerState.UNKNOWN, text(found, WORD)
    return state, ""


def _labels(found: object, wanted: tuple[str, ...]) -> dict[str, str]:
    """Return the wanted labels only: the whole mapping has no upper bound."""
    labels = _members(found)
    return {name: text(label) for name in wanted if isinstance(label := labels.get(name), str)}


def _texts(found: object) -> list[str]:
    """Return the texts of a list, at most `MOST_NETWORKS`."""
    return [text(each) for each in _list_of(found)[:MOST_NETWORKS]]


def _made_for(found: Mapping[str, Any]) -> str:
    return text(_members(found.get("HostConfig")).get("NetworkMode"))


def _own_name(names: object) -> str:
    """Return the container's own name; names by links from other containers have the form `/other/alias`."""
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
    """Return the container's address by network; IPv4 where it has both."""
    addresses = {}
    for name, network in networks.items():
        address = _address(network.get("IPAddress")) or _address(network.get("GlobalIPv6Address"))
        if address:
            addresses[name] = address
    return addresses


def _address(found: object) -> str:
    return found if isinstance(found, str) and _ADDRESS.fullmatch(found) else ""


def _shortest(found: object) -> str:
    """Return an address in its shortest form; empty for anything else."""
    try:
        return str(ip_address(_address(found)))
    except ValueError:
        return ""


def _subnet(found: object) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(found, strict=False) if isinstance(found, str) else None
    except ValueError:
        return None


def _health(state: Mapping[str, Any]) -> str:
    """Return the status of the health check; empty for `none`, Docker's word for an image without one."""
    status = text(_members(state.get("Health")).get("Status"), WORD)
    return "" if status == "none" else status


def _moment(found: object) -> datetime | None:
    """Parse Docker's time, which has nanoseconds; None for the year 1, which means never."""
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
    """Return the time of an event in nanoseconds; 0 when unknown."""
    exactly = _whole(found.get("timeNano"), 1, _LATEST_NS)
    return exactly or (_whole(found.get("time"), 1, _LATEST_NS // 10**9) or 0) * 10**9
