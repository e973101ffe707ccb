"""A manager that is killed loses nothing: one container, one record, one result."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness.case import RuntimeTestCase, start_services
from harness.waiting import wait_until


def setUpModule() -> None:
    start_services()


class KilledManager(RuntimeTestCase):
    def lock(self, table: str) -> Any:
        """A transaction that lets nobody write the table until it is closed."""
        connection = self.services.database.connect()
        connection.autocommit = False
        self.addCleanup(connection.close)
        connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE".encode())
        return connection

    def test_killed_between_the_start_of_the_container_and_its_record(self) -> None:
        process = self.start_process()
        lock = self.lock("runtime_records")
        self.add_start_job()
        [container] = wait_until("the container", self.running_containers)
        self.assertEqual(self.record(), {})
        process.kill()
        lock.close()
        self.assertEqual(self.record(), {})

        self.start_process()
        [result] = self.results()

        self.assertEqual((result["outcome"], result["container_id"]), ("success", container["Id"]))
        self.assertEqual([each["Id"] for each in self.containers()], [container["Id"]])
        self.assertEqual(self.record()["current_container_id"], container["Id"])
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start"])
        self.nothing_more_comes()

    def test_killed_in_the_middle_of_a_restart(self) -> None:
        process = self.start_process()
        self.post("start", {"image_ref": self.engine.ref})
        [old] = self.containers()
        lock = self.lock("runtime_records")
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(self.call, "POST", "/restart")
            [new] = wait_until("the new container", lambda: self.running_containers(but=old["Id"]))
            process.kill()
        self.assertIsInstance(call.exception(), OSError)
        lock.close()

        self.start_process()
        wait_until("the record", lambda: self.record()["current_container_id"] == new["Id"])

        self.assertEqual([each["Id"] for each in self.containers()], [new["Id"]])
        kinds = [row["op_kind"] for row in self.log_rows()]
        self.assertEqual(kinds, ["start", "stop", "start", "restart"])

    def running_containers(self, but: str = "") -> list[dict[str, Any]]:
        return [each for each in self.containers() if each["State"]["Running"] and each["Id"] != but]

    def nothing_more_comes(self) -> None:
        """A job sent now is answered next, so nothing was on its way before it."""
        self.add_stop_job()
        self.assertEqual(len(self.results(2)), 2)
        self.assertEqual(self.entries("notification:intents"), [])
