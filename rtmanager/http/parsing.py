"""Parses the head of a request. Pure, and strict where a lenient parser allows request smuggling.

RFC 9112: lines end with CRLF, no folded fields, no blank before the colon, one Content-Length at most and never
together with Transfer-Encoding, one Host, which an absolute target repeats. The standard library's `email` parser
would cost 100 µs a request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rtmanager.domain.game import shown
from rtmanager.http.authority import split_authority
from rtmanager.http.chunks import body_too_large
from rtmanager.http.limits import HttpLimits
from rtmanager.http.messages import invalid

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rf"({_TOKEN}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_FIELD_NAME = re.compile(_TOKEN)
_ABSOLUTE = re.compile(r"http://([^/?]*)", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,18}")
_CODING = re.compile(_TOKEN)

#: All bytes that a line may contain; what remains without these must be the line ends.
_TEXT = bytes(byte for byte in range(256) if byte == 0x09 or 0x20 <= byte != 0x7F)

#: What makes a partial head invalid, whatever follows; a CR at its end may still get its LF.
_NEVER_IN_A_HEAD = re.compile(rb"(?<!\r)\n|\r(?![\n]|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

#: Fields that decide how a message is framed, routed or trusted; they may not be repeated.
_ONCE = frozenset({"content-length", "transfer-encoding", "host", "content-type", "origin", "sec-fetch-site", "expect"})


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body. `length` is the body's length in bytes, None for a chunked body."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    http_1_0: bool
    length: int | None

    @property
    def keep_alive(self) -> bool:
        """Whether the client keeps the connection open for further requests."""
        options = self.headers.get("connection")
        if options is None:
            return not self.http_1_0
        named = {option.strip() for option in options.lower().split(",")}
        return "close" not in named and (not self.http_1_0 or "keep-alive" in named)

    @property
    def awaits_continue(self) -> bool:
        """Whether the client holds the body back until it receives 100 Continue."""
        return "expect" in self.headers and not self.http_1_0 and self.length != 0


def parse_head(head: bytes, limits: HttpLimits) -> Head:
    """Parse the head of a request, given without the empty line that ends it. Raises `HttpError`."""
    if head.translate(None, _TEXT) != b"\r\n" * head.count(b"\r\n"):
        raise invalid("the request's head has a control character, or a line that does not end with CR LF")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, http_1_0 = parse_request_line(first)
    headers = _parse_fields(lines, limits)
    if not target.startswith("/"):
        target = _origin_form(method, target, headers)
    _check_host(headers, http_1_0)
    if headers.get("expect", "100-continue").lower() != "100-continue":
        raise invalid(f"Expect {shown(headers['expect'])}: only 100-continue is understood", status=417)
    path, _, query = target.partition("?")
    return Head(method, path, query, headers, http_1_0, _body_length(headers, http_1_0, limits))


def check_head_so_far(head: bytearray, begin: int) -> None:
    """Raise `HttpError` for a partial head that cannot become valid; the bytes before `begin` are checked already."""
    # One byte back, for the CR of a line end that was received in two pieces.
    found = _NEVER_IN_A_HEAD.search(head, max(0, begin - 1))
    if found is not None:
        raise invalid("the request's head has a control character, or a line that does not end with CR LF")


def parse_request_line(line: str) -> tuple[str, str, bool]:
    """Method, target, and whether this is HTTP/1.0. Raises `HttpError`."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise invalid(f"request line {shown(line)}: expected METHOD PATH HTTP/1.1")
    method, target, major, minor = match.groups()
    if major != "1":
        raise invalid(f"HTTP/{major}.{minor} is not spoken here: expected HTTP/1.1 or HTTP/1.0", status=505)
    if "#" in target:
        raise invalid(f"request target {shown(target)}: a fragment is not sent to a server")
    return method, target, minor == "0"


def _origin_form(method: str, target: str, headers: dict[str, str]) -> str:
    """The path and query of an absolute target, which every server must accept (RFC 9112, 3.2.2).

    Host has to name the same host, since a proxy may have routed the request by either.
    """
    if target == "*" and method == "OPTIONS":
        return target
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise invalid(f"request target {shown(target)}: expected a path that begins with /, or an http URL")
    theirs, ours = split_authority(absolute[1]), split_authority(headers.get("host", absolute[1]))
    if theirs is None or not theirs[0] or ours is None or theirs[0] != ours[0]:
        raise invalid(f"request target {shown(target)}: expected the host that the header Host names")
    rest = target[absolute.end() :]
    if not rest and method == "OPTIONS":  # of the whole server (RFC 9112, 3.2.4)
        return "*"
    return rest if rest.startswith("/") else f"/{rest}"


def _check_host(headers: dict[str, str], http_1_0: bool) -> None:
    host = headers.get("host")
    if host is None and not http_1_0:
        raise invalid("the header Host is missing: HTTP/1.1 requires it")
    if host is not None and split_authority(host) is None:
        raise invalid(f"Host {shown(host)}: expected a host name or address, and a port at most")


def _parse_fields(lines: list[str], limits: HttpLimits) -> dict[str, str]:
    if len(lines) > limits.header_fields:
        raise invalid(f"the request has more than {limits.header_fields} header fields", status=431)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _FIELD_NAME.fullmatch(name):
            # Only its first word: a token may follow.
            raise invalid(f"header line {shown(line.split()[0] if line.split() else line)}…: expected Name: value")
        name, value = name.lower(), value.strip(" \t")
        if name not in headers:
            headers[name] = value
        elif name in _ONCE:
            raise invalid(f"the header {name} is given twice")
        else:
            headers[name] = f"{headers[name]}, {value}"
    return headers


def _body_length(headers: dict[str, str], http_1_0: bool, limits: HttpLimits) -> int | None:
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None:
        if length is not None or http_1_0:
            beside = "Content-Length" if length is not None else "HTTP/1.0"
            raise invalid(f"Transfer-Encoding beside {beside}: the body's end would be a matter of opinion")
        *others, last = (name.strip(" \t") for name in coding.lower().split(","))
        if last != "chunked" or not all(_CODING.fullmatch(name) and name != "chunked" for name in others):
            raise invalid(f"Transfer-Encoding {shown(coding)}: expected chunked, once")
        if others:
            raise invalid(f"Transfer-Encoding {shown(coding)}: only chunked is understood", status=501)
        return None
    if length is None:
        return 0
    if not _LENGTH.fullmatch(length):
        raise invalid(f"Content-Length {shown(length)}: expected a number of bytes")
    if int(length) > limits.body_bytes:
        raise body_too_large(limits)
    return int(length)
