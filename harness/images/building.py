"""Builds the image of a folder when it is missing, and once when several runs need it at the same time.

    image = build_image(Path(__file__).parent / "shop")

The image's tag is a hash of its inputs, so an existing image is always the right one. Runs on one daemon never remove
each other's images, even of different versions of a project. Images are kept between runs.
"""

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import daemon
from harness.errors import ImageUnavailable
from harness.images.recipe import Recipe, inspect


def build_image(folder: Path | str, base: str = "") -> str:
    """Build the image of `folder` from its Dockerfile when missing; returns its reference. Raises ImageUnavailable.

    `base` is the value of the Dockerfile's argument BASE_IMAGE. The build context is Docker's: links, empty directories
    and `.dockerignore` count, `__pycache__` does not. Files in the image belong to root, and every user may read them.

    For a folder that `pip install --target` has filled: pip chooses wheels by --python-version (of the image's Python)
    and --platform (`musllinux_1_2_x86_64` for Alpine), but dependencies by the Python that runs pip. Name those that
    only the image's Python needs: `async-timeout` for redis before 3.11.3, `typing-extensions` for psycopg before 3.13.
    """
    recipe = Recipe(_name(Path(folder)), Path(folder))
    if not (recipe.folder / "Dockerfile").is_file():
        raise ImageUnavailable(f"there is no Dockerfile in {folder}")
    tag = f"rtm-harness/built-{recipe.name}:{content_tag(recipe.inputs(base) + _id(base))}"
    return have(tag, lambda: recipe.build(daemon.client(), base, tag))


def _name(folder: Path) -> str:
    """The folder's name as a valid part of an image's name."""
    return re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower())[:100].strip("-") or "image"


def have(tag: str, make: Callable[[], object]) -> str:
    """Return `tag`; calls `make` first when no image has that name."""
    if inspect(daemon.client(), tag) is not None:
        return tag  # the usual case, without the lock
    with one_at_a_time():
        if inspect(daemon.client(), tag) is None:
            make()
    return tag


def content_tag(made_of: str) -> str:
    """The part of a tag that identifies an image's inputs."""
    return hashlib.sha256(made_of.encode()).hexdigest()[:12]


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Lock against other runs, so that two that start together build an image once."""
    path = Path(tempfile.gettempdir()) / f"rtm-harness-images-{os.getuid()}.lock"
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _id(image: str) -> str:
    """The id of a base, since its name may move to another image; empty for one that does not exist yet."""
    found = inspect(daemon.client(), image) if image else None
    return str(found["Id"]) if found else ""
