"""Builds a base image without a registry: Debian's packages, unpacked directly into an image.

The packages and all their dependencies come from this machine's package sources. They are unpacked, not installed: no
maintainer script runs, so it takes some ten seconds, and a bootstrapped system a minute. Packages that only these
scripts or the JIT compiler of queries need are left out: some 120 MB.
"""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ImageUnavailable
from harness.machine import apt
from harness.progress import step

if TYPE_CHECKING:
    from docker import APIClient

#: Dependencies that no program in these containers uses.
LEFT_OUT = ("libllvm", "libz3", "perl", "libperl", "locales", "libc-l10n", "dpkg_", "debconf", "adduser")

#: Paths of packages that are not unpacked.
UNWANTED_PATHS = ("./usr/share/doc/*", "./usr/share/man/*", "./usr/share/locale/*", "*/lib/bitcode/*")


@dataclass(frozen=True)
class Base:
    """A base image: its purpose, and the packages of a minimal system for it."""

    name: str
    packages: tuple[str, ...]
    #: The variables by which a user replaces the images that are built on it.
    variables: tuple[str, ...]
    #: Users that the packages' maintainer scripts would create.
    users: Mapping[str, int] = field(default_factory=dict)
    #: Whether dependencies of the packages are unpacked, too.
    with_dependencies: bool = True

    @property
    def tag(self) -> str:
        """Its reference, which changes with its inputs."""
        made_of: tuple[object, ...] = (self.packages, LEFT_OUT, UNWANTED_PATHS, dict(self.users))
        if not self.with_dependencies:
            made_of = (*made_of, "without dependencies")
        return f"rtm-harness/{self.name}:{hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]}"

    def unpacks(self, package: Path) -> bool:
        """Whether a downloaded package goes into the image."""
        if self.with_dependencies:
            return not package.name.startswith(LEFT_OUT)
        return package.name.partition("_")[0] in self.packages


#: For PostgreSQL, Redis and programs in Python together.
SERVERS = Base(
    "base",
    (
        "postgresql",
        "redis-server",
        "python3",
        "base-files",
        "base-passwd",
        "dash",
        "coreutils",
        "libc-bin",
    ),
    ("RTM_IT_POSTGRES_IMAGE", "RTM_IT_REDIS_IMAGE", "RTM_IT_BASE_IMAGE"),
    {"postgres": 70, "redis": 999},
)

#: For the image registry, which few tests need. It is one program; its package depends on Perl to add a user.
REGISTRY = Base(
    "registry-base",
    ("docker-registry", "base-files", "dash", "libc6"),
    ("RTM_IT_REGISTRY_IMAGE",),
    with_dependencies=False,
)


def possible() -> bool:
    """Whether this machine can build the base image."""
    return apt.available()


def build(client: "APIClient", base: Base) -> None:
    """Build a base image and tag it; raises ImageUnavailable."""
    if not possible():
        raise ImageUnavailable(
            "no image registry answers, and without apt a base image cannot be made here: "
            f"let the daemon reach a registry, or name images in {' and '.join(base.variables)}"
        )
    with tempfile.TemporaryDirectory(prefix="rtm-base-") as scratch:
        root = Path(scratch) / "root"
        root.mkdir()
        root.chmod(0o755)
        with step(f"{base.name} image: downloading Debian packages"):
            packages = [each for each in apt.download(base.packages, Path(scratch) / "apt") if base.unpacks(each)]
        with step(f"{base.name} image: unpacking {len(packages)} packages"):
            _unpack(packages, root)
            if base.users:
                _add_users(base.users, root)
        with step(f"{base.name} image: importing"):
            _import(client, root, base.tag)


def _unpack(packages: Sequence[Path], root: Path) -> None:
    for directory in ("bin", "sbin", "lib", "lib64"):
        made = root / "usr" / directory
        made.mkdir(parents=True)
        for each in (made.parent, made):
            each.chmod(0o755)  # whatever the umask is
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


def _add_users(users: Mapping[str, int], root: Path) -> None:
    masters = root / "usr" / "share" / "base-passwd"
    passwd = "".join(f"{name}:x:{number}:{number}::/nonexistent:/bin/sh\n" for name, number in users.items())
    group = "".join(f"{name}:x:{number}:\n" for name, number in users.items())
    for name, text in (("passwd", passwd), ("group", group)):
        file = root / "etc" / name
        file.write_text((masters / f"{name}.master").read_text() + text)
        file.chmod(0o644)  # whatever the umask is: servers look up their own user


def _import(client: "APIClient", root: Path, tag: str) -> None:
    repository, _, version = tag.rpartition(":")
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as archive:
        answer = client.import_image_from_stream(archive.stdout, repository=repository, tag=version)
    if archive.returncode or '"error"' in str(answer):
        raise ImageUnavailable(f"the base image cannot be imported: {answer}")
