"""The part of a failed pull that callers see: the kind of failure, in words of this table.

Docker repeats a registry's text. A caller chooses the registry, which may be an internal server. The text is therefore
for the log alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rtmanager.domain.image_ref import DEFAULT_REGISTRY, parse_image_ref

#: The words of a failure of no known kind.
HIDDEN = "the registry's answer is in the manager's log"

#: Characters of a text that are searched and logged.
LONGEST_READ = 4_000

_LIMITED = "the registry limits pulls: log in there, or wait"
_REACH = "check that the Docker host reaches the registry"
_CERTIFICATE = "check the registry's certificate, or Docker's `insecure-registries`"
_LOG_IN = "check the name, or `docker login` as the user that runs this service"
_PUSHED = "check that the tag was pushed"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of failure: its marks in Docker's text (lower case), its words in a message, and the remedy."""

    words: str
    marks: tuple[str, ...]
    remedy: str = ""
    #: Whether a registry's answer has it, by the distribution protocol.
    is_code: bool = False
    #: Whether it shows if a server can be reached; that is shown of the reference's own registry alone.
    about_the_network: bool = False


#: The first kind with a mark in the text counts. A registry's own codes come first.
KINDS: tuple[Kind, ...] = (
    Kind("toomanyrequests", ("toomanyrequests", "rate limit"), _LIMITED, is_code=True),
    Kind("unauthorized", ("unauthorized", "authentication required", "no basic auth"), _LOG_IN, is_code=True),
    Kind("denied", ("access denied", "denied:", "insufficient_scope"), _LOG_IN, is_code=True),
    Kind("manifest unknown", ("manifest unknown",), _PUSHED, is_code=True),
    Kind("name unknown", ("name unknown",), _PUSHED, is_code=True),
    Kind("no matching manifest", ("no matching manifest",), "push an image for the Docker host's platform"),
    Kind("no space left on device", ("no space left",), "free disk space on the Docker host"),
    Kind("verification failed", ("verification failed", "unexpected commit digest"), "push the image again"),
    Kind(
        "http: server gave HTTP response to HTTPS client",
        ("http response to https",),
        _CERTIFICATE,
        about_the_network=True,
    ),
    Kind("x509: the certificate is not accepted", ("x509",), _CERTIFICATE, about_the_network=True),
    Kind(
        "no such host",
        ("no such host", "server misbehaving", "failure in name resolution"),
        _REACH,
        about_the_network=True,
    ),
    Kind("connection refused", ("connection refused",), _REACH, about_the_network=True),
    Kind("connection reset", ("connection reset", "broken pipe"), _REACH, about_the_network=True),
    Kind("no route to host", ("no route to host", "network is unreachable"), _REACH, about_the_network=True),
    Kind("timeout", ("timeout", "deadline exceeded", "timed out"), _REACH, about_the_network=True),
    Kind("TLS error", ("tls:",), _CERTIFICATE, about_the_network=True),
    Kind("connection ended (EOF)", ("eof",), _REACH, about_the_network=True),
    Kind("not found", ("not found", "does not exist"), _PUSHED),
)

#: Quoted text is repeated from elsewhere; its end may be cut off.
_QUOTED = re.compile(r"""\\"[^"]*(?:"|$)|"(?:[^"\\]|\\.)*(?:"|$)|(?<!\w)'[^']*(?:'|$)""", re.DOTALL)
_HOST = re.compile(r"""https?://(?:[^/\s"'\\]*@)?([^/\s"'\\?#]+)""")


def kind_of(image_ref: str, reply: str) -> Kind | None:
    """Return the kind of a failed pull by Docker's text; None for a text that says nothing that may be shown."""
    reply = reply[:LONGEST_READ].lower()
    # Docker varies the name: with or without registry, tag and `library/`.
    named = sorted(filter(None, re.split(r"[/:@]", image_ref.lower())), key=len, reverse=True)
    own = re.sub(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, named))})(?![\w.-])", " ", _QUOTED.sub(" ", reply))
    for kind in KINDS:
        if any(mark in own for mark in kind.marks):
            return None if kind.about_the_network and _was_sent_on(image_ref, reply) else kind
    return None


def code_of(reply: str) -> str:
    """Return the registry's own code in Docker's text of a pull, or where the text is."""
    own = _QUOTED.sub(" ", reply[:LONGEST_READ].lower())
    return next((kind.words for kind in KINDS if kind.is_code and any(mark in own for mark in kind.marks)), HIDDEN)


def _was_sent_on(image_ref: str, reply: str) -> bool:
    """Return whether Docker's text names a server beside the registry: one that it redirected to."""
    registry = parse_image_ref(image_ref).registry.lower()
    found = {host for host in _HOST.findall(reply) if host != registry}
    if registry == DEFAULT_REGISTRY:
        found = {host for host in found if not host.endswith((".docker.io", ".docker.com"))}
    return bool(found)


def pull_refused(image_ref: str, reply: str, note: str = "") -> str:
    """Format a failed pull for a caller, with its remedy; `reply` is Docker's text, `note` a text of our own."""
    kind = kind_of(image_ref, reply)
    message = f"image {image_ref} cannot be pulled: {kind.words if kind else HIDDEN}{note}"
    return f"{message}; {kind.remedy}" if kind and kind.remedy else message
