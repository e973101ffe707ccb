-- name: recorded_daemon
-- Returns the same row each time, also when the table has lost its key and has a second row.
SELECT daemon_id, name, network, network_id FROM daemon ORDER BY recorded_at, daemon_id LIMIT 1;

-- name: record_daemon
-- Returns the daemon on record; records this one if there is none.
WITH known AS ({recorded_daemon}),
made AS (INSERT INTO daemon (daemon_id, name, network, network_id)
         SELECT %(daemon_id)s, %(name)s, %(network)s, %(network_id)s WHERE NOT EXISTS (SELECT FROM known)
         ON CONFLICT DO NOTHING RETURNING daemon_id, name, network, network_id)
SELECT * FROM known UNION ALL SELECT * FROM made;

-- name: forget_daemon
DELETE FROM daemon;

-- name: known_deployment
SELECT id FROM deployment ORDER BY id LIMIT 1;

-- name: lost_deployment
-- Returns a row if the table is empty though records name containers, whose labels have the lost id.
SELECT 1 WHERE NOT EXISTS (SELECT FROM deployment)
               AND EXISTS (SELECT FROM runtime_records WHERE current_container_id IS NOT NULL);

-- name: forget_deployment
DELETE FROM deployment;

-- name: deployment_id
-- Returns this database's id among those that share one Redis or one Docker; creates it when the table is empty.
-- Returns the same one each time, also when the table has lost its key and has a second row.
WITH known AS ({known_deployment}),
made AS (INSERT INTO deployment (only_row) SELECT true WHERE NOT EXISTS (SELECT FROM known)
         ON CONFLICT DO NOTHING RETURNING id)
SELECT id::text FROM known UNION ALL SELECT id::text FROM made;
