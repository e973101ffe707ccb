"""Decides how this process reaches engines: from inside their Docker network, or from outside."""

from __future__ import annotations

import re
import socket

from rtmanager.domain.errors import FinalAnswer, TemporaryAnswer
from rtmanager.ports.runtime import ContainerNotFound, ContainerRuntime
from rtmanager.ports.watching import ProbeBy

#: Host names that Docker gives to a container. A shorter one, `fb6`, may be the prefix of any container's id.
_BY_DOCKER = re.compile(r"[0-9a-f]{12}|[0-9a-f]{64}")


class ProbeRoute:
    """Decides whether probes use endpoints or container addresses; resolved once, when Docker answers.

    A container's host name is the prefix of its id unless it was configured. With a configured name, probes use
    addresses, which also work inside the network.
    """

    def __init__(self, setting: str, network: str, runtime: ContainerRuntime) -> None:
        self._network = network
        self._runtime = runtime
        self._known = None if setting == "auto" else ProbeBy(setting)

    def __call__(self) -> ProbeBy:
        """Return the route. Raises `Unavailable`."""
        if self._known is None:
            try:
                self._known = ProbeBy.ENDPOINT if self._is_inside() else ProbeBy.CONTAINER_IP
            except TemporaryAnswer:
                return ProbeBy.CONTAINER_IP  # for now: addresses work from both sides
        return self._known

    def _is_inside(self) -> bool:
        host_name = socket.gethostname()
        if not _BY_DOCKER.fullmatch(host_name):
            return False
        try:
            found = self._runtime.inspect(host_name)
        except (ContainerNotFound, FinalAnswer):
            return False
        return found.container_id.startswith(host_name) and self._network in found.networks
