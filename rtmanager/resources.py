"""Checks the limits that the operating system sets for this process: threads, stacks, open files, memory."""

from __future__ import annotations

import errno
import os
import resource
import threading

from rtmanager.domain.errors import RuntimeManagerError, Unavailable, with_remedy
from rtmanager.threads import NO_THREAD, Thread

#: Threads that a start requires. A manager without work has 23.
THREADS = 40
#: Open files of a manager without work, with a few to spare, without its connections to PostgreSQL.
FILES_WITHOUT_WORK = 24
#: Open files of one operation: a connection to Docker, the state root, the game's directory.
FILES_OF_OPERATION = 3
#: HTTP connections may take one half of all open files (`HttpLimits.within`).
FILES_FACTOR = 2
#: Bytes of stack that a thread requires. With 64 KiB Python itself ends by SIGSEGV before it runs any code.
STACK = 256 << 10

_MORE_THREADS = (
    "raise the limit of processes (`ulimit -u`), of memory (`ulimit -v`, or the container's), or the container's "
    "limit of pids"
)
_MORE_FILES = "raise the limit of open files, such as `ulimit -n 1024`"
_MORE_FILES_OF_HOST = "raise the host's limit of open files, `sysctl fs.file-max`, or end what holds so many"
_MORE_STACK = "raise the limit of stacks, such as `ulimit -s 8192`"
_MORE_MEMORY = "raise the limit of memory (`ulimit -v`, or the container's), or free some on this host"
_NO_MEMORY = ("this process gets no more memory", _MORE_MEMORY)
#: The missing resource by error number, and the remedy.
_LACKS = {
    errno.EMFILE: ("this process can open no more files", _MORE_FILES),
    errno.ENFILE: ("this host can open no more files", _MORE_FILES_OF_HOST),
    errno.ENOMEM: _NO_MEMORY,
    errno.ENOBUFS: _NO_MEMORY,
}


class NotEnough(RuntimeManagerError):
    """The system allows this process too little of a resource."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy: str = remedy


def files_needed(pool_size: int, operations: int) -> int:
    """Return the open files that a process needs, for its PostgreSQL connections and parallel operations."""
    return FILES_FACTOR * (FILES_WITHOUT_WORK + pool_size + FILES_OF_OPERATION * operations)


def require(files: int, threads: int = THREADS) -> None:
    """Raise `NotEnough` unless so many open files and threads, with `STACK` bytes each, are available."""
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    if stack != resource.RLIM_INFINITY and stack < STACK:
        have, need = stack >> 10, STACK >> 10
        raise NotEnough(f"a thread of this process may have a stack of {have} KiB, and needs {need}", _MORE_STACK)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < files:
        remedy = f"{_MORE_FILES}, or lower RTMANAGER_MAX_PARALLEL_OPERATIONS"
        raise NotEnough(f"this process may have {limit} open files, and needs {files}", remedy)
    enough, started = threading.Event(), list[Thread]()
    try:
        for _ in range(threads):
            thread = Thread(enough.wait, "rtm-resources")
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError) as error:
        message = f"this process can start {len(started)} more threads, and needs {threads}"
        raise NotEnough(message, _MORE_THREADS) from error
    finally:
        enough.set()
        for thread in started:
            thread.join()


def lacking(error: BaseException) -> NotEnough | None:
    """Return the resource whose lack an error reports; None for any other error."""
    if isinstance(error, MemoryError):
        return NotEnough(*_NO_MEMORY)
    if isinstance(error, RuntimeError) and NO_THREAD in str(error):
        return NotEnough("this process can start no more threads", _MORE_THREADS)
    if isinstance(error, OSError) and error.errno in _LACKS:
        return NotEnough(*_LACKS[error.errno])
    return None


def lacking_by_words(text: str) -> NotEnough | None:
    """As `lacking`, by the text of an error: for libraries that pass on the system's message without its number."""
    return next((NotEnough(*lack) for number, lack in _LACKS.items() if os.strerror(number) in text), None)


def lacking_for_program(error: BaseException) -> NotEnough | None:
    """As `lacking`, for an error of starting a program."""
    if isinstance(error, OSError) and error.errno == errno.EAGAIN:
        return NotEnough("this process can start no program", _MORE_THREADS)
    return lacking(error)


def out_of(lack: NotEnough) -> Unavailable:
    """Convert a lack to `Unavailable` of the host: the work that met it is not at fault."""
    return Unavailable("host", with_remedy(lack))
