"""Finds images on the Docker host, pulls them by policy, and removes them."""

from __future__ import annotations

import logging
from dataclasses import replace
from urllib.parse import quote

import docker
from docker.errors import APIError

from rtmanager.adapters.docker import decode
from rtmanager.adapters.docker.answers import AnswerKind, Unreadable, checked, kind_of, words
from rtmanager.adapters.docker.daemon_client import DaemonClient
from rtmanager.adapters.docker.pulling import Puller
from rtmanager.adapters.docker.shared_pulls import PullLimits, SharedPulls
from rtmanager.adapters.docker.sockets import Call
from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.image_ref import parse_image_ref
from rtmanager.ports.runtime import Image, ImagePull, ImageRefInvalid, ImageUnavailable, PullPolicy

#: Further platforms that the processors of a platform run natively.
_ALSO_RUN = {"linux/amd64": ("linux/386",), "linux/arm64": ("linux/arm",)}


class Images:
    """The images of one daemon, pulled within limits."""

    def __init__(self, engine: DaemonClient, limits: PullLimits, logger: logging.Logger) -> None:
        self._engine = engine
        self._puller = Puller(engine, limits, logger)
        self._pulls = SharedPulls(self._pull, limits, logger)
        self._ids: dict[str, str] = {}
        #: The Docker host's platform, once known.
        self._platform = ""

    def ensure(self, image_ref: str, policy: PullPolicy) -> Image:
        """See the port."""
        found = self.request(image_ref, policy)
        return found if isinstance(found, Image) else found.image()

    def request(self, image_ref: str, policy: PullPolicy) -> Image | ImagePull:
        """See the port; a reference without tag and digest means `latest`."""
        full = _checked(image_ref)
        found = None if policy is PullPolicy.ALWAYS else self._find(full)
        if found is not None:
            return found
        if policy is PullPolicy.NEVER:
            raise ImageUnavailable(
                f"image {image_ref} is not on the Docker host and the pull policy is `never`: "
                "load it there (`docker load` or `docker pull`), or choose the policy `if_missing`"
            )
        return self._pulls.join(full)

    def local(self, image_ref: str) -> Image | None:
        """Return the image if it is on the Docker host, else None. Raises `ImageUnavailable` when Docker refuses."""
        return self._find(_checked(image_ref))

    def close(self) -> None:
        """End every wait for a pull."""
        self._pulls.close()

    def _find(self, full: str) -> Image | None:
        try:
            image, platform = self._engine.call(
                "image", self._engine.deadlines.query_s, lambda client: _inspect(client, full)
            )
        except APIError as error:
            match kind_of("image", error):
                case AnswerKind.ABSENT:
                    return None
                case AnswerKind.MALFORMED:
                    raise ImageRefInvalid(f"Docker refuses the image reference {full}: {words(error)}") from error
            raise ImageUnavailable(f"Docker refuses to look for image {full}: {words(error)}") from error
        self._ids[full] = image.image_id
        return replace(image, foreign=self._foreign(platform))

    def _foreign(self, platform: str) -> str:
        """Return a message with both platforms when the host runs this one by emulation at best; else empty."""
        if not platform or runs_on(platform, self._platform):
            return ""
        self._platform = decode.platform_of_host(self._engine.version())  # another host may answer by now
        if not self._platform or runs_on(platform, self._platform):
            return ""
        return f"it is made for {platform}, and the Docker host is {self._platform}"

    def remove(self, image_ref: str, image_id: str) -> bool:
        """See the port. Docker itself refuses to remove an image of which a container was created meanwhile."""
        full = full_reference(image_ref)
        found = self._find(full)
        if found is None or found.image_id != image_id:
            return True
        if self._engine.answer("list", self._engine.deadlines.list_s, lambda client: _is_used(client, image_id)):
            return False
        try:
            self._engine.call("remove_image", self._engine.deadlines.remove_s, lambda client: _remove(client, full))
        except APIError as error:
            match kind_of("remove_image", error):
                case AnswerKind.ABSENT:
                    return True
                case AnswerKind.IMAGE_USED:
                    return False
            raise self._engine.refused("remove_image", error) from error
        self._ids.pop(full, None)
        return True

    def known_id(self, full: str) -> str | None:
        """Return the image id that `full` had at the last look-up."""
        return self._ids.get(full)

    def _pull(self, full: str, call: Call) -> Image:
        self._puller.pull(full, call)
        found = self._find(full)
        if found is None:
            raise ImageUnavailable(f"image {full} was pulled, yet Docker does not have it; was it removed just now?")
        return found


def _checked(image_ref: str) -> str:
    """Like `full_reference`; raises `ImageRefInvalid`."""
    try:
        return full_reference(image_ref)
    except InvalidValue as error:
        raise ImageRefInvalid(str(error)) from error


def runs_on(platform: str, host: str) -> bool:
    """Return whether a host runs images of a platform natively."""
    return platform == host or platform in _ALSO_RUN.get(host, ())


def full_reference(image_ref: str) -> str:
    """Return the reference with a tag, or with a digest and no tag, as every Docker finds it.

    Docker would read a bare name of hex digits as the prefix of an id.
    """
    return parse_image_ref(image_ref).pulled_as


def _is_used(client: docker.APIClient, image_id: str) -> bool:
    """Return whether any container uses the image, or an image built on it."""
    found: object = client.containers(all=True, limit=1, filters={"ancestor": image_id})
    if not isinstance(found, list):
        raise Unreadable(f"a {type(found).__name__} for a list of containers")
    return bool(found)


def _remove(client: docker.APIClient, full: str) -> None:
    url = f"{client.base_url}/v{client.api_version}/images/{quote(full, safe='/:@')}"
    checked(client.delete(url, params={"force": "false"}))


def _inspect(client: docker.APIClient, reference: str) -> tuple[Image, str]:
    """Return the image and its platform."""
    found = client.inspect_image(reference)  # type: ignore[no-untyped-call]
    if not isinstance(found, dict) or not isinstance(found.get("Id"), str):
        raise Unreadable("an image without an id")
    return decode.image(found), decode.platform_of_image(found)
