-- name: insert_log_entry
INSERT INTO operation_log (
    game_id, op_kind, op_source, source_ref, image_ref, container_id, outcome, error_code, error_message,
    started_at, finished_at)
VALUES (
    %(game_id)s, %(kind)s, %(source)s, %(source_ref)s, %(image_ref)s, %(container_id)s, %(outcome)s,
    %(error_code)s, %(error_message)s, %(started_at)s, %(finished_at)s);

-- name: drop_planned_restart
-- Something was done about the game since it crashed, or its container lives or has ended otherwise.
DELETE FROM crash_restarts WHERE game_id = %(game_id)s;

-- name: upsert_snapshot
-- The last observation of a game.
INSERT INTO health_snapshots (game_id, container_id, status, source, details, observed_at)
VALUES (%(game_id)s, %(container_id)s, %(status)s, %(source)s, %(details)s::jsonb, %(observed_at)s)
ON CONFLICT (game_id) DO UPDATE
SET container_id = excluded.container_id, status = excluded.status, source = excluded.source,
    details = excluded.details, observed_at = excluded.observed_at;
