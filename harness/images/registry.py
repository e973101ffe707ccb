"""Whether the daemon reaches an image registry, and pulling from it."""

from harness.errors import ImageUnavailable
from harness.progress import say, step

#: A registry that does not begin to answer within this many seconds counts as unreachable.
PROBE_TIMEOUT_S = 2

#: A pull may make no progress for this many seconds.
STALL_TIMEOUT_S = 60


def answers(image: str) -> bool:
    """Whether a pull of `image` begins, asked through the daemon: its proxy and its mirrors count, not ours.

    At most PROBE_TIMEOUT_S seconds. The pull that was begun ends with the connection.
    """
    from docker.errors import APIError
    from requests.exceptions import RequestException

    from harness.daemon import connect

    say(f"== does an image registry answer? (at most {PROBE_TIMEOUT_S} s)")
    client = connect(timeout_s=PROBE_TIMEOUT_S)
    try:
        events = client.pull(image, stream=True, decode=True)
        answered = any(not event.get("error") for event in events)
    except (APIError, RequestException):
        answered = False
    finally:
        client.close()
    say("   yes" if answered else "   no: the images are made on this machine")
    return answered


def pull(image: str) -> None:
    """Pull `image`; raises ImageUnavailable with the registry's reason."""
    from docker.errors import APIError
    from requests.exceptions import RequestException

    from harness.daemon import connect

    client = connect(timeout_s=STALL_TIMEOUT_S)
    with step(f"pulling {image}"):
        try:
            for event in client.pull(image, stream=True, decode=True):
                if error := event.get("error"):
                    raise ImageUnavailable(f"{image} cannot be pulled: {error}")
        except (APIError, RequestException) as error:
            raise ImageUnavailable(f"{image} cannot be pulled: {error}") from error
        finally:
            client.close()
