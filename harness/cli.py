"""The harness's command line: `python -m harness doctor | up | down | sweep | kept | timing`.

To add a command, write a function that takes the parsed arguments and returns the exit code, and add it to COMMANDS.
OPTIONS holds a function for each command that has options. A project calls `main` with more commands and images.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness import progress
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.images.catalogue import Service


def doctor(arguments: argparse.Namespace) -> int:
    """check what this machine has and lacks, and print the remedies"""
    from harness.machine.doctor import examine

    checks = list(examine(arguments.images))
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{'ok     ' if check.ok else 'missing'}  {check.name:<{width}}  {check.detail}")
        if not check.ok and check.remedy:
            print(f"         {'':<{width}}  -> {check.remedy}")
    return 0 if all(check.ok for check in checks) else 1


def up(arguments: argparse.Namespace) -> int:
    """provide a Docker daemon and all images; install and build what is missing"""
    from harness.images.catalogue import ensure
    from harness.machine.up import up as machine_up

    began = time.monotonic()
    progress.enable()
    machine_up()
    for name, ref in ensure(arguments.images).items():
        print(f"{name:<11} {ref}")
    print(f"ready in {time.monotonic() - began:.1f} s")
    return 0


def down(arguments: argparse.Namespace) -> int:
    """remove what runs of the harness left behind; keep the images and, without --engine, the daemon"""
    from harness import daemon
    from harness.machine import dockerd

    if daemon.why_unavailable() is None:
        sweep(arguments)
    if arguments.engine and (started := dockerd.ours()):
        dockerd.stop()
        print(f"dockerd (pid {started.pid}) is stopped")
    elif arguments.engine:
        print("no daemon here was started by `python -m harness up`: nothing is stopped")
    return 0


def sweep(arguments: argparse.Namespace) -> int:
    """remove what killed runs left behind, and nothing of a run that is alive"""
    from harness.runs.sweep import sweep as sweep_all

    swept = sweep_all(kept=arguments.kept, runs=arguments.runs)
    for kind, names in (
        ("process", swept.processes),
        ("container", swept.containers),
        ("network", swept.networks),
        ("volume", swept.volumes),
        ("image", swept.images),
        ("state root", swept.state_roots),
        ("cgroup", swept.cgroups),
    ):
        for name in names:
            print(f"removed {kind} {name}")
    print(f"{len(swept)} things of ended runs were there")
    return 0


def kept(arguments: argparse.Namespace) -> int:
    """list what failed tests and RTM_IT_KEEP=1 kept for inspection, or remove it"""
    from harness import daemon
    from harness.fixtures import stateroot
    from harness.runs import sweep as sweeping

    if arguments.directories and not arguments.remove:
        print("harness: directories are named to remove them: kept --remove DIRECTORY", file=sys.stderr)
        return 2
    wanted = [each.absolute() for each in arguments.directories]
    known = {each.directory: each for each in stateroot.kept()}
    if strange := [each for each in wanted if each not in known]:
        print(f"harness: {strange[0]} is not among what is kept: `kept` lists it", file=sys.stderr)
        return 1
    for directory, each in known.items():
        if arguments.remove and (not wanted or directory in wanted):
            stateroot.remove(directory)
            print(f"removed {directory}")
        elif not wanted:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.since))
            print(f"{when}  {directory}  {each.why}")
    if not wanted and (reason := daemon.why_unavailable()):
        print(f"harness: containers and networks are not looked for: {reason}", file=sys.stderr)
    elif not wanted and arguments.remove:
        return sweep(argparse.Namespace(kept=True, runs=()))
    elif not wanted:
        for run, names in sweeping.kept().items():
            print(f"run {run} (RTM_IT_KEEP=1): {' '.join(names)}")
    return 0


def timing(arguments: argparse.Namespace) -> int:
    """report where the time of processes that ran side by side went (RTM_IT_TIMING=1, RTM_IT_TIMING_DIR)"""
    from harness.timing.report import merged

    print(merged(arguments.directory))
    return 0


def _timing_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, help="what RTM_IT_TIMING_DIR named")


def _kept_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--remove", action="store_true", help="remove it all, or the directories named")
    parser.add_argument("directories", type=Path, nargs="*", metavar="DIRECTORY", help="only these")


def _down_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", action="store_true", help="also stop the dockerd that `up` started")
    _sweep_options(parser)


def _sweep_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kept", action="store_true", help="also what ended runs kept for a look (RTM_IT_KEEP=1)")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="only what these runs left; `kept` lists their ids")


#: Every command by its name; its docstring is its help text.
COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "doctor": doctor,
    "up": up,
    "down": down,
    "sweep": sweep,
    "kept": kept,
    "timing": timing,
}

#: The functions that add options, for the commands that have any.
OPTIONS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "down": _down_options,
    "sweep": _sweep_options,
    "kept": _kept_options,
    "timing": _timing_options,
}


def main(
    argv: list[str] | None = None,
    *,
    prog: str = "python -m harness",
    images: "Mapping[str, Service] | None" = None,
    more: Mapping[str, Callable[[argparse.Namespace], int]] | None = None,
) -> int:
    """Run one command and return the exit code of the process.

    `images` are the images that `up` builds and `doctor` checks. `more` are commands beside the harness's own.
    """
    from harness.images.catalogue import USUAL

    parser = argparse.ArgumentParser(prog=prog, description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    every = {**COMMANDS, **(more or {})}
    for name, command in every.items():
        options = commands.add_parser(name, help=command.__doc__)
        if name in OPTIONS:
            OPTIONS[name](options)
    arguments = parser.parse_args(argv)
    arguments.images = USUAL if images is None else images
    try:
        return every[arguments.command](arguments)
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
