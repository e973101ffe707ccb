"""Image references (`registry/path:tag@digest`) and the rule by which a game may be patched.

The grammar is the one of the distribution project's `reference` package (Docker itself uses it), without its
historical special cases for 64 hex digits. Versions follow Semantic Versioning 2.0.0; a leading `v` is allowed
and, since a tag cannot hold `+`, a build part may also be absent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.game import shown

_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[0-9a-fA-F:]+\])"
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_HOST}(?::[0-9]{{1,5}})?/)?{_PATH_PART}(?:/{_PATH_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?"
)
_NUMBER = r"(0|[1-9][0-9]*)"
_PRE_RELEASE = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_BUILD = r"[0-9A-Za-z-]+"
_SEMVER = re.compile(
    rf"v?{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
    rf"(?:-{_PRE_RELEASE}(?:\.{_PRE_RELEASE})*)?(?:\+{_BUILD}(?:\.{_BUILD})*)?"
)

MAX_LENGTH = 512
#: The longest name, and the form of a digest, that Docker takes.
MAX_NAME_LENGTH = 255
_DIGESTS = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A parsed reference: `name` with its registry, then `tag` and `digest` where they were given."""

    name: str
    tag: str | None
    digest: str | None


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """The numbers of a semantic version; pre-release and build parts do not matter to the patch rule."""

    major: int
    minor: int
    patch: int


def parse_image_ref(text: str) -> ImageRef:
    """The parts of an image reference; `InvalidValue` when Docker could not read it."""
    match = _REFERENCE.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if match is None or len(match["name"]) > MAX_NAME_LENGTH or not _known_digest(match["digest"]):
        raise InvalidValue(
            f"image_ref {shown(text)} is not an image reference: expected [registry[:port]/]name[:tag][@digest], "
            f"the name in lower case, at most {MAX_LENGTH} characters"
        )
    return ImageRef(match["name"], match["tag"], match["digest"])


def _known_digest(digest: str | None) -> bool:
    return digest is None or _DIGESTS.fullmatch(digest) is not None


def version_of(text: str) -> Version:
    """The semantic version that the tag of `text` names; `InvalidValue` when it names none."""
    tag = parse_image_ref(text).tag
    match = _SEMVER.fullmatch(tag) if tag is not None else None
    if match is None:
        said = "has no tag" if tag is None else f"has the tag {shown(tag)}"
        raise InvalidValue(f"image_ref {shown(text)} {said}: expected a semantic version such as 1.4.2")
    return Version(int(match[1]), int(match[2]), int(match[3]))


def may_patch(current: Version, wanted: Version) -> bool:
    """Whether a running game may move from one version to the other: only the patch number differs."""
    return (current.major, current.minor) == (wanted.major, wanted.minor)
