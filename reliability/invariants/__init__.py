"""The invariants of a quiet platform, checked from PostgreSQL, Redis and Docker alone.

    jobs = [Job("runtime:start_jobs", entry_id, game_id), …]
    wait_until("quiet", lambda: is_quiet(world), describe=lambda _: "; ".join(unquiet(world)))
    assert violations(world, jobs) == []

The checks use no statement of the manager about itself. `world` reads everything once; `jobs`, `containers`, `games`
and `messages` check it. Each violation begins with the name of its invariant (docs/architecture.md). What a reconcile
period may still correct counts as a violation until then: after a fault, wait for an empty list instead of reading
once.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from reliability.invariants import containers, games, messages
from reliability.invariants import jobs as job_rules
from reliability.invariants.snapshot import Bystander, Job, Snapshot
from reliability.invariants.world import World, bystander, is_quiet, read, unquiet

__all__ = ["Bystander", "Job", "Snapshot", "World", "bystander", "is_quiet", "judge", "read", "unquiet", "violations"]


def violations(
    world: World,
    jobs: Sequence[Job],
    *,
    bystanders: Sequence[Bystander] = (),
    markers: Mapping[Path, str] | None = None,
    deaths: Collection[str] | None = None,
) -> list[str]:
    """All violations, one sentence each.

    `jobs` are all entries that were ever added, `bystanders` containers that no manager may touch, `markers` files that
    the test wrote into games' directories. `deaths` are the ids of containers that ended or were removed by others than
    managers; with None, I7 is not checked.
    """
    return judge(read(world, bystanders, markers or {}), jobs, deaths)


def judge(seen: Snapshot, jobs: Sequence[Job], deaths: Collection[str] | None = None) -> list[str]:
    """As `violations`, for a snapshot."""
    return [
        *job_rules.violations(seen, jobs),
        *containers.violations(seen),
        *games.violations(seen),
        *messages.violations(seen, jobs, deaths),
    ]
