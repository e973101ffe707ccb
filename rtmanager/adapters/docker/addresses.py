"""Queries the addresses of a network and of its containers; see `ports.peers`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from docker.errors import APIError

from rtmanager.adapters.docker import decode
from rtmanager.adapters.docker.answers import AnswerKind, kind_of
from rtmanager.adapters.docker.daemon_client import DaemonClient
from rtmanager.adapters.docker.transport import answer_about, arriving_entries
from rtmanager.domain.errors import FinalAnswer
from rtmanager.ports.peers import AddressHolder, NetworkAddresses

#: Every address: where a proxy refuses `GET /networks`, any client may be a container.
_ANYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))


def of_network(engine: DaemonClient, network: str) -> NetworkAddresses:
    """Return the addresses of the network of this name, and of the running containers in it."""
    subnets: Sequence[IPv4Network | IPv6Network]
    try:
        subnets, gateways = engine.answer(
            "network",
            engine.deadlines.query_s,
            lambda client: decode.subnets(client.networks(names=[network]), network),
        )
    except FinalAnswer:
        subnets, gateways = _ANYWHERE, frozenset()
    query = {"filters": json.dumps({"network": [network]})}
    holders: dict[str, AddressHolder] = {}
    entries = engine.answer(
        "list",
        engine.deadlines.list_s,
        lambda client: list(map(decode.addressed, arriving_entries(client, "/containers/json", query))),
    )
    for container_id, is_game, addresses in filter(None, entries):
        holders.update(dict.fromkeys(addresses, AddressHolder(container_id, is_game)))
    return NetworkAddresses(subnets, gateways, holders)


def has(engine: DaemonClient, container_id: str, address: str) -> bool:
    """Return whether the container runs and has this address."""
    try:
        found = engine.call("inspect", engine.deadlines.query_s, lambda client: answer_about(client, container_id))
    except APIError as error:
        if kind_of("inspect", error) is AnswerKind.ABSENT:
            return False
        raise engine.refused("inspect", error) from error
    return decode.inspected(found, container_id).alive and address in decode.addresses_in(found)
