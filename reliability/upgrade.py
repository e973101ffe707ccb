"""Two releases on one database, one Redis and one Docker: `python -m reliability.upgrade BEFORE`, a commit or a tag.

The managers run the release before, then this one, then the one before again; after that both at once. Each phase is a
round of a chaos run whose faults are kills and ends of managers. Between two phases the managers are exchanged one at a
time, and each game that runs must keep its container.
"""

import argparse
import io
import secrets
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.runs import flag
from reliability.chaos import report
from reliability.chaos.nemesis import heal
from reliability.chaos.plan import Size
from reliability.chaos.platform import Platform
from reliability.chaos.run import Report, run

#: The release of each manager in each phase: "b" is the one before, "a" is this one.
PHASES = ("bbb", "aaa", "bbb", "abb", "aab", "aaa")
#: Seconds of requests and faults in a phase.
PHASE_S = 30.0
#: Seconds after an exchange in which the new managers list and inspect the containers at least once.
SETTLE_S = 8.0
FAULTS = ("manager killed", "managers killed", "manager terminated")
REPOSITORY = Path(__file__).resolve().parents[1]


def unpack(commit: str, directory: Path) -> str:
    """Write the manager's code of a commit into a directory; return the directory. Raises CalledProcessError."""
    command = ["git", "-C", str(REPOSITORY), "archive", commit, "rtmanager"]
    packed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(directory, filter="data")
    return str(directory)


class Exchanges:
    """Rounds of a chaos run, one for each phase, after the exchange of its managers.

    `before` is the directory with the code of the release before, `order` the phases as in `PHASES`.
    """

    def __init__(self, before: str, phase_s: float = PHASE_S, order: Sequence[str] = PHASES) -> None:
        self._codes = {"a": "", "b": before}
        self._phase_s = phase_s
        self._order = order

    def __call__(self, platform: Platform, found: Report) -> Iterator[float]:
        """Yield the seconds of each round."""
        for phase in self._order:
            began = _started(platform)
            self._exchange(platform, phase)
            found.problems += restarted(began, _started(platform))
            if found.problems:
                return
            yield self._phase_s
            found.problems += _tracebacks(platform)
            if found.problems:
                return

    def _exchange(self, platform: Platform, phase: str) -> None:
        platform.history.note("run", "phase", releases=phase)
        for instance, release in zip(platform.instances, phase, strict=True):
            if instance.code != self._codes[release]:
                instance.terminate()
                instance.code = self._codes[release]
                heal(platform)  # the next one goes when this one is well
        time.sleep(SETTLE_S)


def _started(platform: Platform) -> Mapping[str, str]:
    """When each running container of a game has started, by its id."""
    ids = [each["Id"] for each in platform.ours() if each["State"] == "running"]
    return {each: platform.docker.inspect_container(each)["State"]["StartedAt"] for each in ids}


def restarted(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    """The containers that ended or started between two readings, as violations."""
    for container_id, moment in before.items():
        if after.get(container_id) != moment:
            yield f"upgrade: container {container_id[:12]} did not run on when the managers were exchanged"


def _tracebacks(platform: Platform) -> Iterator[str]:
    for instance in platform.instances:
        if count := instance.log.read_text(errors="replace").count("Traceback"):
            yield f"upgrade: {count} tracebacks in the log of instance {instance.number}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the phases; exit code 0 when no check found a violation."""
    parser = argparse.ArgumentParser(prog="python -m reliability.upgrade", description=__doc__)
    parser.add_argument("before", help="the release before: a commit or a tag of this repository")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 30), help="default: one by chance")
    parser.add_argument("--seconds", type=float, default=PHASE_S, help="of each phase (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave history, logs, tables and streams in any case")
    given = parser.parse_args(arguments)
    flag.begin()
    with TemporaryDirectory(prefix="rtm-upgrade-") as directory:
        try:
            code = unpack(given.before, Path(directory))
        except subprocess.CalledProcessError:
            parser.error(f"{given.before} is no commit or tag of this repository; a shallow clone has only the latest")
        size = Size(managers=len(PHASES[0]), kinds=FAULTS, code=code)
        sys.stderr.write(f"upgrade: from {given.before}, seed {given.seed}\n")
        found = run(given.seed, given.seconds, size, keep=given.keep, rounds=Exchanges(code, given.seconds))
    sys.stderr.write(f"{report.table(found)}\n")
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
