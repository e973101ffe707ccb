"""Checks whether the daemon reaches an image registry, and pulls from it.

It sends the requests itself: the SDK's `pull` waits for an answer without any timeout.
"""

import json
from collections.abc import Iterator
from typing import Any

from harness import daemon
from harness.errors import ImageUnavailable
from harness.progress import report, step

#: Seconds without an answer after which a registry counts as unreachable.
PROBE_TIMEOUT_S = 2

#: Seconds that a pull may make no progress.
STALL_TIMEOUT_S = 60


def answers(image: str) -> bool:
    """Whether a pull of `image` begins, through the daemon: its proxy and its mirrors count, not this process's.

    Takes PROBE_TIMEOUT_S seconds at most. The pull ends with the connection.
    """
    report(f"== does an image registry answer? (at most {PROBE_TIMEOUT_S} s)")
    try:
        next(_pull(image, PROBE_TIMEOUT_S))
    except ImageUnavailable:
        report("   no: the images are made on this machine")
        return False
    report("   yes")
    return True


def pull(image: str) -> None:
    """Pull `image`; raises ImageUnavailable with the registry's reason."""
    with step(f"pulling {image}"):
        for _event in _pull(image, STALL_TIMEOUT_S):
            pass  # an event only resets the timeout


def _pull(image: str, timeout_s: int) -> Iterator[dict[str, Any]]:
    """The events of a pull; raises ImageUnavailable on an error, or after `timeout_s` seconds without one."""
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
    """The header with the credentials that `docker login` stored for the image's registry, if any."""
    from docker import auth

    registry, _ = auth.resolve_repository_name(image)
    header = auth.get_config_header(client, registry)
    return {"X-Registry-Auth": header} if header else {}


def _failure(image: str, cause: str) -> str:
    return (
        f"{image} cannot be pulled: {cause}\n"
        "  let the daemon reach the registry, name an image that is there, or set RTM_IT_IMAGE_SOURCE=local"
    )
