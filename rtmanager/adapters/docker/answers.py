"""What an answer of Docker means: the tables that decide, and that `docs/generated/answers.md` is made from.

Three meanings. *Silence* says something about the whole daemon, or about a gateway before it: nothing is decided.
*Temporary* answers are listed one by one, and end an operation after a while. Everything else is *final*
and ends it at once. Some final answers say more than "no"; `CALLS` lists these for each call.
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

from rtmanager.domain.errors import ErrorCode
from rtmanager.domain.text import bounded


class Meaning(StrEnum):
    """What follows from an answer."""

    SILENCE = "silence"
    TEMPORARY = "temporary"
    FINAL = "final"


class Says(StrEnum):
    """Final answers that say more than no."""

    ABSENT = "it does not exist"
    NAME_TAKEN = "its name is taken"
    MALFORMED = "the reference is malformed"
    BUSY_REMOVING = "it runs, or is being removed"
    IMAGE_USED = "a container was made of it"


@dataclass(frozen=True, slots=True)
class Special:
    """A final answer with a meaning of its own: one of these statuses, and one of these words (lower case) in it."""

    says: Says
    statuses: frozenset[int]
    marks: tuple[str, ...]
    #: For the page: what then happens.
    outcome: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the daemon: the request, what an operation ends with when it is refused, and answers with a meaning."""

    request: str
    code: ErrorCode | None
    specials: tuple[Special, ...] = ()
    #: Whether it may have been done in part though the answer is bad.
    changes: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """Answers that are not final, or are so whatever else stands in them. Empty sets and tuples fit everything."""

    name: str
    meaning: Meaning
    #: How the page describes it.
    answers: str
    statuses: frozenset[int] = frozenset()
    #: Words, in lower case, of which one is in it.
    marks: tuple[str, ...] = ()
    #: Words that are in it beside one of `marks`.
    with_mark: str = ""
    #: The calls that it is about; empty: all but `not_calls`.
    calls: frozenset[str] = frozenset()
    not_calls: frozenset[str] = frozenset()
    #: Whether it has Docker's form, `{"message": …}`; None: either.
    from_docker: bool | None = True

    def fits(self, call: str, status: int, said: str, from_docker: bool) -> bool:
        """Whether an answer to `call` is one of these; `said` is in lower case."""
        return (
            (not self.calls or call in self.calls)
            and call not in self.not_calls
            and (not self.statuses or status in self.statuses)
            and self.from_docker in (None, from_docker)
            and (not self.marks or any(mark in said for mark in self.marks))
            and self.with_mark in said
        )


_SERVER_ERRORS = frozenset(range(500, 600))
_PULL = frozenset({"pull"})
_NOT_NOW = frozenset({408, 425, 429, 502, 503, 504})
#: About the request as it is sent, whoever says so: too large, or without credentials.
_ABOUT_THE_REQUEST = frozenset({401, 403, 407, 413, 414, 431})
_FULL = ("no space left on device", "disk quota exceeded", "read-only file system")
_NO_CONTAINER = ("no such container", "no container with name or id")

#: The first rule that fits decides; an answer that fits none is final.
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
            "failed to update store",  # its network database is closed while the last seconds of its API run
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

#: The rules for answers that are not Docker's.
NOT_DOCKERS = frozenset({"gateway", "not_docker"})
#: The name of the rule for an answer whose content cannot be read: no JSON, other types than Docker's, no HTTP.
UNREADABLE = "unreadable"
#: The name of the rule for a container that is being removed for longer than a removal may take.
REMOVING = "removing"
#: Temporary answers that no rule of `RULES` can describe.
OTHER_TEMPORARY = {
    UNREADABLE: "content that cannot be read: no JSON, cut short after a complete head, of other types than Docker's; "
    "or no HTTP at all",
    REMOVING: "409 for as long as a removal may take: it is being removed",
}


def _absent(outcome: str, *marks: str) -> Special:
    return Special(Says.ABSENT, frozenset({404}), marks, outcome)


def _malformed(outcome: str) -> Special:
    marks = ("invalid reference format", "invalid tag format", "invalid checksum digest", "unsupported digest")
    return Special(Says.MALFORMED, frozenset({400, 404, 500}), marks, outcome)


#: Every call of the daemon by its name in `failpoints`.
CALLS: dict[str, Call] = {
    "version": Call("GET /version", ErrorCode.INTERNAL_ERROR),
    "info": Call("GET /info", ErrorCode.INTERNAL_ERROR),
    "network": Call("GET /networks", ErrorCode.INTERNAL_ERROR),
    "image": Call(
        "GET /images/{name}/json",
        ErrorCode.IMAGE_PULL_FAILED,
        (
            # Whatever the words: that it is pulled then does no harm, and the pull has an answer of its own.
            _absent("pulled, by policy"),
            _malformed("`start_config_invalid`"),
        ),
    ),
    "remove_image": Call(
        "DELETE /images/{name}",
        None,
        (
            _absent("it is forgotten"),
            Special(Says.IMAGE_USED, frozenset({409}), (), "it stays: a container was made of it"),
        ),
        changes=True,
    ),
    "pull": Call("POST /images/create", ErrorCode.IMAGE_PULL_FAILED, (_malformed("`start_config_invalid`"),)),
    "create": Call(
        "POST /containers/create",
        ErrorCode.CONTAINER_START_FAILED,
        (
            Special(Says.NAME_TAKEN, frozenset({409}), (), "an own container is taken or removed, another one left"),
            _malformed("`start_config_invalid`"),
        ),
        changes=True,
    ),
    "rename": Call(
        "POST /containers/{id}/rename",
        ErrorCode.CONTAINER_START_FAILED,
        (
            _absent("created anew, under the game's name", *_NO_CONTAINER),
            Special(Says.NAME_TAKEN, frozenset({409}), (), "an own container is taken or removed, another one left"),
        ),
        changes=True,
    ),
    "start": Call("POST /containers/{id}/start", ErrorCode.CONTAINER_START_FAILED, changes=True),
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
                Says.BUSY_REMOVING, frozenset({409}), (), "waited for while it is removed; `conflict` when it lives"
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


#: Bytes of a refusal that are read. What is JSON was reduced before.
LONGEST_REFUSAL = 1 << 16


def explanation(response: Response | None) -> tuple[str, bool]:
    """What an answer says, and whether it says so in Docker's form. Never raises for what it may contain."""
    if response is None:
        return "", False
    # Not `Response.text`, which guesses the encoding: seconds for megabytes. Docker writes UTF-8 and is brief.
    said = response.content[:LONGEST_REFUSAL].decode(errors="replace")
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        return said, False
    if isinstance(found, dict) and isinstance(found.get("message"), str):
        return found["message"], True
    return said, False


def checked(response: Response) -> None:
    """Raise docker's `APIError` for whatever is neither a success nor "not modified".

    Not the SDK's own way: it takes a redirect for a success, and an error without a message for a `KeyError`.
    """
    if 200 <= response.status_code < 300 or response.status_code == 304:
        return
    said, _ = explanation(response)
    kind = NotFound if response.status_code == 404 else APIError
    # Bounded here, too: the error of a registry's text would stand whole in every traceback.
    status = bounded(f"{response.status_code} {response.reason}", 100)
    raise kind(status, response=response, explanation=bounded(said))


#: What Docker repeats of an image or a user: in quotes, a path, or a name of a user or a group. An image must not
#: choose its answer's meaning by a program or a directory that is called "no space left on device".
#: What Docker says of containerd, which it dials, and of its own init is kept.
_KEPT = r"""(dial unix(?:://| )[^ :"]+|desc = "transport: [^"]*"|"docker-init")"""
_QUOTED = r"""\\"[^"]*"|"(?:[^"\\]|\\.)*"|'[^']*'|unable to find (?:user|group) [^:]*:"""
#: Behind the last colon is what the kernel says of a path; the path itself may have colons, too. What was cut
#: (`skim`) has no cause.
_TO_THE_CAUSE = r".*?(?=: (?:ttrpc: closed|error reading from server: eof|[^:…]*)$)"
#: Paths in a container's own files, which are an image's to choose, also behind the words that no cause follows.
_NO_CAUSE = "(?:(?<=file exists )|(?<=cannot mkdir: )|(?<=too many links in ))/.*"
_INSIDE = rf"""{_NO_CAUSE}|/[^:"' ]*/[0-9a-f]{{64}}[^/:]*/(?:{_TO_THE_CAUSE}|.*)"""
_NOT_DOCKERS = re.compile(rf"{_KEPT}|{_QUOTED}|{_INSIDE}|/[^:]*", re.DOTALL)
_SURELY_NOT_DOCKERS = re.compile(rf"{_KEPT}|{_QUOTED}|{_INSIDE}|/(?:{_TO_THE_CAUSE}|.*)", re.DOTALL)
#: What containerd's errors end with.
_CODE_OF_GRPC = re.compile(r"(?:: (?:unknown|unavailable|internal|aborted|canceled))+\s*$")
#: As much of an answer is looked at for its words: the begin and the end, where the cause stands.
LONGEST_READ = 20_000


def own_words(said: str, pattern: re.Pattern[str] = _NOT_DOCKERS) -> str:
    """What Docker says in words of its own, in lower case."""
    if len(said) > LONGEST_READ:
        said = said[: LONGEST_READ // 2] + said[-LONGEST_READ // 2 :]
    said = _CODE_OF_GRPC.sub("", said.lower())
    return pattern.sub(lambda found: found[1] or " ", said)


def meaning(call: str, error: APIError) -> tuple[Meaning, str]:
    """What a refusal of `call` means, and the name of the rule that says so; empty when it is final.

    Silence needs words at a place that no image chooses: elsewhere they are temporary, which ends some time.
    """
    said, from_docker = explanation(error.response)
    status, own = error.status_code or 0, own_words(said)
    for rule in RULES:
        if rule.fits(call, status, own, from_docker):
            if rule.meaning is Meaning.SILENCE and rule.marks:
                surely = own_words(said, _SURELY_NOT_DOCKERS)
                return rule.meaning if rule.fits(call, status, surely, from_docker) else Meaning.TEMPORARY, rule.name
            return rule.meaning, rule.name
    return Meaning.FINAL, ""


def says(call: str, error: APIError) -> Says | None:
    """What a final answer to `call` says beyond no."""
    said = own_words(explanation(error.response)[0] or words(error)).lstrip()
    # Of a pull, what the registry says comes behind words of Docker.
    fits = said.startswith if call == "pull" else said.__contains__
    for special in CALLS[call].specials:
        if error.status_code in special.statuses and (not special.marks or any(map(fits, special.marks))):
            return special.says
    return None


def words(error: APIError) -> str:
    """What Docker said, on one line of bounded length; the status where it said nothing."""
    line = bounded(str(error.explanation or ""))
    if line.startswith("<"):  # a page for a browser
        line = ""
    return line or bounded(str(error.args[0] if error.args else error)) or type(error).__name__


def answered(call: str, error: APIError, request: str = "") -> str:
    """A refusal of `call` as a message has it: its status, the request, and what it says."""
    return f"answered {error.status_code} to `{request or CALLS[call].request}`: {words(error)}"


def forbidden(call: str, error: APIError, request: str = "") -> str:
    """What to do about a refusal that is a proxy's or an authorization plugin's; empty for any other."""
    if error.status_code not in {401, 403} or (call == "pull" and explanation(error.response)[1]):
        return ""  # in Docker's form, a pull has the words of the registry
    return f"let the proxy or the authorization plugin before Docker pass `{request or CALLS[call].request}`"


class Unreadable(ValueError):
    """An answer that is none of Docker's API."""


#: What reading an answer of other content than Docker's raises, in the SDK or here.
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
    """Whether something was answered that cannot be read, or ended too early, rather than nothing.

    Silence is what the connection or the clock is the cause of; every other error of the libraries is about an answer.
    """
    for cause in causes(error):
        if isinstance(cause, (InvalidJSONError, ContentDecodingError, DecodeError)):
            return True
        if isinstance(cause, RequestException):  # an OSError, whatever it is about
            continue
        if isinstance(cause, (OSError, Urllib3Timeout)):
            return False
    return True


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
