"""The invariant checker on real services: silent after correct work, and reports each manual defect."""

from collections.abc import Callable
from pathlib import Path

from harness import start_services
from harness.rtm import RuntimeTestCase
from reliability.invariants import Bystander, Job, World, bystander, is_quiet, unquiet, violations

START, STOP = "runtime:start_jobs", "runtime:stop_jobs"


def setUpModule() -> None:
    start_services()


class Invariants(RuntimeTestCase):
    """A game that was started, stopped and restarted, one with a malformed job, and a foreign container."""

    def setUp(self) -> None:
        super().setUp()
        self.world = World(self.database, self.redis, self.docker, self.network.name, self.state_root.folder("games"))
        self.live = self.start_runtime()
        self.bystanders = [self.stranger()]
        self.jobs = [
            Job(START, self.add_start_job(), self.game_id),
            Job(STOP, self.add_stop_job(), self.game_id),
            Job(START, self.add_start_job("no image", f"{self.game_id}-x"), f"{self.game_id}-x"),
            Job(STOP, str(self.redis.xadd(STOP, {"reason": "finished"})), None),
        ]
        self.results(3)
        self.post("start", {"image_ref": self.engine.ref})
        self.post("restart")
        self.marker = self.state_root.folder("games") / self.game_id / "mark"
        self.marker.write_text("kept")
        self.wait_until("quiet", lambda: is_quiet(self.world), describe=lambda _: "; ".join(unquiet(self.world)))

    def stranger(self) -> Bystander:
        labels = {"com.galaxy.owner": "rtmanager", "com.galaxy.kind": "game-engine", "com.galaxy.game_id": "unheard-of"}
        made = self.start_container(
            self.engine.ref, entrypoint=["sleep", "infinity"], labels=labels, network=self.network.name
        )
        return bystander(self.docker, made.container_id)

    def found(self) -> list[str]:
        markers: dict[Path, str] = {self.marker: "kept"}
        return violations(self.world, self.jobs, bystanders=self.bystanders, markers=markers, deaths=())

    def test_honest_work_breaks_nothing_and_what_is_broken_by_hand_is_found(self) -> None:
        self.assertEqual(self.found(), [])
        for begins, break_it in self.deeds():
            break_it()
            self.assertTrue(any(each.startswith(begins) for each in self.found()), f"{begins}: {self.found()}")

    def deeds(self) -> list[tuple[str, Callable[[], object]]]:
        """The defects to create one after the other, and the beginning of each complaint."""
        running = str(self.record()["current_container_id"])
        [first, *_] = self.redis.xrange("runtime:job_results")
        ended = {"event_type": "container_exited", "container_id": running}
        return [
            ("I1: job", lambda: self.redis.xdel("runtime:job_results", first[0])),
            ("I1: entry", lambda: self.redis.delete("runtime:dead_letters")),
            ("I7", lambda: self.redis.xadd("runtime:health_events", ended)),
            ("intents", lambda: self.redis.delete("notification:intents")),
            ("I5", self.marker.unlink),
            ("I6", lambda: self.docker.restart(self.bystanders[0].container_id, timeout=0)),
            ("health", lambda: self.rows("DELETE FROM health_snapshots RETURNING 1")),
            ("I3", lambda: self.rows("UPDATE runtime_records SET status = 'stopped' RETURNING 1")),
            ("log", lambda: self.rows("DELETE FROM operation_log WHERE op_kind = 'restart' RETURNING 1")),
            ("I2", lambda: self.second(running)),
        ]

    def second(self, of: str) -> None:
        labels = self.docker.inspect_container(of)["Config"]["Labels"]
        self.start_container(
            self.engine.ref, entrypoint=["sleep", "infinity"], labels=labels, network=self.network.name
        )

    def test_what_is_on_its_way_is_named(self) -> None:
        self.live.stop()
        self.rows("INSERT INTO outbox (stream, fields) VALUES ('nowhere', '{}') RETURNING 1")
        late = (
            "INSERT INTO operations (game_id, kind, source, source_ref, not_before) VALUES ('late', 'stop', 'gm_rest'"
        )
        self.rows(f"{late}, 'rest:1', now() + interval '1 hour') RETURNING 1")
        self.redis.xgroup_destroy(START, "rtmanager")
        self.add_stop_job()
        faults = "; ".join(unquiet(self.world))
        self.assertRegex(faults, f"{START} has no group.*{STOP}: 0 entries pending.*stop of late.*is due.*for nowhere")
