-- name: recorded_daemon
-- The same row each time, even where the table has lost its key and has a second one.
SELECT daemon_id, name, network, network_id FROM daemon ORDER BY recorded_at, daemon_id LIMIT 1;

-- name: record_daemon
-- The daemon on record, which is this one if none was.
WITH known AS ({recorded_daemon}),
made AS (INSERT INTO daemon (daemon_id, name, network, network_id)
         SELECT %(daemon_id)s, %(name)s, %(network)s, %(network_id)s WHERE NOT EXISTS (SELECT FROM known)
         ON CONFLICT DO NOTHING RETURNING daemon_id, name, network, network_id)
SELECT * FROM known UNION ALL SELECT * FROM made;

-- name: forget_daemon
DELETE FROM daemon;

-- name: forget_deployment
DELETE FROM deployment;

-- name: deployment_id
-- The id of this database among those that use one Redis or one Docker; made anew if somebody emptied the table. The
-- same one each time, even where the table has lost its key and a second row.
WITH known AS (SELECT id FROM deployment ORDER BY id LIMIT 1),
made AS (INSERT INTO deployment (only_row) SELECT true WHERE NOT EXISTS (SELECT FROM known)
         ON CONFLICT DO NOTHING RETURNING id)
SELECT id::text FROM known UNION ALL SELECT id::text FROM made;
