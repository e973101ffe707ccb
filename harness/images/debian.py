"""A base image without a registry: Debian's packages, unpacked straight into an image.

The packages come from this machine's own package sources, with all they depend on, and are unpacked, not
installed: no maintainer script runs, so the whole takes some ten seconds where a bootstrapped system takes a
minute. What is left out serves only those scripts or a compiler for queries: some 120 MB.
"""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ImageUnavailable
from harness.machine import apt
from harness.progress import step

if TYPE_CHECKING:
    from docker import APIClient

#: What the image is for, and the least that makes a system around it.
PACKAGES = (
    "postgresql",
    "redis-server",
    "python3",
    "base-files",
    "base-passwd",
    "dash",
    "coreutils",
    "libc-bin",
)

#: Dependencies that nothing in a container of ours runs.
LEFT_OUT = ("libllvm", "libz3", "perl", "libperl", "locales", "libc-l10n", "dpkg_", "debconf", "adduser")

#: Paths of packages that stay out of the image.
UNWANTED_PATHS = ("./usr/share/doc/*", "./usr/share/man/*", "./usr/share/locale/*", "*/lib/bitcode/*")

#: Users that the packages' own scripts would have made.
USERS = {"postgres": 70, "redis": 999}


def tag() -> str:
    """The reference of the base image; another one when what it is made of changes."""
    made_of = repr((PACKAGES, LEFT_OUT, UNWANTED_PATHS, USERS)).encode()
    return f"rtm-harness/base:{hashlib.sha256(made_of).hexdigest()[:12]}"


def possible() -> bool:
    """Whether this machine can make the base image."""
    return apt.available()


def build(client: "APIClient") -> None:
    """Make the base image and name it `tag()`; raises ImageUnavailable."""
    if not possible():
        raise ImageUnavailable(
            "no image registry answers, and without apt a base image cannot be made here: "
            "let the daemon reach a registry, or name images in RTM_IT_POSTGRES_IMAGE, RTM_IT_REDIS_IMAGE "
            "and RTM_IT_ENGINE_BASE_IMAGE"
        )
    with tempfile.TemporaryDirectory(prefix="rtm-base-") as scratch:
        root = Path(scratch) / "root"
        with step("base image: downloading Debian packages"):
            packages = apt.download(PACKAGES, Path(scratch) / "apt")
        with step(f"base image: unpacking {len(packages)} packages"):
            _unpack([package for package in packages if not package.name.startswith(LEFT_OUT)], root)
            _add_users(root)
        with step("base image: importing"):
            _import(client, root)


def _unpack(packages: Sequence[Path], root: Path) -> None:
    for directory in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / directory).mkdir(parents=True)
        (root / directory).symlink_to(f"usr/{directory}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda package: _unpack_one(package, root), packages))


def _unpack_one(package: Path, root: Path) -> None:
    excluded = [f"--exclude={path}" for path in UNWANTED_PATHS]
    command = ["tar", "-x", "-p", "-C", str(root), "--keep-directory-symlink", *excluded]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as source:
        unpacked = subprocess.run(command, stdin=source.stdout, stderr=subprocess.PIPE, text=True, check=False)
    if source.returncode or unpacked.returncode:
        raise ImageUnavailable(f"{package.name} cannot be unpacked: {unpacked.stderr.strip()}")


def _add_users(root: Path) -> None:
    masters = root / "usr" / "share" / "base-passwd"
    users = "".join(f"{name}:x:{number}:{number}::/nonexistent:/bin/sh\n" for name, number in USERS.items())
    groups = "".join(f"{name}:x:{number}:\n" for name, number in USERS.items())
    (root / "etc" / "passwd").write_text((masters / "passwd.master").read_text() + users)
    (root / "etc" / "group").write_text((masters / "group.master").read_text() + groups)


def _import(client: "APIClient", root: Path) -> None:
    repository, _, version = tag().rpartition(":")
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as archive:
        answer = client.import_image_from_stream(archive.stdout, repository=repository, tag=version)
    if archive.returncode or '"error"' in str(answer):
        raise ImageUnavailable(f"the base image cannot be imported: {answer}")
