"""Decodes the chunked coding of a body. Pure, and as strict as the parsing of the head.

Each of these leniencies has allowed request smuggling elsewhere: lines that end with LF only, a bare CR in an
extension, a size with a sign, blanks or an underscore, data longer than its size, a trailer that is no field.
RFC 9112, 7.1, without the blanks around `;` and `=`, which it forbids to send.
"""

from __future__ import annotations

import re

from rtmanager.domain.game import shown
from rtmanager.http.limits import HttpLimits
from rtmanager.http.messages import invalid

LINE_BYTES = 256
#: Enough for a body of 64 KB in pieces of network size. A chunk takes as long to read as a kilobyte of data.
MOST_CHUNKS = 256
#: All trailer fields together.
TRAILER_BYTES = 4096

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*")
#: A partial line that may still become a chunk size.
_SIZE_SO_FAR = re.compile(rb"[0-9A-Fa-f]{0,16}\r?|[0-9A-Fa-f]{1,16};[\t\x20-\x7e\x80-\xff]*\r?")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[\t\x20-\x7e\x80-\xff]*")
#: A partial line that may still become a trailer field, or the empty line after the last one.
_FIELD_SO_FAR = re.compile(_TOKEN + rb"(?::[\t\x20-\x7e\x80-\xff]*\r?)?|\r?")

#: Fields that frame, route, authenticate or describe a message. After the body they come too late, and a proxy may have
#: applied them (RFC 9110, 6.5.1).
_NEVER_IN_TRAILERS = frozenset(
    b"""authorization cache-control connection content-encoding content-length content-range content-type cookie date
    expect forwarded host keep-alive max-forwards origin pragma proxy-authorization proxy-connection range
    sec-fetch-site set-cookie te trailer transfer-encoding upgrade x-forwarded-for x-forwarded-host
    x-galaxy-caller x-request-id""".split()
)


class ChunkedBody:
    """Takes the chunks of one body out of a buffer as they arrive."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._body = bytearray()
        self._chunks = 0
        #: Missing bytes of the present chunk; None between chunks.
        self._lacks: int | None = None
        self._trailers: list[bytes] | None = None

    def take(self, buffer: bytearray) -> bytes | None:
        """Take the received bytes from the front of `buffer`; return the body when it is complete, else None.

        Raises `HttpError` as soon as the bytes cannot become a chunked body.
        """
        while self._trailers is None:
            if self._lacks is None:
                line = _line(buffer, _SIZE_SO_FAR, LINE_BYTES, "chunk size")
                if line is None:
                    return None
                self._begin(line)
            elif not self._take_data(buffer):
                return None
        while (line := _line(buffer, _FIELD_SO_FAR, TRAILER_BYTES, "trailer field")) is not None:
            if not line:
                return bytes(self._body)
            self._add_trailer(line)
        return None

    def _begin(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise invalid(f"chunk size {_text(line)}: expected a hexadecimal number, then ;name=value at most")
        self._chunks += 1
        if self._chunks > MOST_CHUNKS:
            raise invalid(f"the body has more than {MOST_CHUNKS} chunks; send it in larger ones")
        size = int(match[1], 16)
        if len(self._body) + size > self._limits.body_bytes:
            raise body_too_large(self._limits)
        if size == 0:
            self._trailers = []
        else:
            self._lacks = size

    def _take_data(self, buffer: bytearray) -> bool:
        """Take data of the present chunk; return whether it is complete, with the line end after it."""
        assert self._lacks is not None
        piece = buffer[: self._lacks]
        self._body += piece
        self._lacks -= len(piece)
        del buffer[: len(piece)]
        if self._lacks or not buffer:
            return False
        if buffer[:2] != b"\r\n"[: len(buffer)]:
            raise invalid(
                f"chunk data is followed by {_text(buffer[:2])}: expected CR LF, the chunk is longer than its size"
            )
        if len(buffer) < 2:
            return False
        del buffer[:2]
        self._lacks = None
        return True

    def _add_trailer(self, line: bytes) -> None:
        assert self._trailers is not None
        match = _FIELD.fullmatch(line)
        if match is None:
            raise invalid(f"trailer field {_text(line)}: expected Name: value, on one line")
        if match[1].lower() in _NEVER_IN_TRAILERS:
            raise invalid(f"the field {match[1].decode()} may not stand in a trailer")
        self._trailers.append(line)
        many = len(self._trailers) > self._limits.header_fields
        if many or sum(map(len, self._trailers)) > TRAILER_BYTES:
            raise invalid("the request has too many trailer fields", status=431)


def _line(buffer: bytearray, so_far: re.Pattern[bytes], most: int, what: str) -> bytes | None:
    """Take the first line from the buffer, without its CR LF; None when it is incomplete. Raises `HttpError`."""
    end = buffer.find(b"\r\n", 0, most + 2)
    if end < 0:
        begun = bytes(buffer[: most + 2])
        if not so_far.fullmatch(begun):
            raise invalid(f"{what} {_text(begun)}: expected a line of printable characters that ends with CR LF")
        if len(begun) > most + 1:
            raise invalid(f"a line of a chunked body is longer than {most} bytes")
        return None
    line = bytes(buffer[:end])
    del buffer[: end + 2]
    return line


def _text(data: bytes | bytearray) -> str:
    return shown(bytes(data[:40]).decode("latin-1"))


def body_too_large(limits: HttpLimits) -> Exception:
    """The error for a body over the limit; raised as soon as the size is known."""
    return invalid(f"the body is larger than {limits.body_bytes} bytes; no request here needs that", status=413)
