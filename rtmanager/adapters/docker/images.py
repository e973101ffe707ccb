"""Images on the Docker host: found there, or pulled by policy."""

from __future__ import annotations

import logging

import docker
from docker.errors import APIError

from rtmanager.adapters.docker import views
from rtmanager.adapters.docker.answers import Says, Unreadable, causes, says, words
from rtmanager.adapters.docker.engine import Engine
from rtmanager.adapters.docker.pulling import Puller
from rtmanager.adapters.docker.pulls import Pulls
from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.image_ref import parse_image_ref
from rtmanager.operations.ports import Image, ImageRefInvalid, ImageUnavailable, PullPolicy


class Images:
    """The images of one engine; each pull has two limits in seconds, in all and without progress."""

    def __init__(self, engine: Engine, total_s: float, no_progress_s: float, logger: logging.Logger) -> None:
        self._engine = engine
        self._puller = Puller(engine, total_s, no_progress_s, logger)
        self._pulls = Pulls(self._pull, total_s, logger)
        self._ids: dict[str, str] = {}

    def ensure(self, image_ref: str, policy: PullPolicy) -> Image:
        """See the port; a reference without tag and digest means `latest`."""
        try:
            full = full_reference(image_ref)
        except InvalidValue as error:
            raise ImageRefInvalid(str(error)) from error
        found = None if policy is PullPolicy.ALWAYS else self._find(full)
        if found is not None:
            return found
        if policy is PullPolicy.NEVER:
            raise ImageUnavailable(
                f"image {image_ref} is not on the Docker host and the pull policy is `never`: "
                "load it there (`docker load` or `docker pull`), or choose the policy `if_missing`"
            )
        try:
            return self._pulls.image(full)
        except ImageUnavailable as error:
            if any(isinstance(cause, APIError) and says("pull", cause) is Says.MALFORMED for cause in causes(error)):
                raise ImageRefInvalid(str(error)) from error
            raise

    def close(self) -> None:
        """Let go who waits for a pull."""
        self._pulls.close()

    def _find(self, full: str) -> Image | None:
        try:
            image = self._engine.ask("image", self._engine.deadlines.query_s, lambda client: _inspect(client, full))
        except APIError as error:
            match says("image", error):
                case Says.ABSENT:
                    return None
                case Says.MALFORMED:
                    raise ImageRefInvalid(f"Docker refuses the image reference {full}: {words(error)}") from error
            raise ImageUnavailable(f"Docker refuses to look for image {full}: {words(error)}") from error
        self._ids[full] = image.image_id
        return image

    def known_id(self, full: str) -> str | None:
        """The id of the image that `full` named when it was last looked for."""
        return self._ids.get(full)

    def _pull(self, full: str) -> Image:
        self._puller.pull(full)
        found = self._find(full)
        if found is None:
            raise ImageUnavailable(f"image {full} was pulled, yet Docker does not have it; was it removed just now?")
        return found


def full_reference(image_ref: str) -> str:
    """The reference with its tag; Docker would take a bare name of hex digits for the beginning of an id."""
    parsed = parse_image_ref(image_ref)
    return image_ref if parsed.tag or parsed.digest else f"{image_ref}:latest"


def _inspect(client: docker.APIClient, reference: str) -> Image:
    found = client.inspect_image(reference)  # type: ignore[no-untyped-call]
    if not isinstance(found, dict) or not isinstance(found.get("Id"), str):
        raise Unreadable("an image without an id")
    return views.image(found)
