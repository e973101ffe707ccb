"""The state of PostgreSQL and Redis at startup."""

from collections.abc import Sequence

from reliability.mutants.mutant import Mutant

MUTANTS: Sequence[Mutant] = (
    Mutant(
        name="session-left-as-it-is",
        breaks="a setting of the database or the role changes what statements mean",
        file="rtmanager/config/dsn.py",
        old='    "default_transaction_read_only": "off",\n',
        new="",
        module="test_postgres_found",
    ),
    Mutant(
        name="foreign-migrations-taken-for-ours",
        breaks="with another tool's table of migrations the service makes tables that are not whole",
        file="rtmanager/adapters/postgres/schema.py",
        old="    if other or (rows and min(known) not in rows):\n",
        new="    if False:\n",
        module="test_postgres_found",
    ),
    Mutant(
        name="rights-not-tried",
        breaks="a Redis user who may not do everything passes the check, and results are never published",
        file="rtmanager/adapters/redis_access.py",
        old="        require_allowed(connection, names, where)\n        _require_primary(role)\n",
        new="        _require_primary(role)\n",
        module="test_redis_found",
    ),
    Mutant(
        name="writes-not-tried",
        breaks="a Redis that is full passes the check",
        file="rtmanager/adapters/redis_access.py",
        old="        _require_written(connection)\n    except",
        new="    except",
        module="test_redis_found",
    ),
    Mutant(
        name="published-before-remembered",
        breaks="a Redis user who loses a right gets one message more with each try",
        file="rtmanager/adapters/redis_streams.py",
        old="""      redis.call('SADD', KEYS[2], id)
      local reply = redis.pcall('XADD', key, 'MAXLEN', '~', ARGV[2], '*', unpack(entry))
""",
        new="""      local reply = redis.pcall('XADD', key, 'MAXLEN', '~', ARGV[2], '*', unpack(entry))
      redis.call('SADD', KEYS[2], id)
""",
        module="test_redis_found",
    ),
    Mutant(
        name="trimmed-for-us-alone",
        breaks="entries are deleted that another consumer group has not read",
        file="rtmanager/adapters/redis_trimming.py",
        old="  if not bound or less(reached, bound) then bound, holder = reached, name end\n",
        new="  if name == ours then bound, holder = reached, name end\n",
        module="test_retention",
    ),
    Mutant(
        name="forgotten-is-unknown",
        breaks="an entry that comes again after its operation was deleted is done twice",
        file="rtmanager/adapters/postgres/sql/queue.sql",
        old="""WHERE NOT EXISTS (SELECT FROM forgotten_entries f
                  WHERE f.stream IN (j.stream, j.stream || '#ahead')
                    AND (f.entry_ms, f.entry_seq) >= (j.entry_ms, j.entry_seq)
                    AND extract(epoch FROM clock_timestamp()) * 1000 NOT BETWEEN j.entry_ms - 86400000 AND f.entry_ms)
ON CONFLICT""",
        new="ON CONFLICT",
        module="test_retention",
    ),
)
