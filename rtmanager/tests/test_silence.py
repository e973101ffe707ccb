"""One setting bounds the silence of a server; the adapters' deadlines are fixed fractions of it.

The order of the fractions matters more than their size. A silent Redis has to time out before the transaction that
waits for it exceeds PostgreSQL's own limit. PostgreSQL ends a slow statement before it counts as silent itself.
"""

from __future__ import annotations

import socket
import unittest
from time import monotonic

import psycopg
import redis
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import PoolTimeout

from rtmanager.adapters.postgres.answers import is_silence as is_silence_of_postgres
from rtmanager.adapters.postgres.answers import verb
from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.redis_streams import RedisStreams, is_silence
from rtmanager.domain.errors import Unavailable
from rtmanager.domain.messages import Stream


class PostgresLimits(unittest.TestCase):
    def limits(self, silence_s: float) -> tuple[str, str]:
        found = conninfo_to_dict(Database("postgres://h/g", max_connections=4, silence_s=silence_s).conninfo)
        [statement] = [part for part in str(found["options"]).split() if part.startswith("-cstatement_timeout=")]
        return statement.partition("=")[2], str(found["connect_timeout"])

    def test_a_statement_and_a_connection_have_five_eighths_of_it(self) -> None:
        self.assertEqual(self.limits(8.0), ("5000", "5"))
        self.assertEqual(self.limits(2.0), ("1250", "2"), "a connection is timed in whole seconds, two at least")
        self.assertEqual(self.limits(15.0), ("9375", "10"))

    def test_a_time_for_connecting_that_the_dsn_names_is_kept(self) -> None:
        database = Database("postgres://h/g?connect_timeout=3", max_connections=4, silence_s=8.0)
        self.assertEqual(conninfo_to_dict(database.conninfo)["connect_timeout"], "3")


class PostgresAnswers(unittest.TestCase):
    def test_without_a_sqlstate_only_a_lost_connection_is_silence(self) -> None:
        silent = (psycopg.OperationalError("the connection is lost"), psycopg.DatabaseError("consuming input failed"))
        final = (
            psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"),
            psycopg.ProgrammingError("the query has 1 placeholder but 0 parameters were passed"),
            psycopg.InterfaceError("the cursor is closed"),
            psycopg.NotSupportedError("no"),
            psycopg.errors.ProgramLimitExceeded("an OperationalError, by its class"),
            NotImplementedError("can't parse timestamptz with DateStyle 'German, DMY'"),
            ZeroDivisionError(),
        )
        for error in (*silent, *final):
            self.assertEqual(is_silence_of_postgres(error), error in silent, repr(error))

    def test_an_answer_is_not_called_silence(self) -> None:
        for error, expected in {
            psycopg.errors.UndefinedTable("no such table"): "refuses",
            psycopg.errors.ReadOnlySqlTransaction("read-only"): "refuses",
            psycopg.errors.DiskFull("no space"): "refuses",
            psycopg.errors.ConnectionFailure("lost"): "does not answer",
            psycopg.OperationalError("the connection is lost"): "does not answer",
            psycopg.OperationalError("connection failed: FATAL: too many connections"): "takes no connection",
            PoolTimeout("couldn't get a connection after 5 sec"): "does not answer",
        }.items():
            self.assertEqual(verb(error), expected, repr(error))


class RedisLimits(unittest.TestCase):
    SILENCE_S = 3.0

    def setUp(self) -> None:
        # The kernel accepts connections; no program reads or answers.
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        names = {stream: f"test:{stream}" for stream in Stream}
        host, port = silent.getsockname()
        self.streams = RedisStreams(host, port, password="", names=names, output_maxlen=1000, silence_s=self.SILENCE_S)
        self.addCleanup(self.streams.close)

    def test_a_command_is_given_up_after_two_tries_of_a_quarter(self) -> None:
        began = monotonic()
        with self.assertRaises(Unavailable) as caught:
            self.streams.ping()
        took = monotonic() - began

        self.assertEqual(caught.exception.dependency, "redis")
        self.assertGreaterEqual(took, self.SILENCE_S / 2)
        self.assertLess(took, self.SILENCE_S, "before the transaction around it looks like a silent PostgreSQL")


class RedisAnswers(unittest.TestCase):
    def test_a_server_that_cannot_serve_is_silent_and_a_refused_command_is_not(self) -> None:
        silent = (
            redis.ConnectionError("Connection refused"),
            redis.TimeoutError("Timeout reading from socket"),
            redis.BusyLoadingError("Redis is loading the dataset in memory"),
            redis.ReadOnlyError("You can't write against a read only replica."),
            redis.AuthenticationError("invalid username-password pair or user is disabled."),
            redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
            redis.exceptions.MasterDownError("Link with MASTER is down"),
            redis.ResponseError("BUSY Redis is busy running a script. You can only call SCRIPT KILL"),
            redis.ResponseError("MISCONF Redis is configured to save RDB snapshots, but it is unable to persist"),
            redis.ResponseError("Command # 2 (XADD a) of pipeline caused error: NOREPLICAS Not enough good replicas"),
        )
        final = (
            redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
            redis.ResponseError("ERR unknown command 'XAUTOCLAIM'"),
            redis.exceptions.NoPermissionError("User x has no permissions to run the 'xadd' command"),
            redis.exceptions.ClusterCrossSlotError("Keys in request don't hash to the same slot"),
            redis.ResponseError("Command # 1 (XADD BUSY) of pipeline caused error: WRONGTYPE"),
            redis.exceptions.DataError("Invalid input of type"),
        )
        for error in (*silent, *final):
            self.assertEqual(is_silence(error), error in silent, repr(error))
