-- name: take_ingest_turn
-- Takes the ingest lock until the end of the transaction; false while another instance has it.
SELECT pg_try_advisory_xact_lock(hashtext(current_schema() || '.ingest'));

-- name: check_now
-- Checks constraints within a savepoint that others have deferred to the commit.
SET CONSTRAINTS ALL IMMEDIATE;

-- name: turn_holder
-- Returns the session with the lock of this name (its key is in two halves in pg_locks), and whether it has the
-- manager's application name. An idle session has a transaction without a number. A prepared transaction holds locks
-- without a session; its lock on its own id has the same virtual transaction.
SELECT l.pid, l.virtualtransaction AS transaction, coalesce(a.application_name, '') AS application,
       coalesce(to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'an unknown time') AS since,
       coalesce(a.application_name = current_setting('application_name'), false) AS like_manager,
       p.gid, quote_literal(p.gid) AS quoted_gid, p.database,
       to_char(p.prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS prepared
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid' AND x.granted
    AND x.virtualtransaction = l.virtualtransaction
LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND (l.classid::bigint << 32 | l.objid::bigint) = hashtext(current_schema() || '.' || %(turn)s)::bigint
LIMIT 1;

-- name: accept_jobs
-- Turns stream entries into operations; a repeated entry changes nothing. Another entry with the same id (the stream
-- was lost, and its ids are reused) becomes a separate operation, with a mark behind its stream and reference. An entry
-- without a digest was accepted by an earlier release and counts as the same. So does a forgotten one: retention has
-- deleted the rows of the entries up to there. A mark in the future covers only entries that are over a day ahead, too: a
-- Redis that lost its data, and whose clock is correct, gives lower ids to new entries.
INSERT INTO operations (
    game_id, kind, source, source_ref, image_ref, reason, problem_code, problem_message,
    stream, entry_ms, entry_seq, entry_rank, entry_digest)
SELECT
    j.game_id, j.kind, j.source, j.source_ref || told.apart, j.image_ref, j.reason, j.problem_code, j.problem_message,
    j.stream || told.apart, j.entry_ms, j.entry_seq, j.entry_rank, j.digest
FROM json_to_recordset(%(rows)s::json)
     AS j (game_id text, kind text, source text, source_ref text, image_ref text, reason text, problem_code text,
           problem_message text, stream text, entry_ms numeric, entry_seq numeric, entry_rank smallint, digest text,
           again text),
     LATERAL (SELECT CASE WHEN EXISTS (
                  SELECT FROM operations o
                  WHERE o.stream = j.stream AND o.entry_ms = j.entry_ms AND o.entry_seq = j.entry_seq
                    AND o.entry_digest <> j.digest)
              THEN j.again ELSE '' END AS apart) told
WHERE NOT EXISTS (SELECT FROM forgotten_entries f
                  WHERE f.stream IN (j.stream, j.stream || '#ahead')
                    AND (f.entry_ms, f.entry_seq) >= (j.entry_ms, j.entry_seq)
                    AND extract(epoch FROM clock_timestamp()) * 1000 NOT BETWEEN j.entry_ms - 86400000 AND f.entry_ms)
ON CONFLICT (stream, entry_ms, entry_seq) WHERE stream IS NOT NULL DO NOTHING;

-- name: latest_game
-- Returns the game of the operation that was accepted last.
SELECT game_id FROM operations ORDER BY id DESC LIMIT 1;

-- name: lost_entries
-- Counts the entries without an operation: forgotten ones, and those that were accepted and lost.
SELECT count(*) FILTER (WHERE NOT known.forgotten) AS lost, count(*) FILTER (WHERE known.forgotten) AS forgotten
FROM json_to_recordset(%(rows)s::json)
     AS j (stream text, entry_ms numeric, entry_seq numeric, digest text, again text),
     LATERAL (SELECT EXISTS (SELECT FROM forgotten_entries f
                             WHERE f.stream IN (j.stream, j.stream || '#ahead')
                               AND (f.entry_ms, f.entry_seq) >= (j.entry_ms, j.entry_seq)
                               AND extract(epoch FROM clock_timestamp()) * 1000
                                   NOT BETWEEN j.entry_ms - 86400000 AND f.entry_ms) AS forgotten) known
WHERE NOT EXISTS (SELECT FROM operations o
                  WHERE o.stream = j.stream AND o.entry_ms = j.entry_ms AND o.entry_seq = j.entry_seq
                    AND (o.entry_digest = j.digest OR o.entry_digest IS NULL))
  AND NOT EXISTS (SELECT FROM operations o
                  WHERE o.stream = j.stream || j.again AND o.entry_ms = j.entry_ms AND o.entry_seq = j.entry_seq);

-- name: latest_entries
-- Returns the highest accepted entry of each stream that has one, also when it is forgotten.
SELECT streams.stream, latest.entry_ms, latest.entry_seq
FROM unnest(%(streams)s::text[]) AS streams (stream),
     LATERAL (SELECT each_kind.entry_ms, each_kind.entry_seq
              FROM ((SELECT o.entry_ms, o.entry_seq FROM operations o
                     WHERE o.stream = streams.stream ORDER BY o.entry_ms DESC, o.entry_seq DESC LIMIT 1)
                    UNION ALL
                    (SELECT d.entry_ms, d.entry_seq FROM dead_letters d
                     WHERE d.stream = streams.stream ORDER BY d.entry_ms DESC, d.entry_seq DESC LIMIT 1)
                    UNION ALL
                    (SELECT f.entry_ms, f.entry_seq FROM forgotten_entries f
                     WHERE f.stream IN (streams.stream, streams.stream || '#ahead'))) each_kind
              ORDER BY each_kind.entry_ms DESC, each_kind.entry_seq DESC LIMIT 1) latest;

-- name: accept_dead_letter
-- Stores an entry that names no game, once, together with its message to the stream of dead letters. As for jobs,
-- another entry with the same id is another letter. `kept` is true when both rows are stored, now or by an earlier
-- delivery, or the entry is forgotten.
WITH known AS (
    SELECT EXISTS (SELECT FROM forgotten_entries f
                   WHERE f.stream IN (%(stream)s, %(stream)s || '#ahead')
                     AND (f.entry_ms, f.entry_seq) >= (%(entry_ms)s, %(entry_seq)s)
                     AND extract(epoch FROM clock_timestamp()) * 1000
                         NOT BETWEEN %(entry_ms)s::numeric - 86400000 AND f.entry_ms) AS forgotten),
letter AS (
    INSERT INTO dead_letters (stream, entry_ms, entry_seq, entry_digest)
    SELECT %(stream)s || told.apart, %(entry_ms)s, %(entry_seq)s, %(digest)s
    FROM (SELECT CASE WHEN EXISTS (
              SELECT FROM dead_letters d
              WHERE d.stream = %(stream)s AND d.entry_ms = %(entry_ms)s AND d.entry_seq = %(entry_seq)s
                AND d.entry_digest <> %(digest)s)
          THEN %(again)s ELSE '' END AS apart) told, known
    WHERE NOT known.forgotten
    ON CONFLICT DO NOTHING
    RETURNING 1),
sent AS (
    INSERT INTO outbox (stream, fields) SELECT %(to_stream)s, %(fields)s::json FROM letter RETURNING 1)
SELECT CASE WHEN EXISTS (SELECT FROM letter) THEN EXISTS (SELECT FROM sent)
            ELSE known.forgotten
                 OR EXISTS (SELECT FROM dead_letters d
                            WHERE d.stream IN (%(stream)s, %(stream)s || %(again)s)
                              AND d.entry_ms = %(entry_ms)s AND d.entry_seq = %(entry_seq)s
                              AND (d.entry_digest = %(digest)s OR d.entry_digest IS NULL)) END AS kept,
       known.forgotten AND NOT EXISTS (SELECT FROM letter) AS forgotten
FROM known;

-- name: submit_call
-- Turns a REST call into an operation, unless its game has one that is not done.
INSERT INTO operations (game_id, kind, source, source_ref, image_ref, reason, caller)
SELECT %(game_id)s::text, %(kind)s, %(source)s, %(source_ref)s, %(image_ref)s, %(reason)s, nullif(%(caller)s, '')
WHERE NOT EXISTS (SELECT FROM operations WHERE game_id = %(game_id)s::text AND state <> 'done')
ON CONFLICT (game_id) WHERE state <> 'done' AND stream IS NULL DO NOTHING
RETURNING id;

-- name: latest_idle_game
-- Returns the game of the last accepted operation whose game has no operation that is not done.
SELECT o.game_id FROM operations o
WHERE NOT EXISTS (SELECT FROM operations l WHERE l.game_id = o.game_id AND l.state <> 'done')
ORDER BY o.id DESC LIMIT 1;

-- name: submit_unless_changed
-- The same, while nothing has been done about the game since `last_op_at`. The row lock waits for a concurrent end of
-- an operation, and sees its result.
WITH unchanged AS (
    SELECT game_id FROM runtime_records WHERE game_id = %(game_id)s::text AND last_op_at = %(last_op_at)s FOR SHARE
)
INSERT INTO operations (game_id, kind, source, source_ref, image_ref, reason)
SELECT game_id, %(kind)s, %(source)s, %(source_ref)s, %(image_ref)s, %(reason)s
FROM unchanged
WHERE NOT EXISTS (SELECT FROM operations o WHERE o.game_id = %(game_id)s::text AND state <> 'done')
ON CONFLICT (game_id) WHERE state <> 'done' AND stream IS NULL DO NOTHING
RETURNING id;

-- name: is_changed
SELECT NOT EXISTS (
    SELECT FROM runtime_records WHERE game_id = %(game_id)s AND last_op_at = %(last_op_at)s
) AS changed;

-- name: live_operation
-- Returns the operation that blocks a call: the running one, else the next due one.
SELECT id, kind, source, state, accepted_at, deferred_why
FROM operations
WHERE game_id = %(game_id)s AND state <> 'done'
ORDER BY state DESC, entry_ms, entry_seq, entry_rank, id
LIMIT 1;

-- name: due_heads
-- Returns the due operations: the first of each game, and none of a game with a running one. Games come in the order of
-- their ids, first those after `after`. With `images` only operations for these images, which may step through all
-- games. The recursion steps from game to game through operations_queue_idx, so a game with ten thousand jobs costs one
-- step, and it ends at `limit`. OFFSET 0 is for the planner, see `claim_due`.
-- No delay is longer than `longest_delay_s`: one due later was deferred while the clock was ahead, and is due.
SELECT due.id
FROM (VALUES (%(after)s::text COLLATE "C", NULL), ('', %(after)s)) AS part (above, up_to),
     LATERAL (
        WITH RECURSIVE heads AS (
            SELECT part.above AS game_id, NULL::bigint AS id, NULL::text AS kind, NULL::text AS state,
                   NULL::timestamptz AS not_before, NULL::text AS image_ref
            UNION ALL
            SELECT next.* FROM heads, LATERAL (
                SELECT game_id, id, kind, state, not_before, image_ref FROM operations
                WHERE state <> 'done' AND game_id > heads.game_id
                ORDER BY game_id, entry_ms, entry_seq, entry_rank, id LIMIT 1) next
            WHERE part.up_to IS NULL OR next.game_id <= part.up_to)
        SELECT id FROM heads
        WHERE state = 'due' AND kind = ANY (%(kinds)s)
          AND (not_before <= clock_timestamp()
               OR not_before > clock_timestamp() + make_interval(secs => %(longest_delay_s)s))
          AND (%(images)s::text[] IS NULL OR image_ref = ANY (%(images)s::text[]))
          AND NOT EXISTS (SELECT FROM operations r
                          WHERE r.game_id = heads.game_id AND r.state = 'running' OFFSET 0)) due
LIMIT %(limit)s;

-- name: claim_due
-- Claims due operations. OFFSET 0 and the subquery at the end are for the planner. It estimates the indexes of due and
-- of running operations as small and would read them whole; they are full of dead entries.
UPDATE operations
SET state = 'running', owner = %(owner)s, generation = generation + 1, heartbeat_at = clock_timestamp(),
    deferred_why = NULL
WHERE id IN (
    SELECT o.id
    FROM (
{due_heads}) head
    JOIN operations o ON o.id = head.id
    WHERE o.state = (SELECT 'due')
    FOR UPDATE OF o SKIP LOCKED)
RETURNING id, game_id, kind, source, source_ref, image_ref, reason, caller, problem_code, problem_message,
          stream, generation, deferrals, defects, answer,
          -- As numbers, which psycopg always reads: one moment that it cannot read would block every claim.
          extract(epoch FROM accepted_at)::float8 AS accepted_s,
          coalesce(extract(epoch FROM clock_timestamp() - answer_since), 0)::float8 AS answer_s;

-- name: claim_one
-- Claims one operation if it is still due; the unique index rejects it while another of its game runs.
UPDATE operations
SET state = 'running', owner = %(owner)s, generation = generation + 1, heartbeat_at = clock_timestamp(),
    deferred_why = NULL
WHERE id = %(id)s AND state = 'due'
RETURNING id, game_id, kind, source, source_ref, image_ref, reason, caller, problem_code, problem_message,
          stream, generation, deferrals, defects, answer,
          extract(epoch FROM accepted_at)::float8 AS accepted_s,
          coalesce(extract(epoch FROM clock_timestamp() - answer_since), 0)::float8 AS answer_s;

-- name: running_ids
SELECT id FROM operations WHERE state = 'running' ORDER BY id;

-- name: heartbeat
-- Renews the heartbeats of claimed operations; returns those that this claim still has.
-- The subquery is for the planner: a plan made with few running operations would read all of them for each row.
UPDATE operations o
SET heartbeat_at = clock_timestamp()
FROM unnest(%(ids)s::bigint[], %(generations)s::bigint[], %(games)s::text[], %(refs)s::text[])
     AS mine (id, generation, game_id, source_ref)
WHERE o.id = mine.id AND o.generation = mine.generation AND o.state = (SELECT 'running')
  AND o.game_id = mine.game_id AND o.source_ref = mine.source_ref
RETURNING o.id;

-- name: still_ours
-- Returns those of these claims that no other claim has replaced.
SELECT o.id
FROM unnest(%(ids)s::bigint[], %(generations)s::bigint[], %(games)s::text[], %(refs)s::text[])
     AS mine (id, generation, game_id, source_ref)
JOIN operations o ON o.id = mine.id AND o.generation = mine.generation AND o.state = (SELECT 'running')
     AND o.game_id = mine.game_id AND o.source_ref = mine.source_ref;

-- name: heartbeat_of_unlocked
-- The same, but skips locked rows: these are not renewed, and count as still claimed. Waiting for one of them would
-- cost all others their heartbeats.
WITH unlocked AS MATERIALIZED (
{still_ours}
FOR NO KEY UPDATE OF o SKIP LOCKED),
renewed AS (
    UPDATE operations o SET heartbeat_at = clock_timestamp() FROM unlocked WHERE o.id = unlocked.id)
{still_ours};

-- name: reclaim_orphans
-- Makes claimed operations due again: those silent for a whole lease; those of an instance whose session, and with it
-- its lock, has ended; this instance's that it does not work on (a claim's answer was lost). Skips locked rows.
-- A heartbeat more than a lease ahead of the clock, which was ahead then, is set to now, so that its silence counts.
WITH ahead AS (
    UPDATE operations SET heartbeat_at = clock_timestamp()
    WHERE id IN (SELECT o.id FROM operations o
                 WHERE o.state = 'running' AND (%(only)s::bigint IS NULL OR o.id = %(only)s)
                   AND o.heartbeat_at > clock_timestamp() + make_interval(secs => %(lease_s)s)
                 FOR UPDATE OF o SKIP LOCKED)),
lost AS MATERIALIZED (
    SELECT o.id, o.owner = %(owner)s AS ours
    FROM operations o
    WHERE o.state = 'running' AND (%(only)s::bigint IS NULL OR o.id = %(only)s)
      AND (o.heartbeat_at < clock_timestamp() - make_interval(secs => %(lease_s)s)
           OR (o.heartbeat_at < clock_timestamp() - make_interval(secs => %(grace_s)s)
               AND CASE
                   WHEN o.owner = %(owner)s THEN o.id <> ALL (%(live)s)
                   ELSE %(by_presence)s AND NOT EXISTS (
                       SELECT FROM pg_locks l
                       WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
                         AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                         AND l.classid = %(presence_class)s AND l.objid = o.owner::bigint)
                   END))
    FOR UPDATE OF o SKIP LOCKED)
UPDATE operations o
SET state = 'due', owner = NULL, not_before = clock_timestamp()
FROM lost
WHERE o.id = lost.id
RETURNING o.id, o.game_id, o.kind, lost.ours;

-- name: defer_operation
-- Makes an operation due again later, after silence or a temporary answer. `answer_since` is the start of its temporary
-- answers, whichever they are. Silence does not count, so it moves that moment on. The first silence after an answer
-- does not, or a daemon that alternates between the two would be retried for ever.
UPDATE operations
SET state = 'due', owner = NULL, deferrals = deferrals + 1, deferred_why = %(why)s, defects = defects + %(defects)s,
    answer = nullif(%(answer)s::text, ''),
    answer_since = CASE WHEN %(answer)s::text <> ''
                        -- A moment ahead of the clock would never be long ago.
                        THEN CASE WHEN answer_since <= clock_timestamp() THEN answer_since ELSE clock_timestamp() END
                        WHEN answer IS NOT NULL THEN answer_since
                        -- The later one: a person may have moved `not_before` back.
                        ELSE answer_since + (clock_timestamp() + make_interval(secs => %(delay_s)s)
                                             - greatest(not_before, answer_since)) END,
    not_before = clock_timestamp() + make_interval(secs => %(delay_s)s)
WHERE id = %(id)s AND generation = %(generation)s AND state = 'running'
  AND game_id = %(game_id)s AND source_ref = %(source_ref)s;

-- name: note_end
-- Notes the container that an operation is about to stop, or withdraws the note; returns the note before. Renews the
-- claim, and returns nothing when another claim has replaced it.
UPDATE operations o
SET ends_container = %(container_id)s::text, heartbeat_at = clock_timestamp()
FROM operations before
WHERE o.id = %(id)s AND o.generation = %(generation)s AND o.state = 'running'
  AND o.game_id = %(game_id)s AND o.source_ref = %(source_ref)s AND before.id = o.id
RETURNING before.ends_container;

-- name: noted_end
SELECT ends_container FROM operations
WHERE id = %(id)s AND game_id = %(game_id)s AND source_ref = %(source_ref)s;

-- name: park_operation
-- Notes why a claimed operation waits; the next claim deletes the note.
UPDATE operations SET deferred_why = %(why)s
WHERE id = %(id)s AND generation = %(generation)s AND state = 'running'
  AND game_id = %(game_id)s AND source_ref = %(source_ref)s;

-- name: hand_back
-- Releases everything that a stopping instance still holds.
UPDATE operations
SET state = 'due', owner = NULL, deferred_why = 'its instance stopped', not_before = clock_timestamp()
WHERE owner = %(owner)s AND state = 'running'
RETURNING id;

-- name: get_outcome
-- Returns how an operation stands, for the waiting caller.
SELECT source_ref, state, outcome, error_code, error_message FROM operations WHERE id = %(id)s;

-- name: take_presence
-- A separate session holds the lock for the lifetime of an instance.
SELECT pg_try_advisory_lock(%(presence_class)s, %(owner)s) AS taken;
