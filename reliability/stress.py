"""The suite repeatedly in random order, alone and in parallel: `python -m reliability.stress`.

After each round the daemon has the same containers, networks, volumes and images as before. The temporary directory of
the runs is empty except for what is kept on purpose (a lock and the folder of state roots). Nothing else may use the
daemon meanwhile.
"""

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from harness import daemon
from harness.runs import identity
from integration.support.shuffled import SEEDS

ROOT = Path(__file__).parents[1]

_RAN = re.compile(r"^Ran (\d+) tests? in", re.MULTILINE)


def there() -> set[str]:
    """Each container, network, volume and image that the daemon has."""
    client = daemon.client()
    volumes = client.volumes()["Volumes"] or []
    return {
        *(f"container {each['Names']} {each['Id'][:12]}" for each in client.containers(all=True)),
        *(f"network {each['Name']}" for each in client.networks()),
        *(f"volume {each['Name']}" for each in volumes),
        *(f"image {each['RepoTags'] or each['Id']}" for each in client.images()),
    }


@dataclass
class Run:
    """One run of the suite as a process."""

    seed: int
    process: "subprocess.Popen[str]"

    def report(self) -> tuple[bool, int, str]:
        """Wait for its end; whether it passed, the number of tests, and its output."""
        _, written = self.process.communicate()
        ran = _RAN.search(written)
        return self.process.returncode == 0, int(ran[1]) if ran else 0, written


def start(seed: int, temporary: Path) -> Run:
    """Start the suite in the order of `seed`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "integration.support.shuffled", str(seed)],
        env=identity.child_environment({"RTM_INTEGRATION": "require", "TMPDIR": str(temporary)}),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Run(seed, process)


def left_in(temporary: Path) -> set[str]:
    """The files that runs left in their temporary directory."""
    kept = ("*/runtime-manager-it-*", "*/rtm-harness-images-*.lock")
    return {str(each) for each in temporary.rglob("*") if not any(each.match(name) for name in kept)}


def hold_round(number: int, at_once: int, before: set[str]) -> bool:
    """Run the suite `at_once` times in parallel; whether all passed and nothing was left."""
    with tempfile.TemporaryDirectory(prefix="rtm-stress-") as folder:
        began = time.monotonic()
        runs = [start(random.randrange(SEEDS), Path(folder)) for _ in range(at_once)]
        ended = [(run.seed, *run.report()) for run in runs]
        took = time.monotonic() - began
        left = (there() - before) | left_in(Path(folder))
    for seed, passed, count, written in ended:
        outcome = "passed" if passed else "FAILED"
        print(
            f"round {number:>2}  seed {seed:>6}  {count} tests {outcome}  {took:6.1f} s  left: {len(left)}", flush=True
        )
        if not passed:
            print(written)
    for each in sorted(left):
        print(f"left: {each}")
    return not left and all(passed for _, passed, _, _ in ended)


def main() -> bool:
    """Run all rounds, up to the first that fails; return whether all passed."""
    parser = argparse.ArgumentParser(prog="python -m reliability.stress", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="of one run each (10)")
    parser.add_argument("--pairs", type=int, default=1, help="rounds of two runs at once, afterwards (1)")
    arguments = parser.parse_args()
    before = there()
    sizes = [1] * arguments.rounds + [2] * arguments.pairs
    return all(hold_round(number, size, before) for number, size in enumerate(sizes, 1))


if __name__ == "__main__":
    sys.exit(not main())
