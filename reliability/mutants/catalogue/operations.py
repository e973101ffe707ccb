"""The effects of start, stop, restart, patch and cleanup on a game, and their limits."""

from reliability.mutants.check import module
from reliability.mutants.mutant import Edit, Mutant

MUTANTS = (
    Mutant(
        "replay-starts-again",
        "a start that is sent twice throws the players out: the game gets a new container",
        Edit(
            "operations/start.py",
            "    running = record if record is not None and record.status is Status.RUNNING else None\n",
            "    same = record is not None and record.current_image_ref == image_ref\n"
            "    running = record if record and record.status is Status.RUNNING and not same else None\n",
        ),
        check=module("test_replay"),
    ),
    Mutant(
        "stop-removes",
        "a stopped game's container, and with it its log, is gone",
        Edit(
            "operations/stop.py",
            "        end_container(progress, tools, record.current_container_id)\n",
            "        end_container(progress, tools, record.current_container_id)\n"
            "        tools.runtime.remove(record.current_container_id)\n",
        ),
        check=module("test_lifecycle"),
    ),
    Mutant(
        "stop-kills",
        "a game is killed at once and cannot save its turn",
        Edit("operations/stop.py", "tools.settings.stop_grace_s)", "0)"),
        check=module("test_container"),
    ),
    Mutant(
        "stop-requested-by-nobody",
        "the health of a game that was stopped on purpose does not say that the manager stopped it",
        Edit("operations/stop.py", "explained(RequestedBy.MANAGER)", "explained(RequestedBy.UNKNOWN)"),
        check=module("test_last_exit"),
    ),
    Mutant(
        "cleanup-deletes-state",
        "the cleanup of a game deletes its saved turns",
        Edit(
            "operations/cleanup.py",
            "    progress.set_record(record.removed(progress.now()))\n",
            "    progress.set_record(record.removed(progress.now()))\n"
            '    __import__("shutil").rmtree(record.state_path)\n',
        ),
        check=module("test_lifecycle"),
    ),
    Mutant(
        "patch-stops-first",
        "a patch whose image cannot be pulled leaves the game stopped",
        Edit(
            "operations/recreate.py",
            """    try:
        spec = prepare(progress, tools, image_ref)
        _check_name""",
            """    _stop_part(progress, tools, record)
    try:
        spec = prepare(progress, tools, image_ref)
        _check_name""",
        ),
        check=module("test_patch"),
    ),
    Mutant(
        "birthday-lost",
        "a game that is started again seems to be created anew",
        Edit(
            "adapters/postgres/sql/changes.sql",
            "        removed_at = new.removed_at, last_op_at = new.last_op_at\n    FROM ours,\n",
            "        removed_at = new.removed_at, last_op_at = new.last_op_at, created_at = now()\n    FROM ours,\n",
        ),
        check=module("test_lifecycle"),
    ),
    Mutant(
        "disappearance-not-published",
        "no event is published of a container that was gone when it was to be stopped",
        Edit("operations/stop.py", "        progress.observe(\n", "        repr(\n"),
        check=module("test_jobs"),
    ),
    Mutant(
        "pull-policy-ignored",
        "under the policy `always` the old image goes on being started",
        Edit(
            "adapters/docker/images.py",
            "        found = None if policy is PullPolicy.ALWAYS else self._find(full)\n",
            "        found = self._find(full)\n",
        ),
        check=module("test_pull"),
    ),
    Mutant(
        "stranger-removed",
        "a dead container of somebody else that has a game's name is removed",
        Edit(
            "domain/container.py",
            """spec.network not in found.networks | {found.made_for}:
        return NameConflict.REFUSE
""",
            """spec.network not in found.networks | {found.made_for}:
        return NameConflict.REMOVE
""",
        ),
        check=module("test_notification"),
    ),
    Mutant(
        "record-overwritten",
        "what became true of a game while an operation ran is overwritten by its end",
        Edit(
            "adapters/postgres/sql/changes.sql",
            """    WHERE ours.record IS NOT NULL AND r.game_id = ours.game_id AND r.status = seen.status
      AND r.current_container_id IS NOT DISTINCT FROM seen.current_container_id
""",
            "    WHERE ours.record IS NOT NULL AND r.game_id = ours.game_id\n",
        ),
        check=module("test_jobs_order"),
    ),
)
