"""Building an image from a folder with a Dockerfile, with a hash of what it is made of in a label."""

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ImageUnavailable
from harness.progress import step
from harness.runs.runner import PREFIX

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
    """A Dockerfile, and the files beside and below it; the base that it is given is its ARG BASE_IMAGE."""

    name: str
    folder: Path

    def inputs(self, base: str) -> str:
        """The hash of the folder and the base image's name."""
        digest = hashlib.sha256(base.encode())
        for path in self._files():
            name = path.relative_to(self.folder)
            digest.update(f"\0{name}\0{_mode(path) & 0o111}\0".encode() + path.read_bytes())
        return digest.hexdigest()[:24]

    def build(self, client: "APIClient", base: str, tag: str, *, cached: bool = True) -> None:
        """Build on `base` and name the image `tag`; raises ImageUnavailable with the build's last lines.

        With `cached`, steps of earlier builds are used again.
        """
        base_image = inspect(client, base) if base else None
        labels = {INPUTS_LABEL: self.inputs(base), BASE_LABEL: base_image["Id"] if base_image else ""}
        with step(f"image {tag}: building" + (f" on {base}" if base else "")):
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

    def _files(self) -> Iterator[Path]:
        every = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return (path for path in every if "__pycache__" not in path.parts)

    def _context(self) -> io.BytesIO:
        import tarfile

        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for path in self._files():
                archive.add(path, str(path.relative_to(self.folder)), filter=_independent)
        packed.seek(0)
        return packed


def _mode(path: Path) -> int:
    """The mode of a file in an image: what a checkout made under umask 077 lacks, everybody in an image has."""
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def _independent(entry: "TarInfo") -> "TarInfo":
    """An entry of a context, without what depends on the checkout: whose it is, and who else may read it."""
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def inspect(client: "APIClient", image: str) -> dict[str, Any] | None:
    """What the daemon knows of `image`, or None when it is not there."""
    from docker.errors import ImageNotFound

    try:
        found: dict[str, Any] = client.inspect_image(image)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return None
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
