"""Decides on drift between the records and the containers that the runtime reports.

| record                | its container        | others of the game   | decision                              |
| --------------------- | -------------------- | -------------------- | ------------------------------------- |
| running               | running, paused, …   | –                    | nothing; reported if renamed, off net |
| running               | exited, dead         | –                    | observed_exited: record stopped       |
| running               | being removed        | –                    | nothing yet: it is about to be gone   |
| running               | gone                 | –                    | dispose: record removed               |
| none, stopped, removed| running, agrees      | –                    | adopt: record running                 |
| any                   | –                    | alive, disagrees     | reported                              |
| any                   | in an unknown state  | the same             | reported, and nothing is concluded    |

Records follow containers; nothing here changes a container (docs/contract.md, "Watching"). A container is adopted when
its labels, name, network and image agree. That includes a stopped game's own container that a person started again, so
that a stop can end it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from rtmanager.domain.container import LABEL_IMAGE_REF, ContainerState, ContainerView
from rtmanager.domain.errors import InvalidValue
from rtmanager.domain.findings import Finding, Stray
from rtmanager.domain.game import container_name, engine_endpoint, is_game_id, shown
from rtmanager.domain.health import EventType, HealthEvent, HealthSource
from rtmanager.domain.image_ref import ImageRef, parse_image_ref
from rtmanager.domain.operation import LogEntry, OpKind, OpSource, Outcome
from rtmanager.domain.outage import LastExit, RequestedBy
from rtmanager.domain.record import RuntimeRecord, Status, has_no_name

#: States without a process: it has ended, or never started.
ENDED = frozenset({ContainerState.EXITED, ContainerState.DEAD, ContainerState.CREATED})
NONE: Mapping[str, str] = MappingProxyType({})
#: Length of a reported reason, in characters.
LONGEST_REASON = 400


@dataclass(frozen=True, slots=True)
class Placement:
    """What an adopted container must agree with: the network, and where a game's state is kept."""

    network: str
    state_path: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Observation:
    """When and how the containers were observed."""

    at: datetime
    source: HealthSource = HealthSource.INSPECT


class RunningGame(NamedTuple):
    """The part of a running game's record that a scan compares with its container."""

    game_id: str
    container_id: str | None
    network: str


def not_as_recorded(running: Iterable[RunningGame], containers: Iterable[ContainerView]) -> set[str]:
    """Return the games that need `decide`.

    These are all but the games that run as recorded and the games that do not run at all. Of ten thousand games few are
    left.
    """
    missing = {each.game_id: each for each in running}
    found: set[str] = set()
    for view in containers:
        game = missing.pop(view.game_id, None)  # None for a second container of a game, too
        agrees = view.ended if game is None else _as_recorded(view, game)
        if not agrees:
            found.add(view.game_id)
    return found | missing.keys()


def _as_recorded(view: ContainerView, game: RunningGame) -> bool:
    same = view.container_id == game.container_id and view.alive
    return same and _why_astray(view, game.game_id, game.network) is None


def decide(
    records: Iterable[RuntimeRecord],
    containers: Sequence[ContainerView],
    observation: Observation,
    placement: Placement,
    namesakes: Mapping[str, str] = NONE,
) -> list[Finding | Stray]:
    """Return all that follows from the records and the containers with the manager's labels, game by game.

    `namesakes` maps games without a running record to another game that already has their name.
    """
    known = {record.game_id: record for record in records}
    # A recorded container belongs to its game even when its labels cannot be read.
    recorded = {record.current_container_id: record.game_id for record in known.values()}
    by_game: defaultdict[str, list[ContainerView]] = defaultdict(list)
    for view in containers:
        by_game[recorded.get(view.container_id, view.game_id)].append(view)
    found: list[Finding | Stray] = []
    for game_id in sorted(known.keys() | by_game.keys()):
        record, views = known.get(game_id), by_game[game_id]
        found.extend(_decide_game(record, game_id, views, observation, placement, namesakes.get(game_id)))
    return found


def _decide_game(
    record: RuntimeRecord | None,
    game_id: str,
    views: Sequence[ContainerView],
    observation: Observation,
    placement: Placement,
    namesake: str | None,
) -> Iterator[Finding | Stray]:
    if record is None or record.status is not Status.RUNNING:
        yield from _unrecorded(
            record, game_id, views, observation, placement, namesake if has_no_name(record) else None
        )
        return
    own = next((view for view in views if view.container_id == record.current_container_id), None)
    if own is None:
        yield disposed(record, observation)
    elif own.state in ENDED:
        yield observed_exited(record, own, observation)
    elif own.state is ContainerState.UNKNOWN:
        yield _stray(game_id, own, f"the game's own container {_unknown(own)}")
    elif own.alive:
        # Other containers count only here. If the own container is gone, another may be adopted after the record
        # changes.
        yield from _astray(record, own, views)


def _astray(record: RuntimeRecord, own: ContainerView, views: Sequence[ContainerView]) -> Iterator[Stray]:
    """Report what disagrees although the game runs as recorded: its own container, or others beside it."""
    game_id = record.game_id
    if reason := _why_astray(own, game_id, record.docker_network):
        yield _stray(game_id, own, f"the game's own container {reason}")
    for view in views:
        if view.alive and view is not own:
            yield _stray(game_id, view, f"the record of game {game_id} names another container")


def _unrecorded(
    record: RuntimeRecord | None,
    game_id: str,
    views: Sequence[ContainerView],
    observation: Observation,
    placement: Placement,
    namesake: str | None,
) -> Iterator[Finding | Stray]:
    """Decide on live containers of a game that is not recorded as running: adopt the one that agrees."""
    adopted = False
    for view in views:
        if view.ended:
            continue
        reason = _why_not_adopted(view, game_id, placement) or _why_ambiguous(namesake)
        if reason is None and not adopted:
            adopted = True
            yield adopt(record, view, observation, placement)
        else:
            yield _stray(game_id, view, reason or "another container of the game was adopted")


def _stray(game_id: str, view: ContainerView, reason: str) -> Stray:
    return Stray(game_id, view.container_id, view.name, reason[:LONGEST_REASON])


def _unknown(view: ContainerView) -> str:
    return f"is in a state that this version does not know: {shown(view.state_word)}; nothing is concluded from it"


def disposed(record: RuntimeRecord, observation: Observation) -> Finding:
    """The finding that the container of a running game is gone."""
    container_id = record.current_container_id or ""
    gone = HealthEvent(
        record.game_id, container_id, EventType.CONTAINER_DISAPPEARED, observation.source, observation.at, details={}
    )
    return Finding(
        game_id=record.game_id,
        seen=record,
        why=f"container {container_id[:12]} of the running game is gone",
        new=record.removed(observation.at),
        log=(_log(OpKind.RECONCILE_DISPOSE, record, container_id, observation.at),),
        health=(gone,),
    )


def observed_exited(record: RuntimeRecord, view: ContainerView, observation: Observation) -> Finding:
    """The finding that the process of a running game has ended; the contract has no log row for it."""
    last_exit = LastExit.of(view, observation.at)
    details = {"exit_code": last_exit.exit_code, "oom": last_exit.oom}
    event = HealthEvent(
        record.game_id, view.container_id, EventType.CONTAINER_EXITED, observation.source, last_exit.exited_at, details
    )
    return Finding(
        game_id=record.game_id,
        seen=record,
        why=f"container {view.container_id[:12]} ended by itself with exit code {last_exit.exit_code}",
        new=record.stopped(observation.at),
        health=(event,),
        last_exit=last_exit,
    )


def adopt(record: RuntimeRecord | None, view: ContainerView, observation: Observation, placement: Placement) -> Finding:
    """The finding that a container runs, agrees with everything and has no running record.

    A health event is published only if the game had a record (contract, "Watching").
    """
    game_id, image_ref = view.game_id, _image_ref(view)
    new = RuntimeRecord(
        game_id=game_id,
        status=Status.RUNNING,
        current_container_id=view.container_id,
        current_image_ref=image_ref,
        engine_endpoint=engine_endpoint(game_id),
        state_path=placement.state_path(game_id),
        docker_network=placement.network,
        started_at=_not_later(view.started_at, observation),
        stopped_at=None,
        removed_at=None,
        last_op_at=observation.at,
        created_at=record.created_at if record else observation.at,
    )
    started = HealthEvent(
        game_id,
        view.container_id,
        EventType.CONTAINER_STARTED,
        observation.source,
        observation.at,
        {"image_ref": image_ref},
        published=record is not None,
    )
    before = f"recorded as {record.status}" if record else "without a record"
    return Finding(
        game_id=game_id,
        seen=record,
        why=f"container {view.container_id[:12]} runs, its game is {before}",
        new=new,
        log=(_log(OpKind.RECONCILE_ADOPT, new, view.container_id, observation.at),),
        health=(started,),
    )


def _why_not_adopted(view: ContainerView, game_id: str, placement: Placement) -> str | None:
    """Return what keeps a container from being adopted; None when all agrees."""
    if not is_game_id(game_id):
        return f"its label names game {shown(game_id)}, which cannot be a game's id"
    if not view.container_id:
        return "has no id that can be read"
    if view.state is ContainerState.UNKNOWN:
        return _unknown(view)
    if view.state is not ContainerState.RUNNING:
        return f"is {view.state} and has no running record"
    return _why_astray(view, game_id, placement.network) or _why_wrong_image(view)


def _why_ambiguous(namesake: str | None) -> str | None:
    if namesake is None:
        return None
    return f"has the name of game {namesake} but for the case, which Docker's DNS ignores"


def _why_astray(view: ContainerView, game_id: str, network: str) -> str | None:
    if view.name != container_name(game_id):
        return f"is called {view.name}, expected {container_name(game_id)}"
    if not view.belongs_to(game_id):
        return f"has labels that do not say that this service made it for game {game_id}"
    if network not in view.networks:
        return f"is not on the network {network}"
    return None


def _why_wrong_image(view: ContainerView) -> str | None:
    try:
        labelled = parse_image_ref(_image_ref(view))
        runs = labelled if view.image_ref.startswith("sha256:") else parse_image_ref(view.image_ref)
    except InvalidValue as error:
        return f"has no image that could be recorded: {error}"
    if _version(labelled) != _version(runs) or not _same_name(labelled.name, runs.name):
        return f"runs {view.image_ref}, its label says {_image_ref(view)}"
    return None


def _version(ref: ImageRef) -> str:
    """Return the version that Docker uses: of a tag and a digest, the digest."""
    return ref.digest or ref.tag or "latest"


def _same_name(one: str, other: str) -> bool:
    """Return whether two names are one repository: Docker may omit the parts of its own registry."""

    def full(name: str) -> str:
        name = name.removeprefix("docker.io/").removeprefix("index.docker.io/")
        return name.removeprefix("library/")

    return full(one) == full(other)


def _not_later(moment: datetime | None, observation: Observation) -> datetime:
    """Limit a time of the runtime's clock, which may be ahead, to the time of the observation."""
    return observation.at if moment is None else min(moment, observation.at)


def _image_ref(view: ContainerView) -> str:
    return view.labels.get(LABEL_IMAGE_REF) or view.image_ref


def _log(kind: OpKind, record: RuntimeRecord, container_id: str, now: datetime) -> LogEntry:
    return LogEntry(
        game_id=record.game_id,
        kind=kind,
        source=OpSource.AUTO_RECONCILE,
        source_ref=f"reconcile:{container_id[:12]}",
        outcome=Outcome.SUCCESS,
        started_at=now,
        finished_at=now,
        image_ref=record.current_image_ref,
        container_id=container_id,
    )


def explained(finding: Finding, by: RequestedBy, log: str, *, memory_ran_out: bool) -> Finding:
    """Return the same exit with who requested it, its log and its cause; see `LastExit.explained`."""
    if finding.last_exit is None:
        return finding
    last_exit = finding.last_exit.explained(by, log, memory_ran_out=memory_ran_out)
    health = tuple(
        replace(event, details={**event.details, "oom": last_exit.oom})
        if event.event_type is EventType.CONTAINER_EXITED
        else event
        for event in finding.health
    )
    return replace(finding, health=health, last_exit=last_exit)
