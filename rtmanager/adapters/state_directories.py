"""The games' directories on this host: created, and given owner and mode; never deleted.

A directory is opened step by step through descriptors that follow no link, so a link planted under the root cannot
redirect the path. Nothing here deletes a game's directory or reads its content. (A trial removes its own, which is
empty and has a name that no game can have.)

The process needs CAP_CHOWN at most, and no capability where it is the configured owner itself. It opens a directory as
a path only (`O_PATH`), which needs no right on it, and changes it through that descriptor. The mode is set before the
owner, since only an owner may set a mode.

No timeout ends a call to a file system that hangs. So each call has a thread of its own, which may be left behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from time import monotonic, sleep

from rtmanager import failpoints
from rtmanager.adapters.free_space import Free
from rtmanager.adapters.state_root import KeptGames, StateRoot
from rtmanager.domain.errors import (
    IN_MESSAGE,
    DependencyError,
    ErrorCode,
    InvalidValue,
    RuntimeManagerError,
    TemporaryAnswer,
    Unavailable,
)
from rtmanager.domain.game import check_game_id
from rtmanager.domain.system_paths import system_directory
from rtmanager.ports.runtime import StateDirectoryInvalid
from rtmanager.resources import lacking
from rtmanager.threads import Thread

#: The effect's name in `failpoints`.
_PREPARE = "directory.prepare"

_OPEN = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: Error codes with a message and a remedy.
_EXPLAINED = {
    errno.ENOENT: "it does not exist; create it, or correct RTMANAGER_GAME_STATE_ROOT",
    errno.ENOTDIR: "it is not a directory; move away what stands there",
    errno.ELOOP: "it is a symbolic link, and links are not followed; put the directory itself there",
    errno.EACCES: "this process (user {user}) has no permission; give its user access: read, write and enter",
    errno.EPERM: "it may not be given the configured owner and mode; give this process (user {user}) CAP_CHOWN, or "
    "name its own user in RTMANAGER_GAME_STATE_OWNER_UID and _GID; as root, chattr -i",
    errno.EROFS: "its file system is read-only; mount it writable",
    errno.ENOSPC: "its file system is full; free some space",
    errno.EDQUOT: "its quota is used up; raise it",
    errno.ENOTEMPTY: "it holds something that is not this service's; look at it and remove it",
    errno.EIO: "its file system or disk fails; see the kernel's log",
    errno.ESTALE: "its file server does not know it any more; mount it again",
}
#: The same for the root, in which a directory is to be created.
_EXPLAINED_OF_ROOT = _EXPLAINED | {errno.EPERM: "no directory may be made in it; is it immutable (`lsattr -d`)?"}
#: The number of the capability to change owners.
_CAP_CHOWN = 0
#: The id by which `chown` leaves an owner or a group unchanged.
_SAME = -1
#: Errors that a person has to mend. Every other error is temporary and retried.
FINAL = frozenset(_EXPLAINED) - {errno.EIO, errno.ESTALE} | {errno.EINVAL}
_DEPENDENCY = "state root"
#: Errors that `check_root` cannot find, since it creates nothing. The root counts as full for `FULL_FOR_S` seconds
#: after the last of them.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
FULL_FOR_S = 30.0
#: The directory of a trial. No game has this name: a game id does not begin with a dot.
TRIAL = ".rtmanager-trial"
_LOCK_AGAIN_S = 0.1
#: Seconds that a call may take; one that takes longer hangs.
LIMIT_S = 15.0
#: Calls that may hang at once; at this number the whole file system hangs, and no further call begins.
MOST_HANGING = 16


class LeadsToSystem(StateDirectoryInvalid):
    """The root resolves, by links on its path, to a directory of the system."""

    remedy = IN_MESSAGE

    def __init__(self, root: str, system: str) -> None:
        super().__init__(
            f"state directory {root}: its links lead to {system}, which is the system's; name a directory for games "
            "alone in RTMANAGER_GAME_STATE_ROOT"
        )


class HostStateDirectories:
    """One directory per game under `root`, with `mode` (permission bits) and the owner `uid`, `gid`."""

    def __init__(
        self,
        root: str,
        mode: int,
        uid: int,
        gid: int,
        *,
        min_free_bytes: int = 0,
        kept_games: KeptGames = tuple,
    ) -> None:
        """Configure the root; `kept_games` returns some games on record that must have a directory."""
        self._root = root
        self._fitness = StateRoot(root, min_free_bytes, kept_games)
        self._mode = mode
        self._uid = uid
        self._gid = gid
        self._lock = threading.Lock()
        #: The calls in progress by game; the key of `check_root` is empty.
        self._calls: dict[str, _Call] = {}
        #: Time and message of the last `prepare` that found the root full; None after a success.
        self._full: tuple[float, str] | None = None

    def check_root(self) -> None:
        """Raise unless directories can be created under the root, as `prepare` does; changes nothing.

        Unreadable records count as no fault of the root.
        """
        self._bounded("", self._check_root)

    def problem(self) -> str:
        """Return which call has hung for longest, or that the root is full; empty without a problem."""
        found_at, full = self._full or (0.0, "")
        return self._longest_hang() or (full if monotonic() - found_at < FULL_FOR_S else "")

    def _longest_hang(self) -> str:
        with self._lock:
            hanging = self._hanging()
        if not hanging:
            return ""
        game_id, call = min(hanging.items(), key=lambda each: each[1].began)
        what = f"preparing the directory of game {game_id}" if game_id else "opening it"
        return f"{self._root} does not answer: {what} has not ended for {call.age_s:.0f} s; look at its file system"

    def _hanging(self) -> dict[str, _Call]:
        return {game_id: call for game_id, call in self._calls.items() if call.age_s >= LIMIT_S}

    def _bounded(self, game_id: str, work: Callable[[], object]) -> object:
        """Run the work within `LIMIT_S`. While a call for the same game is in progress, wait for that one instead."""
        with self._lock:
            call = self._calls.get(game_id)
            if call is None and len(self._hanging()) < MOST_HANGING:
                call = self._calls[game_id] = _Call(work, lambda: self._over(game_id))
        if call is None or not call.ends_in_time():
            raise Unavailable(
                _DEPENDENCY, self._longest_hang() or f"{self._root} did not answer in time", untouched=True
            )
        return call.outcome.result()

    def _over(self, game_id: str) -> None:
        with self._lock:
            del self._calls[game_id]

    def _check_root(self) -> None:
        with _explained(self._root), self._open_root() as root:
            _refuse_read_only(root)
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=root, effective_ids=True):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            self._fitness.require_room(root)
            with suppress(DependencyError):
                self._fitness.require_games(root)

    def warning(self) -> str:
        """Return why a new directory can probably not be given to its owner; empty when it can.

        Directories that are already right can be used all the same. Only a trial is certain: a file server has its own
        rules.
        """
        mine = self._uid == os.geteuid() and self._gid in {os.getegid(), *os.getgroups()}
        if mine or _may_change_owners():
            return ""
        owner = f"{self._uid}:{self._gid}"
        return f"this process is no user {owner} and has no CAP_CHOWN: it cannot make the directory of a new game"

    @contextmanager
    def trial(self) -> Iterator[str]:
        """Create a directory like a game's, yield its path, and remove it. Raises as `prepare`.

        It reuses what a killed trial left behind, and waits for a concurrent trial.
        """
        with self._only_trial():
            self._bounded(TRIAL, lambda: self._prepare(TRIAL))
            try:
                yield self.path_of(TRIAL)
            finally:
                self._bounded(TRIAL, self._discard)

    @contextmanager
    def _only_trial(self) -> Iterator[None]:
        """Lock the root against concurrent trials; without the right to read it, there is no lock."""
        try:
            locked = os.open(self._root, _OPEN & ~os.O_PATH)
        except OSError:
            yield
            return
        try:
            self._lock_trials(locked)
            yield
        finally:
            os.close(locked)

    def _lock_trials(self, root: int) -> None:
        until = monotonic() + LIMIT_S
        while True:
            try:
                fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if monotonic() >= until:
                    raise Unavailable(_DEPENDENCY, f"another check has {self._root} and does not end") from error
                sleep(_LOCK_AGAIN_S)
            except OSError:  # a file system without locks
                return
            else:
                return

    def _discard(self) -> None:
        """Remove the trial's directory, which is empty."""
        with _explained(self.path_of(TRIAL)), self._open_root() as root, failpoints.around("directory.discard"):
            try:
                os.rmdir(TRIAL, dir_fd=root)
            except PermissionError:  # in a root with the sticky bit only an owner may remove it
                os.chown(TRIAL, os.geteuid(), _SAME, dir_fd=root, follow_symlinks=False)
                os.rmdir(TRIAL, dir_fd=root)

    def room(self) -> Free:
        """Return the free space of the root's file system. Raises as `check_root`."""
        found: list[Free] = []
        self._bounded("", lambda: found.append(self._room()))
        return found[0]

    def _room(self) -> Free:
        with _explained(self._root), self._open_root() as root:
            return Free.of(os.fstatvfs(root))

    @contextmanager
    def _open_root(self) -> Iterator[int]:
        """Open the root; raises `StateDirectoryInvalid` when links lead to a directory of the system."""
        with _directory(self._root) as root:
            if system := system_directory(os.readlink(_through(root))):
                raise LeadsToSystem(self._root, system)
            yield root

    def path_of(self, game_id: str) -> str:
        """See the port."""
        return os.path.join(self._root, game_id)

    def is_missing(self, game_id: str) -> bool:
        """See the port."""
        _check_name(game_id)
        # May wait for a hanging `prepare` instead, which has then created the directory.
        return self._bounded(game_id, lambda: self._is_missing(game_id)) is True

    def _is_missing(self, game_id: str) -> bool:
        with _explained(self._root), _directory(self._root) as root, _explained(self.path_of(game_id)):
            try:
                os.stat(game_id, dir_fd=root, follow_symlinks=False)
            except FileNotFoundError:
                return True
        return False

    def prepare(self, game_id: str) -> str:
        """Create the game's directory, or correct its owner and mode; returns its path.

        Its content stays unchanged. Raises as the port says.
        """
        _check_name(game_id)
        try:
            self._bounded(game_id, lambda: self._prepare(game_id))
        except StateDirectoryInvalid as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL:
                self._full = (monotonic(), str(error))
            raise
        self._full = None
        return self.path_of(game_id)

    def _prepare(self, game_id: str) -> None:
        path = self.path_of(game_id)
        with _explained(self._root), self._open_root() as root, failpoints.around(_PREPARE):
            self._fitness.require_room(root)
            if game_id != TRIAL:  # a trial may precede the time when the records can be read
                self._fitness.require_games(root)
            with suppress(FileExistsError):
                os.mkdir(game_id, 0o700, dir_fd=root)  # no other user may enter before owner and mode are set
            with _explained(path, _EXPLAINED, FINAL - {errno.ENOENT}), _directory(game_id, root) as directory:
                _refuse_read_only(directory)
                self._adjust(directory)

    def _adjust(self, directory: int) -> None:
        """Change only what differs, so that a directory that is right needs no privilege."""
        if stat.S_IMODE(os.fstat(directory).st_mode) != self._mode:
            self._set_mode(directory)
        found = os.fstat(directory)
        if (found.st_uid, found.st_gid) != (self._uid, self._gid):
            os.chown(_through(directory), _changed(found.st_uid, self._uid), _changed(found.st_gid, self._gid))

    def _set_mode(self, directory: int) -> None:
        """Set the mode, of another user's directory as well."""
        try:
            os.chmod(_through(directory), self._mode)
        except PermissionError:
            # With CAP_CHOWN alone only an owner may. A process killed here leaves a directory that the next try
            # corrects.
            os.chown(_through(directory), os.geteuid(), _SAME)
            os.chmod(_through(directory), self._mode)


def _check_name(game_id: str) -> None:
    try:
        check_game_id(game_id)
    except InvalidValue as error:
        raise StateDirectoryInvalid(str(error)) from error


class _Call:
    """Work on a thread of its own; `over` is called at its end."""

    def __init__(self, work: Callable[[], object], over: Callable[[], None]) -> None:
        self._work = work
        self._over = over
        self.began = monotonic()
        self.outcome: Future[object] = Future()
        Thread(self._run, "rtm-state-root").start()

    @property
    def age_s(self) -> float:
        return monotonic() - self.began

    def ends_in_time(self) -> bool:
        """Wait until the work has ended, or has taken `LIMIT_S`; returns whether it has ended."""
        return bool(wait([self.outcome], max(0.0, LIMIT_S - self.age_s)).done)

    def _run(self) -> None:
        try:
            result = self._work()
        except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
            self._over()
            self.outcome.set_exception(error)
        else:
            self._over()
            self.outcome.set_result(result)


def _may_change_owners() -> bool:
    """Return whether this process has CAP_CHOWN."""
    with open("/proc/self/status", "rb") as status:
        [effective] = [line.split()[1] for line in status if line.startswith(b"CapEff:")]
    return bool(int(effective, 16) >> _CAP_CHOWN & 1)


def _through(directory: int) -> str:
    """Return a path to exactly this open directory, for calls that accept no descriptor of `O_PATH`."""
    return f"/proc/self/fd/{directory}"


def _changed(found: int, wanted: int) -> int:
    """Return an id for `chown`: setting a group alone may need no privilege, setting an owner does."""
    return _SAME if found == wanted else wanted


@contextmanager
def _directory(path: str, parent: int | None = None) -> Iterator[int]:
    try:
        descriptor = os.open(path, _OPEN, dir_fd=parent)
    except NotADirectoryError as error:  # Linux reports this for a link too, which would mislead
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
def _explained(
    path: str, explained: Mapping[int, str] = _EXPLAINED_OF_ROOT, final: frozenset[int] = FINAL
) -> Iterator[None]:
    """Map system errors about `path` to a message with a remedy; errors in `final` are not retried."""
    try:
        yield
    except (OSError, MemoryError) as error:
        raise _outcome(path, error, explained, final) from error


def _outcome(
    path: str, error: OSError | MemoryError, explained: Mapping[int, str], final: frozenset[int]
) -> RuntimeManagerError:
    """Return the error of an operation for a system error about `path`."""
    where = f"state directory {path}"
    if lack := lacking(error):
        silence = Unavailable(_DEPENDENCY, f"{where}: {lack}; {lack.remedy}", untouched=True)
        silence.remedy = IN_MESSAGE
        return silence
    number = getattr(error, "errno", None) or 0
    why = explained.get(number, "").format(user=os.geteuid())
    message = f"{where}: {why or getattr(error, 'strerror', None) or error}"
    found: RuntimeManagerError
    if number in final:
        found = StateDirectoryInvalid(message)
    else:
        answer = f"{_DEPENDENCY}: {errno.errorcode.get(number, 'unknown')}"
        found = TemporaryAnswer(_DEPENDENCY, message, answer=answer, code=ErrorCode.START_CONFIG_INVALID)
    found.remedy = IN_MESSAGE if why else None
    return found
