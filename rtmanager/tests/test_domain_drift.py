"""Decisions about records and containers that differ: the table of `domain.drift`, row by row."""

from __future__ import annotations

import unittest
from datetime import timedelta

from rtmanager.domain.container import LABEL_IMAGE_REF, LABEL_OWNER, ContainerState, ContainerView
from rtmanager.domain.crash import RestartPolicy, is_crash
from rtmanager.domain.drift import Observation, Placement, RunningGame, decide, explained, not_as_recorded
from rtmanager.domain.findings import Finding, Stray
from rtmanager.domain.health import EventType, HealthSource
from rtmanager.domain.operation import OpKind, OpSource
from rtmanager.domain.outage import LastExit, RequestedBy
from rtmanager.domain.record import RuntimeRecord, Status
from rtmanager.tests.making import IMAGE, IMAGE_2, NETWORK, NOW, record, view

HOUSE = Placement(NETWORK, lambda game_id: f"/var/lib/galaxy-games/{game_id}")
LATER = NOW + timedelta(seconds=5)


def drift(
    known: RuntimeRecord | None, *views: ContainerView, source: HealthSource = HealthSource.INSPECT
) -> list[Finding | Stray]:
    return decide([known] if known else [], views, Observation(LATER, source), HOUSE)


class DriftTestCase(unittest.TestCase):
    def found(self, *seen: ContainerView, of: RuntimeRecord | None) -> Finding:
        (finding,) = drift(of, *seen)
        assert isinstance(finding, Finding), finding
        return finding

    def stray(self, *seen: ContainerView, of: RuntimeRecord | None) -> str:
        (stray,) = drift(of, *seen)
        assert isinstance(stray, Stray), stray
        return stray.reason


class OfRunningRecords(DriftTestCase):
    def test_what_lives_in_any_way_agrees(self) -> None:
        for state in (ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.RESTARTING):
            self.assertEqual(drift(record(), view(container_id="c-g1", state=state)), [], state)

    def test_a_container_that_is_gone_removes_the_record_with_a_log_row_and_an_event(self) -> None:
        finding = self.found(of=record())
        assert finding.new is not None
        self.assertEqual((finding.new.status, finding.new.current_container_id), (Status.REMOVED, None))
        self.assertEqual([(row.kind, row.source) for row in finding.log], [_row(OpKind.RECONCILE_DISPOSE)])
        (event,) = finding.health
        self.assertEqual((event.event_type, event.container_id), (EventType.CONTAINER_DISAPPEARED, "c-g1"))
        self.assertEqual(dict(event.details), {})

    def test_a_process_that_ended_stops_the_record_with_an_event_and_no_log_row(self) -> None:
        for state in (ContainerState.EXITED, ContainerState.DEAD):
            ended_at = NOW + timedelta(seconds=1)
            ended = view(container_id="c-g1", state=state, exit_code=139, oom_killed=True, finished_at=ended_at)
            finding = self.found(ended, of=record())
            assert finding.new is not None
            self.assertEqual((finding.new.status, finding.new.current_container_id), (Status.STOPPED, "c-g1"))
            self.assertEqual(finding.log, ())
            (event,) = finding.health
            self.assertEqual(event.event_type, EventType.CONTAINER_EXITED)
            self.assertEqual(event.details, {"exit_code": 139, "oom": True})
            self.assertEqual(event.occurred_at, ended_at, "when it happened, not when it was seen")
            self.assertEqual(finding.last_exit, LastExit("c-g1", 139, True, ended_at))

    def test_one_that_is_being_removed_is_waited_for(self) -> None:
        self.assertEqual(drift(record(), view(container_id="c-g1", state=ContainerState.REMOVING)), [])

    def test_the_observer_is_published(self) -> None:
        (finding,) = drift(record(), source=HealthSource.DOCKER_EVENT)
        assert isinstance(finding, Finding)
        self.assertEqual(finding.health[0].source, HealthSource.DOCKER_EVENT)

    def test_its_own_container_under_another_name_or_off_its_network_is_reported(self) -> None:
        self.assertIn("is called", self.stray(view(container_id="c-g1", name="renamed"), of=record()))
        self.assertIn("not on the network", self.stray(view(container_id="c-g1", networks=frozenset()), of=record()))

    def test_another_live_container_of_the_game_is_reported(self) -> None:
        own, other = view(container_id="c-g1"), view(container_id="c-2", name="copy")
        self.assertIn("names another container", self.stray(own, other, of=record()))

    def test_what_took_the_place_of_a_container_that_is_gone_or_ended_is_not_reported_but_adopted_next(self) -> None:
        for own in ([], [view(container_id="c-g1", state=ContainerState.EXITED)]):
            (finding,) = drift(record(), *own, view(container_id="by-hand"))
            self.assertIsInstance(finding, Finding)

    def test_a_dead_leftover_is_nobodys_business(self) -> None:
        left = view(container_id="c-0", name="old", state=ContainerState.EXITED)
        self.assertEqual(drift(record(), view(container_id="c-g1"), left), [])


class OfGamesThatAreNotRecordedAsRunning(DriftTestCase):
    def test_what_agrees_is_adopted_with_a_log_row(self) -> None:
        finding = self.found(view(started_at=NOW), of=None)
        assert finding.new is not None
        self.assertEqual(finding.new.status, Status.RUNNING)
        self.assertEqual((finding.new.current_container_id, finding.new.current_image_ref), ("c-1", IMAGE))
        self.assertEqual(finding.new.engine_endpoint, "http://galaxy-game-g1:8080")
        self.assertEqual(finding.new.state_path, "/var/lib/galaxy-games/g1")
        self.assertEqual(finding.new.started_at, NOW)
        self.assertEqual([(row.kind, row.source) for row in finding.log], [_row(OpKind.RECONCILE_ADOPT)])

    def test_of_a_new_game_no_event_is_published(self) -> None:
        self.assertEqual([event.published for event in self.found(view(), of=None).health], [False])

    def test_the_start_of_a_game_that_was_published_as_stopped_is_published(self) -> None:
        (event,) = self.found(view(), of=record(status=Status.STOPPED)).health
        self.assertTrue(event.published)
        self.assertEqual((event.event_type, event.details), (EventType.CONTAINER_STARTED, {"image_ref": IMAGE}))

    def test_a_stopped_game_whose_own_container_was_started_again_runs(self) -> None:
        stopped = record(status=Status.STOPPED)
        finding = self.found(view(container_id="c-g1"), of=stopped)
        assert finding.new is not None
        self.assertEqual((finding.new.status, finding.new.stopped_at), (Status.RUNNING, None))
        self.assertEqual(finding.new.created_at, stopped.created_at)

    def test_a_removed_game_that_runs_again_is_adopted(self) -> None:
        finding = self.found(view(), of=record(status=Status.REMOVED))
        assert finding.new is not None
        self.assertEqual((finding.new.status, finding.new.removed_at), (Status.RUNNING, None))

    def test_what_does_not_live_is_left_alone(self) -> None:
        for state in set(ContainerState) - {
            ContainerState.RUNNING,
            ContainerState.PAUSED,
            ContainerState.RESTARTING,
            ContainerState.UNKNOWN,
        }:
            self.assertEqual(drift(None, view(state=state)), [], state)

    def test_a_state_that_is_not_known_is_reported_and_nothing_follows(self) -> None:
        odd = view(container_id="c-g1", state=ContainerState.UNKNOWN, state_word="hibernating")
        for of in (None, record(), record(status=Status.STOPPED), record(status=Status.REMOVED)):
            (stray,) = drift(of, odd)
            assert isinstance(stray, Stray)
            self.assertIn("does not know: 'hibernating'", stray.reason)
            self.assertEqual(not_as_recorded([], [odd]), {"g1"})

    def test_an_exit_code_that_cannot_be_read_is_no_good_end(self) -> None:
        (finding,) = drift(record(), view(container_id="c-g1", state=ContainerState.EXITED, exit_code=None))
        assert isinstance(finding, Finding) and finding.last_exit is not None
        self.assertEqual(finding.last_exit.exit_code, 255)

    def test_the_recorded_container_is_its_games_also_when_its_labels_cannot_be_read(self) -> None:
        (stray,) = drift(record(), view(container_id="c-g1", labels={LABEL_OWNER: "", "com.galaxy.game_id": ""}))
        assert isinstance(stray, Stray)
        self.assertEqual((stray.game_id, stray.container_id), ("g1", "c-g1"))
        self.assertIn("labels that do not say", stray.reason)

    def test_what_has_no_id_is_never_adopted(self) -> None:
        (stray,) = drift(None, view(container_id=""))
        assert isinstance(stray, Stray)
        self.assertIn("no id", stray.reason)

    def test_what_disagrees_is_reported_and_not_adopted(self) -> None:
        for seen, why in (
            (view(name="somebody-else"), "is called"),
            (view(networks=frozenset({"other"})), "not on the network"),
            (view(labels={LABEL_OWNER: "somebody"}), "labels"),
            (view(state=ContainerState.PAUSED), "is paused"),
            (view(image_ref=IMAGE, labels={LABEL_IMAGE_REF: IMAGE_2}), "its label says"),
            (view(image_ref="Not An Image", labels={LABEL_IMAGE_REF: ""}), "no image"),
            (view("not a game"), "cannot be a game's id"),
        ):
            self.assertIn(why, self.stray(seen, of=None))

    def test_the_image_may_be_written_in_several_ways_or_be_an_id(self) -> None:
        for label, runs in (
            ("game:1.0.0", "docker.io/library/game:1.0.0"),
            ("game", "game:latest"),
            (IMAGE, "sha256:" + "0" * 64),
            ("", IMAGE),
        ):
            self.found(view(image_ref=runs, labels={LABEL_IMAGE_REF: label}), of=None)

    def test_a_game_whose_name_another_one_has_is_reported_and_not_adopted(self) -> None:
        namesakes = {"g1": "G1"}
        for known in (None, record(status=Status.REMOVED)):
            [stray] = decide([known] if known else [], [view()], Observation(LATER), HOUSE, namesakes)
            self.assertIsInstance(stray, Stray)
            self.assertIn("the name of game G1 but for the case", stray.reason)  # type: ignore[union-attr]
        # With a record of its own, the game has a finding despite its namesake.
        [finding] = decide([record(status=Status.STOPPED)], [view()], Observation(LATER), HOUSE, namesakes)
        self.assertIsInstance(finding, Finding)

    def test_a_moment_of_a_runtime_whose_clock_is_ahead_is_that_of_the_observation(self) -> None:
        ahead, before = LATER + timedelta(days=40), LATER - timedelta(seconds=1)
        for reported_at, noted in ((ahead, LATER), (before, before), (None, LATER)):
            own = view(container_id="c-g1", state=ContainerState.EXITED, finished_at=reported_at)
            ended = self.found(own, of=record())
            self.assertEqual(ended.last_exit and ended.last_exit.exited_at, noted)
            adopted = self.found(view(started_at=reported_at), of=None)
            self.assertEqual(adopted.new and adopted.new.started_at, noted)

    def test_of_two_that_agree_one_is_adopted(self) -> None:
        adopted, other = drift(None, view(), view(container_id="c-2"))
        self.assertIsInstance(adopted, Finding)
        self.assertIsInstance(other, Stray)

    def test_games_do_not_mix(self) -> None:
        records = [record("g1"), record("g2", Status.STOPPED), record("g3")]
        views = [view("g1", container_id="c-g1"), view("g2", container_id="c-9"), view("g4", container_id="c-4")]
        found = decide(records, views, Observation(LATER), HOUSE)
        self.assertEqual([each.game_id for each in found], ["g2", "g3", "g4"])


class AsRecorded(unittest.TestCase):
    """The filter before `decide`: it keeps every game that needs a decision, and drops nearly all others."""

    def kept(self, known: RuntimeRecord | None, *seen: ContainerView) -> bool:
        games = [known] if known and known.status is Status.RUNNING else []
        running = [RunningGame(each.game_id, each.current_container_id, each.docker_network) for each in games]
        return "g1" in not_as_recorded(running, seen)

    def test_a_game_that_runs_as_recorded_is_held_back_and_so_is_one_that_does_not_run(self) -> None:
        self.assertFalse(self.kept(record(), view(container_id="c-g1")))
        for status in (Status.STOPPED, Status.REMOVED):
            self.assertFalse(self.kept(record(status=status)))
            self.assertFalse(self.kept(record(status=status), view(state=ContainerState.EXITED)))

    def test_whatever_something_follows_from_is_let_through(self) -> None:
        every = [
            view(container_id=container_id, state=state, name=name, networks=networks)
            for container_id in ("c-g1", "c-2")
            for state in ContainerState
            for name in (view().name, "somebody-else")
            for networks in (view().networks, frozenset[str]())
        ]
        records = [None, *(record(status=status) for status in Status)]
        for known in records:
            for seen in ([], *([each] for each in every), *([one, other] for one in every for other in every[:2])):
                if drift(known, *seen):
                    self.assertTrue(self.kept(known, *seen), (known, seen))

    def test_games_do_not_mix(self) -> None:
        running = [RunningGame(game_id, f"c-{game_id}", NETWORK) for game_id in ("g1", "g2", "g3")]
        views = [view("g1", container_id="c-g1"), view("g2", container_id="c-g1"), view("g4")]
        self.assertEqual(not_as_recorded(running, views), {"g2", "g3", "g4"})


class Crashes(unittest.TestCase):
    def test_what_was_torn_away_is_a_crash_and_what_ended_by_its_will_or_on_demand_is_not(self) -> None:
        nobody, person = RequestedBy.UNKNOWN, RequestedBy.SIGNAL
        for code, oom, by, event_seen, crash in (
            (1, False, nobody, False, True),
            (139, False, nobody, True, True),
            (137, False, nobody, True, True),
            (137, False, nobody, False, False),
            (137, True, nobody, False, True),
            (0, False, nobody, True, False),
            (143, False, nobody, True, False),
            (137, False, person, True, False),
            (1, False, person, True, False),
            (3, False, RequestedBy.DOCKER, True, False),
        ):
            last_exit = LastExit("c", code, oom, NOW, requested_by=by)
            self.assertEqual(is_crash(last_exit, event_seen=event_seen), crash, (code, oom, by, event_seen))

    def test_pauses_double_up_to_the_longest_and_the_budget_ends(self) -> None:
        policy = RestartPolicy(budget=4, first_pause_s=5, longest_pause_s=15)
        due = [policy.restart_at(NOW, restarts) for restarts in range(5)]
        pauses = [(moment - NOW).total_seconds() if moment else None for moment in due]
        self.assertEqual(pauses, [5, 10, 15, 15, None])

    def test_the_defaults_are_three_within_ten_minutes(self) -> None:
        policy = RestartPolicy()
        self.assertEqual(policy.window_begins(NOW), NOW - timedelta(minutes=10))
        self.assertIsNone(policy.restart_at(NOW, 3))

    def test_an_event_of_memory_stands_in_the_exit(self) -> None:
        (finding,) = drift(record(), view(container_id="c-g1", state=ContainerState.EXITED, exit_code=137))
        assert isinstance(finding, Finding)
        mended = explained(finding, RequestedBy.UNKNOWN, "last words", memory_ran_out=True)
        self.assertEqual(mended.health[0].details, {"exit_code": 137, "oom": True})
        self.assertEqual(mended.last_exit, LastExit("c-g1", 137, True, LATER, "last words"))

    def test_memory_is_the_cause_of_137_that_nobody_requested_and_of_nothing_else(self) -> None:
        for code, by, expected in (
            (137, RequestedBy.UNKNOWN, True),
            (137, RequestedBy.SIGNAL, False),
            (137, RequestedBy.DOCKER, False),
            (143, RequestedBy.UNKNOWN, False),
            (0, RequestedBy.UNKNOWN, False),
        ):
            flagged = view(container_id="c-g1", state=ContainerState.EXITED, exit_code=code, oom_killed=True)
            (finding,) = drift(record(), flagged)
            assert isinstance(finding, Finding)
            mended = explained(finding, by, "", memory_ran_out=True)
            assert mended.last_exit is not None
            self.assertEqual(mended.health[0].details["oom"], expected, (code, by))
            self.assertEqual((mended.last_exit.oom, mended.last_exit.requested_by), (expected, by))


def _row(kind: OpKind) -> tuple[OpKind, OpSource]:
    return kind, OpSource.AUTO_RECONCILE
