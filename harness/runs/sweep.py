"""Taking away what runs left behind: this one at its end, and earlier ones that were killed.

Every container, network, volume, process and state root of the harness names its runner. `sweep` takes away what runs
have left that surely ended, and nothing of a run that is alive; `sweep_own` what this run still has. What a
Runtime Manager under test started carries no such label, but sits on a test's network, and goes with it; a Docker
daemon of a test's own goes with all that runs on it when its processes are killed, but for its cgroups. Two
sweeps at once do not disturb each other. What RTM_IT_KEEP=1 kept stays until it is asked for.
"""

import os
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import daemon
from harness.errors import WaitFailed
from harness.fixtures import container, labelled, network, registry, stateroot, volume
from harness.fixtures.dockerd import cgroups
from harness.runs import identity
from harness.runs.identity import PREFIX, Runner
from harness.waiting import wait_until

if TYPE_CHECKING:
    from docker import APIClient

#: A network that ended runs left has no containers by now, and is removed soon, or never: Docker 20.10 goes on
#: counting the endpoint of a container that was removed while it was started, until the daemon is restarted.
NETWORK_TIMEOUT_S = 5.0

#: A killed process is gone within this many seconds, whatever its parent does.
KILL_TIMEOUT_S = 30.0


@dataclass
class Swept:
    """What was taken away, by name."""

    processes: list[str] = field(default_factory=list)
    containers: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    state_roots: list[Path] = field(default_factory=list)
    cgroups: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, vars(self).values()))


def sweep(kept: bool = False, runs: Collection[str] = ()) -> Swept:
    """Take away what ended runs left behind, with `kept` also what they were told to keep; raises DaemonUnavailable.

    With `runs`, ids of runs, only what these left.
    """
    wanted = set(runs)
    return _sweep(
        daemon.client(),
        lambda by: by.is_gone() and (kept or by.kept != "yes") and (not wanted or by.run in wanted),
    )


def kept() -> dict[str, list[str]]:
    """What RTM_IT_KEEP=1 kept of ended runs, by run: containers, networks, directories; raises DaemonUnavailable."""
    client = daemon.client()
    ours = {"label": f"{PREFIX}run"}
    found: dict[str, list[str]] = {}
    for each in client.containers(all=True, filters=ours):
        _note(found, Runner.from_labels(each.get("Labels") or {}), each["Names"][0].lstrip("/"))
    for each in client.networks(filters=ours):
        _note(found, Runner.from_labels(each.get("Labels") or {}), each["Name"])
    for each in client.volumes(filters=ours)["Volumes"] or ():
        _note(found, Runner.from_labels(each.get("Labels") or {}), each["Name"])
    for directory in stateroot.directories():
        _note(found, stateroot.owner(directory), str(directory))
    return found


def _note(found: dict[str, list[str]], by: Runner | None, name: str) -> None:
    if by is not None and by.kept == "yes" and by.is_gone():
        found.setdefault(by.run, []).append(name)


def sweep_own() -> Swept:
    """Take away what this run still has."""
    mine = identity.current()
    # A client of its own: at the end of a process the shared one may be closed already.
    client = daemon.connect()
    try:
        return _sweep(client, lambda by: by == mine)
    finally:
        client.close()


def _sweep(client: "APIClient", is_left: Callable[[Runner], bool]) -> Swept:
    swept = Swept()
    # First what could make more of the rest.
    processes = _processes(is_left)
    for run in {by.run for _, _, by in processes}:
        cgroups.thaw(cgroups.name(run))  # or the kill of a daemon of theirs would wait for what is paused in it
    _kill(processes)
    swept.processes += [str(pid) for pid, _, _ in processes]
    ours = {"label": f"{PREFIX}run"}
    containers = _left(client.containers(all=True, filters=ours), is_left)
    networks = _left(client.networks(filters=ours), is_left)
    # One after the other: at the end of a process no thread can be started any more.
    for each in containers:
        container.remove(client, each["Id"])
        swept.containers.append(each["Names"][0].lstrip("/") if each["Names"] else each["Id"][:12])
    for each in networks:
        try:
            network.remove(client, each["Id"], each["Name"], timeout_s=NETWORK_TIMEOUT_S)
        except WaitFailed as failure:
            # It is in nobody's way, but for its addresses.
            sys.stderr.write(f"harness: left behind: {failure}; a restart of the Docker daemon removes it\n")
        else:
            swept.networks.append(each["Name"])
    for each in _left(client.volumes(filters=ours)["Volumes"] or (), is_left):
        try:
            volume.remove(client, each["Name"])
        except WaitFailed as failure:
            sys.stderr.write(f"harness: left behind: {failure}\n")
        else:
            swept.volumes.append(each["Name"])
    swept.images += registry.sweep_images(client)
    for each in _left(client.images(filters=ours), is_left):
        swept.images += labelled.forget(client, each)
    # Last: the engines that wrote there are gone by now.
    roots = [(each, by) for each in stateroot.directories() if (by := stateroot.owner(each)) and is_left(by)]
    # Cgroups do not tell whose they are, so they go while something is there that does.
    for run in {by.run for _, by in roots} | {by.run for _, _, by in processes}:
        swept.cgroups += cgroups.remove(cgroups.name(run))
    for directory, _ in roots:
        stateroot.remove(directory)
        swept.state_roots.append(directory)
    return swept


def _left(found: Iterable[dict[str, Any]], is_left: Callable[[Runner], bool]) -> list[dict[str, Any]]:
    named = ((each, Runner.from_labels(each.get("Labels") or {})) for each in found)
    return [each for each, by in named if by is not None and is_left(by)]


def _processes(is_left: Callable[[Runner], bool]) -> list[tuple[int, int, Runner]]:
    """Pid, start time and runner of each process that is left."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        by = Runner.of_process(int(entry.name))
        started = identity.process_start_time(int(entry.name))
        if by is not None and started is not None and is_left(by):
            found.append((int(entry.name), started, by))
    return found


def _kill(processes: Sequence[tuple[int, int, Runner]]) -> None:
    """Kill them all, then wait: one may not end before another has, if that is the first of a pid namespace."""
    for pid, _, _ in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid, started, _ in processes:
        wait_until(f"the end of process {pid}", partial(_ended, pid, started), timeout_s=KILL_TIMEOUT_S)


def _ended(pid: int, started: int) -> bool:
    return identity.process_start_time(pid) != started
