"""Whether the daemon reaches an image registry, and pulling from it.

The requests are made here and not by the SDK's `pull`, which waits for an answer without any limit.
"""

import json
from collections.abc import Iterator
from typing import Any

from harness import daemon
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
    say(f"== does an image registry answer? (at most {PROBE_TIMEOUT_S} s)")
    try:
        next(_pull(image, PROBE_TIMEOUT_S))
    except ImageUnavailable:
        say("   no: the images are made on this machine")
        return False
    say("   yes")
    return True


def pull(image: str) -> None:
    """Pull `image`; raises ImageUnavailable with the registry's reason."""
    with step(f"pulling {image}"):
        for _event in _pull(image, STALL_TIMEOUT_S):
            pass  # each event only shows that the pull goes on


def _pull(image: str, timeout_s: int) -> Iterator[dict[str, Any]]:
    """The events of a pull, of which none may be `timeout_s` seconds late; raises ImageUnavailable."""
    from requests.exceptions import RequestException

    client = daemon.connect()
    try:
        url = f"{client.base_url}/v{client.api_version}/images/create"
        answer = client.post(
            url,
            params={"fromImage": image if _has_version(image) else f"{image}:latest"},
            headers=_credentials(client, image),
            stream=True,
            timeout=timeout_s,
        )
        with answer:
            for line in answer.iter_lines():
                event: dict[str, Any] = json.loads(line)
                if error := event.get("error") or (answer.status_code != 200 and event.get("message")):
                    raise ImageUnavailable(_failure(image, str(error)))
                yield event
    except RequestException as error:
        raise ImageUnavailable(_failure(image, str(error))) from error
    finally:
        client.close()


def _has_version(image: str) -> bool:
    return ":" in image.rpartition("/")[2] or "@" in image


def _credentials(client: Any, image: str) -> dict[str, Any]:
    """The header with what `docker login` stored for the image's registry, if anything."""
    from docker import auth

    registry, _ = auth.resolve_repository_name(image)
    header = auth.get_config_header(client, registry)
    return {"X-Registry-Auth": header} if header else {}


def _failure(image: str, cause: str) -> str:
    return (
        f"{image} cannot be pulled: {cause}\n"
        "  let the daemon reach the registry, name an image that is there, or set RTM_IT_IMAGE_SOURCE=local"
    )
