"""What the harness raises. A message names the value that was wrong and what to do about it."""

#: Characters of a log, an output or a value that a message shows.
MESSAGE_LIMIT = 10_000


def shortened(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Shorten a text for a message: its beginning and, mostly, its end."""
    if len(text) <= limit:
        return text
    head = limit // 5
    return f"{text[:head]} [… {len(text) - limit} characters …] {text[head - limit :]}"


class HarnessError(Exception):
    """The harness could not do what was asked."""


class DaemonUnavailable(HarnessError):
    """No Docker daemon answers at the address in use."""


class MachineNotReady(HarnessError):
    """Something this machine needs is missing and the harness may not or cannot install it."""


class ImageUnavailable(HarnessError):
    """An image can neither be pulled nor built here."""


class NotPublished(HarnessError):
    """A container's port is not published: it was not asked for, or the container has ended."""


class WaitFailed(HarnessError):
    """What was waited for did not come in time, or can no longer come.

    No AssertionError, so a runner counts it as an error; long logs and values are shortened in its message.
    """
