"""Removes what runs left: this one at its end, and earlier ones that were killed.

Every container, network, volume, process and state root of the harness names its runner. `sweep` removes what surely
ended runs left, and nothing of a live run; `sweep_own` removes what this run still has. Containers of a Runtime Manager
under test have no such label, but are on a test's network, and are removed with it. Killing the processes of a test's
own Docker daemon removes all that runs on it, except its cgroups. Two concurrent sweeps do not disturb each other. What
RTM_IT_KEEP=1 kept stays until `kept` is given.
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

#: Seconds. A network of an ended run has no containers any more, and is removed soon, or never. Docker 20.10 keeps
#: counting the endpoint of a container that was removed during its start, until the daemon restarts.
NETWORK_TIMEOUT_S = 5.0

#: Seconds in which a killed process is gone, whatever its parent does.
KILL_TIMEOUT_S = 30.0


@dataclass
class Swept:
    """The names of what was removed."""

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
    """Remove what ended runs left behind, with `kept` also what they kept; raises DaemonUnavailable.

    `runs` limits it to the runs with these ids.
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
    """Remove what this run still has."""
    mine = identity.current()
    # A new client: at the end of a process the shared one may be closed already.
    client = daemon.connect()
    try:
        return _sweep(client, lambda by: by == mine)
    finally:
        client.close()


def _sweep(client: "APIClient", is_left: Callable[[Runner], bool]) -> Swept:
    swept = Swept()
    # Processes first: they could create more of the rest.
    processes = _processes(is_left)
    for run in {by.run for _, _, by in processes}:
        cgroups.thaw(cgroups.name(run))  # or the kill of their daemon would wait for its paused processes
    _kill(processes)
    swept.processes += [str(pid) for pid, _, _ in processes]
    ours = {"label": f"{PREFIX}run"}
    containers = _left(client.containers(all=True, filters=ours), is_left)
    networks = _left(client.networks(filters=ours), is_left)
    # Sequentially: at the end of a process no thread can be started any more.
    for each in containers:
        container.remove(client, each["Id"])
        swept.containers.append(each["Names"][0].lstrip("/") if each["Names"] else each["Id"][:12])
    for each in networks:
        try:
            network.remove(client, each["Id"], each["Name"], timeout_s=NETWORK_TIMEOUT_S)
        except WaitFailed as failure:
            # It only occupies its addresses.
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
    # Last: the containers that wrote there are gone by now.
    roots = [(each, by) for each in stateroot.directories() if (by := stateroot.owner(each)) and is_left(by)]
    # Cgroups do not name their runner, so they go while something exists that does.
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
    """Kill them all, then wait: the first process of a pid namespace ends only after the others."""
    for pid, _, _ in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid, started, _ in processes:
        wait_until(f"the end of process {pid}", partial(_ended, pid, started), timeout_s=KILL_TIMEOUT_S)


def _ended(pid: int, started: int) -> bool:
    return identity.process_start_time(pid) != started
