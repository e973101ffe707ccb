"""Preparation that every bench on a real Docker shares."""

from harness import daemon
from harness.images.catalogue import ensure
from harness.rtm.images import NEEDED
from harness.runs import cleanup


def prepared_docker() -> str:
    """Build missing images, register the cleanup at exit; returns the versions of Docker and kernel for the notes."""
    cleanup.leave_nothing()
    ensure(NEEDED)
    engine = daemon.client().version()
    return f"{engine['Version']}, kernel {engine['KernelVersion']}"
