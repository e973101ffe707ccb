"""Builds an image from a folder with a Dockerfile; a label holds the hash of its inputs."""

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

#: The label with the hash of an image's inputs.
INPUTS_LABEL = PREFIX + "inputs"

#: The label with the id of the base image.
BASE_LABEL = PREFIX + "base"

#: Seconds that a build may be silent.
BUILD_TIMEOUT_S = 300


@dataclass(frozen=True)
class Recipe:
    """A Dockerfile and its folder; ARG BASE_IMAGE is the base.

    The build context is Docker's own for the folder, `.dockerignore` included, without Python's caches.
    """

    name: str
    folder: Path

    def inputs(self, base: str) -> str:
        """The hash of the folder and the base image's name; raises ImageUnavailable when the folder cannot be read."""
        digest = hashlib.sha256(base.encode())
        try:
            for path in self._entries():
                digest.update(b"\0" + os.fsencode(path.relative_to(self.folder)) + b"\0" + _content(path))
        except OSError as error:
            raise ImageUnavailable(f"{self.folder} cannot be read: {error}") from error
        return digest.hexdigest()[:24]

    def build(self, client: "APIClient", base: str, tag: str, *, cached: bool = True) -> None:
        """Build on `base` and name the image `tag`; raises ImageUnavailable with the build's last lines.

        With `cached`, the build reuses steps of earlier builds.
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
            except (OSError, HTTPError) as error:  # APIError is an OSError: a Dockerfile's syntax error
                cause = getattr(error, "explanation", None) or error
                raise ImageUnavailable(f"image {tag} cannot be built: {cause}") from error

    def _entries(self) -> list[Path]:
        """All entries of the build context: files, directories, links."""
        from docker.utils.build import exclude_paths

        ignore = self.folder / ".dockerignore"
        lines = os.fsdecode(ignore.read_bytes().removeprefix(b"\xef\xbb\xbf")).splitlines() if ignore.is_file() else []
        patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        # The daemon reads the file in the context, and excludes the Dockerfile itself when a pattern matches it.
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
    """The part of an entry that the image keeps: mode and bytes of a file, target of a link, kind of a directory."""
    if path.is_symlink():
        return b"link\0" + os.fsencode(path.readlink())
    if path.is_dir():
        return b"directory"
    if path.is_file():
        # Files in the image are readable for every user, whatever the umask of the checkout was.
        return f"{0o111 if path.stat().st_mode & 0o100 else 0}\0".encode() + path.read_bytes()
    return b"other"  # a pipe: reading it would block


def _independent(entry: "TarInfo") -> "TarInfo":
    """An entry of a context without its checkout's owner and read permissions."""
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def inspect(client: "APIClient", image: str) -> dict[str, Any] | None:
    """The result of Docker's inspect, or None for a missing image; raises ImageUnavailable for an invalid name."""
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
    output: list[str] = []
    for event in events:
        output.append(str(event.get("stream", "")))
        if error := event.get("error"):
            tail = "\n".join(f"    {line}" for line in "".join(output).strip().splitlines()[-15:])
            raise ImageUnavailable(f"image {tag} cannot be built: {str(error).strip()}\n{tail}")
