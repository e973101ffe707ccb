"""The exceptions of the harness. A message names the invalid value and the remedy."""

#: Characters of a log, an output or a value that a message contains at most.
MESSAGE_LIMIT = 10_000


def shortened(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Shorten a text for a message: keep the first fifth of `limit` and the rest from the end."""
    if len(text) <= limit:
        return text
    head = limit // 5
    return f"{text[:head]} [… {len(text) - limit} characters …] {text[head - limit :]}"


class HarnessError(Exception):
    """Base class: the harness could not do what the caller requested."""


class DaemonUnavailable(HarnessError):
    """No Docker daemon answers at the address in use."""


class MachineNotReady(HarnessError):
    """Something that this machine needs is missing, and the harness may not or cannot install it."""


class ImageUnavailable(HarnessError):
    """An image can be neither pulled nor built here."""


class NotPublished(HarnessError):
    """A container's port is not published: `ports` does not name it, or the container has ended."""


class WaitFailed(HarnessError):
    """The expected state did not come in time, or can no longer come.

    It is no AssertionError, so a test runner counts it as an error. Its message shortens long logs and values.
    """
