"""PgBouncer in front of PostgreSQL; a Redis with users and certificates."""

import unittest

import psycopg

from harness import RedisTls, check_flag, create_authority, start_pgbouncer, start_postgres, start_redis


class Fronts(unittest.TestCase):
    def test_two_clients_share_a_connection_in_transaction_mode(self) -> None:
        check_flag()
        with start_postgres() as server, start_pgbouncer(server, "transaction") as pooler:
            dsn = server.create_database().dsn_by_way_of(pooler.host, pooler.port).partition("?")[0]
            with psycopg.connect(dsn, autocommit=True) as one, psycopg.connect(dsn, autocommit=True) as other:
                pids = [each.execute("SELECT pg_backend_pid()").fetchone() for each in (one, other)]
        self.assertEqual(pids[0], pids[1])

    def test_a_user_may_read_and_not_write(self) -> None:
        check_flag()
        with (
            create_authority() as authority,
            start_redis(
                users={"reader": "on nopass ~* +get"},
                tls=RedisTls(authority, authority.issue("server", ("127.0.0.1",))),
            ) as server,
            server.client() as client,
        ):
            self.assertIn("reader", client.acl_users())
            self.assertTrue(server.tls_address.startswith("rediss://"))
