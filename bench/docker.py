"""What every bench on a real Docker begins with."""

from harness import daemon
from harness.images.catalogue import ensure
from harness.rtm.images import NEEDED
from harness.runs import cleanup


def prepared_docker() -> str:
    """Have the images, leave nothing at the end of the process; which Docker it is, for the notes."""
    cleanup.leave_nothing()
    ensure(NEEDED)
    engine = daemon.client().version()
    return f"{engine['Version']}, kernel {engine['KernelVersion']}"
