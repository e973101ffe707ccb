"""One database, one daemon: a second daemon is rejected, changes nothing, and is accepted by a command only.

Docker 20.10 stores its id outside its data, so the daemons of one host share it. Here they differ by their networks, as
cloned hosts do.
"""

import json
from typing import Any

from harness import check_docker_daemon, daemon, start_docker_daemon, start_services, web
from harness.fixtures import faults, network
from harness.fixtures.dockerd import OwnDaemon
from harness.rtm import unique_game_id
from integration.support import images
from integration.support.commands import CommandTestCase
from integration.test_startup import taken_address

#: Periods so short that many passes run during a test.
OFTEN = {"RECONCILE_INTERVAL": "200ms", "INSPECT_INTERVAL": "200ms", "PROBE_INTERVAL": "200ms"}


def setUpModule() -> None:
    start_services()


class TwoDaemons(CommandTestCase):
    """The machine's daemon, and a second one with the same image and a network of the same name."""

    def setUp(self) -> None:
        check_docker_daemon()
        super().setUp()
        self.image = images.tiny("waits")

    def start_other(self) -> OwnDaemon:
        other = start_docker_daemon()
        self.at_end(other.close)
        other.copy_image(self.image)
        other.create_network(self.network.name)
        return other

    def containers_of(self, other: OwnDaemon) -> list[dict[str, Any]]:
        return list(other.client().containers(all=True))


class Refused(TwoDaemons):
    def test_a_second_manager_on_another_daemon_exits_1_with_one_line_and_check_says_the_same(self) -> None:
        self.start_runtime()
        record = self.post("start", {"image_ref": self.image})
        there = self.environment(DOCKER_HOST=self.start_other().url)

        code, output = self.command("serve", there)
        [line] = output.splitlines()
        logged = json.loads(line)
        self.assertEqual((code, logged["message"]), (1, "cannot start"))
        for text in ("the records are about the containers of", self.network.network_id[:12], "accept-daemon"):
            self.assertIn(text, logged["error"])

        code, output = self.command("check", there)
        self.assertEqual((code, output.count("FAILED")), (1, 1), output)
        self.assertRegex(output, "FAILED  daemon .*the records are about the containers of")
        self.assertEqual(self.record()["current_container_id"], record["current_container_id"])


class Exchanged(TwoDaemons):
    def setUp(self) -> None:
        super().setUp()
        self.own_socket = daemon.host().removeprefix("unix://")
        self.proxy = faults.before(self.own_socket)
        self.at_end(self.proxy.close)

    def lead_to(self, socket: str) -> None:
        self.proxy.lead_to(socket)
        self.proxy.cut()

    def not_ready(self) -> str | None:
        status, body = web.call("GET", f"{self.base_url}/readyz")
        return json.dumps(body) if status == 503 and "the records are about" in json.dumps(body) else None

    def test_a_daemon_that_is_exchanged_under_a_manager_changes_no_record_and_ends_no_job(self) -> None:
        other = self.start_other()
        self.start_runtime(DOCKER_HOST=self.proxy.url, **OFTEN)
        self.post("start", {"image_ref": self.image})
        before = self.record()
        self.lead_to(other.url.removeprefix("unix://"))

        message = self.wait_until("readiness to name both daemons", self.not_ready)
        self.assertIn("daemon: the records are about", message)
        self.assertIn(self.network.network_id[:12], message)
        self.refused(self.call("POST", "/stop", {"reason": "finished"}), 503, "service_unavailable")
        second = unique_game_id("second")
        self.add_stop_job()
        self.add_start_job(self.image, second)
        deferred = "SELECT FROM operations WHERE state = 'due' AND deferrals >= 2"
        self.wait_until("both jobs to be put off again", lambda: len(self.rows(deferred)) == 2)
        self.assertIn("rtmanager_other_daemon 1", web.text(f"{self.base_url}/metrics"))
        self.assertEqual(self.record(), before)
        self.assertEqual(self.record(second), {})
        self.assertEqual(self.containers_of(other), [])
        self.assertEqual([row["op_kind"] for row in self.log_rows()], ["start", "stop"])

        self.lead_to(self.own_socket)
        self.wait_until_ready()
        results = self.results(2)
        self.assertEqual([each["outcome"] for each in results], ["success", "success"])
        self.assertEqual(self.record()["status"], "stopped")
        log = self.log.read_text()
        self.assertEqual(log.count("another daemon answers, passes are frozen"), 1)
        self.assertEqual(log.count("the daemon on record answers again"), 1)


class Moved(TwoDaemons):
    """The documented move to another host: docs/operations.md, Move to another host."""

    def test_games_that_were_stopped_before_run_there_after_a_restart(self) -> None:
        manager = self.start_runtime()
        self.post("start", {"image_ref": self.image})
        self.post("stop", {"reason": "finished"})
        left = unique_game_id("left")
        self.post("start", {"image_ref": self.image}, game_id=left)
        manager.stop()
        other = self.start_other()
        there = {"DOCKER_HOST": other.url}

        code, output = self.command("accept-daemon", self.environment(**there))
        self.assertEqual(code, 0, output)
        self.assertIn(f"on record before: {self.docker.info()['Name']}", output)
        self.start_runtime(**there)

        self.assertEqual(self.record()["status"], "stopped")
        self.assertEqual(self.post("restart", {})["status"], "running")
        # The first pass records a game that was not stopped as removed; it is started again by its image.
        self.assertEqual(self.record(left)["status"], "removed")
        self.assertEqual(self.log_rows(left)[-1]["op_kind"], "reconcile_dispose")
        self.assertEqual(self.post("start", {"image_ref": self.image}, game_id=left)["status"], "running")
        self.assertEqual(len(self.containers_of(other)), 2)

        code, output = self.command("serve", self.environment())
        self.assertEqual((code, len(output.splitlines())), (1, 1), output)

    def test_a_network_that_was_created_anew_is_accepted_by_the_same_command(self) -> None:
        first = network.create()
        environment = self.environment(DOCKER_NETWORK=first.name)
        self.start_runtime(DOCKER_NETWORK=first.name).stop()
        first.remove()
        second = network.create(first.name)
        self.at_end(second.remove)

        code, output = self.command("serve", environment)
        self.assertEqual((code, len(output.splitlines())), (1, 1), output)
        self.assertIn("the network was created anew", output)
        self.assertEqual(self.command("accept-daemon", environment)[0], 0)
        self.start_runtime(DOCKER_NETWORK=first.name)


class Deployments(CommandTestCase):
    """Two databases on one daemon, one network, and the same game ids."""

    def test_the_containers_of_another_deployment_are_neither_adopted_nor_taken(self) -> None:
        self.start_runtime()
        theirs = self.post("start", {"image_ref": self.engine.ref})["current_container_id"]
        database = self.fresh_database()

        self.start_runtime(POSTGRES_PRIMARY_DSN=database.dsn, **OFTEN)
        message = self.refused(
            self.call("POST", "/start", {"image_ref": self.engine.ref}), 500, "container_start_failed"
        )

        self.assertRegex(message, f"taken by container {theirs[:12]} .* of deployment ")
        [container] = self.containers()
        self.assertEqual((container["Id"], container["State"]["Running"]), (theirs, True))
        with database.connect() as connection:
            records = connection.execute("SELECT FROM runtime_records").fetchall()
            [known] = connection.execute("SELECT id::text FROM deployment").fetchone() or ("",)
        self.assertEqual(records, [])
        self.assertIn(known, message)
        self.assertNotEqual(container["Config"]["Labels"]["com.galaxy.deployment"], known)
        self.assertIn("containers of other deployments are left alone", self.log.read_text())

    def test_a_lost_id_is_reported_with_the_row_to_restore_and_no_record_changes(self) -> None:
        runtime = self.start_runtime(**OFTEN)
        container_id = self.post("start", {"image_ref": self.engine.ref})["current_container_id"]
        [label] = [each["Config"]["Labels"]["com.galaxy.deployment"] for each in self.containers()]
        restore = f"INSERT INTO rtmanager.deployment (id) VALUES ('{label}')"
        self.rows("DELETE FROM deployment RETURNING 1")
        self.wait_until(
            "readiness to report it", lambda: restore in json.dumps(web.call("GET", f"{self.base_url}/readyz")[1])
        )
        runtime.stop()

        for command in ("serve", "check"):
            code, output = self.command(command, self.environment(STARTUP_WAIT="1s"))
            self.assertEqual(code, 1, output)
            self.assertIn("the table deployment is empty", output)
        self.rows(f"{restore} RETURNING 1")
        self.start_runtime(**OFTEN)
        self.assertEqual((self.record()["status"], self.record()["current_container_id"]), ("running", container_id))

    def test_a_copy_that_is_a_deployment_of_its_own_leaves_the_containers_of_the_original_alone(self) -> None:
        original = self.start_runtime()
        theirs = self.post("start", {"image_ref": self.engine.ref})["current_container_id"]
        original.stop()  # from here on its database serves as the copy

        code, output = self.command("accept-daemon --new-deployment", self.environment())
        self.assertEqual(code, 0, output)
        self.start_runtime()

        self.assertEqual(self.record()["status"], "removed")
        [container] = self.containers()
        self.assertEqual((container["Id"], container["State"]["Running"]), (theirs, True))


class Boot(CommandTestCase):
    def test_serve_waits_for_what_does_not_answer_yet_and_then_serves(self) -> None:
        redis = self.services.redis
        with faults.before((redis.host, redis.port)) as proxy:
            proxy.refuse()
            process = self.start_waiting(f"{proxy.host}:{proxy.port}")
            self.wait_until("the start to wait", lambda: "the start waits for it" in self.log.read_text())
            self.assertIsNone(process.exit_code)
            proxy.pass_on()
            process.wait_until_ready()
            self.assertEqual(process.terminate(), 0)
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        logged = [line for line in lines if ", the start " in line["message"]]
        self.assertEqual(
            [(line["dependency"], "goes on" in line["message"]) for line in logged], [("redis", False), ("redis", True)]
        )

    def start_waiting(self, redis: str) -> Any:
        from harness.rtm import manager

        address = manager.free_address()
        environment = self.environment(INTERNAL_HTTP_ADDR=address, REDIS_MASTER_ADDR=redis, STARTUP_WAIT="5m")
        process = manager.start(environment, self.log)
        self.addCleanup(process.kill)
        return process

    def test_each_that_stays_silent_ends_the_start_after_one_line_of_its_own(self) -> None:
        dsn = "postgresql://nobody@{}/galaxy"
        with taken_address(listening=False) as nobody:
            away = [
                {"POSTGRES_PRIMARY_DSN": dsn.format(nobody)},
                {"REDIS_MASTER_ADDR": nobody},
                {"DOCKER_HOST": f"tcp://{nobody}"},
            ]
            ended = self.commands("serve", *(self.environment(STARTUP_WAIT="2s", **each) for each in away))
        for (code, output), name in zip(ended, ("postgres", "redis", "docker"), strict=True):
            waits, failed = map(json.loads, output.splitlines())
            self.assertEqual((code, waits["dependency"], failed["message"]), (1, name, "cannot start"))
            self.assertTrue(failed["error"].startswith(f"{name}: "), failed)

    def test_what_no_waiting_mends_ends_the_start_with_one_line(self) -> None:
        postgres = self.services.postgres
        role = f"postgresql://nobody:x@{postgres.host}:{postgres.port}/galaxy"
        wrong = (
            {"POSTGRES_PRIMARY_DSN": role},
            {"REDIS_PASSWORD": "wrong"},
            {"DOCKER_NETWORK": f"{self.network.name}-not"},
        )
        ended = self.commands("serve", *(self.environment(STARTUP_WAIT="1h", **each) for each in wrong))
        for code, output in ended:
            self.assertEqual((code, len(output.splitlines())), (1, 1), output)
