"""A variant of an image: the same program, another id, and a layer that no other image has.

For tests in which the image behind a name changes, or in which a pull must transfer data although the daemon has the
base image.
"""

import io
from typing import Any

from harness import daemon
from harness.errors import ImageUnavailable
from harness.images.recipe import BUILD_TIMEOUT_S

#: The file in which the images differ.
DIFFERENCE = "variant"


def variant(image: str, content: str) -> str:
    """Build an image like `image` with `content` in the file /variant; returns its id. It has no name."""
    recipe = f"FROM {image}\nCOPY {DIFFERENCE} /{DIFFERENCE}\n"
    context = _packed({"Dockerfile": recipe, DIFFERENCE: content})
    events: list[dict[str, Any]] = list(
        daemon.client().build(fileobj=context, custom_context=True, rm=True, decode=True, timeout=BUILD_TIMEOUT_S)
    )
    made = [event["aux"]["ID"] for event in events if "ID" in event.get("aux", ())]
    if not made:
        raise ImageUnavailable(f"no variant of {image} can be built: {events[-1].get('error', events[-1])}")
    return str(made[-1])


def _packed(files: dict[str, str]) -> io.BytesIO:
    import tarfile

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    packed.seek(0)
    return packed
