-- name: game_is_busy
-- Whether the game has an operation that is not done.
SELECT EXISTS (SELECT FROM operations WHERE game_id = %(game_id)s AND state <> 'done') AS busy;

-- name: hold_record
-- Returns a row while the record is the one that was decided on, and locks it until the transaction ends.
SELECT FROM runtime_records
WHERE game_id = %(game_id)s AND status = %(status)s
  AND current_container_id IS NOT DISTINCT FROM %(container_id)s
FOR NO KEY UPDATE;

-- name: raise_alarm
-- Returns no row when this occasion is already recorded.
INSERT INTO alarms (game_id, kind, container_id, mark, details, raised_at, restart_given_up)
VALUES (%(game_id)s, %(kind)s, %(container_id)s, %(mark)s, %(details)s::jsonb,
        LEAST(%(raised_at)s::timestamptz, clock_timestamp()), %(restart_given_up)s)
ON CONFLICT (game_id, kind) DO UPDATE
SET container_id = excluded.container_id, mark = excluded.mark, details = excluded.details,
    raised_at = excluded.raised_at, restart_given_up = excluded.restart_given_up
WHERE alarms.container_id <> excluded.container_id
   OR (alarms.mark <> excluded.mark
       -- Instances see an OOM in the same order but at different times, and a leak repeats it many times a minute.
       -- A time far ahead of the clock does not count: it would suppress every later alarm.
       AND (alarms.kind <> 'oom' OR excluded.raised_at >= alarms.raised_at + make_interval(secs => %(pause_s)s)
            OR alarms.raised_at > clock_timestamp() + make_interval(secs => %(ahead_s)s)))
RETURNING game_id;

-- name: calm_alarm
-- Returns no row when there is no alarm.
DELETE FROM alarms
WHERE game_id = %(game_id)s AND kind = %(kind)s AND container_id = %(container_id)s
RETURNING game_id;

-- name: get_alarm
SELECT container_id FROM alarms WHERE game_id = %(game_id)s AND kind = %(kind)s;

-- name: list_alarms
-- Only alarms of containers that run according to their records.
SELECT a.game_id, a.container_id, a.mark, a.details, a.raised_at, a.restart_given_up
FROM alarms a
JOIN runtime_records r ON r.game_id = a.game_id AND r.status = 'running' AND r.current_container_id = a.container_id
WHERE a.kind = %(kind)s;

-- name: forget_old_alarms
DELETE FROM alarms a
WHERE NOT EXISTS (SELECT FROM runtime_records r
                  WHERE r.game_id = a.game_id AND r.status = 'running' AND r.current_container_id = a.container_id);

-- name: clock
SELECT clock_timestamp() AS now;

-- name: restore_snapshot
-- The inspector's problem is over; the prober's may remain.
UPDATE health_snapshots s
SET status = CASE WHEN probe.game_id IS NULL THEN 'healthy' ELSE 'probe_failed' END,
    source = CASE WHEN probe.game_id IS NULL THEN 'inspect' ELSE 'probe' END,
    details = COALESCE(probe.details, '{}'), observed_at = clock_timestamp()
FROM (SELECT) one
LEFT JOIN alarms probe ON probe.game_id = %(game_id)s AND probe.kind = 'probe'
                       AND probe.container_id = %(container_id)s
WHERE s.game_id = %(game_id)s AND s.container_id = %(container_id)s AND s.status = 'inspect_unhealthy';

-- name: lock_due_restarts
-- Locks the plans of this cause that are due; skips one that another instance has locked, and one whose game has an
-- operation in progress: its end decides on the plan.
-- No plan is later than the longest pause of its try, unless the clock was ahead when it was made: then it is due, too.
SELECT p.game_id, p.container_id, p.due_at, p.tries FROM crash_restarts p
WHERE p.cause = %(cause)s
  AND (p.due_at <= %(due_by)s
       OR p.due_at > %(due_by)s + make_interval(
           secs => (%(pauses_s)s::float8[])[least(p.tries + 1, cardinality(%(pauses_s)s::float8[]))]))
  AND NOT EXISTS (SELECT FROM operations o WHERE o.game_id = p.game_id AND o.state <> 'done')
ORDER BY p.due_at LIMIT %(limit)s
FOR UPDATE OF p SKIP LOCKED;

-- name: take_restart
-- Deletes a locked plan that was queued, or is void; not one whose game has an operation in progress since.
DELETE FROM crash_restarts
WHERE game_id = %(game_id)s
  AND (%(queued)s OR NOT EXISTS (SELECT FROM operations o WHERE o.game_id = %(game_id)s AND o.state <> 'done'));

-- name: drop_restarts
DELETE FROM crash_restarts WHERE cause = %(cause)s;

-- name: hold_outage_restarts
-- Lets one instance at a time count the starts in progress after an outage, and add to them.
SELECT FROM deployment FOR UPDATE;

-- name: count_outage_restarts
-- Excludes starts that wait for a pull, or were deferred: any number of them may be stuck, and would delay all others.
SELECT count(*) AS under_way FROM operations
WHERE state <> 'done' AND source = %(source)s AND source_ref LIKE 'outage:%%' AND deferrals = 0 AND deferred_why IS NULL;

-- name: submit_restart
-- Queues the restart as an ordinary operation, unless one is in progress, whose end decides on the plan. A failed
-- start may have left the game without a container.
INSERT INTO operations (game_id, kind, source, source_ref, image_ref)
SELECT r.game_id, %(kind)s, %(source)s, %(source_ref)s,
       CASE %(kind)s WHEN 'start' THEN coalesce(r.current_image_ref, '') ELSE '' END
FROM runtime_records r
WHERE r.game_id = %(game_id)s AND r.status = %(status)s
  AND coalesce(r.current_container_id, %(container_id)s) = %(container_id)s
  AND NOT EXISTS (SELECT FROM operations o WHERE o.game_id = r.game_id AND o.state <> 'done')
ON CONFLICT (game_id) WHERE state <> 'done' AND stream IS NULL DO NOTHING
RETURNING id, image_ref;

-- name: count_restarts
SELECT count(*) AS restarts FROM operations
WHERE game_id = %(game_id)s AND source = %(source)s AND kind = %(kind)s AND accepted_at > %(since)s
  -- Excludes operations accepted while the clock was ahead, which would count for ever.
  AND accepted_at <= clock_timestamp();

-- name: running_games
-- Returns the running games and where they run: all that a pass over ten thousand of them needs.
SELECT game_id, current_container_id AS container_id, docker_network AS network
FROM runtime_records
WHERE status = 'running';

-- name: records_of
SELECT game_id, status, current_container_id, current_image_ref, engine_endpoint, state_path, docker_network,
       started_at, stopped_at, removed_at, last_op_at, created_at
FROM runtime_records
WHERE game_id = ANY (%(game_ids)s);

-- name: stopped_before
-- Returns the stopped games with the oldest last operation.
SELECT game_id, status, current_container_id, current_image_ref, engine_endpoint, state_path, docker_network,
       started_at, stopped_at, removed_at, last_op_at, created_at
FROM runtime_records
WHERE status = 'stopped' AND last_op_at < %(moment)s
ORDER BY last_op_at
LIMIT %(limit)s;

-- name: take_watch_turn
-- Returns one row when the caller has the lease: it had it before, or it was free or expired. A lease that lasts far
-- longer than the caller's would was taken while the clock was ahead, and its holder may be gone.
INSERT INTO watch_turns (work, owner, until)
VALUES (%(work)s, %(owner)s, clock_timestamp() + make_interval(secs => %(for_s)s))
ON CONFLICT (work) DO UPDATE
SET owner = excluded.owner, until = excluded.until
WHERE watch_turns.owner = excluded.owner OR watch_turns.until <= clock_timestamp()
   OR watch_turns.until > clock_timestamp() + make_interval(secs => %(longest_s)s)
RETURNING work;

-- name: get_snapshot
SELECT s.game_id, s.container_id, s.status, s.source, s.details, s.observed_at
FROM health_snapshots s
WHERE s.game_id = %(game_id)s;

-- name: get_last_exit
SELECT container_id, exit_code, oom, log, exited_at, requested_by, budget_used_up FROM last_exits WHERE game_id = %(game_id)s;

-- name: get_next_restart
-- Returns when the game is restarted, and whether restarts were given up while its probes fail; one row for any game.
SELECT (SELECT due_at FROM crash_restarts WHERE game_id = %(game_id)s) AS due_at,
       EXISTS (SELECT FROM alarms a
               JOIN runtime_records r ON r.game_id = a.game_id AND r.status = 'running'
                                     AND r.current_container_id = a.container_id
               WHERE a.game_id = %(game_id)s AND a.kind = 'probe' AND a.restart_given_up) AS given_up;

-- name: list_log
-- Returns a page of a game's log, newest first, before the id `before`.
SELECT id, game_id, op_kind, op_source, source_ref, image_ref, container_id, outcome, error_code, error_message,
       started_at, finished_at
FROM operation_log
WHERE game_id = %(game_id)s AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC
LIMIT %(limit)s;
