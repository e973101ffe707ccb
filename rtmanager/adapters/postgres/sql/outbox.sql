-- name: take_relay_turn
-- Takes the relay lease until the end of the transaction and returns its number; NULL while another instance has it.
-- Also returns whether a minute with left-out intents is over.
SELECT CASE WHEN pg_try_advisory_xact_lock(hashtext(current_schema() || '.outbox'))
            THEN nextval('outbox_turn') END AS number,
       EXISTS (SELECT FROM intent_windows
               WHERE left_out > 0 AND statement_timestamp() NOT BETWEEN began_at AND began_at + interval '1 minute')
       AS summary_due;

-- name: raise_relay_turn
-- After a restore from a backup Redis may know a higher number than the sequence, which then continues after it.
SELECT setval('outbox_turn', %(turn)s);

-- name: add_messages
-- Keeps the order of the messages and of their fields.
INSERT INTO outbox (stream, fields)
SELECT stream, fields FROM json_to_recordset(%(rows)s::json) AS m (stream text, fields json);

-- name: due_messages
-- Returns the oldest messages of each stream, so that a stream that cannot be written blocks no other: as many as fit
-- into `size` bytes, at least one, and none of `skip`. A message above `largest` comes without its fields.
SELECT due.id, due.stream, CASE WHEN due.own <= %(largest)s THEN due.fields::text END AS fields
FROM unnest(%(streams)s::text[]) AS streams (stream),
     LATERAL (SELECT oldest.*, sum(oldest.own) OVER (ORDER BY oldest.id) AS up_to
              FROM (SELECT o.id, o.stream, o.fields, octet_length(o.fields::text) AS own FROM outbox o
                    -- Not "=": for a stream without messages the planner would then walk the whole primary key.
                    WHERE o.stream >= streams.stream AND o.stream <= streams.stream
                      AND o.id <> ALL (%(skip)s::bigint[])
                    ORDER BY o.stream, o.id LIMIT %(limit)s) oldest) due
WHERE due.up_to - due.own < %(size)s
ORDER BY due.id;

-- name: cut_message
-- Returns the fields of one message of an earlier release, with its texts cut.
SELECT json_object_agg(each.key, left(each.value, %(longest)s))::text AS fields
FROM outbox o, json_each_text(o.fields) each WHERE o.id = %(id)s;

-- name: delete_messages
DELETE FROM outbox WHERE id = ANY (%(ids)s);

-- name: waiting_messages
-- Returns which of these ids are still due.
SELECT id FROM outbox WHERE id = ANY (%(ids)s);

-- name: intent_windows
-- Returns the minutes of the types of intents, and deletes those that are over. One moment decides for all.
WITH closed AS (
    DELETE FROM intent_windows
    WHERE statement_timestamp() NOT BETWEEN began_at AND began_at + interval '1 minute'
    RETURNING *)
SELECT true AS over, closed.*, statement_timestamp() AS now FROM closed
UNION ALL
SELECT false, open.*, statement_timestamp() FROM intent_windows open
WHERE statement_timestamp() BETWEEN open.began_at AND open.began_at + interval '1 minute';

-- name: count_intents
-- A minute begins with the first intent of its type.
INSERT INTO intent_windows AS w (notification_type, began_at, sent, left_out, example)
SELECT c.notification_type, clock_timestamp(), c.sent, c.left_out, c.example
FROM json_to_recordset(%(rows)s::json) AS c (notification_type text, sent bigint, left_out bigint, example json)
ON CONFLICT (notification_type) DO UPDATE
SET sent = w.sent + excluded.sent, left_out = w.left_out + excluded.left_out,
    example = CASE WHEN w.left_out > 0 THEN w.example ELSE excluded.example END;
