"""PostgreSQL and Redis keep the promises that the operations and workers rely on: the contract tests of the ports."""

import unittest
from typing import TYPE_CHECKING, Any, ClassVar

from harness import start_services
from harness.fixtures import services
from harness.fixtures.services import Services
from harness.runs import flag

flag.check_wanted()  # what follows takes a fifth of the time in which the whole suite is found and skipped

from rtmanager.domain.messages import Stream  # noqa: E402
from rtmanager.tests import store_contract, streams_contract  # noqa: E402

if TYPE_CHECKING:
    from integration.stores import StoreInPostgres, StreamsInRedis
    from rtmanager.adapters.postgres.database import Database


def setUpModule() -> None:
    start_services()


class InPostgres(unittest.TestCase):
    """Makes the store of a contract's test, in the services of this process; the tests of a class share the pool."""

    services: ClassVar[Services]
    database: "ClassVar[Database]"

    @classmethod
    def setUpClass(cls) -> None:
        from integration.stores import migrated

        super().setUpClass()
        cls.services = services.shared()
        cls.database = migrated(cls.services.database.dsn)
        cls.addClassCleanup(cls.database.close)

    def make(self) -> "StoreInPostgres":
        from integration.stores import StoreInPostgres

        self.services.empty()
        return StoreInPostgres(self.database, {stream: f"test:{stream}" for stream in Stream})


class PostgresRecordsTest(InPostgres, store_contract.RecordsContract):
    pass


class PostgresQueueTest(InPostgres, store_contract.QueueContract):
    pass


class PostgresOwnershipTest(InPostgres, store_contract.OwnershipContract):
    pass


class PostgresEndingTest(InPostgres, store_contract.EndingContract):
    pass


class PostgresInboxTest(InPostgres, store_contract.InboxContract):
    pass


class PostgresOutboxTest(InPostgres, store_contract.OutboxContract):
    pass


class InRedis(unittest.TestCase):
    """Makes the streams of a contract's test."""

    def make(self) -> "StreamsInRedis":
        from integration.stores import StreamsInRedis

        shared = services.shared()
        shared.redis.flush()
        client: Any = shared.redis.client()
        self.addCleanup(client.close)
        return StreamsInRedis(self, shared.redis.address, client)


class RedisReadingTest(InRedis, streams_contract.ReadingContract):
    pass


class RedisWritingTest(InRedis, streams_contract.WritingContract):
    pass
