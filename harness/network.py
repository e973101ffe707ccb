"""A Docker network of a test's own, taken away with all that is still attached to it."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness import container, daemon, runner
from harness.errors import HarnessError, WaitFailed
from harness.waiting import wait_until

if TYPE_CHECKING:
    from docker import APIClient

#: Docker makes some thirty networks, no more; another test ends within this many seconds and leaves it one.
ROOM_TIMEOUT_S = 30.0

#: What the daemon says when it has no addresses left for one more network, by version.
_NO_ADDRESSES = ("non-overlapping IPv4 address pool", "predefined address pools have been fully subnetted")


@dataclass(frozen=True)
class Network:
    """A bridge network."""

    name: str
    network_id: str
    client: "APIClient" = field(repr=False)

    def containers(self) -> list[str]:
        """The ids of the containers that belong to it, running or not."""
        return containers_of(self.client, self.network_id, self.name)

    def remove(self) -> None:
        """Remove it and its containers; nothing happens when it is gone already."""
        remove(self.client, self.network_id, self.name)


def create(name: str | None = None, *, labels: Mapping[str, str] | None = None) -> Network:
    """Create a bridge network, under a name that is unique unless one is given.

    Waits while other tests use up Docker's addresses; raises HarnessError when none become free.
    """
    client = daemon.client()
    chosen = name or f"rtm-it-{secrets.token_hex(5)}"
    every_label = {**(labels or {}), **runner.current().labels()}
    try:
        made: dict[str, Any] = wait_until(
            "room for one more Docker network",
            lambda: _create(client, chosen, every_label),
            timeout_s=ROOM_TIMEOUT_S,
            interval_s=0.2,
            retry_on=(),
        )
    except WaitFailed:
        raise HarnessError(
            f"Docker has no addresses left for network {chosen}: `python -m harness sweep` takes away what killed runs "
            "left, `docker network prune` what nobody uses; default-address-pools of the daemon has room for more"
        ) from None
    return Network(chosen, made["Id"], client)


def _create(client: "APIClient", name: str, labels: Mapping[str, str]) -> dict[str, Any] | None:
    """The new network, or None while there is no room for it."""
    from docker.errors import APIError

    try:
        made: dict[str, Any] = client.create_network(name, driver="bridge", labels=dict(labels))
    except APIError as error:
        if any(words in str(error.explanation) for words in _NO_ADDRESSES):
            return None
        raise
    return made


def containers_of(client: "APIClient", network_id: str, name: str) -> list[str]:
    """The ids of the containers of a network, running or not."""
    # By name, too: one that never started does not know the network's id yet.
    belonging = {"network": [network_id, name]}
    return [found["Id"] for found in client.containers(all=True, filters=belonging)]


def remove(client: "APIClient", network_id: str, name: str) -> None:
    """Remove a network after its containers, whoever made those; nothing happens when it is gone."""
    from docker.errors import APIError, NotFound

    def removed() -> bool:
        for container_id in containers_of(client, network_id, name):
            container.remove(client, container_id)
        try:
            client.remove_network(network_id)
        except NotFound:
            return True
        except APIError as error:
            if error.status_code != 403:
                raise
            return False  # something was attached in between: look again
        return True

    wait_until(f"the removal of network {name}", removed, retry_on=())
