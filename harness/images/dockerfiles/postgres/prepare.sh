# Makes the data directory of the test image, with durability off: a test's data need not survive a crash.
set -eu
home=/opt/rtm-postgres
programs=$(dirname "$(command -v initdb || ls /usr/lib/postgresql/*/bin/initdb | tail -n 1)")
# The link lets the image start the server by one name; PostgreSQL finds its own files through it.
ln -s "$programs/postgres" "$home/postgres"

# Small WAL segments: the first write copies a whole one out of the image.
"$programs/initdb" -D "$PGDATA" --username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 \
    --wal-segsize=1 --no-sync >/dev/null
echo 'host all all all trust' >> "$PGDATA/pg_hba.conf"
cat >> "$PGDATA/postgresql.conf" <<'CONF'
listen_addresses = '*'
unix_socket_directories = '/tmp'
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 256MB
min_wal_size = 2MB
shared_buffers = 32MB
max_logical_replication_workers = 0
dynamic_shared_memory_type = posix
autovacuum = off
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
CONF

"$programs/pg_ctl" -D "$PGDATA" -w -s -l "$home/prepare.log" start
"$programs/psql" -q -v ON_ERROR_STOP=1 -h /tmp -U postgres -f "$home/setup.sql" postgres
"$programs/pg_ctl" -D "$PGDATA" -w -s -m fast stop
