"""What must be true of a platform when nothing is on its way: read from PostgreSQL, Redis and Docker alone.

    jobs = [Job("runtime:start_jobs", entry_id, game_id), …]
    wait_until("quiet", lambda: is_quiet(world), describe=lambda _: "; ".join(unquiet(world)))
    assert violations(world, jobs) == []

The rule it keeps: nothing that the manager says about itself is believed. `world` reads everything once, `jobs`,
`containers`, `games` and `messages` judge what was read, and each violation begins with the name of its invariant
(docs/architecture.md). What a reconcile period may still mend counts as a violation until it is mended: after a
fault, wait for an empty list and not for the first one.
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
    """What is wrong, one sentence each; empty when all is well.

    `jobs` are all that were ever added, `bystanders` containers that nobody may touch, `markers` files that the test
    wrote into games' directories. `deaths` are the ids of containers that ended or went by somebody else's doing; None
    when nobody kept a list, and then I7 is not judged.
    """
    return judge(read(world, bystanders, markers or {}), jobs, deaths)


def judge(seen: Snapshot, jobs: Sequence[Job], deaths: Collection[str] | None = None) -> list[str]:
    """As `violations`, of what was read."""
    return [
        *job_rules.violations(seen, jobs),
        *containers.violations(seen),
        *games.violations(seen),
        *messages.violations(seen, jobs, deaths),
    ]
