-- name: end_operations
-- The ends of operations with their log and their messages, refused (no row) where another claim has one by now. A
-- database that was set back, by a failover or a restore, gives the same id again to another operation: that has another
-- game or another origin. The crash restart that was planned of a game is none any more.
-- The ids by themselves and the subquery are for the planner: it takes the rows for a hundred, and the index of what
-- runs, which is full of what ran, for small, and would read the one or the other whole.
WITH ended AS (
    UPDATE operations o
    SET state = 'done', outcome = e.outcome, error_code = e.error_code, error_message = e.error_message,
        finished_at = clock_timestamp()
    FROM json_to_recordset(%(rows)s::json)
         AS e (id bigint, generation bigint, game_id text, source_ref text, outcome text, error_code text,
               error_message text, log json, messages json)
    WHERE o.id = ANY (%(ids)s) AND o.id = e.id AND o.generation = e.generation AND o.state = (SELECT 'running')
      AND o.game_id = e.game_id AND o.source_ref = e.source_ref
    RETURNING o.id, e.game_id, e.log, e.messages),
logged AS (
    INSERT INTO operation_log (
        game_id, op_kind, op_source, source_ref, image_ref, container_id, outcome, error_code, error_message,
        started_at, finished_at)
    SELECT l.game_id, l.kind, l.source, l.source_ref, l.image_ref, l.container_id, l.outcome, l.error_code,
           l.error_message, l.started_at, l.finished_at
    FROM ended, ROWS FROM (
        json_to_recordset(ended.log) AS (
            game_id text, kind text, source text, source_ref text, image_ref text, container_id text, outcome text,
            error_code text, error_message text, started_at timestamptz, finished_at timestamptz)) WITH ORDINALITY AS l (
            game_id, kind, source, source_ref, image_ref, container_id, outcome, error_code, error_message, started_at,
            finished_at, place)
    ORDER BY ended.id, l.place),
told AS (
    INSERT INTO outbox (stream, fields)
    SELECT m.stream, m.fields
    FROM ended, ROWS FROM (json_to_recordset(ended.messages) AS (stream text, fields json))
         WITH ORDINALITY AS m (stream, fields, place)
    ORDER BY ended.id, m.place),
dropped AS (
    DELETE FROM crash_restarts WHERE game_id IN (SELECT game_id FROM ended))
SELECT id FROM ended;

-- name: insert_log_entries
INSERT INTO operation_log (
    game_id, op_kind, op_source, source_ref, image_ref, container_id, outcome, error_code, error_message,
    started_at, finished_at)
SELECT game_id, kind, source, source_ref, image_ref, container_id, outcome, error_code, error_message,
       started_at, finished_at
FROM json_to_recordset(%(rows)s::json)
     AS e (game_id text, kind text, source text, source_ref text, image_ref text, container_id text, outcome text,
           error_code text, error_message text, started_at timestamptz, finished_at timestamptz);

-- name: drop_planned_restart
-- The game's container lives, or has ended otherwise than by a crash.
DELETE FROM crash_restarts WHERE game_id = %(game_id)s;

-- name: upsert_snapshot
-- The last observation of a game.
INSERT INTO health_snapshots (game_id, container_id, status, source, details, observed_at)
VALUES (%(game_id)s, %(container_id)s, %(status)s, %(source)s, %(details)s::jsonb, %(observed_at)s)
ON CONFLICT (game_id) DO UPDATE
SET container_id = excluded.container_id, status = excluded.status, source = excluded.source,
    details = excluded.details, observed_at = excluded.observed_at;
