"""Tables that map Docker's answers to meanings; `docs/generated/answers.md` is generated from them.

There are three meanings. *Silence* concerns the whole daemon or a gateway before it and decides nothing.
*Temporary* answers are listed one by one; they fail an operation after some time.
Every other answer is *final* and fails it at once. `CALLS` lists the final answers with a special meaning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from struct import error as StructError  # noqa: N812 - it is an exception, whatever its name

from docker.errors import APIError, DockerException, NotFound
from requests import Response
from requests.exceptions import ContentDecodingError, InvalidJSONError, RequestException
from urllib3.exceptions import DecodeError
from urllib3.exceptions import TimeoutError as Urllib3Timeout

from rtmanager.adapters.docker.registry_answers import code_of
from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.text import bounded


class Meaning(StrEnum):
    """What an answer implies."""

    SILENCE = "silence"
    TEMPORARY = "temporary"
    FINAL = "final"


class AnswerKind(StrEnum):
    """Special meanings of final answers."""

    ABSENT = "it does not exist"
    NAME_TAKEN = "its name is taken"
    MALFORMED = "the reference is malformed"
    BUSY_REMOVING = "it runs, or is being removed"
    IMAGE_USED = "a container was made of it"


@dataclass(frozen=True, slots=True)
class Special:
    """A final answer with a special meaning, matched by status and by one of `marks` (lower case)."""

    kind: AnswerKind
    statuses: frozenset[int]
    marks: tuple[str, ...]
    #: Its consequence, as the generated page words it.
    outcome: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call to the daemon: the request, the error code of a refusal, and the answers with a special meaning."""

    request: str
    code: ErrorCode | None
    specials: tuple[Special, ...] = ()
    #: Whether a failed call may have been applied in part.
    changes: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """Matches answers to a meaning. Empty sets and tuples match everything."""

    name: str
    meaning: Meaning
    #: Its description in the generated page.
    answers: str
    statuses: frozenset[int] = frozenset()
    #: Lower-case phrases; the answer contains at least one.
    marks: tuple[str, ...] = ()
    #: A phrase that the answer contains beside one of `marks`.
    with_mark: str = ""
    #: The calls to which it applies; when empty, all but `not_calls`.
    calls: frozenset[str] = frozenset()
    not_calls: frozenset[str] = frozenset()
    #: Whether the answer has Docker's form, `{"message": …}`; None matches both.
    from_docker: bool | None = True

    def fits(self, call: str, status: int, reply: str, from_docker: bool) -> bool:
        """Return whether the rule matches an answer to `call`; `reply` is in lower case."""
        return (
            (not self.calls or call in self.calls)
            and call not in self.not_calls
            and (not self.statuses or status in self.statuses)
            and self.from_docker in (None, from_docker)
            and (not self.marks or any(mark in reply for mark in self.marks))
            and self.with_mark in reply
        )


_SERVER_ERRORS = frozenset(range(500, 600))
_PULL = frozenset({"pull"})
_NOT_NOW = frozenset({408, 425, 429, 502, 503, 504})
#: Statuses about the request itself, from whichever server: too large, or without credentials.
_ABOUT_THE_REQUEST = frozenset({401, 403, 407, 413, 414, 431})
_FULL = ("no space left on device", "disk quota exceeded", "read-only file system")
_NO_CONTAINER = ("no such container", "no container with name or id")

#: The first rule that matches decides; an answer without a match is final.
RULES: tuple[Rule, ...] = (
    Rule(
        "gateway",
        Meaning.SILENCE,
        "502, 503 or 504 that is not Docker's: a gateway that does not reach the daemon",
        statuses=frozenset({502, 503, 504}),
        from_docker=False,
    ),
    Rule(
        "not_docker",
        Meaning.TEMPORARY,
        "any other answer that is not Docker's (a page, a redirect, no body), but for 401, 403, 407, 413, 414, 431",
        statuses=frozenset(range(100, 600)) - _ABOUT_THE_REQUEST,
        from_docker=False,
    ),
    Rule(
        "api_version",
        Meaning.TEMPORARY,
        "400 about the client's version: another daemon than the one with which the version was agreed",
        statuses=frozenset({400}),
        marks=("client version",),
    ),
    Rule(
        "registry_not_now",
        Meaning.TEMPORARY,
        "408, 425, 429, 502, 503, 504: the registry limits pulls, or does not serve now",
        statuses=_NOT_NOW,
        calls=_PULL,
    ),
    Rule(
        "going_down",
        Meaning.SILENCE,
        "5xx of a daemon that starts, stops, or lost its containerd or its database",
        statuses=_SERVER_ERRORS,
        marks=(
            "shutting down",
            "containerd.sock",
            "transport is closing",
            "client connection is closing",
            "error reading from server",
            "ttrpc: closed",
            "context canceled",
            "failed to update store",  # the daemon closes its network database some seconds before its API
            "database not open",
        ),
        not_calls=_PULL,
    ),
    Rule(
        "pull_cut_off",
        Meaning.TEMPORARY,
        "5xx with the words of a daemon that stops: they may be the registry's",
        statuses=_SERVER_ERRORS,
        marks=("daemon is shutting down", "containerd.sock", "transport is closing", "context canceled"),
        calls=_PULL,
    ),
    Rule(
        "mount_source",
        Meaning.FINAL,
        "5xx about the directory that is mounted, whatever the words",
        statuses=_SERVER_ERRORS,
        marks=("mount source path", "bind source path"),
        not_calls=_PULL,
    ),
    Rule(
        "container_full",
        Meaning.TEMPORARY,
        "5xx of the OCI runtime about a full disk or no memory: the host's or the container's",
        statuses=_SERVER_ERRORS,
        marks=(*_FULL, "cannot allocate memory"),
        with_mark="oci runtime",
        not_calls=_PULL,
    ),
    Rule(
        "no_memory",
        Meaning.SILENCE,
        "5xx: the host has no memory, processes or open files left",
        statuses=_SERVER_ERRORS,
        marks=("cannot allocate memory", "resource temporarily unavailable", "too many open files"),
        not_calls=_PULL,
    ),
    Rule(
        "host_full",
        Meaning.SILENCE,
        "5xx: the host's disk is full or read-only",
        statuses=_SERVER_ERRORS,
        marks=_FULL,
        not_calls=_PULL,
    ),
    Rule(
        "not_now",
        Meaning.TEMPORARY,
        "408, 425, 429, 502, 503, 504",
        statuses=_NOT_NOW,
        not_calls=_PULL,
    ),
    Rule(
        "will_not_die",
        Meaning.TEMPORARY,
        "5xx: the process was killed and has not ended yet",
        statuses=_SERVER_ERRORS,
        marks=("did not receive an exit event", "can not be killed", "cannot kill container", "failed to exit within"),
        calls=frozenset({"stop", "remove"}),
    ),
    Rule(
        "busy",
        Meaning.TEMPORARY,
        "5xx: something still holds a mount, a device or a lock, or a disk fails",
        statuses=_SERVER_ERRORS,
        marks=(
            "resource busy",
            "text file busy",
            "xtables lock",
            "failed to remove root filesystem",
            "input/output error",
        ),
        not_calls=_PULL,
    ),
    Rule(
        "timed_out_inside",
        Meaning.TEMPORARY,
        "5xx: something that the daemon waited for did not answer it in time",
        statuses=_SERVER_ERRORS,
        marks=("deadline exceeded", "i/o timeout", "timed out", "timeout exceeded"),
        not_calls=_PULL,
    ),
)

#: Rules for answers that do not have Docker's form.
NOT_DOCKERS = frozenset({"gateway", "not_docker"})
#: Rule name for an unreadable answer: no JSON, unexpected types, or no HTTP.
UNREADABLE = "unreadable"
#: Rule name for a removal that takes longer than its deadline.
REMOVING = "removing"
#: Temporary answers that `RULES` cannot describe.
OTHER_TEMPORARY = {
    UNREADABLE: "content that cannot be read: no JSON, cut short after a complete head, of other types than Docker's; "
    "or no HTTP at all",
    REMOVING: "409 for as long as a removal may take: it is being removed",
}


def _absent(outcome: str, *marks: str) -> Special:
    return Special(AnswerKind.ABSENT, frozenset({404}), marks, outcome)


def _malformed(outcome: str) -> Special:
    marks = ("invalid reference format", "invalid tag format", "invalid checksum digest", "unsupported digest")
    return Special(AnswerKind.MALFORMED, frozenset({400, 404, 500}), marks, outcome)


#: Every call to the daemon, by its name in `failpoints`.
CALLS: dict[str, Call] = {
    "version": Call("GET /version", ErrorCode.INTERNAL_ERROR),
    "info": Call("GET /info", ErrorCode.INTERNAL_ERROR),
    "network": Call("GET /networks", ErrorCode.INTERNAL_ERROR),
    "image": Call(
        "GET /images/{name}/json",
        ErrorCode.IMAGE_PULL_FAILED,
        (
            # Without marks: a needless pull does no harm, and the pull has an answer of its own.
            _absent("pulled, by policy"),
            _malformed("`start_config_invalid`"),
        ),
    ),
    "remove_image": Call(
        "DELETE /images/{name}",
        None,
        (
            _absent("it is forgotten"),
            Special(AnswerKind.IMAGE_USED, frozenset({409}), (), "it stays: a container was made of it"),
        ),
        changes=True,
    ),
    "pull": Call("POST /images/create", ErrorCode.IMAGE_PULL_FAILED, (_malformed("`start_config_invalid`"),)),
    "create": Call(
        "POST /containers/create",
        ErrorCode.CONTAINER_START_FAILED,
        (
            Special(
                AnswerKind.NAME_TAKEN, frozenset({409}), (), "an own container is taken or removed, another one left"
            ),
            _malformed("`start_config_invalid`"),
        ),
        changes=True,
    ),
    "rename": Call(
        "POST /containers/{id}/rename",
        ErrorCode.CONTAINER_START_FAILED,
        (
            _absent("created anew, under the game's name", *_NO_CONTAINER),
            Special(
                AnswerKind.NAME_TAKEN, frozenset({409}), (), "an own container is taken or removed, another one left"
            ),
        ),
        changes=True,
    ),
    "start": Call(
        "POST /containers/{id}/start",
        ErrorCode.CONTAINER_START_FAILED,
        (
            _absent("created anew, five times at most", *_NO_CONTAINER),
            Special(
                AnswerKind.ABSENT,
                frozenset({409}),
                ("is marked for removal",),
                "the same: somebody is removing the container",
            ),
        ),
        changes=True,
    ),
    "first_start": Call(
        "GET /containers/{id}/json",
        ErrorCode.CONTAINER_START_FAILED,
        (_absent("`container_start_failed`: it was removed while it started", *_NO_CONTAINER),),
        changes=True,
    ),
    "stop": Call(
        "POST /containers/{id}/stop",
        ErrorCode.INTERNAL_ERROR,
        (_absent("a success: the container is gone", *_NO_CONTAINER),),
        changes=True,
    ),
    "remove": Call(
        "DELETE /containers/{id}",
        ErrorCode.INTERNAL_ERROR,
        (
            _absent("a success: the container is gone", *_NO_CONTAINER),
            Special(
                AnswerKind.BUSY_REMOVING,
                frozenset({409}),
                (),
                "waited for while it is removed; `conflict` when it lives",
            ),
        ),
        changes=True,
    ),
    "inspect": Call(
        "GET /containers/{id}/json",
        ErrorCode.INTERNAL_ERROR,
        (_absent("the container is gone", *_NO_CONTAINER),),
    ),
    "run": Call("GET /info, GET /networks", None),
    "list": Call("GET /containers/json", None),
    "logs": Call("GET /containers/{id}/logs", None),
    "events": Call("GET /events", None),
    "plugins": Call("GET /plugins", None),
    "images": Call("GET /images/json", None),
}


#: Bytes of a refusal that are read. JSON is already reduced at this point.
LONGEST_REFUSAL = 1 << 16


def explanation(response: Response | None) -> tuple[str, bool]:
    """Return the text of an answer, and whether it has Docker's form. Raises nothing for unexpected content."""
    if response is None:
        return "", False
    # `Response.text` guesses the encoding, which takes seconds for megabytes. Docker writes short UTF-8.
    reply = response.content[:LONGEST_REFUSAL].decode(errors="replace")
    try:
        found = json.loads(reply)
    except (ValueError, RecursionError):
        return reply, False
    if isinstance(found, dict) and isinstance(found.get("message"), str):
        return found["message"], True
    return reply, False


def checked(response: Response) -> None:
    """Raise docker's `APIError` for every status except 2xx and 304.

    The SDK's own check accepts redirects, and raises `KeyError` for an error without a message.
    """
    if 200 <= response.status_code < 300 or response.status_code == 304:
        return
    reply, _ = explanation(response)
    kind = NotFound if response.status_code == 404 else APIError
    # Bounded here too: a traceback would contain the registry's whole text.
    status = bounded(f"{response.status_code} {response.reason}", 100)
    raise kind(status, response=response, explanation=bounded(reply))


#: Text that an image or a user can choose: quoted text, paths, names of users and groups.
#: An image must not choose the meaning of its answer, for example by a directory "no space left on device".
#: Docker's own text about containerd and its init process is kept.
_KEPT = r"""(dial unix(?:://| )[^ :"]+|desc = "transport: [^"]*"|"docker-init")"""
_QUOTED = r"""\\"[^"]*"|"(?:[^"\\]|\\.)*"|'[^']*'|unable to find (?:user|group) [^:]*:"""
#: The kernel's reason follows the last colon; the path before it may contain colons too.
#: Text that `skim` cut off has no reason.
_TO_THE_CAUSE = r".*?(?=: (?:ttrpc: closed|error reading from server: eof|[^:…]*)$)"
#: Paths inside a container, which the image chooses. No reason follows the phrases of `_NO_CAUSE`.
_NO_CAUSE = "(?:(?<=file exists )|(?<=cannot mkdir: )|(?<=too many links in ))/.*"
_INSIDE = rf"""{_NO_CAUSE}|/[^:"' ]*/[0-9a-f]{{64}}[^/:]*/(?:{_TO_THE_CAUSE}|.*)"""
_NOT_DOCKERS = re.compile(rf"{_KEPT}|{_QUOTED}|{_INSIDE}|/[^:]*", re.DOTALL)
_SURELY_NOT_DOCKERS = re.compile(rf"{_KEPT}|{_QUOTED}|{_INSIDE}|/(?:{_TO_THE_CAUSE}|.*)", re.DOTALL)
#: Status codes with which containerd's errors end.
_CODE_OF_GRPC = re.compile(r"(?:: (?:unknown|unavailable|internal|aborted|canceled))+\s*$")
#: Characters of an answer that are searched: half from the beginning, half from the end, where the reason is.
LONGEST_READ = 20_000


def own_words(reply: str, pattern: re.Pattern[str] = _NOT_DOCKERS) -> str:
    """Return Docker's own text in lower case, without the parts that images and users choose."""
    if len(reply) > LONGEST_READ:
        reply = reply[: LONGEST_READ // 2] + reply[-LONGEST_READ // 2 :]
    reply = _CODE_OF_GRPC.sub("", reply.lower())
    return pattern.sub(lambda found: found[1] or " ", reply)


def meaning(call: str, error: APIError) -> tuple[Meaning, str]:
    """Return the meaning of a refusal of `call` and the name of its rule; the name is empty for a final answer.

    Silence needs a phrase at a place that no image can choose; elsewhere the answer is temporary, which ends in time.
    """
    reply, from_docker = explanation(error.response)
    status, own = error.status_code or 0, own_words(reply)
    for rule in RULES:
        if rule.fits(call, status, own, from_docker):
            if rule.meaning is Meaning.SILENCE and rule.marks:
                surely = own_words(reply, _SURELY_NOT_DOCKERS)
                return rule.meaning if rule.fits(call, status, surely, from_docker) else Meaning.TEMPORARY, rule.name
            return rule.meaning, rule.name
    return Meaning.FINAL, ""


def kind_of(call: str, error: APIError) -> AnswerKind | None:
    """Return the special meaning of a final answer to `call`; None when it has none."""
    reply = own_words(explanation(error.response)[0] or words(error)).lstrip()
    # In a pull the registry's text follows Docker's own prefix.
    fits = reply.startswith if call == "pull" else reply.__contains__
    for special in CALLS[call].specials:
        if error.status_code in special.statuses and (not special.marks or any(map(fits, special.marks))):
            return special.kind
    return None


def words(error: APIError) -> str:
    """Return Docker's message on one bounded line; the status when there is no message."""
    line = bounded(str(error.explanation or ""))
    if line.startswith("<"):  # an HTML page
        line = ""
    return line or bounded(str(error.args[0] if error.args else error)) or type(error).__name__


def answered(call: str, error: APIError, request: str = "") -> str:
    """Format a refusal of `call` for a message: status, request and Docker's text, but no text of a registry."""
    reply, from_docker = explanation(error.response)
    text = code_of(reply) if call == "pull" and from_docker else words(error)
    return f"answered {error.status_code} to `{request or CALLS[call].request}`: {text}"


def forbidden(call: str, error: APIError, request: str = "") -> str:
    """Return the remedy for a refusal by a proxy or an authorization plugin; empty for any other refusal."""
    if error.status_code not in {401, 403} or (call == "pull" and explanation(error.response)[1]):
        return ""  # in Docker's form, the text of a pull is the registry's
    return f"let the proxy or the authorization plugin before Docker pass `{request or CALLS[call].request}`"


class Unreadable(ValueError):
    """An answer that does not follow Docker's API."""


#: Exceptions that the SDK or this package raises for unexpected content.
UNREADABLE_ERRORS = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    RecursionError,
    OverflowError,
    StructError,
    DockerException,
)


def is_unreadable(error: BaseException) -> bool:
    """Return whether the error is about an unreadable or truncated answer, and not about silence.

    Errors of the connection and timeouts are silence; every other library error is about an answer.
    """
    for cause in causes(error):
        if isinstance(cause, (InvalidJSONError, ContentDecodingError, DecodeError)):
            return True
        if isinstance(cause, RequestException):  # a subclass of OSError, whatever its cause
            continue
        if isinstance(cause, (OSError, Urllib3Timeout)):
            return False
    return True


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, outermost first, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
