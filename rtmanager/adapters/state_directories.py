"""The games' directories on this host: made, given their owner and mode, and never taken away.

A directory is reached step by step through open descriptors that follow no link, so that a link planted under
the root cannot send us elsewhere. Nothing here deletes, and nothing looks at what a directory holds.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rtmanager import failpoints
from rtmanager.domain.errors import (
    IN_MESSAGE,
    ErrorCode,
    InvalidValue,
    RuntimeManagerError,
    TemporaryAnswer,
    Unavailable,
)
from rtmanager.domain.game import check_game_id
from rtmanager.operations.ports import StateDirectoryInvalid
from rtmanager.resources import lacking

#: The effect, by its name in `failpoints`.
_PREPARE = "directory.prepare"

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: What the system says, in words, with what a person can do about it.
_EXPLAINED = {
    errno.ENOENT: "it does not exist; create it, or correct RTMANAGER_GAME_STATE_ROOT",
    errno.ENOTDIR: "it is not a directory; move away what stands there",
    errno.ELOOP: "it is a symbolic link, and links are not followed; put the directory itself there",
    errno.EACCES: "this process has no permission; give its user access, or run it as root",
    errno.EPERM: "this process may not give it the configured owner and mode; run it as root (CAP_CHOWN)",
    errno.EROFS: "its file system is read-only; mount it writable",
    errno.ENOSPC: "its file system is full; free some space",
    errno.EDQUOT: "its quota is used up; raise it",
    errno.EIO: "its file system or disk fails; see the kernel's log",
    errno.ESTALE: "its file server does not know it any more; mount it again",
}
#: The same where a directory is to be made in the root.
_EXPLAINED_OF_MAKING = {errno.EPERM: "no directory may be made in it; is it immutable (`lsattr -d`)?"}
#: What is wrong with a game's directory itself, and would be the same again. Everything else, and whatever is wrong
#: with the root, says something of the file system or of the moment: it is tried again.
FINAL = frozenset({errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EINVAL})
_DEPENDENCY = "state root"


class HostStateDirectories:
    """One directory for each game under `root`, with `mode` (permission bits) and the owner `uid`, `gid`."""

    def __init__(self, root: str, mode: int, uid: int, gid: int) -> None:
        self._root = root
        self._mode = mode
        self._uid = uid
        self._gid = gid

    def check_root(self) -> None:
        """Raise unless directories can be made under the root, as `prepare` does; changes nothing."""
        with _explained(self._root), _directory(self._root) as root:
            _refuse_read_only(root)
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=root, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def path_of(self, game_id: str) -> str:
        """See the port."""
        return os.path.join(self._root, game_id)

    def prepare(self, game_id: str) -> str:
        """Create the game's directory, or correct its owner and mode; returns its path.

        Whatever the directory holds stays as it is. Raises as the port says.
        """
        try:
            check_game_id(game_id)
        except InvalidValue as error:
            raise StateDirectoryInvalid(str(error)) from error
        path = self.path_of(game_id)
        with _explained(self._root), _directory(self._root) as root, failpoints.around(_PREPARE):
            with suppress(FileExistsError):
                os.mkdir(game_id, 0o700, dir_fd=root)  # nobody else may enter before it is adjusted
            with _explained(path, FINAL), _directory(game_id, root) as directory:
                _refuse_read_only(directory)
                self._adjust(directory)
        return path

    def _adjust(self, directory: int) -> None:
        """Set what differs and nothing else, so that a directory that is right needs no privilege."""
        found = os.fstat(directory)
        if (found.st_uid, found.st_gid) != (self._uid, self._gid):
            os.fchown(directory, self._uid, self._gid)
        if stat.S_IMODE(os.fstat(directory).st_mode) != self._mode:  # a change of owner may clear bits
            os.fchmod(directory, self._mode)


@contextmanager
def _directory(path: str, parent: int | None = None) -> Iterator[int]:
    try:
        descriptor = os.open(path, _OPEN, dir_fd=parent)
    except NotADirectoryError as error:  # so Linux says of a link as well, which would mislead
        if stat.S_ISLNK(os.stat(path, dir_fd=parent, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _refuse_read_only(directory: int) -> None:
    if os.fstatvfs(directory).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@contextmanager
def _explained(path: str, final: frozenset[int] = frozenset()) -> Iterator[None]:
    """Errors of the system about `path`, as a message with a remedy; those in `final` would be the same again."""
    try:
        yield
    except (OSError, MemoryError) as error:
        raise _outcome(path, error, final) from error


def _outcome(path: str, error: OSError | MemoryError, final: frozenset[int]) -> RuntimeManagerError:
    """What an error about `path` means for an operation."""
    where = f"state directory {path}"
    if lack := lacking(error):
        silence = Unavailable(_DEPENDENCY, f"{where}: {lack}; {lack.remedy}", untouched=True)
        silence.remedy = IN_MESSAGE
        return silence
    number = getattr(error, "errno", None) or 0
    explained = _EXPLAINED if final else _EXPLAINED | _EXPLAINED_OF_MAKING
    message = f"{where}: {explained.get(number) or getattr(error, 'strerror', None) or error}"
    if number in final:
        return StateDirectoryInvalid(message)
    answer = f"{_DEPENDENCY}: {errno.errorcode.get(number, 'unknown')}"
    return TemporaryAnswer(_DEPENDENCY, message, answer=answer, code=ErrorCode.START_CONFIG_INVALID)
