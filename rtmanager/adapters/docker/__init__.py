"""Docker behind the port `ContainerRuntime`; no other package imports the Docker SDK."""

from rtmanager.adapters.docker.daemon_client import Deadlines
from rtmanager.adapters.docker.runtime import DockerRuntime

__all__ = ["Deadlines", "DockerRuntime"]
