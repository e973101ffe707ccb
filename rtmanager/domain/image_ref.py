"""Image references (`registry/path:tag@digest`) and the version rule of a patch.

The parser accepts what every Docker daemon from 20.10 on accepts: the grammar of the distribution project's `reference`
package in its old and its present form. It rejects what only one of them accepts: an IPv6 registry, and a registry that
only its upper case marks as one. It rejects names with another meaning in Docker: image ids, `scratch`.

Versions follow Semantic Versioning 2.0.0. A leading `v` is allowed. A tag cannot hold `+`, so a build part may be
absent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.game import shown

_HOST_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY = re.compile(rf"{_HOST_PART}(?:\.{_HOST_PART})*(?::(?P<port>[0-9]{{1,5}}))?")
#: A part of a path, for a regular expression.
PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{PATH_PART}(?:/{PATH_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")
_NUMBER = r"(0|[1-9][0-9]*)"
_PRE_RELEASE = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_BUILD = r"[0-9A-Za-z-]+"
_SEMVER = re.compile(
    rf"v?{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
    rf"(?:-{_PRE_RELEASE}(?:\.{_PRE_RELEASE})*)?(?:\+{_BUILD}(?:\.{_BUILD})*)?"
)

MAX_LENGTH = 512
#: The longest name that every Docker accepts, registry included; newer ones do not count the registry.
MAX_NAME_LENGTH = 255

#: Docker's name for the registry of a reference that names none, and its older name.
DEFAULT_REGISTRY = "docker.io"
_LEGACY_REGISTRY = "index.docker.io"
#: The path of single names on the default registry.
OFFICIAL = "library/"
#: Names without a registry that have another meaning in Docker.
_RESERVED = {
    "scratch": "Docker reserves this name for the empty image",
    "sha256": "Docker takes it for the id of an image",
}


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A parsed reference: `name` as given, with `tag` and `digest` where given."""

    name: str
    tag: str | None
    digest: str | None

    @property
    def registry(self) -> str:
        """The image's registry, as Docker names it; `docker.io` when the reference names none."""
        return split_name(self.name)[0]

    @property
    def path(self) -> str:
        """The image's path in its registry, as Docker writes it out: `library/game` for `game` on the default one."""
        return split_name(self.name)[1]

    @property
    def pulled_as(self) -> str:
        """The reference that Docker uses: of a tag and a digest, the digest."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag or 'latest'}"

    def may_name_the_same(self, other: ImageRef) -> bool:
        """Return whether both may name one image.

        A tag and a digest of one repository may. Two tags, or two digests, only if they are equal.
        """
        if split_name(self.name) != split_name(other.name):
            return False
        if self.digest and other.digest:
            return self.digest == other.digest
        return bool(self.digest or other.digest) or (self.tag or "latest") == (other.tag or "latest")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """The numbers of a semantic version; the patch rule ignores pre-release and build parts."""

    major: int
    minor: int
    patch: int


def parse_image_ref(text: str) -> ImageRef:
    """Parse an image reference. Raises `InvalidValue` when some Docker from 20.10 on would reject it."""
    if len(text) > MAX_LENGTH:
        raise _refusal(text, f"it has {len(text)} characters")
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _refusal(text, "the digest is not sha256:, sha384: or sha512: with 64, 96 or 128 digits 0-9a-f")
    before, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:  # a colon before a slash belongs to a port
        before, colon, tag = rest, "", ""
    if colon and not _TAG.fullmatch(tag):
        raise _refusal(text, f"the tag {shown(tag, 40)} is not 1 to 128 letters, digits or _ . - (no . or - first)")
    problem = _why_no_name(before)
    if problem is not None:
        raise _refusal(text, problem)
    return ImageRef(before, tag or None, digest or None)


def split_name(name: str) -> tuple[str, str]:
    """Split a name into registry and path as Docker does.

    Only a first part with `.` or `:`, or `localhost`, is a registry.
    """
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or any(mark in first for mark in ".:")):
        registry, path = (DEFAULT_REGISTRY if first == _LEGACY_REGISTRY else first), rest
    else:
        registry, path = DEFAULT_REGISTRY, name
    if registry == DEFAULT_REGISTRY and "/" not in path:
        path = f"{OFFICIAL}{path}"
    return registry, path


def is_registry(text: str) -> bool:
    """Return whether this is `host` or `host:port`, with a host name or an IPv4 address."""
    match = _REGISTRY.fullmatch(text)
    return match is not None and (match["port"] is None or 0 < int(match["port"]) < 65536)


def _why_no_name(name: str) -> str | None:
    """Return what is wrong with the part before tag and digest; None when nothing is."""
    registry, path = split_name(name)
    if registry.startswith("["):
        return "not every Docker reads an IPv6 address here: give the registry a host name"
    if not is_registry(registry):
        return f"{shown(registry, 40)} is not a registry: expected host or host:port"
    if not _PATH.fullmatch(path):
        if _PATH.fullmatch(path.lower()):
            return "the name has to be in lower case (only a registry with a dot or a port may have capitals)"
        return f"the name {shown(name, 40)} is not parts of a-z, 0-9 with single . or _ or any - between them"
    if len(f"{registry}/{path}") > MAX_NAME_LENGTH:
        return f"the name is longer than {MAX_NAME_LENGTH} characters when Docker has written it out as {registry}/…"
    official = path.removeprefix(OFFICIAL)
    if registry == DEFAULT_REGISTRY and "/" not in official:
        if official in _RESERVED:
            return f"{_RESERVED[official]}: give the image another name"
        if _IMAGE_ID.fullmatch(official):
            return "Docker takes 64 hexadecimal digits for the id of an image: give its name"
    return None


def _refusal(text: str, why: str) -> InvalidValue:
    return InvalidValue(
        f"image_ref {shown(text)} is not an image reference: {why}; expected [registry[:port]/]name[:tag][@digest], "
        f"at most {MAX_LENGTH} characters"
    )


def version_of(text: str) -> Version:
    """Return the semantic version in the tag of `text`. Raises `InvalidValue` when there is none."""
    tag = parse_image_ref(text).tag
    match = _SEMVER.fullmatch(tag) if tag is not None else None
    if match is None:
        fault = "has no tag" if tag is None else f"has the tag {shown(tag)}"
        raise InvalidValue(f"image_ref {shown(text)} {fault}: expected a semantic version such as 1.4.2")
    return Version(int(match[1]), int(match[2]), int(match[3]))


def may_patch(current: Version, wanted: Version) -> bool:
    """Return whether a running game may move between these versions: only the patch number may differ."""
    return (current.major, current.minor) == (wanted.major, wanted.minor)
