-- name: get_record
-- Returns one game's record.
SELECT game_id, status, current_container_id, current_image_ref, engine_endpoint, state_path, docker_network,
       started_at, stopped_at, removed_at, last_op_at, created_at
FROM runtime_records
WHERE game_id = %(game_id)s;

-- name: get_records
-- Returns the records of several games.
SELECT game_id, status, current_container_id, current_image_ref, engine_endpoint, state_path, docker_network,
       started_at, stopped_at, removed_at, last_op_at, created_at
FROM runtime_records
WHERE game_id = ANY (%(game_ids)s);

-- name: list_records
-- Returns a page of records in the order of their ids, after `after`, of one status or of all, each by its own index.
-- Not "=": the planner would then walk all ids of any status, since they have the same order.
SELECT game_id, status, current_container_id, current_image_ref, engine_endpoint, state_path, docker_network,
       started_at, stopped_at, removed_at, last_op_at, created_at
FROM (
    (SELECT * FROM runtime_records
     WHERE %(status)s::text IS NULL AND game_id > %(after)s
     ORDER BY game_id LIMIT %(limit)s)
    UNION ALL
    (SELECT * FROM runtime_records
     WHERE status >= %(status)s AND status <= %(status)s AND (status, game_id) > (%(status)s, %(after)s)
     ORDER BY status, game_id LIMIT %(limit)s)) page
ORDER BY game_id;

-- name: get_record_as_json
-- Returns one game's record in the contract's JSON form ("REST"), for a caller that only passes it on. Of all ways to
-- make JSON, `json_object` of two arrays is the fastest. $1 is the game's id, for `PooledConnection.texts`.
SELECT json_object(
    '{game_id, status, current_container_id, current_image_ref, engine_endpoint, state_path, docker_network,
      started_at, stopped_at, removed_at, last_op_at, created_at}',
    ARRAY[
        game_id, status, current_container_id, current_image_ref, engine_endpoint, state_path, docker_network,
        to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        to_char(stopped_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        to_char(removed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        to_char(last_op_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')]) AS json
FROM runtime_records
WHERE game_id = $1;

-- name: list_records_as_json
-- Returns a page in the same form: $1 is the status or '', $2 the id after which it begins, $3 the limit as a text.
-- Half of the times mostly equal others of the same record, and are reused: `to_char` takes as long as the rest of the
-- JSON. OFFSET 0 keeps the planner from inlining the subquery at both uses of its result.
SELECT json_object(
    '{game_id, status, current_container_id, current_image_ref, engine_endpoint, state_path, docker_network,
      started_at, stopped_at, removed_at, last_op_at, created_at}',
    ARRAY[
        game_id, status, current_container_id, current_image_ref, engine_endpoint, state_path, docker_network,
        started, stopped, removed,
        CASE last_op_at WHEN removed_at THEN removed WHEN stopped_at THEN stopped WHEN started_at THEN started
            ELSE to_char(last_op_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') END,
        CASE created_at WHEN started_at THEN started
            ELSE to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') END]) AS json
FROM (
    SELECT *,
        to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS started,
        to_char(stopped_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS stopped,
        to_char(removed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS removed
    FROM (
        (SELECT * FROM runtime_records
         WHERE $1 = '' AND game_id > $2
         ORDER BY game_id LIMIT $3::text::bigint)
        UNION ALL
        (SELECT * FROM runtime_records
         WHERE status >= $1 AND status <= $1 AND (status, game_id) > ($1, $2)
         ORDER BY status, game_id LIMIT $3::text::bigint)) page
    ORDER BY game_id
    OFFSET 0) page
ORDER BY game_id;

-- name: lock_name
-- Locks the name until the transaction ends, so that a start and an adoption cannot both claim it in any case.
SELECT pg_advisory_xact_lock(%(names_class)s, hashtext(current_schema() || '.' || lower(%(game_id)s::text COLLATE "C")));

-- name: claim_name
-- Claims the game's name for the operation until its end. Fails by the unique index while another operation claims it.
WITH turn AS MATERIALIZED (
    SELECT pg_advisory_xact_lock(
        %(names_class)s, hashtext(current_schema() || '.' || lower(%(game_id)s::text COLLATE "C"))))
UPDATE operations o
SET claimed_name = lower(o.game_id COLLATE "C")
FROM turn
WHERE o.id = %(id)s AND o.generation = %(generation)s AND o.state = 'running'
  AND o.game_id = %(game_id)s::text AND o.source_ref = %(source_ref)s
RETURNING o.id;

-- name: name_holder
-- Returns another game with the same name in any case: by a record that is not removed, or by a start in progress.
SELECT game_id, status FROM runtime_records
WHERE lower(game_id COLLATE "C") = lower(%(game_id)s::text COLLATE "C") AND status <> 'removed'
  AND game_id <> %(game_id)s::text
UNION ALL
SELECT game_id, NULL FROM operations
WHERE claimed_name = lower(%(game_id)s::text COLLATE "C") AND state <> 'done' AND game_id <> %(game_id)s::text
LIMIT 1;

-- name: namesakes
-- Returns the games whose name another game has by its record, with that game.
SELECT wanted.game_id, min(r.game_id) AS namesake
FROM unnest(%(game_ids)s::text[]) AS wanted (game_id)
JOIN runtime_records r ON lower(r.game_id COLLATE "C") = lower(wanted.game_id COLLATE "C")
                      AND r.status <> 'removed' AND r.game_id <> wanted.game_id
GROUP BY wanted.game_id;

-- name: shared_names
-- Returns the games that share a name, which an earlier release allowed.
SELECT string_agg(game_id, ' and ' ORDER BY game_id COLLATE "C") AS games
FROM runtime_records
WHERE status <> 'removed'
GROUP BY lower(game_id COLLATE "C")
HAVING count(*) > 1
ORDER BY 1;
