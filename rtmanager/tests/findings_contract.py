"""Contract tests of the store for the watching workers; run against PostgreSQL and the fake.

A test case subclasses one of these and creates its store in `make`, as in `store_contract`. Time passes only by
`pass_time`, and tests read the time from the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from rtmanager.domain.drift import RunningGame
from rtmanager.domain.findings import Alarm, AlarmKind, Finding, HealthReport, RestartCause, Snapshot
from rtmanager.domain.health import EventType, HealthEvent, HealthSource, HealthStatus
from rtmanager.domain.messages import Stream, health_message
from rtmanager.domain.operation import OpKind, OpSource, Outcome, Request
from rtmanager.domain.outage import LastExit, RequestedBy
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.ports.store import Histories, RecordConflict, StoreRejected
from rtmanager.ports.watching import Findings, Leases, WriteResult
from rtmanager.tests.making import NETWORK, NOW, ended, job, log_entry, record, request
from rtmanager.tests.store_contract import YEAR_S, StoreContract, StoreUnderTest

LATER = NOW + timedelta(minutes=5)
RUNNING = record("g1")
CONTAINER = "c-g1"


class Watching(Findings, Leases, Protocol):
    """The ports of the store that one watching instance uses."""


class WatchedStoreUnderTest(StoreUnderTest, Protocol):
    """A store under test with the ports of the watching workers."""

    def findings(self, owner: int) -> Watching:
        """The findings and leases of one instance."""
        ...

    def histories(self) -> Histories: ...

    def now(self) -> datetime:
        """The time of the store's clock."""
        ...


def event(
    event_type: EventType, source: HealthSource = HealthSource.INSPECT, *, container_id: str = CONTAINER, **changes: Any
) -> HealthEvent:
    """A health event of game g1."""
    return HealthEvent("g1", container_id, event_type, source, **{"occurred_at": NOW, **changes})


def alarm(kind: AlarmKind = AlarmKind.INSPECT, container_id: str = CONTAINER, **changes: Any) -> Alarm:
    """An alarm about the container of game g1."""
    return Alarm(kind, container_id, **{"mark": "1", "raised_at": NOW, **changes})


def raising(raised: Alarm | None = None, seen: RuntimeRecord = RUNNING) -> Finding:
    """A finding that raises an alarm and changes no record."""
    raised = raised or alarm()
    published = event(EventType.INSPECT_UNHEALTHY, container_id=raised.container_id, details=raised.details)
    return Finding("g1", "in trouble", seen=seen, health=(published,), raises=raised)


def calming(kind: AlarmKind = AlarmKind.INSPECT, seen: RuntimeRecord = RUNNING, **changes: Any) -> Finding:
    """A finding that calms an alarm about the container of game g1."""
    return Finding("g1", "well again", seen=seen, calms=kind, **changes)


def crashed(game_id: str = "g1", restart_at: datetime | None = None, **changes: Any) -> Finding:
    """A finding that the container of a running game has ended by itself."""
    seen = record(game_id)
    published = replace(event(EventType.CONTAINER_EXITED, container_id=f"c-{game_id}"), game_id=game_id)
    values = {
        "new": seen.stopped(LATER),
        "health": (published,),
        "last_exit": LastExit(f"c-{game_id}", 139, False, NOW, "no more turns\n"),
        "restart_at": restart_at,
    }
    return Finding(game_id, "crashed", seen=seen, **{**values, **changes})


class WatchedStoreContract(StoreContract):
    """Subclass it and override `make`."""

    store: WatchedStoreUnderTest

    def make(self) -> WatchedStoreUnderTest:
        """Create an empty store."""
        raise NotImplementedError

    def setUp(self) -> None:
        super().setUp()
        self.findings = self.store.findings(1)
        self.others = self.store.findings(2)
        self.histories = self.store.histories()

    def write(self, finding: Finding, expected: WriteResult = WriteResult.WRITTEN) -> None:
        self.assertIs(self.findings.write(finding), expected)

    def health(self, game_id: str = "g1") -> HealthReport:
        return self.histories.health(game_id)

    def operate(self, kind: OpKind = OpKind.STOP, game_id: str = "g1") -> None:
        """Submit and finish an operation that changes nothing."""
        self.queue.submit(request(game_id, kind))
        self.queue.finish(self.claim_one(), ended())

    def assert_untouched(self, before: RuntimeRecord | None = RUNNING) -> None:
        self.assertEqual(self.store.records().get("g1"), before)
        self.assertEqual((list(self.store.log_rows()), self.due()), ([], []))
        self.assertEqual(self.health(), HealthReport())
        for kind in AlarmKind:
            self.assertEqual(dict(self.findings.alarms(kind)), {})


class FindingsContract(WatchedStoreContract):
    """A finding is written as a whole or not at all, and only while it holds."""

    def setUp(self) -> None:
        super().setUp()
        self.store.put_record(RUNNING)

    def whole(self, **changes: Any) -> Finding:
        rows = (log_entry(kind=OpKind.RECONCILE_DISPOSE, source=OpSource.AUTO_RECONCILE, container_id=CONTAINER),)
        return crashed(restart_at=LATER, log=rows, raises=alarm(AlarmKind.OOM), **changes)

    def test_a_finding_is_written_as_a_whole(self) -> None:
        finding = self.whole()
        self.write(finding)
        self.assertEqual(self.store.records().get("g1"), finding.new)
        self.assertEqual(tuple(self.store.log_rows()), finding.log)
        self.assertEqual(self.due(), [health_message(finding.health[0])])
        snapshot = Snapshot(CONTAINER, HealthStatus.EXITED, HealthSource.INSPECT, {}, NOW)
        self.assertEqual(self.health(), HealthReport(snapshot, finding.last_exit, LATER))
        self.store.put_record(RUNNING)
        self.assertEqual(dict(self.findings.alarms(AlarmKind.OOM)), {"g1": finding.raises})

    def test_a_finding_that_the_store_can_never_take_is_refused_and_leaves_no_trace(self) -> None:
        poison = self.whole(last_exit=LastExit(CONTAINER, 139, False, NOW, "nul \0 here"))
        with self.assertRaises(StoreRejected):
            self.findings.write(poison)
        self.assert_untouched()
        self.write(self.whole())

    def test_while_an_operation_of_the_game_is_due_or_running_nothing_is_written(self) -> None:
        self.queue.submit(request("g1", OpKind.STOP))
        self.assertTrue(self.findings.busy("g1"))
        self.write(self.whole(), WriteResult.BUSY)
        operation = self.claim_one()
        self.assertTrue(self.findings.busy("g1"))
        self.write(self.whole(), WriteResult.BUSY)
        self.write(raising(), WriteResult.BUSY)
        self.assert_untouched()
        self.queue.finish(operation, ended())
        self.assertFalse(self.findings.busy("g1"))
        self.write(self.whole())

    def test_a_job_that_waits_makes_a_game_busy_too(self) -> None:
        self.accept(job(Stream.STOP_JOBS, 1))
        self.assertTrue(self.findings.busy("g1"))
        self.write(self.whole(), WriteResult.BUSY)

    def test_an_operation_of_another_game_is_in_nobodys_way(self) -> None:
        self.queue.submit(request("g2"))
        self.assertFalse(self.findings.busy("g1"))
        self.write(self.whole())

    def test_a_finding_about_a_record_that_changed_is_not_written(self) -> None:
        others = (
            record("g1", Status.STOPPED),
            record("g1", current_container_id="c-new"),
            record("g1", Status.REMOVED),
        )
        for stored in others:
            self.store.put_record(stored)
            for finding in (self.whole(), raising(), raising(seen=replace(RUNNING, current_container_id=None))):
                with self.subTest(status=stored.status, changes_the_record=finding.new is not None):
                    self.write(finding, WriteResult.CHANGED)
            self.assert_untouched(stored)

    def test_a_first_record_is_written_when_there_is_none_and_only_then(self) -> None:
        adopted = record("g2")
        finding = Finding("g2", "adopted", new=adopted)
        self.write(finding)
        self.assertEqual(self.store.records().get("g2"), adopted)
        self.write(replace(finding, new=record("g2", current_container_id="c-other")), WriteResult.CHANGED)
        self.assertEqual(self.store.records().get("g2"), adopted)

    def test_a_finding_about_a_record_that_is_gone_is_not_written(self) -> None:
        for finding in (replace(raising(seen=record("g3")), game_id="g3"), crashed("g3")):
            self.write(finding, WriteResult.CHANGED)

    def test_the_same_finding_of_two_instances_is_written_once(self) -> None:
        self.write(self.whole())
        self.assertIs(self.others.write(self.whole()), WriteResult.CHANGED)
        self.assertEqual((len(self.store.log_rows()), len(self.due())), (1, 1))

    def test_an_event_that_is_not_published_changes_the_snapshot_and_sends_nothing(self) -> None:
        quiet = event(EventType.CONTAINER_STARTED, published=False, details={"image_ref": "i"})
        self.write(Finding("g1", "adopted", seen=RUNNING, health=(quiet,)))
        found = self.store.snapshot("g1")
        self.assertEqual(found, (CONTAINER, HealthStatus.HEALTHY, HealthSource.INSPECT, {"image_ref": "i"}))
        self.assertEqual(self.due(), [])


class AlarmsContract(WatchedStoreContract):
    """An alarm is written once when it is raised, and once when it is calmed."""

    def setUp(self) -> None:
        super().setUp()
        self.store.put_record(RUNNING)

    def test_an_alarm_is_published_once_by_whichever_instance(self) -> None:
        self.write(raising())
        self.write(raising(), WriteResult.KNOWN)
        self.assertIs(self.others.write(raising()), WriteResult.KNOWN)
        self.assertEqual(len(self.due()), 1)

    def test_what_is_known_writes_nothing_at_all(self) -> None:
        self.write(raising())
        self.write(replace(raising(), log=(log_entry(),), health=(event(EventType.PROBE_FAILED),)), WriteResult.KNOWN)
        self.assertEqual(list(self.store.log_rows()), [])
        self.assertEqual((self.health().snapshot or self.fail()).status, HealthStatus.INSPECT_UNHEALTHY)

    def test_it_is_published_again_on_another_occasion(self) -> None:
        self.write(raising())
        second = alarm(mark="2", details={"restart_count": 2})
        self.write(raising(second))
        self.assertEqual(len(self.due()), 2)
        self.assertEqual(dict(self.findings.alarms(AlarmKind.INSPECT)), {"g1": second})

    def test_it_is_published_again_for_another_container(self) -> None:
        self.write(raising())
        seen = replace(RUNNING, current_container_id="c-new")
        self.store.put_record(seen)
        self.write(raising(alarm(container_id="c-new"), seen))
        self.write(raising(alarm(container_id="c-new"), seen), WriteResult.KNOWN)
        self.assertEqual([found.container_id for found in self.findings.alarms(AlarmKind.INSPECT).values()], ["c-new"])

    def test_memory_that_ran_out_earlier_is_not_published_again_by_an_instance_that_is_behind(self) -> None:
        now = self.store.now()
        first = alarm(AlarmKind.OOM, raised_at=now - timedelta(minutes=5))
        second = alarm(AlarmKind.OOM, mark="2", raised_at=now)
        self.write(raising(first))
        self.write(raising(second))
        self.assertIs(self.others.write(raising(first)), WriteResult.KNOWN)
        self.assertIs(self.others.write(raising(second)), WriteResult.KNOWN)

    def test_memory_that_runs_out_all_the_time_is_published_once_a_minute(self) -> None:
        for ahead_s in (0, 3600):  # seconds by which Docker's clock is ahead
            self.write(raising(alarm(AlarmKind.OOM, mark=f"{ahead_s}", raised_at=self.store.now())))
            for number in range(3):
                at = self.store.now() + timedelta(seconds=ahead_s)
                self.write(raising(alarm(AlarmKind.OOM, mark=f"{number}", raised_at=at)), WriteResult.KNOWN)
                self.store.pass_time(15)
            self.store.pass_time(16)
        self.write(raising(alarm(AlarmKind.OOM, mark="last", raised_at=self.store.now())))

    def test_memory_that_ran_out_by_a_clock_that_was_ahead_hides_no_later_occasion(self) -> None:
        now = self.store.now()
        ahead = alarm(AlarmKind.OOM, mark="ahead", raised_at=now + timedelta(hours=1))
        self.write(raising(ahead))
        self.write(raising(ahead), WriteResult.KNOWN)
        self.store.pass_time(120)
        self.write(raising(alarm(AlarmKind.OOM, mark="2", raised_at=self.store.now())))
        self.store.pass_time(-YEAR_S)
        self.write(raising(alarm(AlarmKind.OOM, mark="3", raised_at=self.store.now())))

    def test_only_alarms_of_containers_that_run_by_their_records_are_there_and_the_others_can_be_forgotten(
        self,
    ) -> None:
        self.write(raising())
        for changed in (RUNNING.stopped(LATER), replace(RUNNING, current_container_id="c-new")):
            self.store.put_record(changed)
            self.assertEqual(dict(self.findings.alarms(AlarmKind.INSPECT)), {})
        self.store.put_record(RUNNING)
        self.findings.forget_old_alarms()
        self.assertEqual(list(self.findings.alarms(AlarmKind.INSPECT)), ["g1"])
        self.store.put_record(RUNNING.stopped(LATER))
        self.findings.forget_old_alarms()
        self.store.put_record(RUNNING)
        self.assertEqual(dict(self.findings.alarms(AlarmKind.INSPECT)), {})

    def test_alarms_are_found_by_their_kind(self) -> None:
        raised = [alarm(kind, details={"of": kind.value, "deep": [1, None]}) for kind in AlarmKind]
        for each in raised:
            self.write(raising(each))
        for each in raised:
            self.assertEqual(dict(self.findings.alarms(each.kind)), {"g1": each})

    def test_only_what_is_raised_can_be_calmed_and_only_once(self) -> None:
        over = calming(health=(event(EventType.PROBE_RECOVERED),))
        self.write(over, WriteResult.KNOWN)
        self.write(raising())
        self.write(over)
        self.assertIs(self.others.write(over), WriteResult.KNOWN)
        self.assertEqual(len(self.due()), 2)
        self.write(raising())  # a new alarm with the same mark

    def test_one_kind_is_not_calmed_by_the_end_of_another(self) -> None:
        self.write(raising(alarm(AlarmKind.PROBE)))
        self.write(calming(AlarmKind.INSPECT), WriteResult.KNOWN)
        self.assertEqual(list(self.findings.alarms(AlarmKind.PROBE)), ["g1"])

    def test_what_was_raised_of_an_earlier_container_is_not_calmed_by_the_present_one(self) -> None:
        self.write(raising())
        seen = replace(RUNNING, current_container_id="c-new")
        self.store.put_record(seen)
        self.write(calming(seen=seen), WriteResult.KNOWN)
        self.store.put_record(RUNNING)
        self.assertEqual(list(self.findings.alarms(AlarmKind.INSPECT)), ["g1"])

    def test_a_finding_whose_calm_is_not_news_raises_nothing_either(self) -> None:
        self.write(replace(calming(AlarmKind.PROBE), raises=alarm()), WriteResult.KNOWN)
        self.assertEqual(dict(self.findings.alarms(AlarmKind.INSPECT)), {})

    def restored(self) -> tuple[str, HealthStatus, HealthSource, Mapping[str, object]] | None:
        self.write(calming(restores=True))
        return self.store.snapshot("g1")

    def test_a_container_that_was_unhealthy_is_healthy_again_without_a_message(self) -> None:
        self.write(raising(alarm(details={"restart_count": 1})))
        self.assertEqual(self.restored(), (CONTAINER, HealthStatus.HEALTHY, HealthSource.INSPECT, {}))
        self.assertEqual(len(self.due()), 1)

    def test_a_container_that_was_unhealthy_and_does_not_answer_still_does_not_answer(self) -> None:
        self.write(raising(alarm(AlarmKind.PROBE, details={"consecutive_failures": 3})))
        self.write(raising())
        expected = (CONTAINER, HealthStatus.PROBE_FAILED, HealthSource.PROBE, {"consecutive_failures": 3})
        self.assertEqual(self.restored(), expected)

    def test_a_probe_that_failed_on_an_earlier_container_does_not_count(self) -> None:
        earlier = replace(RUNNING, current_container_id="c-old")
        self.store.put_record(earlier)
        self.write(raising(alarm(AlarmKind.PROBE, "c-old"), earlier))
        self.store.put_record(RUNNING)
        self.write(raising())
        self.assertEqual(self.restored(), (CONTAINER, HealthStatus.HEALTHY, HealthSource.INSPECT, {}))

    def test_any_other_snapshot_is_left_alone(self) -> None:
        others = (
            event(EventType.PROBE_FAILED, HealthSource.PROBE, details={"n": 1}),
            event(EventType.CONTAINER_OOM, HealthSource.DOCKER_EVENT),
            event(EventType.INSPECT_UNHEALTHY, container_id="c-other"),
        )
        for other in others:
            with self.subTest(status=other.status, container=other.container_id):
                self.write(raising())
                self.write(Finding("g1", "published meanwhile", seen=RUNNING, health=(other,)))
                self.assertEqual(self.restored(), (other.container_id, other.status, other.source, other.details))


class WatchedRecordsContract(WatchedStoreContract):
    """The records that the workers read."""

    def test_running_games_are_listed_with_what_is_theirs(self) -> None:
        for game_id, status in (("g1", Status.RUNNING), ("g2", Status.STOPPED), ("g3", Status.RUNNING)):
            self.store.put_record(record(game_id, status))
        self.store.put_record(record("g4", Status.REMOVED))
        found = sorted(self.findings.running())
        self.assertEqual(found, [RunningGame(game_id, f"c-{game_id}", NETWORK) for game_id in ("g1", "g3")])

    def test_the_records_of_some_games_are_those_that_there_are(self) -> None:
        for game_id in ("g1", "g2", "g3"):
            self.store.put_record(record(game_id))
        found = {each.game_id: each for each in self.findings.records_of(["g1", "g3", "g9"])}
        self.assertEqual(found, {"g1": record("g1"), "g3": record("g3")})
        self.assertEqual(list(self.findings.records_of([])), [])

    def test_of_the_stopped_games_the_oldest_come_first_and_no_more_than_requested(self) -> None:
        for game_id, minutes in (("g1", 3), ("g2", 1), ("g3", 2), ("g4", 9)):
            self.store.put_record(record(game_id, Status.STOPPED, last_op_at=NOW + timedelta(minutes=minutes)))
        self.store.put_record(record("g5", Status.RUNNING))
        self.store.put_record(record("g6", Status.REMOVED))

        def found(limit: int) -> list[str]:
            return [each.game_id for each in self.findings.stopped_before(NOW + timedelta(minutes=9), limit)]

        self.assertEqual(found(10), ["g2", "g3", "g1"])
        self.assertEqual(found(2), ["g2", "g3"])

    def test_the_namesakes_of_games_are_those_that_have_their_name_by_a_record(self) -> None:
        for game_id, status in (("Match-1", Status.STOPPED), ("match-2", Status.REMOVED), ("match-3", Status.RUNNING)):
            self.store.put_record(record(game_id, status))
        found = self.findings.namesakes(["match-1", "MATCH-1", "Match-1", "MATCH-2", "MATCH-3", "match_3"])
        self.assertEqual(found, {"match-1": "Match-1", "MATCH-1": "Match-1", "MATCH-3": "match-3"})

    def adoption(self, game_id: str) -> Finding:
        return Finding(game_id, "it runs", new=record(game_id))

    def test_a_game_whose_name_another_one_has_is_not_adopted(self) -> None:
        self.store.put_record(record("Match-1", Status.STOPPED))
        self.write(self.adoption("match-1"), WriteResult.CHANGED)
        self.assertIsNone(self.store.records().get("match-1"))
        self.write(self.adoption("match-2"))

    def test_an_adoption_waits_for_a_start_that_claims_the_name(self) -> None:
        queue = self.store.queue(1)
        queue.submit(request("Match-1"))
        operation = self.claim_one(queue)
        self.assertIsNone(queue.claim_name(operation))
        self.write(self.adoption("match-1"), WriteResult.BUSY)
        queue.finish(operation, ended(Outcome.FAILURE))
        self.write(self.adoption("match-1"))

    def test_of_games_that_share_a_name_since_an_earlier_release_each_is_followed(self) -> None:
        for game_id in ("match-1", "Match-1"):
            self.store.put_record(record(game_id))
        for game_id in ("match-1", "Match-1"):
            seen = record(game_id)
            self.write(Finding(game_id, "it ended", seen=seen, new=seen.stopped(NOW)))
            self.write(Finding(game_id, "it runs again", seen=seen.stopped(NOW), new=seen))


class RestartsContract(WatchedStoreContract):
    """A crashed game is restarted once, when that is due, unless an operation or a change has overtaken it."""

    def setUp(self) -> None:
        super().setUp()
        self.store.put_record(RUNNING)

    def crash(self, game_id: str = "g1") -> None:
        self.write(crashed(game_id, restart_at=LATER))

    def assert_dropped(self) -> None:
        self.assertEqual(list(self.findings.queue_restart(LATER)), [])
        self.assertFalse(self.findings.busy("g1"))
        self.assertIsNone(self.health().restart_due_at)

    def test_it_is_queued_as_an_ordinary_operation_when_it_is_due_and_not_before(self) -> None:
        self.crash()
        self.assertEqual(list(self.findings.queue_restart(LATER - timedelta(microseconds=1))), [])
        self.assertEqual(self.health().restart_due_at, LATER)
        (queued,) = self.findings.queue_restart(LATER)
        self.assertEqual((queued.game_id, queued.kind, queued.source), ("g1", OpKind.RESTART, OpSource.AUTO_RECONCILE))
        self.assertIn(CONTAINER, queued.source_ref)
        self.assertEqual(self.claim_one().request, queued)
        self.assertIsNone(self.health().restart_due_at)

    def test_it_is_queued_once_by_whichever_instance(self) -> None:
        self.crash()
        self.assertEqual(len(self.findings.queue_restart(LATER)), 1)
        self.assertEqual(list(self.others.queue_restart(LATER)), [])
        self.queue.finish(self.claim_one(), ended())
        self.assertEqual(list(self.findings.queue_restart(LATER)), [])

    def test_after_an_outage_it_is_a_start_and_no_more_are_under_way_than_may_be(self) -> None:
        games = ("g1", "g2", "g3")
        for game_id in games:
            self.store.put_record(record(game_id))
            self.write(crashed(game_id, restart_at=LATER, restart_cause=RestartCause.OUTAGE))
        self.assertEqual(list(self.findings.queue_restart(LATER)), [], "it is no crash")
        first = self.findings.queue_restart(LATER, cause=RestartCause.OUTAGE, at_once=2)
        self.assertEqual(len(first), 2)
        self.assertEqual(list(self.others.queue_restart(LATER, cause=RestartCause.OUTAGE, at_once=2)), [])
        (operation,) = self.queue.claim(1)
        self.assertIn(operation.request, first)
        self.assertEqual((operation.request.kind, operation.request.source), (OpKind.START, OpSource.AUTO_RECONCILE))
        self.assertEqual(operation.request.image_ref, record("g1").current_image_ref)
        self.assertTrue(operation.request.source_ref.startswith("outage:"))
        self.queue.finish(operation, ended())
        self.assertEqual(len(self.others.queue_restart(LATER, cause=RestartCause.OUTAGE, at_once=2)), 1)
        self.assertEqual(self.findings.restarts_since("g1", self.store.now() - timedelta(hours=1)), 0)

    def outage(self, game_id: str = "g1") -> None:
        self.write(crashed(game_id, restart_at=self.store.now(), restart_cause=RestartCause.OUTAGE))

    def queue_start(self) -> Sequence[Request]:
        return self.findings.queue_restart(self.store.now(), cause=RestartCause.OUTAGE, at_once=2)

    def fail_start(self, **changes: Any) -> None:
        """The due start after an outage is queued, and fails."""
        self.assertEqual(len(self.queue_start()), 1)
        self.queue.finish(self.claim_one(), ended(Outcome.FAILURE, **changes))

    def test_a_failed_start_after_an_outage_is_planned_again_after_a_growing_pause(self) -> None:
        self.outage()
        for pause_s in (5, 10, 20):
            self.fail_start(seen=RUNNING.stopped(LATER))
            self.store.pass_time(pause_s - 2)
            self.assertEqual(list(self.queue_start()), [])
            self.store.pass_time(2)
        (fourth,) = self.queue_start()
        self.assertEqual(fourth.source_ref, f"outage:{CONTAINER}:4")

    def test_a_failed_start_that_left_no_container_is_tried_again(self) -> None:
        self.outage()
        stopped = RUNNING.stopped(LATER)
        self.fail_start(seen=stopped, new=replace(stopped, current_container_id=None))
        self.store.pass_time(6)
        (again,) = self.queue_start()
        self.assertEqual(again.source_ref, f"outage:{CONTAINER}:2")

    def test_a_start_after_an_outage_that_succeeds_is_not_planned_again(self) -> None:
        self.outage()
        self.fail_start()
        self.store.pass_time(6)
        self.queue_start()
        self.queue.finish(self.claim_one(), ended())
        self.assertIsNone(self.health().restart_due_at)

    def test_an_operation_of_others_ends_the_tries_though_it_fails(self) -> None:
        for kind in (OpKind.START, OpKind.STOP, OpKind.CLEANUP):
            self.store.put_record(RUNNING)
            self.outage()
            self.fail_start()
            self.assertIsNotNone(self.health().restart_due_at)
            self.queue.submit(request("g1", kind))
            self.queue.finish(self.claim_one(), ended(Outcome.FAILURE))
            self.assertIsNone(self.health().restart_due_at, kind)

    def test_a_later_outage_begins_with_the_first_try(self) -> None:
        self.outage()
        self.fail_start()
        self.store.put_record(RUNNING)
        self.outage()
        (first,) = self.queue_start()
        self.assertEqual(first.source_ref, f"outage:{CONTAINER}")

    def test_a_start_after_an_outage_that_waits_or_was_deferred_holds_no_place(self) -> None:
        for game_id in ("g1", "g2", "g3", "g4", "g5", "g6"):
            self.store.put_record(record(game_id))
            self.outage(game_id)
        self.assertEqual(len(self.queue_start()), 2)
        first, second = self.queue.claim(10)
        self.assertEqual(list(self.queue_start()), [])
        self.queue.park(first, why="its image is pulled")
        self.assertEqual(len(self.queue_start()), 1)
        self.queue.defer(second, delay_s=0, why="docker does not answer")
        self.assertEqual(len(self.queue_start()), 1)
        self.assertEqual(list(self.queue_start()), [])
        self.queue.claim(10)
        self.assertEqual(list(self.queue_start()), [], "the deferred one is tried again, and holds no place either")

    def test_a_claim_that_is_lost_is_not_parked(self) -> None:
        self.outage()
        self.assertEqual(len(self.queue_start()), 1)
        lost = replace(self.claim_one(), generation=9)
        self.queue.park(lost, why="its image is pulled")
        for game_id in ("g2", "g3"):
            self.store.put_record(record(game_id))
            self.outage(game_id)
        self.assertEqual(len(self.queue_start()), 1)

    def test_all_of_a_cause_can_be_dropped(self) -> None:
        self.outage()
        self.store.put_record(record("g2"))
        self.crash("g2")
        self.findings.drop_restarts(RestartCause.OUTAGE)
        self.assertIsNone(self.health().restart_due_at)
        self.assertEqual(len(self.findings.queue_restart(LATER)), 1)

    def unhealthy(self) -> Finding:
        """A finding that the probes of game g1 fail, with a restart."""
        return replace(raising(alarm(AlarmKind.PROBE)), restart_at=LATER, restart_cause=RestartCause.PROBE)

    def test_a_game_whose_probes_fail_is_restarted_while_it_runs_and_counts_in_the_budget(self) -> None:
        self.write(self.unhealthy())
        self.assertEqual(list(self.findings.queue_restart(LATER)), [], "it is no crash")
        (queued,) = self.findings.queue_restart(LATER, cause=RestartCause.PROBE)
        self.assertEqual((queued.kind, queued.source_ref), (OpKind.RESTART, f"probe:{CONTAINER}"))
        self.queue.finish(self.claim_one(), ended())
        self.store.pass_time(1)
        self.assertEqual(self.findings.restarts_since("g1", self.store.now() - timedelta(hours=1)), 1)

    def test_a_good_probe_cancels_the_restart_of_failed_ones(self) -> None:
        self.write(self.unhealthy())
        self.write(calming(AlarmKind.PROBE))
        self.assertEqual(list(self.findings.queue_restart(LATER, cause=RestartCause.PROBE)), [])
        self.assertIsNone(self.health().restart_due_at)

    def test_all_that_are_due_are_queued_together(self) -> None:
        self.store.put_record(record("g2"))
        self.crash("g1")
        self.crash("g2")
        self.assertEqual({queued.game_id for queued in self.findings.queue_restart(LATER)}, {"g1", "g2"})

    def test_an_earlier_operation_does_not_overtake_it(self) -> None:
        self.operate(OpKind.START)
        self.crash()
        self.assertEqual(len(self.findings.queue_restart(LATER)), 1)

    def test_any_later_operation_overtakes_it_though_it_changed_nothing(self) -> None:
        self.crash()
        self.operate(OpKind.STOP)
        self.assertIsNone(self.health().restart_due_at)
        self.assert_dropped()

    def test_an_operation_that_failed_overtakes_it_too(self) -> None:
        self.crash()
        self.queue.submit(request("g1", OpKind.CLEANUP))
        self.queue.finish(self.claim_one(), ended(Outcome.FAILURE))
        self.assert_dropped()

    def refuse(self, kind: OpKind, **changes: Any) -> None:
        """An operation that is submitted before the restart is due fails after that."""
        self.queue.submit(request("g1", kind))
        self.assertEqual(list(self.findings.queue_restart(LATER)), [])
        self.queue.finish(self.claim_one(), ended(Outcome.FAILURE, seen=RUNNING.stopped(LATER), **changes))

    def test_a_restart_or_patch_that_was_refused_leaves_it(self) -> None:
        for kind in (OpKind.RESTART, OpKind.PATCH):
            self.store.put_record(RUNNING)
            self.crash()
            self.refuse(kind)
            self.assertEqual(self.health().restart_due_at, LATER)
            self.assertEqual(len(self.findings.queue_restart(LATER)), 1)
            self.queue.finish(self.claim_one(), ended())

    def test_a_restart_or_patch_that_failed_and_did_something_overtakes_it(self) -> None:
        stopped = RUNNING.stopped(LATER)
        removed = replace(stopped, current_container_id=None)
        for kind in (OpKind.RESTART, OpKind.PATCH):
            self.store.put_record(RUNNING)
            self.crash()
            self.queue.submit(request("g1", kind))
            self.queue.finish(self.claim_one(), ended(Outcome.FAILURE, seen=stopped, new=removed))
            self.assert_dropped()

    def test_a_refused_start_stop_or_cleanup_overtakes_it(self) -> None:
        for kind in (OpKind.START, OpKind.STOP, OpKind.CLEANUP):
            self.store.put_record(RUNNING)
            self.crash()
            self.refuse(kind)
            self.assert_dropped()

    def test_an_operation_of_another_game_does_not(self) -> None:
        self.crash()
        self.operate(game_id="g2")
        self.assertEqual(len(self.findings.queue_restart(LATER)), 1)

    def test_an_operation_under_way_overtakes_it(self) -> None:
        self.crash()
        self.queue.submit(request("g1", OpKind.STOP))
        self.assertEqual(list(self.findings.queue_restart(LATER)), [])
        self.queue.finish(self.claim_one(), ended())
        self.assert_dropped()

    def test_a_stop_that_was_being_accepted_during_the_crash_overtakes_it(self) -> None:
        with self.store.inbox().lock() as lock:
            assert lock is not None
            lock.accept([job(Stream.STOP_JOBS, 1)])
            self.crash()
        self.queue.finish(self.claim_one(), ended())
        self.assert_dropped()

    def test_another_state_of_the_record_overtakes_it(self) -> None:
        stopped = RUNNING.stopped(LATER)
        for stored in (RUNNING, stopped.removed(LATER), replace(stopped, current_container_id="c-new")):
            with self.subTest(status=stored.status):
                self.store.put_record(RUNNING)
                self.crash()
                self.store.put_record(stored)
                self.assert_dropped()

    def test_a_container_that_was_started_again_and_then_ended_on_purpose_stays_ended(self) -> None:
        self.crash()
        stopped = RUNNING.stopped(LATER)
        self.write(Finding("g1", "adopted", seen=stopped, new=replace(RUNNING, last_op_at=LATER)))
        self.assertIsNone(self.health().restart_due_at)
        self.write(crashed(restart_at=None))
        self.assert_dropped()

    def test_a_finding_that_changes_no_record_leaves_it_as_it_is(self) -> None:
        self.crash()
        stopped = RUNNING.stopped(LATER)
        self.write(Finding("g1", "published", seen=stopped, health=(event(EventType.CONTAINER_OOM),)))
        self.assertEqual(self.health().restart_due_at, LATER)

    def test_a_later_crash_takes_the_place_of_an_earlier_one(self) -> None:
        self.crash()
        self.store.put_record(RUNNING)
        self.write(crashed(restart_at=LATER + timedelta(minutes=1)))
        self.assertEqual(list(self.findings.queue_restart(LATER)), [])
        self.assertEqual(len(self.findings.queue_restart(LATER + timedelta(minutes=1))), 1)

    def test_one_that_was_due_too_long_ago_is_dropped(self) -> None:
        self.crash()
        late = LATER + timedelta(hours=2)
        self.assertEqual(list(self.findings.queue_restart(late, oldest=LATER + timedelta(hours=1))), [])
        self.assert_dropped()

    def test_one_that_was_planned_by_a_clock_that_was_ahead_is_due(self) -> None:
        self.crash()
        before = LATER - timedelta(seconds=60)
        self.assertEqual(list(self.findings.queue_restart(before)), [])
        self.assertEqual(list(self.findings.queue_restart(before, pauses_s=[60])), [])
        self.assertEqual(len(self.findings.queue_restart(before, pauses_s=[59])), 1)

    def test_each_try_has_a_longest_pause_of_its_own_and_the_last_one_goes_for_all_others(self) -> None:
        def queue_start(now: datetime) -> int:
            return len(self.findings.queue_restart(now, cause=RestartCause.OUTAGE, pauses_s=[0, 5, 10]))

        self.outage()
        for longest_s in (0, 5, 10, 10):
            due_at = self.health().restart_due_at or self.fail("nothing is planned")
            ahead = due_at - timedelta(seconds=longest_s, microseconds=1)
            if longest_s:
                self.assertEqual(queue_start(due_at - timedelta(seconds=longest_s)), 0)
            self.assertEqual(queue_start(ahead), 1)
            self.queue.finish(self.claim_one(), ended(Outcome.FAILURE))

    def test_restarts_of_a_clock_that_was_ahead_use_up_no_budget(self) -> None:
        self.crash()
        self.findings.queue_restart(LATER)
        self.store.pass_time(-YEAR_S)
        self.assertEqual(self.findings.restarts_since("g1", self.store.now() - timedelta(hours=1)), 0)

    def test_the_clock_is_the_stores(self) -> None:
        before = self.store.now()
        self.assertLessEqual(before, self.findings.now())
        self.assertLessEqual(self.findings.now(), self.store.now())

    def test_restarts_are_counted_by_game_and_time_and_only_those_after_a_crash(self) -> None:
        self.operate(OpKind.RESTART)
        self.store.pass_time(60)
        self.assertEqual(self.findings.restarts_since("g1", self.store.now() - timedelta(hours=1)), 0)
        for _ in range(2):
            self.store.put_record(RUNNING)
            self.crash()
            self.findings.queue_restart(LATER)
            self.queue.finish(self.claim_one(), ended())
            self.store.pass_time(60)
        counts = [
            self.findings.restarts_since("g1", self.store.now() - timedelta(seconds=seconds))
            for seconds in (1000, 90, 30)
        ]
        self.assertEqual(counts, [2, 1, 0])
        self.assertEqual(self.findings.restarts_since("g2", self.store.now() - timedelta(hours=1)), 0)


class TurnsContract(WatchedStoreContract):
    """Leases: one instance does a kind of work for all of them."""

    def test_the_first_comer_has_it_and_the_others_have_not(self) -> None:
        self.assertTrue(self.findings.mine("probe", 30))
        self.assertFalse(self.others.mine("probe", 30))

    def test_its_holder_keeps_it_by_renewing_it(self) -> None:
        for _ in range(3):
            self.assertTrue(self.findings.mine("probe", 30))
            self.assertFalse(self.others.mine("probe", 30))
            self.store.pass_time(20)

    def test_it_is_taken_over_when_its_holder_renews_it_no_more(self) -> None:
        self.findings.mine("probe", 30)
        self.store.pass_time(29)
        self.assertFalse(self.others.mine("probe", 30))
        self.store.pass_time(2)
        self.assertTrue(self.others.mine("probe", 30))
        self.assertFalse(self.findings.mine("probe", 30))

    def test_it_is_taken_over_when_a_clock_that_was_ahead_gave_it(self) -> None:
        self.findings.mine("probe", 30)
        self.store.pass_time(-YEAR_S)
        self.assertTrue(self.others.mine("probe", 30))
        self.assertFalse(self.findings.mine("probe", 30))

    def test_being_refused_does_not_put_off_the_end_of_it(self) -> None:
        self.findings.mine("probe", 30)
        self.store.pass_time(20)
        self.others.mine("probe", 300)
        self.store.pass_time(11)
        self.assertTrue(self.others.mine("probe", 30))

    def test_each_work_has_its_own(self) -> None:
        self.assertTrue(self.findings.mine("probe", 30))
        self.assertTrue(self.others.mine("inspect", 30))


class HistoriesContract(WatchedStoreContract):
    """Health and operation log of a game."""

    def test_nothing_is_known_of_a_game_that_is_not_known(self) -> None:
        self.assertEqual(self.health("g1"), HealthReport())
        self.assertEqual(list(self.histories.log("g1", before=None, limit=10)), [])

    def test_the_last_observation_is_returned_whole(self) -> None:
        self.store.put_record(RUNNING)
        details = {"exit_code": 137, "deep": {"of": [1, None, "é€"]}}
        published = event(EventType.CONTAINER_OOM, HealthSource.DOCKER_EVENT, occurred_at=LATER, details=details)
        self.write(Finding("g1", "published", seen=RUNNING, health=(published,)))
        snapshot = Snapshot(CONTAINER, HealthStatus.OOM, HealthSource.DOCKER_EVENT, details, LATER)
        self.assertEqual(self.health(), HealthReport(snapshot))
        self.assertEqual(self.health("g2"), HealthReport())

    def test_how_a_game_last_ended_is_known_when_it_runs_again(self) -> None:
        self.store.put_record(RUNNING)
        first = crashed()
        self.write(first)
        self.operate(OpKind.START)
        self.assertEqual(self.health().last_exit, first.last_exit)
        self.store.put_record(RUNNING)
        second = LastExit(CONTAINER, 137, True, LATER, "é€\n")
        self.write(crashed(last_exit=second))
        self.assertEqual(self.health().last_exit, second)

    def test_the_end_of_an_operation_writes_how_the_container_ended_that_it_stopped(self) -> None:
        self.store.put_record(RUNNING)
        self.write(crashed())
        stopped = LastExit(CONTAINER, 143, False, LATER, "é€\n", RequestedBy.MANAGER)
        self.queue.submit(request("g1", OpKind.STOP))
        self.queue.finish(self.claim_one(), ended(last_exit=stopped))
        self.assertEqual(self.health().last_exit, stopped)
        self.operate(OpKind.START)
        self.assertEqual(self.health().last_exit, stopped, "an operation that stopped nothing leaves it")
        self.assertIsNone(self.health("g2").last_exit)

    def test_the_end_of_an_operation_that_is_not_written_leaves_the_last_exit(self) -> None:
        self.store.put_record(RUNNING)
        first = crashed()
        self.write(first)
        poison = LastExit(CONTAINER, 139, False, LATER, "nul \0 here")
        self.queue.submit(request("g1", OpKind.STOP))
        operation = self.claim_one()
        with self.assertRaises(StoreRejected):
            self.queue.finish(operation, ended(last_exit=poison))
        late = ended(last_exit=replace(poison, log=""), seen=record("g1", current_container_id="another"))
        with self.assertRaises(RecordConflict):
            self.queue.finish(operation, late)
        self.assertEqual(self.health().last_exit, first.last_exit)

    def test_a_restart_that_was_given_up_is_published_until_a_good_probe_or_another_container(self) -> None:
        self.store.put_record(RUNNING)
        given_up = alarm(AlarmKind.PROBE, restart_given_up=True)
        self.write(raising(alarm(AlarmKind.INSPECT)))
        self.write(raising(given_up))
        self.assertTrue(self.health().probe_restart_given_up)
        self.assertEqual(dict(self.findings.alarms(AlarmKind.PROBE)), {"g1": given_up})
        self.operate(OpKind.START)
        self.assertTrue(self.health().probe_restart_given_up, "an operation that changes nothing restarts nothing")
        self.store.put_record(replace(RUNNING, current_container_id="another"))
        self.assertFalse(self.health().probe_restart_given_up)
        self.store.put_record(RUNNING)
        self.write(calming(AlarmKind.PROBE))
        self.assertFalse(self.health().probe_restart_given_up)
        self.write(raising(alarm(AlarmKind.PROBE)))
        self.assertFalse(self.health().probe_restart_given_up)

    def test_a_restart_that_is_planned_is_published(self) -> None:
        self.store.put_record(RUNNING)
        self.write(crashed(restart_at=LATER))
        self.assertEqual(self.health().restart_due_at, LATER)

    def test_the_log_is_read_newest_first_page_by_page(self) -> None:
        written = [log_entry(source_ref=f"req-{n}", finished_at=LATER) for n in range(5)]
        self.queue.submit(request("g1"))
        self.queue.finish(self.claim_one(), ended(log=tuple(written[:3])))
        self.queue.submit(request("g2"))
        self.queue.finish(self.claim_one(), ended(log=(log_entry("g2"),)))
        self.queue.submit(request("g1"))
        self.queue.finish(self.claim_one(), ended(log=tuple(written[3:])))
        read, before = [], None
        while page := self.histories.log("g1", before=before, limit=2):
            self.assertLessEqual(len(page), 2)
            read += [entry for _, entry in page]
            before = page[-1][0]
        self.assertEqual(read, written[::-1])
        self.assertEqual([entry for _, entry in self.histories.log("g2", before=None, limit=9)], [log_entry("g2")])
