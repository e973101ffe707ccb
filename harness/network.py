"""A Docker network of a test's own, taken away with all that is still attached to it."""

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness import container, daemon, runner
from harness.waiting import wait_until

if TYPE_CHECKING:
    from docker import APIClient


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


def create(name: str | None = None) -> Network:
    """Create a bridge network, under a name that is unique unless one is given."""
    client = daemon.client()
    chosen = name or f"rtm-it-{secrets.token_hex(5)}"
    made = client.create_network(chosen, driver="bridge", labels=runner.current().labels())
    return Network(chosen, made["Id"], client)


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

    wait_until(f"the removal of network {name}", removed)
