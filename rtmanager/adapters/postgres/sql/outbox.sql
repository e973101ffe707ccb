-- name: take_relay_turn
-- A number for the one instance that may publish now, until the end of its transaction; NULL for the others.
SELECT CASE WHEN pg_try_advisory_xact_lock(hashtext(current_schema() || '.outbox'))
            THEN nextval('outbox_turn') END AS number;

-- name: raise_relay_turn
-- After a restore from a backup Redis may know a higher turn than the sequence: go on after it.
SELECT setval('outbox_turn', %(turn)s);

-- name: add_messages
-- In this order, and with their fields in theirs.
INSERT INTO outbox (stream, fields)
SELECT stream, fields FROM json_to_recordset(%(rows)s::json) AS m (stream text, fields json);

-- name: due_messages
-- The oldest messages of each stream, so that a stream that cannot be written holds up no other.
SELECT due.id, due.stream, due.fields
FROM unnest(%(streams)s::text[]) AS streams (stream),
     LATERAL (SELECT o.id, o.stream, o.fields FROM outbox o
              -- Not "=": for a stream without messages the planner would then walk the whole primary key.
              WHERE o.stream >= streams.stream AND o.stream <= streams.stream
              ORDER BY o.stream, o.id LIMIT %(limit)s) due
ORDER BY due.id;

-- name: delete_messages
DELETE FROM outbox WHERE id = ANY (%(ids)s);

-- name: waiting_messages
-- Which of these ids are still due.
SELECT id FROM outbox WHERE id = ANY (%(ids)s);

-- name: deployment_id
-- The id of this database among those that use one Redis; made anew if somebody emptied the table.
WITH made AS (INSERT INTO deployment DEFAULT VALUES ON CONFLICT DO NOTHING RETURNING id)
SELECT id::text FROM made UNION ALL SELECT id::text FROM deployment LIMIT 1;
