"""Reads the tokens of the REST API from a directory with one file a token.

The files are read again before a request, at most once a second. That is cheaper than it is to decide by time stamps
whether a file has changed, whose resolution is coarser than two writes in a row.

Names that begin with a dot are ignored and links are followed, as in a mounted Kubernetes secret: its files are links
through `..data`, which an update replaces in one step.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from rtmanager.domain.access import LONGEST_TOKEN, Token, Tokens, parse_token_file, repeated
from rtmanager.domain.errors import InvalidValue, RuntimeManagerError, with_remedy
from rtmanager.domain.game import shown

#: Seconds between two readings.
PERIOD_S = 1.0
#: Most names in the directory. More are no directory of tokens.
MOST_NAMES = 1000
#: Bytes read of a file: a token, and some white space behind it.
MOST_BYTES = LONGEST_TOKEN + 1024
#: Faults and warnings that one message names.
MOST_NAMED = 10
_VARIABLE = "RTMANAGER_HTTP_TOKENS_DIR"
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})


class TokensInvalid(RuntimeManagerError):
    """The directory of tokens cannot be used as it is."""

    def __init__(self, path: str, faults: list[str]) -> None:
        super().__init__(f"{_VARIABLE} {path}: {_together(faults)}")
        self.remedy = (
            "write each token into a file of its own, such as "
            f"`openssl rand -hex 32 > {path}/gm.game-master-1`, and let this process (user {os.geteuid()}) read it"
        )


@dataclass(frozen=True, slots=True)
class _Reading:
    """One reading of the directory."""

    #: Well-formed tokens, by file.
    good: dict[str, Token]
    #: What is wrong, by file; under an empty name what is wrong with the directory.
    faults: dict[str, str]
    #: Files that are gone: links to nothing.
    gone: frozenset[str] = frozenset()
    #: Files that every user of this host may read.
    exposed: tuple[str, ...] = ()
    #: Whether the directory's content is known.
    is_known: bool = True


class TokenFiles:
    """The tokens of a directory. Thread-safe."""

    def __init__(self, path: str, logger: logging.Logger, clock: Callable[[], float] = monotonic) -> None:
        self._path = path
        self._logger = logger
        self._clock = clock
        self._lock = threading.Lock()
        self._accepted: dict[str, Token] = {}
        self._tokens = Tokens()
        self._read_at = float("-inf")
        self._reported: frozenset[str] = frozenset()

    def check(self) -> tuple[str, list[str]]:
        """Read all files; return a description and warnings. Raises `TokensInvalid` for any fault."""
        reading = self._read()
        if reading.faults:
            raise TokensInvalid(self._path, sorted(set(reading.faults.values())))
        self._take(reading)
        warnings = []
        if reading.exposed:
            warnings.append(
                f"every user of this host may read {_together(list(reading.exposed))} in {self._path}; remedy: chmod "
                "o-r, or mount it read-only into a container of its own"
            )
        count = len(reading.good)
        return f"{count} token{'s' if count > 1 else ''} in {self._path}", warnings

    def current(self) -> Tokens:
        """Return the tokens that are accepted now, at most a second old; never raises.

        A file with a fault keeps its last good token, and so do all files while the directory cannot be read. The token
        of a removed file is not accepted, and none is while the directory is gone.
        """
        # Whoever reads holds up no other request: a file system may hang.
        if self._clock() - self._read_at >= PERIOD_S and self._lock.acquire(blocking=False):
            try:
                began = self._clock()
                self._take(self._read())
                self._read_at = began
            finally:
                self._lock.release()
        return self._tokens

    def _take(self, reading: _Reading) -> None:
        before = self._accepted
        if reading.is_known:
            known = {token.digest for token in reading.good.values()}
            # A file that had a token keeps it when another one gets the same: that takes nobody's token away.
            faulty = (reading.faults.keys() & before.keys()) - reading.gone
            kept = {name: before[name] for name in faulty if before[name].digest not in known}
            self._accepted = {**reading.good, **kept}
        self._tokens = Tokens(tuple(self._accepted.values()))
        self._report(frozenset(reading.faults.values()))
        if before and before != self._accepted:
            changed = {name for name in {*before, *self._accepted} if before.get(name) != self._accepted.get(name)}
            extra = {"files": _together(sorted(changed)), "tokens": len(self._accepted)}
            self._logger.info("tokens of the REST API changed", extra=extra)

    def _report(self, faults: frozenset[str]) -> None:
        """Log each fault once, while it lasts."""
        if new := sorted(faults - self._reported):
            self._logger.warning(
                "tokens of the REST API have a fault, such a file keeps its last good token",
                extra={"error": with_remedy(TokensInvalid(self._path, new))},
            )
        elif self._reported and not faults:
            self._logger.info("tokens of the REST API have no fault any more", extra={"tokens": len(self._accepted)})
        self._reported = faults

    def _read(self) -> _Reading:
        try:
            directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            return _Reading({}, {"": f"it cannot be read: {error.strerror}"}, is_known=error.errno in _GONE)
        try:
            names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
            if len(names) > MOST_NAMES:
                return _Reading({}, {"": f"it has more than {MOST_NAMES} files"}, is_known=False)
            return self._read_files(directory, names)
        except OSError as error:
            return _Reading({}, {"": f"it cannot be read: {error.strerror}"}, is_known=False)
        finally:
            os.close(directory)

    def _read_files(self, directory: int, names: list[str]) -> _Reading:
        good: dict[str, Token] = {}
        faults: dict[str, str] = {}
        exposed = []
        gone: set[str] = set()
        if not names:
            faults[""] = "it has no token, so nobody can call the REST API"
        for name in names:
            try:
                content, is_exposed = _content(directory, name)
                good[name] = parse_token_file(name, content)
                if is_exposed:
                    exposed.append(name)
            except InvalidValue as error:
                faults[name] = str(error)
            except OSError as error:
                faults[name] = f"{shown(name)} cannot be read: {error.strerror}"
                if error.errno in _GONE:
                    gone.add(name)
        for group in repeated(good.values()):
            same = [token.name for token in group]
            for name in same:
                faults[name] = f"{' and '.join(same)} have the same token: each needs one of its own"
                del good[name]
        return _Reading(good, faults, frozenset(gone), tuple(exposed))


def _content(directory: int, name: str) -> tuple[bytes, bool]:
    """Return the beginning of a file, and whether every user of this host may read it. Raises `OSError`.

    A file on a read-only mount does not count: so secrets are mounted into a container, where their mode is that of
    the orchestrator and other users of the host do not see them.
    """
    file = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        is_exposed = bool(found.st_mode & stat.S_IROTH) and not os.fstatvfs(file).f_flag & os.ST_RDONLY
        return os.read(file, MOST_BYTES), is_exposed
    finally:
        os.close(file)


def _together(texts: list[str]) -> str:
    more = len(texts) - MOST_NAMED
    return "; ".join(texts[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
