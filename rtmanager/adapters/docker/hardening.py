"""Builds the request for a game's container: a pure function from `ContainerSpec` to Docker's API.

This module sets every field and passes none through, so it defines what a game may do on the host (contract, "The
container"). It uses the API's own fields instead of the SDK's helpers. Those add proxy variables from the user's
docker configuration to the environment.
"""

from __future__ import annotations

from typing import Any

from rtmanager.domain.container import ContainerSpec
from rtmanager.ports.runtime import LaunchFailed

#: The only place beside the state directory to which an engine can write; removed with the container.
TMPFS_OPTIONS = "rw,noexec,nosuid,nodev,size=16m,mode=1777"

#: Open files per process; an engine serves HTTP and keeps a few files open.
MAX_OPEN_FILES = 16384

#: Network names that Docker reads as a mode: they share the host's network or disable networking.
_NETWORK_MODES = frozenset({"host", "none", "default"})

_NANO = 1_000_000_000


def create_request(spec: ContainerSpec, image: str) -> dict[str, Any]:
    """Return the body of `POST /containers/create`; entry point, command and user remain the image's.

    Raises `LaunchFailed` when the network name is a network mode.
    """
    if spec.network in _NETWORK_MODES or spec.network.startswith("container:"):
        raise LaunchFailed(
            f"container {spec.name}: {spec.network!r} names a network mode of Docker, not a network; "
            "use a bridge network made with `docker network create`"
        )
    return {
        "Image": image,
        "Hostname": spec.name,
        "Labels": spec.labels,
        "Env": [f"{name}={value}" for name, value in sorted(spec.environment.items())],
        "Tty": False,
        "OpenStdin": False,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(spec),
        "NetworkingConfig": {"EndpointsConfig": {spec.network: {}}},
    }


def _host_config(spec: ContainerSpec) -> dict[str, Any]:
    return {
        "NetworkMode": spec.network,
        "PublishAllPorts": False,
        "PortBindings": {},
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        "LogConfig": {"Type": spec.log_driver, "Config": dict(spec.log_options)},
        **_limits(spec),
        **_walls(),
        # a mount, not a "bind": Docker creates the missing source of a bind, as root
        "Mounts": [
            {
                "Type": "bind",
                "Source": spec.state_path,
                "Target": spec.mount_path,
                "ReadOnly": False,
                "BindOptions": {"Propagation": "private"},
            }
        ],
        "Tmpfs": {"/tmp": TMPFS_OPTIONS},
    }


def _limits(spec: ContainerSpec) -> dict[str, Any]:
    return {
        "NanoCpus": round(spec.limits.cpus * _NANO),
        "Memory": spec.limits.memory_bytes,
        "MemorySwap": spec.limits.memory_bytes,  # memory and swap together: no swap
        "PidsLimit": spec.limits.pids,
        "Ulimits": [
            {"Name": "nofile", "Soft": MAX_OPEN_FILES, "Hard": MAX_OPEN_FILES},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
    }


def _walls() -> dict[str, Any]:
    return {
        "Privileged": False,
        "CapAdd": [],
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": True,
        "Devices": [],
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",  # the daemon's own setting
        "Init": True,
    }
