"""Docker behind the port `ContainerRuntime`: the only package of ours that touches the Docker SDK."""

from rtmanager.adapters.docker.engine import Deadlines
from rtmanager.adapters.docker.runtime import DockerRuntime

__all__ = ["Deadlines", "DockerRuntime"]
