"""Directories of the operating system, which must not hold games."""

from __future__ import annotations

from pathlib import PurePosixPath

#: Excluded with everything below them.
_WHOLE = frozenset(
    {
        *(
            "/bin",
            "/boot",
            "/dev",
            "/etc",
            "/lib",
            "/lib32",
            "/lib64",
            "/libx32",
            "/lost+found",
            "/proc",
            "/sbin",
            "/sys",
        ),
        *(
            "/usr/bin",
            "/usr/include",
            "/usr/lib",
            "/usr/lib32",
            "/usr/lib64",
            "/usr/libexec",
            "/usr/libx32",
            "/usr/sbin",
        ),
    }
)
#: Excluded themselves; a directory below one of them may hold games.
_THEMSELVES = frozenset(
    {
        *("/", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/usr", "/var"),
        *("/run/lock", "/run/user", "/usr/games", "/usr/local", "/usr/share", "/usr/src"),
        *(
            "/var/backups",
            "/var/cache",
            "/var/lib",
            "/var/lib/containerd",
            "/var/lib/docker",
            "/var/local",
            "/var/lock",
        ),
        *("/var/log", "/var/mail", "/var/opt", "/var/run", "/var/spool", "/var/tmp"),
    }
)


def system_directory(path: str) -> str:
    """Return the system directory that contains this absolute path without `..` and links; empty if none."""
    found = PurePosixPath(path)
    if str(found) in _THEMSELVES:
        return str(found)
    return next((str(each) for each in (found, *found.parents) if str(each) in _WHOLE), "")
