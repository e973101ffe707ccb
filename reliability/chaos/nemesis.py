"""Executes the faults of a round one after the other, and reverts each after its duration.

Manual actions on containers are recorded before they are done, so that a manager's events about such a container count
as true. A fault without a target (a container that a manager has just removed) is recorded as missed.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from harness.waiting import wait_until
from reliability.chaos import containers, servers
from reliability.chaos.instances import Instance
from reliability.chaos.plan import Fault
from reliability.chaos.platform import Platform

#: Executes a fault; the returned function reverts it.
Act = Callable[[Platform, Fault], Callable[[], object] | None]

#: Seconds in which an instance must start when everything is healthy.
UP_TIMEOUT_S = 60.0
#: The measures of the faults `delay` and `slow`.
DELAY_S, BYTES_PER_S = 0.4, 4000.0


class Nemesis:
    """Executes the faults of a round on a thread of its own."""

    def __init__(self, platform: Platform, faults: Sequence[Fault]) -> None:
        self.failure: BaseException | None = None
        self._platform = platform
        self._faults = faults
        self._under_way: list[tuple[float, Fault, Callable[[], object]]] = []
        self._thread = threading.Thread(target=self._run, name="nemesis", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._began = time.monotonic()
        self._thread.start()

    def join(self) -> None:
        """Wait until all faults are done and reverted. Raises the thread's exception, which is a defect of the run."""
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            for fault in self._faults:
                self._take_back(until=self._began + fault.at_s)
                _sleep_until(self._began + fault.at_s)
                self._begin(fault)
            self._take_back(until=float("inf"))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self.failure = error

    def _begin(self, fault: Fault) -> None:
        from docker.errors import APIError

        about = {"target": fault.target, "how": fault.how, "instance": fault.instance, "lasts_s": fault.lasts_s}
        with self._platform.history.deed("nemesis", fault.kind, **about) as known:
            try:
                undo = ACTS[fault.kind](self._platform, fault)
                known["outcome"] = "ok"
            except (APIError, containers.Missed) as error:
                known["outcome"], known["why"] = "missed", str(error)
                return
        if undo:
            # At the planned time, however long the fault took to begin: the next one depends on it.
            self._under_way.append((self._began + fault.at_s + fault.lasts_s, fault, undo))

    def _take_back(self, until: float) -> None:
        """Revert the faults that are due before `until`, each at its time."""
        while self._under_way:
            due = min(self._under_way, key=lambda each: each[0])
            if due[0] > until:
                return
            _sleep_until(due[0])
            self._under_way.remove(due)
            with self._platform.history.deed("nemesis", f"{due[1].kind}, over", target=due[1].target) as known:
                due[2]()
                known["outcome"] = "ok"


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def heal(platform: Platform) -> None:
    """Revert everything: every proxy forwards, every server and every instance is up and healthy."""
    for instance in platform.instances:
        instance.lines.pass_on()
        instance.thaw()
        instance.start()
    for instance in platform.instances:
        _wait_until_well(instance)


def _wait_until_well(instance: Instance) -> None:
    wait_until(f"instance {instance.number} to be well", lambda: instance.seems_well, timeout_s=UP_TIMEOUT_S)


# --- managers


def _instances(platform: Platform, fault: Fault) -> Sequence[Instance]:
    chosen = fault.instance or fault.target
    return platform.instances if chosen == "all" else [platform.instances[int(chosen)]]


def _start_again(instances: Sequence[Instance]) -> Callable[[], object]:
    undo = ExitStack()
    for each in instances:
        undo.callback(each.start)
    return undo.close


def _kill(platform: Platform, fault: Fault) -> Callable[[], object]:
    instances = _instances(platform, fault)
    for each in instances:
        each.kill()
    return _start_again(instances)


def _terminate(platform: Platform, fault: Fault) -> Callable[[], object]:
    [instance] = _instances(platform, fault)
    instance.terminate()
    return _start_again([instance])


def _freeze(platform: Platform, fault: Fault) -> Callable[[], object]:
    [instance] = _instances(platform, fault)
    instance.freeze()
    return instance.thaw


def _shift_clock(platform: Platform, fault: Fault) -> Callable[[], object]:
    [instance] = _instances(platform, fault)

    def start_with(seconds: int) -> None:
        instance.kill()
        instance.clock_off_s = seconds
        instance.start()

    start_with(int(fault.how))
    return lambda: start_with(0)


# --- proxies


def _line(platform: Platform, fault: Fault) -> Callable[[], object] | None:
    undo = ExitStack()
    for instance in _instances(platform, fault):
        line: Any = instance.lines[fault.target]
        undo.callback(line.pass_on)
        {
            "cut": line.cut,
            "reset": lambda line=line: line.cut(reset=True),
            "refuse": line.refuse,
            "black_hole": line.black_hole,
            "half_open": line.half_open,
            "delay": lambda line=line: line.delay(DELAY_S),
            "slow": lambda line=line: line.slow(BYTES_PER_S),
        }[fault.how]()
    return undo.close


ACTS: dict[str, Act] = {
    "manager killed": _kill,
    "managers killed": _kill,
    "manager terminated": _terminate,
    "manager frozen": _freeze,
    "manager with a wrong clock": _shift_clock,
    "line": _line,
    "server killed": servers.kill,
    "server restarted": servers.stop,
    "daemon restarted": servers.stop_daemon,
    "daemon killed": servers.kill_daemon,
    "daemon frozen": servers.freeze_daemon,
    "daemon exchanged": servers.exchange_daemon,
    "container killed": containers.kill,
    "container crashed": containers.crash,
    "container removed": containers.remove,
    "container stopped": containers.stop,
    "container restarted": containers.restart,
    "container started": containers.start,
    "container paused": containers.pause,
    "container off the network": containers.leave,
    "stranger": containers.stranger,
}
