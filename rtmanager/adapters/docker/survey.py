"""Queries what Docker has: log drivers, images, containers left by trials."""

from __future__ import annotations

import json

from rtmanager.adapters.docker import decode
from rtmanager.adapters.docker.answers import UNREADABLE
from rtmanager.adapters.docker.daemon_client import DaemonClient
from rtmanager.adapters.docker.transport import arriving_entries
from rtmanager.domain.container import KIND_TRIAL, LABEL_KIND, LABEL_OWNER, OWNER, ContainerState
from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.image_ref import parse_image_ref

#: The driver that keeps nothing; every Docker has it and none lists it.
NO_LOGS = "none"


def log_drivers(engine: DaemonClient) -> frozenset[str]:
    """Return Docker's own log drivers and those of enabled plugins, whose names have a tag."""
    own = engine.answer("info", engine.deadlines.list_s, lambda client: decode.log_drivers(client.info()))
    if not own:
        raise engine.temporary("info", UNREADABLE, "answered `GET /info` without a list of log drivers")
    query = {"filters": json.dumps({"capability": ["logdriver"], "enabled": ["true"]})}
    plugins = engine.answer(
        "plugins", engine.deadlines.list_s, lambda client: list(arriving_entries(client, "/plugins", query))
    )
    return own | {NO_LOGS} | frozenset(filter(None, map(decode.plugin_name, plugins)))


def has_log_driver(name: str, drivers: frozenset[str]) -> bool:
    """Return whether the driver is available; Docker finds a plugin without a tag under `latest`."""
    tagged = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    return bool({name, tagged} & drivers)


def local_references(engine: DaemonClient) -> list[str]:
    """Return a reference of each image on the Docker host, the oldest first: it is the least likely to be removed."""
    entries = engine.answer(
        "images", engine.deadlines.list_s, lambda client: list(arriving_entries(client, "/images/json", {}))
    )
    found = [next(filter(_is_reference, decode.names_of_image(entry)), "") for entry in entries]
    return list(filter(None, reversed(found)))  # Docker lists the newest first


def trials(engine: DaemonClient, network: str) -> list[str]:
    """Return the ids of containers that trials on this network created and left, never started.

    Those on another network belong to another deployment.
    """
    labels = [f"{LABEL_OWNER}={OWNER}", f"{LABEL_KIND}={KIND_TRIAL}"]
    query = {"all": "1", "filters": json.dumps({"label": labels, "status": [ContainerState.CREATED]})}
    found = engine.answer(
        "list", engine.deadlines.list_s, lambda client: list(arriving_entries(client, "/containers/json", query))
    )
    views = [view for view in map(decode.listed, found) if view is not None]
    return [view.container_id for view in views if view.made_for == network]


def _is_reference(text: str) -> bool:
    try:
        parse_image_ref(text)
    except InvalidValue:  # `<none>:<none>`
        return False
    return True
