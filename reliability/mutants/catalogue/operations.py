"""The effects of start, stop, restart, patch and cleanup on a game, and their limits."""

from reliability.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="replay-starts-again",
        breaks="a start that is sent twice throws the players out: the game gets a new container",
        file="rtmanager/operations/start.py",
        old="    if record is not None and record.status is Status.RUNNING:\n",
        new="    if record and record.status is Status.RUNNING and record.current_image_ref != image_ref:\n",
        module="test_replay",
    ),
    Mutant(
        name="stop-removes",
        breaks="a stopped game's container, and with it its log, is gone",
        file="rtmanager/operations/stop.py",
        old="        end_container(progress, tools, record.current_container_id)\n",
        new="        end_container(progress, tools, record.current_container_id)\n"
        "        tools.runtime.remove(record.current_container_id)\n",
        module="test_lifecycle",
    ),
    Mutant(
        name="stop-kills",
        breaks="a game is killed at once and cannot save its turn",
        file="rtmanager/operations/stop.py",
        old="tools.settings.stop_grace_s)",
        new="0)",
        module="test_container",
    ),
    Mutant(
        name="stop-requested-by-nobody",
        breaks="the health of a game that was stopped on purpose does not say that the manager stopped it",
        file="rtmanager/operations/stop.py",
        old="explained(RequestedBy.MANAGER)",
        new="explained(RequestedBy.UNKNOWN)",
        module="test_last_exit",
    ),
    Mutant(
        name="cleanup-deletes-state",
        breaks="the cleanup of a game deletes its saved turns",
        file="rtmanager/operations/cleanup.py",
        old="    progress.set_record(record.removed(progress.now()))\n",
        new="    progress.set_record(record.removed(progress.now()))\n"
        '    __import__("shutil").rmtree(record.state_path)\n',
        module="test_lifecycle",
    ),
    Mutant(
        name="patch-stops-first",
        breaks="a patch whose image cannot be pulled leaves the game stopped",
        file="rtmanager/operations/recreate.py",
        old="""    try:
        spec = prepare(progress, tools, image_ref)
        _check_name""",
        new="""    _stop_part(progress, tools, record)
    try:
        spec = prepare(progress, tools, image_ref)
        _check_name""",
        module="test_patch",
    ),
    Mutant(
        name="birthday-lost",
        breaks="a game that is started again seems to be created anew",
        file="rtmanager/adapters/postgres/sql/endings.sql",
        old="        removed_at = new.removed_at, last_op_at = new.last_op_at\n    FROM ours,\n",
        new="        removed_at = new.removed_at, last_op_at = new.last_op_at, created_at = now()\n    FROM ours,\n",
        module="test_lifecycle",
    ),
    Mutant(
        name="disappearance-not-told",
        breaks="nobody hears that a game's container was gone when it was to be stopped",
        file="rtmanager/operations/stop.py",
        old="        progress.observe(\n",
        new="        repr(\n",
        module="test_jobs",
    ),
    Mutant(
        name="pull-policy-ignored",
        breaks="under the policy `always` the old image goes on being started",
        file="rtmanager/adapters/docker/images.py",
        old="        found = None if policy is PullPolicy.ALWAYS else self._find(full)\n",
        new="        found = self._find(full)\n",
        module="test_pull",
    ),
    Mutant(
        name="stranger-removed",
        breaks="a dead container of somebody else that has a game's name is removed",
        file="rtmanager/domain/container.py",
        old="""spec.network not in found.networks | {found.made_for}:
        return NameConflict.REFUSE
""",
        new="""spec.network not in found.networks | {found.made_for}:
        return NameConflict.REMOVE
""",
        module="test_notification",
    ),
    Mutant(
        name="record-overwritten",
        breaks="what became true of a game while an operation ran is overwritten by its end",
        file="rtmanager/adapters/postgres/sql/endings.sql",
        old="""    WHERE ours.record IS NOT NULL AND r.game_id = ours.game_id AND r.status = seen.status
      AND r.current_container_id IS NOT DISTINCT FROM seen.current_container_id
""",
        new="    WHERE ours.record IS NOT NULL AND r.game_id = ours.game_id\n",
        module="test_jobs_order",
    ),
)
