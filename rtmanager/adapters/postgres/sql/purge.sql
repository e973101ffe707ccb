-- name: first_young_entry
-- Returns the first of the next `limit` accepted entries of a stream, from one on, that was accepted within the last
-- `keep_s` seconds; else the last of them when there may be more. Ids do not tell the age: Redis's clock may be wrong.
WITH looked AS MATERIALIZED (
    (SELECT entry_ms, entry_seq, accepted_at FROM operations
     WHERE stream = %(stream)s AND (entry_ms, entry_seq) >= (%(entry_ms)s, %(entry_seq)s)
     ORDER BY entry_ms, entry_seq LIMIT %(limit)s)
    UNION ALL
    (SELECT entry_ms, entry_seq, received_at FROM dead_letters
     WHERE stream = %(stream)s AND (entry_ms, entry_seq) >= (%(entry_ms)s, %(entry_seq)s)
     ORDER BY entry_ms, entry_seq LIMIT %(limit)s)
    ORDER BY entry_ms, entry_seq LIMIT %(limit)s),
numbered AS (
    SELECT *, row_number() OVER (ORDER BY entry_ms, entry_seq) AS number FROM looked)
SELECT entry_ms, entry_seq FROM numbered
WHERE accepted_at >= clock_timestamp() - make_interval(secs => %(keep_s)s) OR number = %(limit)s
ORDER BY number LIMIT 1;

-- name: purge_operations
-- Deletes what is past its retention among the next `limit` operations by id: done for long enough, and with an entry
-- that cannot be delivered again (`below`: the first entry per stream that can). Records the deleted entries of a
-- stream as forgotten, those with an id in the future under a mark of their own: a Redis whose clock was ahead, and that
-- lost its data, gives lower ids to new entries. For this reason, too, an id stays that is not as old as the retention,
-- unless it is over a day ahead. An entry with a reused id has a mark behind its stream's name. The arrays are for the
-- planner, which estimates the rows of a CTE as a large part of the table and would read it all.
WITH below AS (
    SELECT * FROM unnest(%(streams)s::text[], %(entry_ms)s::numeric[], %(entry_seq)s::numeric[])
             AS b (stream, entry_ms, entry_seq)),
looked AS MATERIALIZED (
    SELECT id, accepted_at FROM operations WHERE id > %(after)s ORDER BY id LIMIT %(limit)s),
now AS MATERIALIZED (
    SELECT extract(epoch FROM clock_timestamp()) * 1000 AS ms),
past AS MATERIALIZED (
    SELECT o.id, b.stream || CASE WHEN o.entry_ms < now.ms THEN '' ELSE '#ahead' END AS stream, o.entry_ms, o.entry_seq
    FROM now, operations o
    LEFT JOIN below b ON b.stream = regexp_replace(o.stream, %(mark)s, '')
    WHERE o.id = ANY (ARRAY(SELECT id FROM looked)) AND o.state = (SELECT 'done')
      AND coalesce(o.finished_at, o.accepted_at) < clock_timestamp() - make_interval(secs => %(keep_s)s)
      AND (o.stream IS NULL
           OR ((o.entry_ms, o.entry_seq) < (b.entry_ms, b.entry_seq)
               AND o.entry_ms NOT BETWEEN now.ms - %(keep_s)s * 1000 AND now.ms + 86400000))
    FOR UPDATE OF o SKIP LOCKED),
purged AS (
    DELETE FROM operations WHERE id = ANY (ARRAY(SELECT id FROM past)) RETURNING id),
forgotten AS (
    INSERT INTO forgotten_entries AS f (stream, entry_ms, entry_seq)
    SELECT DISTINCT ON (past.stream) past.stream, past.entry_ms, past.entry_seq
    FROM past JOIN purged ON purged.id = past.id
    WHERE past.stream IS NOT NULL
    ORDER BY past.stream, past.entry_ms DESC, past.entry_seq DESC
    ON CONFLICT (stream) DO UPDATE SET entry_ms = excluded.entry_ms, entry_seq = excluded.entry_seq
    WHERE (f.entry_ms, f.entry_seq) < (excluded.entry_ms, excluded.entry_seq))
SELECT (SELECT count(*) FROM purged) AS deleted, max(id) AS after,
       -- Operations accepted later than that cannot be past their retention.
       count(*) = %(limit)s
       AND bool_or(accepted_at < clock_timestamp() - make_interval(secs => %(keep_s)s)) AS more
FROM looked;

-- name: purge_dead_letters
-- The same for the next dead letters by their entries.
WITH below AS (
    SELECT * FROM unnest(%(streams)s::text[], %(entry_ms)s::numeric[], %(entry_seq)s::numeric[])
             AS b (stream, entry_ms, entry_seq)),
looked AS MATERIALIZED (
    SELECT ctid AS place, stream, entry_ms, entry_seq FROM dead_letters
    WHERE (stream, entry_ms, entry_seq) > (%(after_stream)s, %(after_ms)s, %(after_seq)s)
    ORDER BY stream, entry_ms, entry_seq LIMIT %(limit)s),
now AS MATERIALIZED (
    SELECT extract(epoch FROM clock_timestamp()) * 1000 AS ms),
past AS MATERIALIZED (
    SELECT d.ctid AS place, b.stream || CASE WHEN d.entry_ms < now.ms THEN '' ELSE '#ahead' END AS stream,
           d.entry_ms, d.entry_seq
    FROM now, dead_letters d
    JOIN below b ON b.stream = regexp_replace(d.stream, %(mark)s, '')
    WHERE d.ctid = ANY (ARRAY(SELECT place FROM looked))
      AND d.received_at < clock_timestamp() - make_interval(secs => %(keep_s)s)
      AND (d.entry_ms, d.entry_seq) < (b.entry_ms, b.entry_seq)
      AND d.entry_ms NOT BETWEEN now.ms - %(keep_s)s * 1000 AND now.ms + 86400000
    FOR UPDATE OF d SKIP LOCKED),
purged AS (
    DELETE FROM dead_letters WHERE ctid = ANY (ARRAY(SELECT place FROM past)) RETURNING ctid AS place),
forgotten AS (
    INSERT INTO forgotten_entries AS f (stream, entry_ms, entry_seq)
    SELECT DISTINCT ON (past.stream) past.stream, past.entry_ms, past.entry_seq
    FROM past JOIN purged ON purged.place = past.place
    ORDER BY past.stream, past.entry_ms DESC, past.entry_seq DESC
    ON CONFLICT (stream) DO UPDATE SET entry_ms = excluded.entry_ms, entry_seq = excluded.entry_seq
    WHERE (f.entry_ms, f.entry_seq) < (excluded.entry_ms, excluded.entry_seq))
SELECT (SELECT count(*) FROM purged) AS deleted, last.stream, last.entry_ms, last.entry_seq,
       (SELECT count(*) FROM looked) = %(limit)s AS more
FROM (SELECT) one
LEFT JOIN (SELECT * FROM looked ORDER BY stream DESC, entry_ms DESC, entry_seq DESC LIMIT 1) last ON true;

-- name: purge_log
-- The same for the next rows of the operation log. Their times are from an instance's clock, which may be wrong; their
-- order is the database's. So a pass ends when all rows of a batch are new.
WITH looked AS MATERIALIZED (
    SELECT id, finished_at < clock_timestamp() - make_interval(secs => %(keep_s)s) AS past
    FROM operation_log WHERE id > %(after)s ORDER BY id LIMIT %(limit)s),
locked AS MATERIALIZED (
    SELECT id FROM operation_log WHERE id = ANY (ARRAY(SELECT id FROM looked WHERE past)) FOR UPDATE SKIP LOCKED),
purged AS (
    DELETE FROM operation_log WHERE id = ANY (ARRAY(SELECT id FROM locked)) RETURNING 1)
SELECT (SELECT count(*) FROM purged) AS deleted, max(id) AS after, count(*) = %(limit)s AND bool_or(past) AS more
FROM looked;

-- name: note_pulled_image
INSERT INTO pulled_images (daemon, image_ref, image_id)
VALUES (%(daemon)s, %(image_ref)s, %(image_id)s)
ON CONFLICT (daemon, image_ref) DO UPDATE
SET image_id = excluded.image_id, pulled_at = clock_timestamp(), unnamed_since = NULL;

-- name: named_images
-- Returns the references of games that run or may be restarted, and of operations that are not done.
SELECT DISTINCT current_image_ref AS image_ref FROM runtime_records
WHERE status IN ('running', 'stopped') AND current_image_ref IS NOT NULL
UNION
SELECT DISTINCT image_ref FROM operations WHERE state <> 'done' AND image_ref <> '';

-- name: pulled_images
SELECT image_ref FROM pulled_images WHERE daemon = %(daemon)s ORDER BY image_ref;

-- name: mark_unnamed_images
UPDATE pulled_images SET unnamed_since = CASE WHEN image_ref = ANY (%(named)s) THEN NULL ELSE clock_timestamp() END
WHERE daemon = %(daemon)s AND (unnamed_since IS NULL) = (image_ref <> ALL (%(named)s));

-- name: unnamed_images
SELECT image_ref, image_id FROM pulled_images
WHERE daemon = %(daemon)s AND unnamed_since < clock_timestamp() - make_interval(secs => %(keep_s)s)
ORDER BY image_ref;

-- name: forget_pulled_image
DELETE FROM pulled_images WHERE daemon = %(daemon)s AND image_ref = %(image_ref)s;
