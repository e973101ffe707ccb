-- What an end or a finding changes about a game is written by two parts, between which an end marks its operation as
-- done. `ours` are the changes, `agreed` those whose record is the one that they were decided on.

-- name: compare_records
inserted AS (
    INSERT INTO runtime_records (
        game_id, status, current_container_id, current_image_ref, engine_endpoint, state_path, docker_network,
        started_at, stopped_at, removed_at, last_op_at, created_at)
    SELECT new.game_id, new.status, new.current_container_id, new.current_image_ref, new.engine_endpoint,
           new.state_path, new.docker_network, new.started_at, new.stopped_at, new.removed_at, new.last_op_at,
           new.created_at
    FROM ours, json_populate_record(NULL::runtime_records, ours.record) new
    WHERE ours.record IS NOT NULL AND ours.seen IS NULL
    ON CONFLICT (game_id) DO NOTHING
    RETURNING game_id),
updated AS (
    UPDATE runtime_records r
    SET status = new.status, current_container_id = new.current_container_id,
        current_image_ref = new.current_image_ref, engine_endpoint = new.engine_endpoint, state_path = new.state_path,
        docker_network = new.docker_network, started_at = new.started_at, stopped_at = new.stopped_at,
        removed_at = new.removed_at, last_op_at = new.last_op_at
    FROM ours,
         json_populate_record(NULL::runtime_records, ours.record) new,
         json_populate_record(NULL::runtime_records, ours.seen) seen
    WHERE ours.record IS NOT NULL AND r.game_id = ours.game_id AND r.status = seen.status
      AND r.current_container_id IS NOT DISTINCT FROM seen.current_container_id
    RETURNING r.game_id),
-- What changes no record still depends on it: waits for a concurrent change, and compares.
held AS (
    SELECT r.game_id
    FROM ours, json_populate_record(NULL::runtime_records, ours.seen) seen, runtime_records r
    WHERE ours.record IS NULL AND ours.seen IS NOT NULL AND r.game_id = ours.game_id AND r.status = seen.status
      AND r.current_container_id IS NOT DISTINCT FROM seen.current_container_id
    FOR SHARE OF r),
agreed AS (
    SELECT * FROM ours
    WHERE record IS NULL AND seen IS NULL
       OR game_id IN (SELECT game_id FROM inserted UNION ALL SELECT game_id FROM updated
                      UNION ALL SELECT game_id FROM held));

-- name: write_changes
-- `written` is false where the record is not the one that was decided on.
-- A trigger may drop a row without an error. So the rows written are counted, and the statement fails by a cast, the
-- only way to fail without a function of our own.
logged AS (
    INSERT INTO operation_log (
        game_id, op_kind, op_source, source_ref, image_ref, container_id, outcome, error_code, error_message,
        started_at, finished_at, caller)
    SELECT l.game_id, l.kind, l.source, l.source_ref, l.image_ref, l.container_id, l.outcome, l.error_code,
           l.error_message, l.started_at, l.finished_at, agreed.caller
    FROM agreed, ROWS FROM (
        json_to_recordset(agreed.log) AS (
            game_id text, kind text, source text, source_ref text, image_ref text, container_id text, outcome text,
            error_code text, error_message text, started_at timestamptz, finished_at timestamptz)) WITH ORDINALITY AS l (
            game_id, kind, source, source_ref, image_ref, container_id, outcome, error_code, error_message, started_at,
            finished_at, place)
    ORDER BY agreed.id, l.place
    RETURNING 1),
observed AS (
    INSERT INTO health_snapshots (game_id, container_id, status, source, details, observed_at)
    SELECT s.game_id, s.container_id, s.status, s.source, s.details, s.observed_at
    FROM agreed, json_populate_record(NULL::health_snapshots, agreed.snapshot) s
    WHERE agreed.snapshot IS NOT NULL
    ON CONFLICT (game_id) DO UPDATE
    SET container_id = excluded.container_id, status = excluded.status, source = excluded.source,
        details = excluded.details, observed_at = excluded.observed_at
    RETURNING 1),
exited AS (
    INSERT INTO last_exits (game_id, container_id, exit_code, oom, log, exited_at, requested_by, budget_used_up)
    SELECT x.game_id, x.container_id, x.exit_code, x.oom, x.log, x.exited_at, x.requested_by, x.budget_used_up
    FROM agreed, json_populate_record(NULL::last_exits, agreed.last_exit) x
    WHERE agreed.last_exit IS NOT NULL
    ON CONFLICT (game_id) DO UPDATE
    SET container_id = excluded.container_id, exit_code = excluded.exit_code, oom = excluded.oom,
        log = excluded.log, exited_at = excluded.exited_at, requested_by = excluded.requested_by,
        budget_used_up = excluded.budget_used_up
    RETURNING 1),
told AS (
    INSERT INTO outbox (stream, fields)
    SELECT m.stream, m.fields
    FROM agreed, ROWS FROM (json_to_recordset(agreed.messages) AS (stream text, fields json))
         WITH ORDINALITY AS m (stream, fields, place)
    ORDER BY agreed.id, m.place
    RETURNING 1),
-- Cancels a planned restart, or plans one. Both follow the record, so that an end and a finding cannot deadlock.
dropped AS (
    DELETE FROM crash_restarts
    WHERE game_id IN (SELECT game_id FROM agreed WHERE NOT keeps_plan AND plan IS NULL)),
planned AS (
    INSERT INTO crash_restarts (game_id, container_id, due_at, cause, tries)
    SELECT agreed.game_id, p.container_id, coalesce(p.due_at, clock_timestamp() + make_interval(secs => p.pause_s)),
           p.cause, p.tries
    FROM agreed, json_to_record(agreed.plan) AS p (
         container_id text, due_at timestamptz, pause_s double precision, cause text, tries integer)
    WHERE agreed.plan IS NOT NULL
    ON CONFLICT (game_id) DO UPDATE
    SET container_id = excluded.container_id, due_at = excluded.due_at, cause = excluded.cause, tries = excluded.tries
    RETURNING 1),
lacking AS (
    SELECT string_agg(format('%%s: %%s of %%s', name, kept, meant), ', ') AS rows
    FROM (VALUES
        ('operations', (SELECT count(*) FROM ended), (SELECT count(*) FROM agreed)),
        ('operation_log', (SELECT count(*) FROM logged),
         (SELECT coalesce(sum(json_array_length(log)), 0) FROM agreed)),
        ('health_snapshots', (SELECT count(*) FROM observed), (SELECT count(snapshot) FROM agreed)),
        ('last_exits', (SELECT count(*) FROM exited), (SELECT count(last_exit) FROM agreed)),
        ('crash_restarts', (SELECT count(*) FROM planned), (SELECT count(plan) FROM agreed)),
        ('outbox', (SELECT count(*) FROM told), (SELECT coalesce(sum(json_array_length(messages)), 0) FROM agreed))
    ) AS written (name, kept, meant)
    WHERE kept <> meant)
SELECT ours.id,
       CASE WHEN lacking.rows IS NULL THEN agreed.game_id IS NOT NULL
            ELSE ('rtmanager: ' || lacking.rows)::boolean END AS written
FROM ours CROSS JOIN lacking LEFT JOIN agreed ON agreed.game_id = ours.game_id;

-- name: end_operations
-- Writes the ends of operations, each with all its changes or not at all. No row is returned for an operation that
-- another claim has. A database that was set back, by a failover or a restore, may reuse an id for another operation,
-- of another game or another origin.
-- The separate ids and the subquery are for the planner. It estimates a hundred rows of JSON, and a small index of
-- running operations, which is full of dead entries, and would read one or the other whole.
WITH ours AS (
    SELECT e.*, o.caller
    FROM json_to_recordset(%(rows)s::json)
         AS e (id bigint, generation bigint, game_id text, source_ref text, outcome text, error_code text,
               error_message text, seen json, record json, snapshot json, log json, messages json,
               last_exit json, keeps_plan boolean, plan json)
    JOIN operations o ON o.id = e.id
    WHERE o.id = ANY (%(ids)s) AND o.generation = e.generation AND o.state = (SELECT 'running')
      AND o.game_id = e.game_id AND o.source_ref = e.source_ref
    FOR UPDATE OF o),
{compare_records},
ended AS (
    UPDATE operations o
    SET state = 'done', outcome = agreed.outcome, error_code = agreed.error_code,
        error_message = agreed.error_message, finished_at = clock_timestamp()
    FROM agreed
    WHERE o.id = agreed.id
    RETURNING 1),
{write_changes};

-- name: write_finding
-- Writes all changes of a finding or none.
WITH ours AS (
    SELECT *, NULL::text AS caller
    FROM json_to_recordset(%(rows)s::json)
         AS e (id bigint, game_id text, seen json, record json, snapshot json, log json, messages json,
               last_exit json, keeps_plan boolean, plan json)),
{compare_records},
ended AS (SELECT FROM agreed),
{write_changes};
