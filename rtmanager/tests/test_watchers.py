"""Listener, inspector, prober and retention: the findings of each, written once, and what each ignores."""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

from rtmanager.bootstrap.watchers import Watch
from rtmanager.domain.container import ContainerState, ContainerView
from rtmanager.domain.crash import RestartPolicy
from rtmanager.domain.errors import DependencyError, ErrorCode, FinalAnswer, TemporaryAnswer, Unavailable
from rtmanager.domain.findings import Finding, RestartCause
from rtmanager.domain.health import HealthSource, HealthStatus
from rtmanager.domain.messages import Stream
from rtmanager.domain.operation import OpKind, Request
from rtmanager.domain.outage import RuntimeRun, Sender
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.fakes.findings import MemoryFindings
from rtmanager.fakes.store import MemoryHistories
from rtmanager.ports.store import StoreRejected
from rtmanager.ports.watching import (
    ContainerEvent,
    ContainerEventKind,
    ProbeBy,
    ProbeTarget,
    UnreadableEvent,
    WriteResult,
)
from rtmanager.tests.making import NETWORK, LogCapture, quiet, record, request, view
from rtmanager.tests.watching import FakeProbes, FakeResult, UnthreadedQueue, WatchedWorld
from rtmanager.workers.inspector import Inspector
from rtmanager.workers.prober import Prober
from rtmanager.workers.reconcile import listener as events_module
from rtmanager.workers.reconcile import signals as signals_module
from rtmanager.workers.reconcile.listener import RESTART_GRACE_S, EventListener
from rtmanager.workers.reconcile.queue import ReconcileHint
from rtmanager.workers.reconcile.signals import SignalMemory
from rtmanager.workers.retention import Retention

PERIOD_S = 15.0
THRESHOLD = 3


class Feed:
    """An event feed that yields the given events, and then breaks if a test sets `breaks`."""

    def __init__(self) -> None:
        self.events: list[ContainerEvent | UnreadableEvent] = []
        self.reachable = True
        self.breaks = False

    def connect(self) -> None:
        if not self.reachable:
            raise Unavailable("docker", "away")

    def listen(self) -> Iterator[ContainerEvent | UnreadableEvent]:
        yield from self.events
        self.events = []
        if self.breaks:
            raise Unavailable("docker", "cut")

    def interrupt(self) -> None:
        pass


class ListenerTest(unittest.TestCase):
    def setUp(self) -> None:
        self.feed = Feed()
        self.reconcile_queue = UnthreadedQueue(lambda _game_id, _hint: True)
        self.passes: list[str] = []
        self.captured = LogCapture()
        self.signals = SignalMemory()
        self.listener = EventListener(
            self.feed,
            self.reconcile_queue,  # type: ignore[arg-type]  # the same, without threads
            missed=lambda: self.passes.append("pass"),
            logger=self.captured.logger,
            present_run=self.present_run,
            signals=self.signals,
            deployment=lambda: "deployment-1",
        )
        #: None: it accepts no calls.
        self.began: RuntimeRun | None = RuntimeRun()
        self.run_queries = 0

    def present_run(self) -> RuntimeRun:
        self.run_queries += 1
        if self.began is None:
            raise Unavailable("docker", "connection refused")
        return self.began

    def deliver(self, *events: ContainerEvent | UnreadableEvent) -> dict[str, tuple[ReconcileHint, float]]:
        """The games that these events queue, with their hints and delays in seconds."""
        self.feed.events = list(events)
        self.listener.step()
        return self.reconcile_queue.named

    def test_a_death_is_reconciled_at_once(self) -> None:
        hint, delay_s = self.deliver(_event(ContainerEventKind.DIE))["g1"]
        self.assertEqual((hint.source, hint.containers, delay_s), (HealthSource.DOCKER_EVENT, {"c-1"}, 0))

    def test_so_is_a_kill_by_hand(self) -> None:
        named = self.deliver(_event(ContainerEventKind.KILL, signal="9"), _event(ContainerEventKind.DIE))
        self.assertEqual((named["g1"][1], named["g1"][0].signalled), (0, {"c-1"}))

    def test_a_signal_after_which_the_runtime_accepts_calls_is_a_persons(self) -> None:
        half, began = datetime.fromtimestamp(0.5, UTC), datetime.fromtimestamp(1, UTC)
        for run, time_ns, sender in (
            (RuntimeRun(began), 2 * 10**9, Sender.PERSON),
            (RuntimeRun(began), 10**9 // 2, Sender.RUNTIME),  # the new run ended the last one's containers
            # A clock that was ahead has been set back: what is later than now is of the begin of the run.
            (RuntimeRun(began, read_at=half), 10**9 // 4, Sender.PERSON),
            (RuntimeRun(began, read_at=half), 10**9 * 3 // 4, Sender.RUNTIME),
            (RuntimeRun(), 2 * 10**9, Sender.UNKNOWN),
            (None, 2 * 10**9, Sender.RUNTIME),
        ):
            self.setUp()
            self.began = run
            kill = _event(ContainerEventKind.KILL, signal="15", time_ns=time_ns)
            self.deliver(kill, _event(ContainerEventKind.DIE, time_ns=time_ns))
            self.assertEqual(self.signals.sender(_ended(time_ns)), sender, run)

    def test_a_signal_explains_no_end_after_the_death_that_followed_it(self) -> None:
        self.began = RuntimeRun(datetime.fromtimestamp(0, UTC))
        self.deliver(_event(ContainerEventKind.KILL, signal="15", time_ns=1), _event(ContainerEventKind.DIE, time_ns=2))
        self.assertEqual(self.signals.sender(_ended(2)), Sender.PERSON)
        self.assertIsNone(self.signals.sender(_ended(20 * 10**9)), "a person started it again")
        self.began = None
        self.deliver(_event(ContainerEventKind.KILL, signal="15", time_ns=20 * 10**9))
        self.assertEqual(self.signals.sender(_ended(20 * 10**9)), Sender.RUNTIME)

    def test_a_persons_stop_is_undecided_until_its_end_is_decided_on(self) -> None:
        self.began = RuntimeRun(datetime.fromtimestamp(0, UTC))
        self.deliver(_event(ContainerEventKind.KILL, signal="15", time_ns=1))
        self.assertEqual(self.signals.undecided(60), {}, "it lives")
        self.deliver(_event(ContainerEventKind.DIE, time_ns=2))
        self.assertEqual(self.signals.undecided(60), {"g1": "c-1"})
        self.assertEqual(self.signals.undecided(-1), {}, "a pass has decided on what died long ago")
        self.signals.sender(_ended(2))
        self.assertEqual(self.signals.undecided(60), {})

    def test_a_runtime_that_goes_down_does_not_take_over_a_persons_stop_under_way(self) -> None:
        self.began = RuntimeRun(datetime.fromtimestamp(0, UTC))
        self.deliver(_event(ContainerEventKind.KILL, signal="15", time_ns=1))
        self.began = None
        self.deliver(_event(ContainerEventKind.KILL, signal="15", time_ns=5), _event(ContainerEventKind.DIE, time_ns=6))
        self.assertEqual(self.signals.sender(_ended(6)), Sender.PERSON)

    def test_a_signal_that_is_no_stop_explains_an_end_for_the_usual_grace_only(self) -> None:
        self.began = RuntimeRun(datetime.fromtimestamp(0, UTC))
        for signal, hidden, after_s, explained in (
            ("1", False, 9, True),
            ("1", False, 30, False),
            ("13", False, 30, False),
            ("15", False, 200, True),
            ("2", False, 200, True),
            ("1", True, 200, True),
        ):
            with self.subTest(signal=signal, after_s=after_s):
                self.signals = SignalMemory()
                self.listener._signals = self.signals
                self.deliver(_event(ContainerEventKind.KILL, signal=signal, signal_is_label=hidden))
                ended = after_s * 10**9
                self.assertEqual(self.signals.sender(_ended(ended)), Sender.PERSON if explained else None)
                self.reconcile_queue.named.clear()
                hint, _ = self.deliver(_event(ContainerEventKind.DIE, time_ns=ended, signal_is_label=hidden))["g1"]
                self.assertEqual(hint.signalled, {"c-1"} if explained else frozenset())

    def test_a_reload_does_not_shorten_a_stop_under_way(self) -> None:
        self.began = RuntimeRun(datetime.fromtimestamp(0, UTC))
        self.deliver(*(_event(ContainerEventKind.KILL, signal=signal) for signal in ("15", "1")))
        self.assertEqual(self.signals.sender(_ended(200 * 10**9)), Sender.PERSON)

    def test_a_stop_under_way_outlasts_the_time_that_the_runtime_is_away(self) -> None:
        clock = self.enterContext(mock.patch.object(events_module, "monotonic", return_value=0.0))
        self.enterContext(mock.patch.object(signals_module, "monotonic", clock))
        self.began = RuntimeRun(datetime.fromtimestamp(0, UTC))
        self.deliver(_event(ContainerEventKind.KILL, signal="15", time_ns=1))
        clock.return_value, self.feed.breaks = 10.0, True
        self.assertRaises(Unavailable, self.deliver)
        clock.return_value, self.feed.breaks = 3610.0, False
        self.deliver()
        self.assertEqual(self.signals.sender(_ended(3609 * 10**9)), Sender.PERSON)
        self.assertIsNone(self.signals.sender(_ended(4000 * 10**9)), "it survived the signal")

    def test_a_runtime_whose_events_break_off_after_its_signals_went_down(self) -> None:
        for began, sender in ((None, Sender.ENDED_RUNTIME), (datetime.fromtimestamp(0, UTC), Sender.PERSON)):
            with self.subTest(sender):
                self.setUp()
                self.began = RuntimeRun(began) if began else None
                self.deliver(_event(ContainerEventKind.KILL, signal="15", time_ns=1))
                self.feed.breaks = True
                self.assertRaises(Unavailable, self.deliver, _event(ContainerEventKind.DIE, time_ns=2))
                self.assertEqual(self.signals.sender(_ended(2)), sender)

    def test_a_runtime_that_shuts_down_is_not_queried_for_each_signal(self) -> None:
        self.began = None
        self.deliver(*(_event(ContainerEventKind.KILL, signal="15", time_ns=number) for number in range(5)))
        self.assertEqual(self.run_queries, 1)

    def test_one_with_a_signal_to_end_may_be_about_to_start_again(self) -> None:
        named = self.deliver(_event(ContainerEventKind.KILL, signal="15"), _event(ContainerEventKind.DIE))
        self.assertEqual((named["g1"][1], named["g1"][0].signalled), (RESTART_GRACE_S, {"c-1"}))

    def test_a_signal_with_another_purpose_is_forgotten_and_so_is_one_of_long_ago(self) -> None:
        for signal, died_ns in (("10", 5), ("15", 10**9 * 3600)):
            self.reconcile_queue.named.clear()
            self.deliver(_event(ContainerEventKind.KILL, signal=signal, time_ns=1))
            named = self.deliver(_event(ContainerEventKind.DIE, time_ns=died_ns))
            self.assertEqual((named["g1"][1], named["g1"][0].signalled), (0, frozenset()), signal)

    def test_a_container_that_was_destroyed_is_reconciled(self) -> None:
        self.assertIn("g1", self.deliver(_event(ContainerEventKind.DESTROY)))

    def test_memory_that_ran_out_is_published_with_its_time(self) -> None:
        hint, _ = self.deliver(_event(ContainerEventKind.OOM, time_ns=77))["g1"]
        self.assertEqual(hint.oom, {"c-1": 77})

    def test_memory_that_runs_out_all_the_time_is_counted_in_the_log(self) -> None:
        clock = self.enterContext(mock.patch.object(events_module, "monotonic", return_value=0.0))
        for now in (0, 1, 2, 61, 62, 121, 122):
            clock.return_value = now
            self.deliver(_event(ContainerEventKind.OOM, time_ns=now + 1))
        lines = [record.times for record in self.captured.records if "ran out of memory" in record.getMessage()]  # type: ignore[attr-defined]
        self.assertEqual(lines, [3, 2])

    def test_exits_that_passes_alone_find_while_the_feed_is_connected_show_that_no_events_arrive(self) -> None:
        clock = self.enterContext(mock.patch.object(events_module, "monotonic", return_value=0.0))
        self.deliver(_event(ContainerEventKind.DIE))
        clock.return_value = 60.0
        of_no_weight = (("c-1", 30.0), ("c-2", 2.0), ("c-2", 61.0))  # already received, too recent, before the connect
        for container_id, ended_ago_s in (*of_no_weight, ("c-2", 30.0), ("c-3", 30.0)):
            self.listener.exit_found(container_id, ended_ago_s)
        self.assertEqual(self.listener.problem(), "")
        self.listener.exit_found("c-4", 30.0)
        self.assertIn("no events arrive, 3 exits", self.listener.problem())
        self.deliver(_event(ContainerEventKind.DIE))
        self.assertEqual(self.listener.problem(), "")
        self.assertEqual(self.captured.messages.count("no events arrive"), 1)

    def test_exits_after_a_break_of_the_feed_are_no_missed_events(self) -> None:
        self.deliver()
        self.feed.breaks = True
        self.assertRaises(Unavailable, self.deliver)
        for number in range(3):
            self.listener.exit_found(f"c-{number}", 30.0)
        self.assertEqual(self.listener.problem(), "")

    def test_a_death_that_no_signal_explains_is_published_as_such(self) -> None:
        hint, delay_s = self.deliver(_event(ContainerEventKind.DIE))["g1"]
        self.assertEqual((hint.unexplained, delay_s), ({"c-1"}, 0))
        self.reconcile_queue.named.clear()
        hint, _ = self.deliver(_event(ContainerEventKind.KILL, signal="9"), _event(ContainerEventKind.DIE))["g1"]
        self.assertEqual(hint.unexplained, frozenset())

    def test_a_label_that_hides_the_signal_makes_every_signal_one_to_end(self) -> None:
        for signal in ("28", "9", "15", "no signal at all"):
            self.reconcile_queue.named.clear()
            died = _event(ContainerEventKind.DIE, signal_is_label=True)
            named = self.deliver(_event(ContainerEventKind.KILL, signal=signal), died)
            self.assertEqual((named["g1"][1], named["g1"][0].signalled), (RESTART_GRACE_S, {"c-1"}), signal)
        self.reconcile_queue.named.clear()
        self.assertEqual(
            self.deliver(_event(ContainerEventKind.DIE, signal_is_label=True))["g1"][0].signalled, frozenset()
        )

    def test_what_cannot_be_a_games_id_is_left_to_a_pass(self) -> None:
        events = [_event(ContainerEventKind.DIE, game_id=game_id) for game_id in ("a\ufffdb", "../x", "", "x" * 600)]
        self.assertEqual(self.deliver(*events), {})

    def test_events_of_another_deployment_are_ignored(self) -> None:
        for what in ContainerEventKind:
            self.assertEqual(self.deliver(_event(what, signal="15", deployment="deployment-2")), {})
        self.assertEqual((self.run_queries, self.passes), (0, []))
        for ours in ("", "deployment-1"):
            self.assertIn("g1", self.deliver(_event(ContainerEventKind.DIE, deployment=ours)))
            self.reconcile_queue.named.clear()

    def test_after_events_that_cannot_be_read_a_pass_follows_and_not_one_for_each(self) -> None:
        unreadable = UnreadableEvent("no JSON")
        self.assertIn("g1", self.deliver(unreadable, _event(ContainerEventKind.DIE), unreadable, unreadable))
        self.assertEqual(self.passes, ["pass"])
        self.deliver()
        self.assertEqual(self.passes, ["pass"], "the pause is not over")
        with mock.patch.object(events_module, "UNREADABLE_PAUSE_S", 0.0):
            self.deliver()
            self.deliver()
        self.assertEqual(self.passes, ["pass", "pass"], "one more for those after the first")

    def test_after_a_break_of_any_kind_a_pass_is_made_once(self) -> None:
        self.deliver()
        self.assertEqual(self.passes, [], "the first one comes before")
        self.feed.breaks = True
        self.assertRaises(Unavailable, self.listener.step)
        self.feed.breaks, self.feed.reachable = False, False
        self.assertRaises(Unavailable, self.listener.step)
        self.assertEqual(self.passes, [])
        self.feed.reachable = True
        self.deliver()
        self.deliver()
        self.assertEqual(self.passes, ["pass"])


class WatcherTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.world = WatchedWorld()
        self.world.bring(Status.RUNNING)
        self.container_id = self.world.container()

    def details(self) -> list[str]:
        return [message.fields["details"] for message in self.world.sent(Stream.HEALTH_EVENTS)]

    def snapshot(self) -> HealthStatus:
        return self.world.store.snapshots["g1"].status


class AwayTest(unittest.TestCase):
    def away(self, error: DependencyError, *, is_long: bool) -> bool:
        watch = object.__new__(Watch)
        watch._loops = [mock.Mock(away=error, **{"is_away_for_long.return_value": is_long})]
        return watch.away() == [error]

    def test_silence_of_docker_is_reported_when_it_goes_on_and_all_else_at_once(self) -> None:
        silence = Unavailable("docker", "nothing within 30 s")
        self.assertFalse(self.away(silence, is_long=False))
        self.assertTrue(self.away(silence, is_long=True))
        unreadable = TemporaryAnswer("docker", "odd", answer="list: unreadable", code=ErrorCode.INTERNAL_ERROR)
        for error in (unreadable, FinalAnswer("docker", "403"), Unavailable("postgres", "away")):
            self.assertTrue(self.away(error, is_long=False), error)


class InspectorTest(WatcherTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.world.do(request("g2"))
        self.world.forget()
        self.inspector = self.make()

    def make(self, owner: int = 1) -> Inspector:
        findings = MemoryFindings(self.world.store, owner)
        return Inspector(
            records=self.world.store.records,
            findings=findings,
            leases=findings,
            runtime=self.world.docker,
            clock=self.world.clock,
            written=self.world.written.append,
            period_s=PERIOD_S,
            logger=quiet(),
        )

    def change(self, **changes: object) -> None:
        self.world.docker.alter(self.container_id, **changes)
        self.inspector.step()

    def test_what_runs_well_is_not_published(self) -> None:
        self.inspector.step()
        self.assertEqual(self.world.events(), [])

    def test_a_paused_container_is_published_once_and_is_healthy_again_when_it_goes_on(self) -> None:
        self.change(state=ContainerState.PAUSED)
        self.inspector.step()
        self.assertEqual(self.details(), ['{"restart_count":0,"state":"paused","health":""}'])
        self.assertEqual(self.snapshot(), HealthStatus.INSPECT_UNHEALTHY)
        self.change(state=ContainerState.RUNNING)
        self.assertEqual(self.world.events(), ["inspect_unhealthy"], "there is no event for its end")
        self.assertEqual(self.snapshot(), HealthStatus.HEALTHY)
        self.change(state=ContainerState.PAUSED)
        self.assertEqual(self.world.events(), ["inspect_unhealthy"] * 2)

    def test_an_image_that_finds_itself_unhealthy_is_published(self) -> None:
        self.change(health="unhealthy")
        self.assertEqual(self.details(), ['{"restart_count":0,"state":"running","health":"unhealthy"}'])

    def test_a_restart_count_is_reported_when_it_grew_since_the_last_inspection(self) -> None:
        self.change(restart_count=4)
        self.assertEqual(self.world.events(), [], "the first look is the baseline")
        self.change(restart_count=5)
        self.inspector.step()
        self.change(restart_count=6)
        self.assertEqual([text[:19] for text in self.details()], ['{"restart_count":5,', '{"restart_count":6,'])

    def test_what_has_run_for_an_hour_is_inspected_only_when_a_list_shows_trouble(self) -> None:
        self.change(up_for_an_hour=True)
        self.assertEqual(self.inspections(), 0)
        self.change(health="unhealthy")
        self.change(health="")
        self.assertEqual((self.inspections(), self.snapshot()), (2, HealthStatus.HEALTHY))
        self.change(state=ContainerState.PAUSED)
        self.assertEqual((self.inspections(), self.snapshot()), (3, HealthStatus.INSPECT_UNHEALTHY))

    def test_what_has_run_for_an_hour_and_was_started_anew_since_is_published(self) -> None:
        self.change(up_for_an_hour=True, restart_count=4)
        self.change(up_for_an_hour=False, restart_count=5)
        self.assertEqual([text[:19] for text in self.details()], ['{"restart_count":5,'])

    def test_what_a_person_started_anew_is_not_published_but_what_follows_is(self) -> None:
        self.change(up_for_an_hour=True, restart_count=4)
        self.change(up_for_an_hour=False, restart_count=0)
        self.assertEqual(self.world.events(), [])
        self.change(restart_count=1)
        self.assertEqual([text[:19] for text in self.details()], ['{"restart_count":1,'])

    def test_inspections_more_than_an_hour_apart_have_to_be_closer(self) -> None:
        self.inspector._period_s = 3601
        self.change(up_for_an_hour=True)
        self.assertEqual(self.inspections(), 1)

    def inspections(self) -> int:
        return self.world.docker.called("inspect").count((self.container_id,))

    def test_what_is_gone_or_being_removed_is_left_to_the_reconciler(self) -> None:
        self.change(state=ContainerState.REMOVING)
        self.world.docker.vanish(self.container_id)
        self.inspector.step()
        self.assertEqual(self.world.events(), [])

    def test_nothing_is_published_about_a_game_that_is_worked_on(self) -> None:
        self.world.claim(request(kind=OpKind.STOP))
        self.change(state=ContainerState.EXITED)
        self.assertEqual(self.world.events(), [])

    def test_one_container_that_docker_cannot_inspect_hides_no_other(self) -> None:
        self.inspector._runtime = self.world.runtime.port
        broken = self.world.container("g2")
        inspect = self.world.docker.inspect
        errors: list[Exception] = [Unavailable("docker", "no answer within 5 s")]

        def inspect_most(id_or_name: str) -> ContainerView:
            if id_or_name == broken:
                raise errors.pop()
            return inspect(id_or_name)

        self.world.docker.inspect = inspect_most  # type: ignore[method-assign]
        self.change(state=ContainerState.PAUSED)
        self.assertEqual(self.world.events(), ["inspect_unhealthy"])
        self.assertEqual(self.inspector._failures.failing(), {})
        for _ in range(3):
            errors.append(FinalAnswer("docker", "500: RWLayer is unexpectedly nil"))
            self.inspector.step()
        self.assertEqual(self.inspector._failures.failing(), {("inspect", "g2"): 3})

    def test_when_docker_inspects_none_of_several_the_pass_is_without_an_answer(self) -> None:
        self.inspector._runtime = self.world.runtime.port

        def silent(id_or_name: str) -> ContainerView:
            raise Unavailable("docker", "no answer within 5 s")

        self.world.docker.inspect = silent  # type: ignore[method-assign]
        self.inspector.step()  # two games: their containers may be stuck
        self.world.do(request("g3"))
        with self.assertRaisesRegex(Unavailable, "within 5 s"):
            self.inspector.step()

    def test_neither_does_one_whose_answer_is_a_defect_or_whose_finding_is_refused(self) -> None:
        self.inspector._runtime = self.world.runtime.port
        self.world.do(request("g3"))
        self.world.forget()
        defective, refused = self.world.container("g2"), "g3"
        inspect, write = self.world.docker.inspect, self.inspector._findings.write

        def inspect_most(id_or_name: str) -> ContainerView:
            if id_or_name == defective:
                raise TypeError("'NoneType' object is not subscriptable")
            return inspect(id_or_name)

        def write_most(finding: Finding) -> WriteResult:
            if finding.game_id == refused:
                raise StoreRejected("violates check constraint")
            return write(finding)

        self.world.docker.inspect = inspect_most  # type: ignore[method-assign]
        self.inspector._findings.write = write_most  # type: ignore[method-assign]
        self.world.docker.alter(self.world.container("g3"), state=ContainerState.PAUSED)
        self.change(state=ContainerState.PAUSED)
        self.assertEqual(self.world.events(), ["inspect_unhealthy"])
        self.assertEqual(set(self.inspector._failures._known), {("inspect", "g2"), ("inspect_write", "g3")})

    def test_a_state_that_is_not_known_is_reported_by_dockers_own_name(self) -> None:
        self.change(state=ContainerState.UNKNOWN, state_word="hibernating")
        self.inspector.step()
        self.assertEqual(self.details(), ['{"restart_count":0,"state":"hibernating","health":""}'])

    def test_an_instance_that_does_not_reach_docker_lets_another_inspect(self) -> None:
        self.world.docker.available = False
        self.assertRaises(Unavailable, self.inspector.step)
        self.world.docker.available = True
        self.world.docker.alter(self.container_id, state=ContainerState.PAUSED)
        self.make(owner=2).step()
        self.assertEqual(self.world.events(), ["inspect_unhealthy"])

    def test_one_instance_inspects_for_all_and_another_takes_over_when_it_is_silent(self) -> None:
        self.inspector.step()
        other = self.make(owner=2)
        self.world.docker.alter(self.container_id, state=ContainerState.PAUSED)
        other.step()
        self.assertEqual(self.world.events(), [])
        self.world.clock.advance(PERIOD_S * 3 + 1)
        other.step()
        self.assertEqual(self.world.events(), ["inspect_unhealthy"])


class ProberTest(WatcherTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.by = ProbeBy.ENDPOINT
        self.probes = FakeProbes()
        self.prober = self.make()
        self.histories = MemoryHistories(self.world.store)

    def make(self, owner: int = 1, restarts: RestartPolicy | None = None) -> Prober:
        findings = MemoryFindings(self.world.store, owner)
        return Prober(
            records=self.world.store.records,
            findings=findings,
            leases=findings,
            runtime=self.world.docker,
            probes=self.probes,
            by=lambda: self.by,
            clock=self.world.clock,
            written=self.world.written.append,
            period_s=PERIOD_S,
            timeout_s=2,
            threshold=THRESHOLD,
            logger=quiet(),
            restarts=restarts,
        )

    def probe(self, *results: FakeResult | None) -> None:
        for answer in results:
            self.probes.results["g1"] = answer
            self.prober.step()

    def test_failed_probes_plan_a_restart_where_that_is_wanted_and_a_good_one_cancels_it(self) -> None:
        self.prober = self.make(restarts=RestartPolicy())
        self.probe(*[FakeResult(500)] * THRESHOLD)
        self.assertEqual(self.world.store.planned_restarts["g1"][2], RestartCause.PROBE)
        self.probe(FakeResult())
        self.assertEqual(self.world.store.planned_restarts, {})

    def test_by_default_failed_probes_plan_none(self) -> None:
        self.probe(*[FakeResult(500)] * THRESHOLD)
        self.assertEqual(self.world.store.planned_restarts, {})

    def test_failed_probes_beyond_the_budget_are_an_intent(self) -> None:
        self.prober = self.make(restarts=RestartPolicy(budget=0))
        self.probe(*[FakeResult(500)] * (THRESHOLD + 2))
        self.assertEqual(self.world.store.planned_restarts, {})
        messages = self.world.store.messages.values()
        types = [each.fields["notification_type"] for each in messages if each.stream is Stream.NOTIFICATION_INTENTS]
        self.assertEqual(types, ["runtime.container_start_failed"])

    def test_a_restart_that_was_given_up_stays_visible_until_a_good_probe(self) -> None:
        for budget, given_up in ((0, True), (1, False)):
            self.prober = self.make(restarts=RestartPolicy(budget=budget))
            for _ in range(2):  # the second time from a restarted service
                self.probe(*[FakeResult(500)] * THRESHOLD)
                self.assertIs(self.histories.health("g1").probe_restart_given_up, given_up)
                self.prober = self.make(restarts=RestartPolicy())
            self.probe(FakeResult())
            self.assertFalse(self.histories.health("g1").probe_restart_given_up)

    def test_two_failures_of_three_are_not_published(self) -> None:
        self.probe(BAD, BAD, GOOD, BAD, BAD, GOOD)
        self.assertEqual(self.world.events(), [])

    def test_a_threshold_in_a_row_is_published_once_and_so_is_its_end(self) -> None:
        self.probe(BAD, BAD, BAD, BAD, BAD, GOOD, GOOD)
        self.assertEqual(
            self.details(),
            ['{"consecutive_failures":3,"last_status":503,"last_error":"status 503"}', '{"prior_failure_count":5}'],
        )
        self.assertEqual(self.world.events(), ["probe_failed", "probe_recovered"])
        self.assertEqual(self.snapshot(), HealthStatus.HEALTHY)

    def test_a_restart_of_this_service_reports_nothing_twice_and_forgets_nothing(self) -> None:
        self.probe(BAD, BAD, BAD)
        self.prober = self.make()
        self.probe(BAD, BAD, BAD, GOOD)
        self.assertEqual(self.world.events(), ["probe_failed", "probe_recovered"])

    def test_an_engine_that_was_not_probed_neither_fails_nor_recovers(self) -> None:
        self.probe(BAD, BAD, None, BAD)
        self.assertEqual(self.world.events(), ["probe_failed"])
        self.probe(None)
        self.assertEqual(self.world.events(), ["probe_failed"])

    def test_a_new_container_begins_anew(self) -> None:
        self.probe(BAD, BAD)
        self.world.do(request(kind=OpKind.RESTART))
        self.world.forget()
        self.probe(BAD, BAD)
        self.assertEqual(self.world.events(), [])
        self.probe(BAD)
        self.assertEqual(self.world.events(), ["probe_failed"])

    def test_what_fails_while_it_is_worked_on_is_published_when_it_still_fails_afterwards(self) -> None:
        operation = self.world.claim(request(kind=OpKind.PATCH, image_ref="galaxy/game:2.0.0"))
        self.probe(BAD, BAD, BAD)
        self.assertEqual(self.world.events(), [])
        self.world.queue.finish(operation, self.world.operator.run(operation))
        self.probe(BAD)
        self.assertEqual(self.world.events(), ["probe_failed"])

    def test_by_endpoint_the_target_comes_from_the_record(self) -> None:
        self.probe(GOOD)
        self.assertEqual(self.probes.targets, [ProbeTarget("g1", "galaxy-game-g1", 8080)])

    def test_by_address_it_comes_from_the_container_on_the_records_network(self) -> None:
        self.by = ProbeBy.CONTAINER_IP
        self.world.docker.alter(self.container_id, addresses={"other": "10.0.0.1", NETWORK: "172.20.0.7"})
        self.probe(GOOD)
        self.assertEqual(self.probes.targets, [ProbeTarget("g1", "172.20.0.7", 8080)])

    def test_by_address_what_has_none_is_not_probed(self) -> None:
        self.by = ProbeBy.CONTAINER_IP
        self.world.docker.alter(self.container_id, state=ContainerState.EXITED, addresses={NETWORK: "172.20.0.7"})
        self.probe(BAD)
        self.assertEqual(self.probes.targets, [])

    def test_a_record_without_an_endpoint_and_a_finding_that_is_refused_hide_no_other(self) -> None:
        for game_id in ("g2", "g3"):
            self.world.do(request(game_id))
        self.world.forget()
        records = self.world.store.records_by_game
        records["g2"] = replace(records["g2"], engine_endpoint="http://[not-an-address:x")
        self.probes.results["g3"] = BAD
        write = self.prober._findings.write

        def write_most(finding: Finding) -> WriteResult:
            if finding.game_id == "g3":
                raise StoreRejected("violates check constraint")
            return write(finding)

        self.prober._findings.write = write_most  # type: ignore[method-assign]
        self.probe(BAD, BAD, BAD)
        self.assertEqual(self.world.events(), ["probe_failed"])
        self.assertEqual({target.key for target in self.probes.targets}, {"g1", "g3"})
        self.assertEqual(set(self.prober._game_failures._known), {("probe", "g3"), ("probe_target", "g2")})

    def test_one_instance_probes_for_all(self) -> None:
        self.probe(BAD, BAD)
        self.make(owner=2).step()
        self.probe(BAD)
        self.assertEqual(self.world.events(), ["probe_failed"])


class NamesakeTest(WatcherTestCase):
    def test_a_container_whose_name_another_game_has_stays_reported_pass_after_pass_until_that_is_removed(self) -> None:
        self.world.bring(Status.RUNNING, "Match7")
        self.world.store.records_by_game.pop("Match7")
        self.world.docker.calls.clear()
        named = next(each for each in self.world.running() if each.game_id == "Match7")
        self.world.store.put_record(record("match7", Status.STOPPED))
        for _ in range(3):
            self.world.reconcile()
            self.assertIsNone(self.world.record("Match7"))
            self.assertIn("the name of game match7", self.world.strays.known[named.container_id].reason)
        reported = "container disagrees with the records and is left alone"
        self.assertEqual(self.world.captured.messages.count(reported), 1)
        self.world.store.put_record(record("match7", Status.REMOVED))
        self.world.reconcile()
        self.assertIs(self.world.known("Match7").status, Status.RUNNING)
        self.assertEqual(self.world.strays.known, {})


class RetentionTest(WatcherTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.queued: list[str] = []
        self.steady = True
        self.retention = Retention(
            findings=self.world.findings,
            leases=self.world.findings,
            queue=self.world.queue,
            queued=lambda: self.queued.append("due"),
            keep=timedelta(days=30),
            period_s=3600,
            logger=quiet(),
            steady=lambda: self.steady,
        )

    def step(self, after_days: float) -> list[str]:
        self.world.clock.advance(after_days * 86400)
        self.retention.step()
        return sorted(self.world.store.live)

    def test_a_game_that_was_stopped_long_ago_is_cleaned_up_by_an_ordinary_operation(self) -> None:
        self.world.do(request(kind=OpKind.STOP))
        self.assertEqual(self.step(29.9), [])
        self.assertEqual(self.step(0.2), ["g1"])
        (operation,) = self.world.queue.claim(1)
        self.world.queue.finish(operation, self.world.operator.run(operation))
        self.assertEqual(self.world.known().status, Status.REMOVED)
        last = self.world.store.log[-1]
        self.assertEqual((last.kind, last.source), (OpKind.CLEANUP, "auto_ttl"))
        self.assertEqual(self.queued, ["due"])

    def test_no_game_is_cleaned_up_while_the_clock_cannot_be_believed(self) -> None:
        self.world.do(request(kind=OpKind.STOP))
        self.steady = False
        self.assertEqual(self.step(31), [])
        self.steady = True
        self.assertEqual(self.step(0), ["g1"])

    def test_what_runs_or_is_removed_is_left_alone(self) -> None:
        self.world.bring(Status.REMOVED, "g2")
        self.assertEqual(self.step(365), [])

    def test_a_game_that_is_worked_on_is_left_for_the_next_time(self) -> None:
        self.world.do(request(kind=OpKind.STOP))
        self.world.claim(request())
        self.step(31)
        self.assertEqual(self.queued, [])

    def test_a_game_that_was_cleaned_up_since_it_was_listed_is_left_alone(self) -> None:
        self.world.do(request(kind=OpKind.STOP))
        listed = self.world.findings.stopped_before

        def listed_before(*how: Any) -> list[RuntimeRecord]:
            found = list(listed(*how))
            self.world.do(request(kind=OpKind.CLEANUP))
            return found

        with mock.patch.object(self.world.findings, "stopped_before", listed_before):
            self.assertEqual(self.step(31), [])
        self.assertEqual(self.queued, [])

    def test_one_clean_up_that_is_refused_keeps_no_other_from_being_queued(self) -> None:
        self.world.do(request(kind=OpKind.STOP))
        self.world.bring(Status.STOPPED, "g2")
        submit = self.world.queue.submit

        def submit_most(request: Request, *, last_op_at: datetime | None = None) -> int:
            if request.game_id == "g1":
                raise StoreRejected("violates check constraint")
            return submit(request, last_op_at=last_op_at)

        self.world.queue.submit = submit_most  # type: ignore[method-assign]
        self.assertEqual(self.step(31), ["g2"])
        self.assertEqual(self.queued, ["due"])


GOOD, BAD = FakeResult(), FakeResult(503, "status 503")


def _event(what: ContainerEventKind, **changes: object) -> ContainerEvent:
    return replace(ContainerEvent(what, "g1", "c-1", 1), **changes)  # type: ignore[arg-type]


def _ended(at_ns: int) -> ContainerView:
    """The container of `_event`, which ended at this time of the runtime's clock."""
    return view(state=ContainerState.EXITED, finished_at=datetime.fromtimestamp(at_ns / 1e9, UTC))
