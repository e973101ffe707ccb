"""Records the images that the manager pulled, and removes those that nothing has named for the retention time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator

from rtmanager.domain.errors import DependencyError, InvalidValue
from rtmanager.domain.image_ref import ImageRef, parse_image_ref
from rtmanager.ports.runtime import ContainerRuntime
from rtmanager.ports.store import StoreRejected
from rtmanager.ports.streams import PulledImage, PulledImages


class PullNotes:
    """Records pulls. A pull that cannot be recorded is logged, and its image is never removed."""

    def __init__(self, images: PulledImages, runtime: ContainerRuntime, logger: logging.Logger) -> None:
        self._images = images
        self._runtime = runtime
        self._logger = logger

    def note(self, image_ref: str, image_id: str) -> None:
        """Record that the manager pulled this image."""
        try:
            pulled = PulledImage(parse_image_ref(image_ref).pulled_as, image_id)
            self._images.pulled(self._runtime.runtime_id(), pulled)
        except (DependencyError, StoreRejected) as error:
            self._logger.warning(
                "pull is not remembered, the image is kept", extra={"image_ref": image_ref, "error": str(error)}
            )


class ImageRetention:
    """One pass removes the images that nothing has named for `keep_s` seconds (0: none), one image a step."""

    def __init__(
        self,
        images: PulledImages,
        runtime: ContainerRuntime,
        *,
        keep_s: float,
        removed: Callable[[], object],
        logger: logging.Logger,
    ) -> None:
        self._images = images
        self._runtime = runtime
        self._keep_s = keep_s
        self._removed = removed
        self._logger = logger

    def whole_pass(self) -> Iterator[None]:
        """Raises `Unavailable`, and other errors of Docker and the store."""
        if not self._keep_s:
            return
        daemon = self._runtime.runtime_id()
        named = self._named_of(self._images.remembered(daemon))
        for image in self._images.unnamed(daemon, named, self._keep_s):
            # Checked again: an operation accepted in the meantime may need the image.
            needed = self._named_of([image.image_ref])
            if not needed and self._runtime.remove_image(image.image_ref, image.image_id):
                self._images.forget(daemon, image.image_ref)
                self._removed()
                self._logger.info("removed an image that no record names", extra={"image_ref": image.image_ref})
            yield

    def _named_of(self, pulled: Collection[str]) -> Collection[str]:
        """Those of these references that may name the image of a record or an operation."""
        named = [ref for text in self._images.named() if (ref := _parsed(text)) is not None]
        refs = {text: parse_image_ref(text) for text in pulled}
        return [text for text, ref in refs.items() if any(map(ref.may_name_the_same, named))]


def _parsed(text: str) -> ImageRef | None:
    """The parsed reference; None when it is malformed and so names no image."""
    try:
        return parse_image_ref(text)
    except InvalidValue:
        return None
