"""Building an image from a folder with a Dockerfile, with a hash of what it is made of in a label."""

import hashlib
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ImageUnavailable
from harness.progress import step
from harness.runs.identity import PREFIX

if TYPE_CHECKING:
    from tarfile import TarInfo

    from docker import APIClient

#: The label with the hash of all that an image is made of.
INPUTS_LABEL = PREFIX + "inputs"

#: The label with the id of the base image.
BASE_LABEL = PREFIX + "base"

#: A build may be silent for this many seconds.
BUILD_TIMEOUT_S = 300


@dataclass(frozen=True)
class Recipe:
    """A Dockerfile, and what is beside and below it; the base that it is given is its ARG BASE_IMAGE.

    The build context is Docker's own for the folder, `.dockerignore` included, without what Python caches.
    """

    name: str
    folder: Path

    def inputs(self, base: str) -> str:
        """The hash of the folder and the base image's name; raises ImageUnavailable for a folder it cannot read."""
        digest = hashlib.sha256(base.encode())
        try:
            for path in self._entries():
                digest.update(b"\0" + os.fsencode(path.relative_to(self.folder)) + b"\0" + _content(path))
        except OSError as error:
            raise ImageUnavailable(f"{self.folder} cannot be read: {error}") from error
        return digest.hexdigest()[:24]

    def build(self, client: "APIClient", base: str, tag: str, *, cached: bool = True) -> None:
        """Build on `base` and name the image `tag`; raises ImageUnavailable with the build's last lines.

        With `cached`, steps of earlier builds are used again.
        """
        from urllib3.exceptions import HTTPError

        base_image = inspect(client, base) if base else None
        labels = {INPUTS_LABEL: self.inputs(base), BASE_LABEL: base_image["Id"] if base_image else ""}
        with step(f"image {tag}: building" + (f" on {base}" if base else "")):
            try:
                events = client.build(
                    fileobj=self._context(),
                    custom_context=True,
                    tag=tag,
                    nocache=not cached,
                    rm=True,
                    forcerm=True,
                    decode=True,
                    timeout=BUILD_TIMEOUT_S,
                    buildargs={"BASE_IMAGE": base} if base else {},
                    labels=labels,
                )
                _follow(tag, events)
            except (OSError, HTTPError) as error:  # the SDK's APIError is an OSError: a Dockerfile of bad syntax, say
                cause = getattr(error, "explanation", None) or error
                raise ImageUnavailable(f"image {tag} cannot be built: {cause}") from error

    def _entries(self) -> list[Path]:
        """All that the build context holds: files, directories, links."""
        from docker.utils.build import exclude_paths

        ignore = self.folder / ".dockerignore"
        lines = os.fsdecode(ignore.read_bytes().removeprefix(b"\xef\xbb\xbf")).splitlines() if ignore.is_file() else []
        patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        # The daemon reads the file in the context: it takes the Dockerfile away when a pattern says so.
        patterns += ["!.dockerignore"] if patterns else []
        try:
            found = exclude_paths(str(self.folder), patterns)
        except re.error as error:
            raise ImageUnavailable(f"{ignore} has a pattern that cannot be read: {error}") from error
        return sorted(self.folder / each for each in found if "__pycache__" not in Path(each).parts)

    def _context(self) -> io.BytesIO:
        import tarfile

        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for path in self._entries():
                archive.add(path, str(path.relative_to(self.folder)), recursive=False, filter=_independent)
        packed.seek(0)
        return packed


def _content(path: Path) -> bytes:
    """What an image has of an entry: a file's mode and bytes, a link's target, that a directory is there."""
    if path.is_symlink():
        return b"link\0" + os.fsencode(path.readlink())
    if path.is_dir():
        return b"directory"
    if path.is_file():
        # What a checkout made under umask 077 lacks, everybody in an image has.
        return f"{0o111 if path.stat().st_mode & 0o100 else 0}\0".encode() + path.read_bytes()
    return b"other"  # a pipe: to read it would wait for a writer


def _independent(entry: "TarInfo") -> "TarInfo":
    """An entry of a context, without what depends on the checkout: whose it is, and who else may read it."""
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def inspect(client: "APIClient", image: str) -> dict[str, Any] | None:
    """What the daemon knows of `image`, or None when it is not there; raises ImageUnavailable for what is no name."""
    from docker.errors import APIError, ImageNotFound

    try:
        found: dict[str, Any] = client.inspect_image(image)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return None
    except APIError as error:
        if error.status_code != 400:
            raise
        raise ImageUnavailable(f"{image!r} is not the name of an image: {error.explanation}") from error
    return found


def labels_of(image: Mapping[str, Any]) -> dict[str, str]:
    """The labels of an inspected image."""
    return image["Config"].get("Labels") or {}


def _follow(tag: str, events: Any) -> None:
    said: list[str] = []
    for event in events:
        said.append(str(event.get("stream", "")))
        if error := event.get("error"):
            tail = "\n".join(f"    {line}" for line in "".join(said).strip().splitlines()[-15:])
            raise ImageUnavailable(f"image {tag} cannot be built: {str(error).strip()}\n{tail}")
