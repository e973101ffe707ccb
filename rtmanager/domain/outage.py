"""How a container ended, and who requested it: the manager, a person, Docker as it stopped or started, the host.

The table decides about an end that no operation of the manager requested. The run is the present run of the container
runtime. A container that began before it and does not run ended with the previous run. The exception is a runtime that
keeps containers across its own restarts (live-restore). Both times are by the runtime's clock, which may have been set
back since. So a container that is known to have run in the present run did not begin before it.

| signal event          | container began | live-restore | exit code | requested by | outage |
| --------------------- | --------------- | ------------ | --------- | ------------ | ------ |
| by a person           | any             | any          | any       | signal       | no     |
| by one that went down | any             | any          | 255       | host         | yes    |
| by one that went down | any             | any          | other     | docker       | yes    |
| by the runtime        | before the run  | any          | 255       | host         | yes    |
| by the runtime        | before the run  | any          | other     | docker       | yes    |
| other, none           | before the run  | off          | 255       | host         | yes    |
| other, none           | before the run  | off          | other     | docker       | yes    |
| other, none           | before the run  | on           | 255       | host         | yes    |
| any                   | otherwise       |              | any       | signal       | no     |
| none                  | otherwise       |              | any       | unknown      | no     |

Live-restore is that of the present run, and the run before may have been without it. So a signal that the runtime sent
as it went down counts whatever it is now. A runtime went down when it accepted no call after its signal, and then its
events broke off. Its present run may look like the last one: Docker keeps its default bridge when a container outlived
it, for example one that an operation started while Docker ended the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from rtmanager.domain.container import ContainerView

#: Docker's exit code for a container whose process ended with the host.
LOST = 255
#: 128 + SIGKILL: a crash, or a `docker kill` whose event was missed.
KILLED = 137
#: Signals that `docker stop` sends, or that end a process for good: INT, QUIT, KILL, TERM.
STOP_SIGNALS = frozenset({"2", "3", "9", "15"})
#: Seconds after which they no longer explain an end; the grace of a `docker stop` may be long.
STOP_EXPLAINS_S = 300.0
#: The same for other signals: an engine that lives after Docker's usual grace of 10 s has survived the signal.
SIGNAL_EXPLAINS_S = 10.0
#: Replaces an exit code that the runtime does not report.
UNKNOWN_EXIT_CODE = 255


@dataclass(frozen=True, slots=True)
class RuntimeRun:
    """The present run of the container runtime: its begin, and whether containers survive its restarts."""

    #: None when the runtime does not report it; then no end counts as an outage.
    began_at: datetime | None = None
    keeps_containers: bool = False
    #: The runtime's time when it reported this run.
    read_at: datetime | None = field(default=None, compare=False)

    def has_seen(self, time_ns: int) -> bool:
        """Whether an event of this time occurred since the run began.

        A run that begins later than now was begun by a clock that was ahead and has been set back since. An event from
        before now then occurred after that, since the runtime remembers no events of its earlier runs.
        """
        if self.began_at is None:
            return False
        is_ahead = self.read_at is not None and self.read_at < self.began_at
        return time_ns >= _ns(self.began_at) or (is_ahead and self.read_at is not None and time_ns <= _ns(self.read_at))


class Sender(StrEnum):
    """Who sent a signal to a container, as far as known."""

    PERSON = "person"
    #: The runtime, as it stopped or started.
    RUNTIME = "runtime"
    #: The runtime, whose events broke off afterwards.
    ENDED_RUNTIME = "ended runtime"
    UNKNOWN = "unknown"


class RequestedBy(StrEnum):
    """Who requested the end of a container, as far as known."""

    MANAGER = "manager"
    SIGNAL = "signal"
    DOCKER = "docker"
    HOST = "host"
    UNKNOWN = "unknown"


#: Ends that no person and no engine caused.
OUTAGES = frozenset({RequestedBy.DOCKER, RequestedBy.HOST})


@dataclass(frozen=True, slots=True)
class LastExit:
    """How a container ended; `log`: the engine's last output, unless the manager requested the end."""

    container_id: str
    exit_code: int
    oom: bool
    exited_at: datetime
    log: str = ""
    requested_by: RequestedBy = RequestedBy.UNKNOWN
    #: Whether this crash causes no restart, because the game's restart budget is used up.
    budget_used_up: bool = False

    @staticmethod
    def of(view: ContainerView, now: datetime) -> LastExit:
        """The end of a container without a process, as the runtime reports it; its clock may be ahead of `now`."""
        code = UNKNOWN_EXIT_CODE if view.exit_code is None else view.exit_code
        exited_at = now if view.finished_at is None else min(view.finished_at, now)
        return LastExit(view.container_id, code, view.oom_killed, exited_at)

    def explained(self, by: RequestedBy, log: str = "", *, memory_ran_out: bool = False) -> LastExit:
        """Return the same end with who requested it and the log; memory stays its cause only if that explains it.

        Memory explains exit code 137 that nobody requested. Docker's flag also stays set after a child was killed for
        memory and the engine lived on. `memory_ran_out`: an event reported it; under cgroup v2 the container's state
        may not.
        """
        oom = self.exit_code == KILLED and by is RequestedBy.UNKNOWN and (self.oom or memory_ran_out)
        return replace(self, oom=oom, log=log, requested_by=by)


def explains_for_s(signal: str) -> float:
    """Return the seconds for which a signal, by its number, explains an end."""
    return STOP_EXPLAINS_S if signal in STOP_SIGNALS else SIGNAL_EXPLAINS_S


def sender_of_signal(time_ns: int, run: RuntimeRun | None) -> Sender:
    """Return who sent a signal at this time; `run` is None when the runtime accepted no call after it.

    At shutdown the runtime stops accepting calls before it ends its containers. At startup it ends the containers of
    its last run before its present run begins.
    """
    if run is None:
        return Sender.RUNTIME
    if run.began_at is None:
        return Sender.UNKNOWN
    return Sender.PERSON if run.has_seen(time_ns) else Sender.RUNTIME


def requested_by(
    view: ContainerView,
    run: RuntimeRun,
    *,
    signalled: bool = False,
    sender: Sender | None = None,
    ran_in_run: bool = False,
) -> RequestedBy:
    """Return who requested an end, by the module's table.

    `signalled`: an event reported a signal to end. `sender`: who sent the signal that explains the end. `ran_in_run`:
    the container is known to have run in the present run, whatever the runtime's clock says.
    """
    if sender is Sender.PERSON:
        return RequestedBy.SIGNAL
    if sender is Sender.ENDED_RUNTIME or (not ran_in_run and _ended_with_a_run(view, run, sender)):
        return RequestedBy.HOST if view.exit_code == LOST else RequestedBy.DOCKER
    return RequestedBy.SIGNAL if signalled or sender is not None else RequestedBy.UNKNOWN


def _ns(moment: datetime) -> int:
    return round(moment.timestamp() * 10**9)


def _ended_with_a_run(view: ContainerView, run: RuntimeRun, sender: Sender | None) -> bool:
    if run.began_at is None or view.started_at is None or view.started_at >= run.began_at:
        return False
    return not run.keeps_containers or sender is Sender.RUNTIME or view.exit_code == LOST
