"""The state of PostgreSQL and Redis at startup."""

from reliability.mutants.check import module
from reliability.mutants.mutant import Edit, Mutant

MUTANTS = (
    Mutant(
        "session-left-as-it-is",
        "a setting of the database or the role changes what statements mean",
        Edit("config/dsn.py", '    "default_transaction_read_only": "off",\n', ""),
        check=module("test_postgres_found"),
    ),
    Mutant(
        "foreign-migrations-taken-for-ours",
        "with another tool's table of migrations the service makes tables that are not whole",
        Edit("adapters/postgres/schema.py", "    if other or (rows and min(known) not in rows):\n", "    if False:\n"),
        check=module("test_postgres_found"),
    ),
    Mutant(
        "rights-not-tried",
        "a Redis user who may not do everything passes the check, and results are never published",
        Edit(
            "adapters/redis_access.py",
            "        require_allowed(connection, names, where)\n        _require_primary(role)\n",
            "        _require_primary(role)\n",
        ),
        check=module("test_redis_found"),
    ),
    Mutant(
        "writes-not-tried",
        "a Redis that is full passes the check",
        Edit("adapters/redis_access.py", "        _require_written(connection)\n    except", "    except"),
        check=module("test_redis_found"),
    ),
    Mutant(
        "published-before-remembered",
        "a Redis user who loses a right gets one message more with each try",
        Edit(
            "adapters/redis_streams.py",
            """      redis.call('SADD', KEYS[2], id)
      local reply = redis.pcall('XADD', key, 'MAXLEN', '~', ARGV[2], '*', unpack(entry))
""",
            """      local reply = redis.pcall('XADD', key, 'MAXLEN', '~', ARGV[2], '*', unpack(entry))
      redis.call('SADD', KEYS[2], id)
""",
        ),
        check=module("test_redis_found"),
    ),
    Mutant(
        "trimmed-for-us-alone",
        "entries are deleted that another consumer group has not read",
        Edit(
            "adapters/redis_trimming.py",
            "  if not bound or less(reached, bound) then bound, holder = reached, name end\n",
            "  if name == ours then bound, holder = reached, name end\n",
        ),
        check=module("test_retention"),
    ),
    Mutant(
        "forgotten-is-unknown",
        "an entry that comes again after its operation was deleted is done twice",
        Edit(
            "adapters/postgres/sql/queue.sql",
            """WHERE NOT EXISTS (SELECT FROM forgotten_entries f
                  WHERE f.stream IN (j.stream, j.stream || '#ahead')
                    AND (f.entry_ms, f.entry_seq) >= (j.entry_ms, j.entry_seq)
                    AND extract(epoch FROM clock_timestamp()) * 1000 NOT BETWEEN j.entry_ms - 86400000 AND f.entry_ms)
ON CONFLICT""",
            "ON CONFLICT",
        ),
        check=module("test_retention"),
    ),
)
