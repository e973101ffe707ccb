"""What the operating system has to allow a process of this service: threads and their stacks, open files, memory."""

from __future__ import annotations

import errno
import resource
import threading

from rtmanager.domain.errors import RuntimeManagerError

#: Threads that a start asks for. A service without work has 23.
THREADS = 40
#: Open files that a process has to be allowed. A service without work has 24.
FILES = 64
#: Bytes of stack that a thread has to be allowed. With 64 KiB Python itself ends by SIGSEGV before it runs any code.
STACK = 256 << 10

_NO_THREAD = "can't start new thread"
_MORE_THREADS = (
    "raise the limit of processes (`ulimit -u`), of memory (`ulimit -v`, or the container's), or the container's "
    "limit of pids"
)
_MORE_FILES = "raise the limit of open files, such as `ulimit -n 1024`"
_MORE_STACK = "raise the limit of stacks, such as `ulimit -s 8192`"
_MORE_MEMORY = "raise the limit of memory (`ulimit -v`, or the container's), or free some on this host"


class NotEnough(RuntimeManagerError):
    """The system allows this process too little of something."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy: str = remedy


def require(threads: int = THREADS) -> None:
    """Raise `NotEnough` when so many threads, `STACK` bytes for each, or `FILES` open files cannot be had."""
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    if stack != resource.RLIM_INFINITY and stack < STACK:
        have, need = stack >> 10, STACK >> 10
        raise NotEnough(f"a thread of this process may have a stack of {have} KiB, and needs {need}", _MORE_STACK)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < FILES:
        raise NotEnough(f"this process may have {limit} open files, and needs {FILES}", _MORE_FILES)
    enough, started = threading.Event(), list[threading.Thread]()
    try:
        for _ in range(threads):
            thread = threading.Thread(target=enough.wait, name="rtm-resources", daemon=True)
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
    """The resource whose lack an error reports; None for any other error."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return NotEnough("this process gets no more memory", _MORE_MEMORY)
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return NotEnough("this process can start no more threads", _MORE_THREADS)
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return NotEnough("this process can open no more files", _MORE_FILES)
    return None
