"""Docker behind the port `ContainerRuntime`: the only package of ours that touches the Docker SDK."""

from rtmanager.adapters.docker.daemon_client import Deadlines
from rtmanager.adapters.docker.runtime import DockerRuntime

__all__ = ["Deadlines", "DockerRuntime"]
