"""Builds the smallest possible image: one program of a few dozen bytes, for amd64 and arm64.

Tests of the runtime need containers, not engines. A generated ELF file needs no base image, no registry, no compiler
and no download. One image has one behaviour, as its command.
"""

from __future__ import annotations

import io
import struct
import tarfile
from dataclasses import dataclass

_LOAD_AT = 0x400000
_HEADERS = 64 + 56  # ELF header and one program header
_ALL_SIGNALS = b"\xff" * 8


@dataclass(frozen=True, slots=True)
class _Machine:
    """The machine code of one processor architecture that waits, blocks signals and exits."""

    elf_number: int
    wait: bytes
    block_signals: bytes
    exit: bytes


def _amd64() -> _Machine:
    mask = struct.pack("<I", _LOAD_AT + _HEADERS)
    return _Machine(
        62,
        wait=bytes.fromhex("b822000000 0f05 ebf7"),  # pause(), for ever
        block_signals=bytes.fromhex("31ff be") + mask + bytes.fromhex("31d2 41ba08000000 b80e000000 0f05"),
        exit=bytes.fromhex("bf03000000 b83c000000 0f05"),  # exit(3)
    )


def _arm64() -> _Machine:
    def words(*codes: int) -> bytes:
        return b"".join(struct.pack("<I", code) for code in codes)

    def put(register: int, value: int) -> int:
        return 0xD2800000 | value << 5 | register

    call = 0xD4000001
    clear = tuple(put(register, 0) for register in range(5))
    high = 0xF2A00000 | (_LOAD_AT >> 16) << 5 | 1
    return _Machine(
        183,
        wait=words(*clear, put(8, 73), call, 0x14000000 | (-7 & 0x3FFFFFF)),  # ppoll() of nothing, for ever
        block_signals=words(put(0, 0), put(1, _HEADERS), high, put(2, 0), put(3, 8), put(8, 135), call),
        exit=words(put(0, 3), put(8, 93), call),
    )


_MACHINES = {"amd64": _amd64, "arm64": _arm64}

#: Behaviours of a container: it waits for a signal that ends it; it waits and only KILL ends it; it ends at once with
#: `EXIT_CODE`.
BEHAVIOURS = ("waits", "ignores-signals", "exits")
EXIT_CODE = 3

#: The command of each image.
COMMAND = "/engine"


def archive(architecture: str, behaviour: str) -> bytes:
    """A tar file for `docker import`, with its program at `COMMAND`.

    `architecture` is Docker's name of it (`amd64`, `arm64`). Raises `ValueError` for another one.
    """
    if architecture not in _MACHINES:
        raise ValueError(f"no tiny program for architecture {architecture!r}; known: {', '.join(sorted(_MACHINES))}")
    machine = _MACHINES[architecture]()
    code = {
        "waits": machine.wait,
        "ignores-signals": machine.block_signals + machine.wait,
        "exits": machine.exit,
    }[behaviour]
    program = _elf(machine.elf_number, code)
    entry = tarfile.TarInfo(COMMAND.removeprefix("/"))
    entry.size, entry.mode = len(program), 0o755
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(entry, io.BytesIO(program))
    return buffer.getvalue()


def _elf(machine: int, code: bytes) -> bytes:
    """A static executable: headers, a signal mask, the code."""
    body = _ALL_SIGNALS + code
    size = _HEADERS + len(body)
    entry = _LOAD_AT + _HEADERS + len(_ALL_SIGNALS)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = identity + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, entry, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD_AT, _LOAD_AT, size, size, 0x1000)
    return header + segment + body
