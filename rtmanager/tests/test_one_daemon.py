"""Only answers of the daemon on record count; containers of other deployments are ignored."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from dataclasses import replace

from rtmanager.domain.container import LABEL_DEPLOYMENT, ContainerView
from rtmanager.domain.daemon import SeenDaemon
from rtmanager.domain.errors import ErrorCode, Unavailable
from rtmanager.domain.operation import OpKind, Outcome
from rtmanager.domain.record import Status
from rtmanager.fakes import FakeRuntime
from rtmanager.fakes.store import ManualClock, MemoryStore
from rtmanager.operations.one_daemon import GuardedRuntime, IdentityChanges, OneDaemon, OtherDaemon
from rtmanager.ports.runtime import (
    ContainerNotFound,
    ImagePull,
    ImageUnavailable,
    PullPolicy,
)
from rtmanager.tests.answers_contract import SPEC
from rtmanager.tests.making import IMAGE, NETWORK, LogCapture, request
from rtmanager.tests.watching import WatchedWorld

DEPLOYMENT = "deployment-1"


class Guarded:
    """A world whose runtime only accepts the daemon on record."""

    def __init__(self) -> None:
        self.world = WatchedWorld()
        self.docker = self.world.docker
        self.captured = LogCapture()
        self.one = OneDaemon(self.world.store.daemons, NETWORK, self.captured.logger)
        self.one.establish(self.docker)
        self.runtime = GuardedRuntime(self.docker, self.one, self.captured.logger)
        self.world.runtime.inner = self.runtime  # type: ignore[assignment]  # the same port


class EstablishTest(unittest.TestCase):
    def setUp(self) -> None:
        self.store = MemoryStore(ManualClock())
        self.docker = FakeRuntime([NETWORK])
        self.captured = LogCapture()

    def establish(self) -> OneDaemon:
        one = OneDaemon(self.store.daemons, NETWORK, self.captured.logger)
        one.establish(self.docker)
        return one

    def test_a_first_start_records_the_daemon_and_the_next_ones_accept_it(self) -> None:
        self.assertEqual(self.establish().deployment, DEPLOYMENT)
        recorded = self.store.daemon
        assert recorded is not None
        self.assertEqual((recorded.daemon_id, recorded.network), ("daemon-1", NETWORK))
        self.establish()
        self.assertEqual(self.store.daemon, recorded)

    def test_another_daemon_is_refused_with_both_names_and_the_remedy(self) -> None:
        self.establish()
        self.docker.exchange("daemon-2")
        with self.assertRaisesRegex(OtherDaemon, "daemon-1.*daemon-2.*accept-daemon"):
            self.establish()
        assert self.store.daemon is not None
        self.assertEqual(self.store.daemon.daemon_id, "daemon-1")

    def test_a_network_that_was_created_anew_is_not_the_one_on_record(self) -> None:
        self.establish()
        assert self.store.daemon is not None
        self.store.daemon = replace(self.store.daemon, network_id="older")
        with self.assertRaisesRegex(OtherDaemon, "created anew.*accept-daemon"):
            self.establish()

    def test_a_daemon_with_another_id_in_each_answer_is_never_recorded(self) -> None:
        ids = iter(("a", "b"))
        self.docker.identify = (  # type: ignore[method-assign]
            lambda network: SeenDaemon(next(ids), "podman", frozenset({"n"}))
        )
        with self.assertRaisesRegex(IdentityChanges, "a and then b"):
            self.establish()
        self.assertIsNone(self.store.daemon)

    def test_instances_that_start_together_agree(self) -> None:
        self.establish()
        known = self.store.daemon
        one = OneDaemon(self.store.daemons, NETWORK, self.captured.logger)
        self.docker.exchange("daemon-2")
        assert known is not None
        self.assertEqual(self.store.daemons.record(one.identity(self.docker)), known)


class ExchangedTest(unittest.TestCase):
    """Another daemon answers while games run by their records."""

    def setUp(self) -> None:
        self.guarded = Guarded()
        self.world, self.docker, self.runtime = self.guarded.world, self.guarded.docker, self.guarded.runtime
        self.world.bring(Status.RUNNING)
        self.container_id = self.world.container()
        self.before = self.world.known("g1")

    def exchange(self) -> list[ContainerView]:
        return self.docker.exchange("daemon-2")

    def test_a_pass_changes_no_record_and_goes_on_when_the_daemon_is_back(self) -> None:
        containers = self.exchange()
        for _ in range(3):
            with self.assertRaises(OtherDaemon):
                self.world.reconcile()
        self.assertEqual(self.world.known("g1"), self.before)
        self.docker.bring_back("daemon-1", containers)
        self.world.reconcile()
        self.assertEqual(self.world.known("g1"), self.before)

    def test_the_run_of_whichever_daemon_answers_is_read_without_the_store(self) -> None:
        self.world.store.trouble.available = False
        self.assertEqual(self.runtime.present_run_of_any(), self.docker.run)
        self.assertRaises(Unavailable, self.runtime.present_run)

    def test_an_absence_is_not_believed_whichever_call_meets_it(self) -> None:
        for call in (
            lambda: self.runtime.inspect(self.container_id),
            lambda: self.runtime.stop(self.container_id, 1),
            lambda: self.runtime.remove(self.container_id),
            self.runtime.list_games,
        ):
            guarded = Guarded()
            guarded.world.bring(Status.RUNNING)
            with self.subTest(call=call):
                self.exchange()
                with self.assertRaises(OtherDaemon) as caught:
                    call()
                self.assertTrue(caught.exception.untouched)

    def test_an_absence_on_the_daemon_on_record_is_one(self) -> None:
        self.docker.vanish(self.container_id)
        with self.assertRaises(ContainerNotFound):
            self.runtime.inspect(self.container_id)
        self.world.reconcile()
        self.assertIs(self.world.known("g1").status, Status.REMOVED)

    def test_no_operation_ends_and_none_touches_the_other_daemon(self) -> None:
        self.exchange()
        for kind in (OpKind.STOP, OpKind.RESTART):
            with self.subTest(kind=kind):
                operation = self.world.claim(request("g1", kind))
                with self.assertRaises(Unavailable):
                    self.world.operator.run(operation)
                self.world.queue.defer(operation, delay_s=0, why="")
                self.world.store.live.clear()
        self.assertEqual(self.world.known("g1"), self.before)
        self.assertEqual(self.docker.containers, [])

    def test_a_start_leaves_nothing_on_the_other_daemon(self) -> None:
        self.exchange()
        with self.assertRaises(OtherDaemon):
            self.world.operator.run(self.world.claim(request("g2", OpKind.START)))
        self.assertEqual(self.docker.containers, [])

    def test_a_refusal_of_the_other_daemon_ends_no_start(self) -> None:
        self.docker.fail_launch("g2", "no space left")
        self.exchange()
        with self.assertRaises(OtherDaemon):
            self.world.operator.run(self.world.claim(request("g2", OpKind.START)))

    def test_an_image_that_the_other_daemon_does_not_have_fails_no_pull(self) -> None:
        with self.docker.holding("pull"):
            pull = self.runtime.request_image("galaxy/nowhere:1", PullPolicy.IF_MISSING)
            assert not hasattr(pull, "labels")
            self.exchange()
        with self.assertRaises(OtherDaemon):
            _image_of(pull)
        with self.assertRaises(OtherDaemon):
            self.runtime.ensure_image("galaxy/nowhere:1", PullPolicy.NEVER)

    def test_a_pull_that_fails_on_the_daemon_on_record_fails(self) -> None:
        pull = self.runtime.request_image("galaxy/nowhere:1", PullPolicy.IF_MISSING)
        with self.assertRaises(ImageUnavailable):
            _image_of(pull)

    def test_once_it_is_known_nothing_but_its_identity_is_queried(self) -> None:
        self.exchange()
        with self.assertRaises(OtherDaemon):
            self.runtime.list_games()
        calls = len(self.docker.calls)
        for call in _every_call(self.runtime, self.container_id):
            with self.assertRaises(OtherDaemon):
                call()
        with self.assertRaises(OtherDaemon):
            self.runtime.require_daemon()
        self.assertEqual({each.method for each in self.docker.calls[calls:]}, {"identify"})

    def test_it_is_logged_once_when_it_comes_and_once_when_it_goes(self) -> None:
        containers = self.exchange()
        for _ in range(3):
            with self.assertRaises(OtherDaemon):
                self.runtime.list_games()
        self.assertTrue(self.guarded.one.is_frozen)
        self.docker.bring_back("daemon-1", containers)
        for _ in range(3):
            self.runtime.list_games()
        self.assertFalse(self.guarded.one.is_frozen)
        lines = [line for line in self.guarded.captured.messages if "daemon" in line]
        self.assertEqual(
            lines,
            ["daemon recorded", "another daemon answers, passes are frozen", "the daemon on record answers again"],
        )

    def test_a_daemon_that_was_accepted_meanwhile_is_the_one_on_record(self) -> None:
        self.exchange()
        with self.assertRaises(OtherDaemon):
            self.runtime.list_games()
        self.world.store.daemons.accept(self.guarded.one.identity(self.docker))
        self.assertEqual(self.runtime.list_games(), [])

    def test_a_silence_while_it_is_confirmed_is_a_silence(self) -> None:
        self.docker.vanish(self.container_id)
        self.docker.lose_answer("network_ids")
        with self.assertRaises(Unavailable) as caught:
            self.runtime.inspect(self.container_id)
        self.assertNotIsInstance(caught.exception, OtherDaemon)
        self.assertFalse(self.guarded.one.is_frozen)


class ExchangedBehindProxyTest(ExchangedTest):
    """The same behind an HTTP proxy: the connections to it stay."""

    def exchange(self) -> list[ContainerView]:
        return self.docker.exchange("daemon-2", behind_proxy=True)

    def test_a_replacement_is_created_only_on_the_daemon_on_record(self) -> None:
        self.exchange()
        with self.assertRaises(OtherDaemon):
            self.runtime.create_next(SPEC)
        self.assertEqual(self.docker.containers, [])

    def test_a_replacement_that_cannot_be_removed_hides_no_exchange(self) -> None:
        self.exchange()
        self.docker.lose_answer("remove")
        with self.assertRaises(OtherDaemon):
            self.runtime.create_next(SPEC)
        self.assertIn("a container that was not started is left", self.guarded.captured.messages)


class NetworkGoneTest(unittest.TestCase):
    """The daemon has the id on record but not the network, as a copy of the host does."""

    def setUp(self) -> None:
        self.guarded = Guarded()
        self.guarded.world.bring(Status.RUNNING)
        self.guarded.docker.networks.clear()

    def test_a_start_fails_with_the_error_that_the_network_is_missing(self) -> None:
        completion = self.guarded.world.do(request("g2", OpKind.START))
        self.assertIs(completion.error_code, ErrorCode.START_CONFIG_INVALID)

    def test_an_absence_is_not_believed(self) -> None:
        self.guarded.docker.vanish(self.guarded.world.container())
        with self.assertRaisesRegex(OtherDaemon, "no such network"):
            self.guarded.world.reconcile()
        self.assertIs(self.guarded.world.known("g1").status, Status.RUNNING)


class ConfirmingLaunchesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.guarded = Guarded()
        self.docker = self.guarded.docker

    def test_a_launch_confirms_the_network_each_time_and_the_daemons_id_after_a_new_connection(self) -> None:
        calls = []
        for game_id, dialled in (("g1", 0), ("g2", 0), ("g3", 1)):
            self.docker.connections += dialled
            self.guarded.world.bring(None)  # clears the recorded calls
            self.guarded.world.do(request(game_id, OpKind.START))
            calls.append((len(self.docker.called("identify")), len(self.docker.called("network_ids"))))
        self.assertEqual(calls, [(1, 0), (0, 1), (1, 0)])

    def test_a_daemon_exchanged_between_create_and_start_gets_no_game(self) -> None:
        world = self.guarded.world

        def exchanged(network: str) -> SeenDaemon:
            return SeenDaemon("daemon-2", "other", frozenset())

        self.docker.identify = exchanged  # type: ignore[method-assign]
        with self.assertRaises(Unavailable):
            world.operator.run(world.claim(request("g1", OpKind.START)))
        self.assertEqual(self.docker.containers, [])


class OtherDeploymentTest(unittest.TestCase):
    """Containers of another database's managers on the same daemon."""

    def setUp(self) -> None:
        self.guarded = Guarded()
        self.world, self.docker, self.runtime = self.guarded.world, self.guarded.docker, self.guarded.runtime

    def foreign(self, game_id: str = "g1", deployment: str | None = "deployment-2") -> ContainerView:
        """A container that differs only in its deployment, and has no record."""
        self.world.bring(Status.RUNNING, game_id)
        view = self.docker.inspect(self.world.container(game_id))
        labels = {name: value for name, value in view.labels.items() if name != LABEL_DEPLOYMENT}
        if deployment is not None:
            labels[LABEL_DEPLOYMENT] = deployment
        self.docker.alter(view.container_id, labels=labels)
        self.guarded.one.ours.clear()
        return self.docker.inspect(view.container_id)

    def without_record(self, game_id: str = "g1") -> None:
        del self.world.store.records_by_game[game_id]

    def test_it_is_neither_adopted_nor_reported(self) -> None:
        self.foreign()
        self.without_record()
        self.world.reconcile()
        self.assertEqual(self.world.store.records_by_game, {})
        self.assertEqual(self.world.strays.known, {})

    def test_one_without_the_label_is_adopted_as_before(self) -> None:
        view = self.foreign(deployment=None)
        self.without_record()
        self.world.reconcile()
        self.assertEqual(self.world.container(), view.container_id)

    def test_its_name_is_not_taken_and_the_failure_names_its_deployment(self) -> None:
        for ended in (False, True):
            view = self.foreign()
            self.without_record()
            if ended:
                self.docker.exit(view.container_id, 0)
            completion = self.world.do(request("g1", OpKind.START))
            self.assertIs(completion.error_code, ErrorCode.CONTAINER_START_FAILED)
            self.assertRegex(completion.error_message, "'deployment-2', and this is deployment 'deployment-1'")
            self.assertEqual([each.container_id for each in self.docker.containers], [view.container_id])
            self.docker.vanish(view.container_id)

    def test_a_record_that_names_it_is_disposed_and_it_runs_on(self) -> None:
        view = self.foreign()
        self.world.reconcile()
        self.assertIs(self.world.known("g1").status, Status.REMOVED)
        self.assertTrue(self.docker.inspect(view.container_id).alive)

    def test_a_stop_and_a_removal_leave_it_alone(self) -> None:
        view = self.foreign()
        completion = self.world.do(request("g1", OpKind.STOP))
        self.assertIs(completion.outcome, Outcome.SUCCESS)
        self.assertTrue(self.docker.inspect(view.container_id).alive)
        self.docker.exit(view.container_id, 0)
        with self.assertRaises(ContainerNotFound):
            self.runtime.remove(view.container_id)
        self.assertEqual(len(self.docker.containers), 1)

    def test_a_container_without_labels_of_a_game_is_left_alone_though_a_record_names_it(self) -> None:
        self.world.bring(Status.RUNNING)
        container_id = self.world.container()
        self.docker.alter(container_id, labels={})
        self.guarded.one.ours.clear()
        self.assertIs(self.world.do(request("g1", OpKind.STOP)).outcome, Outcome.SUCCESS)
        self.assertTrue(self.docker.inspect(container_id).alive)

    def test_what_a_list_has_shown_is_not_inspected_before_a_stop(self) -> None:
        self.world.bring(Status.RUNNING)
        self.world.reconcile()
        self.docker.calls.clear()
        self.world.do(request("g1", OpKind.STOP))
        methods = [call.method for call in self.docker.calls]
        self.assertNotIn("inspect", methods[: methods.index("stop")])


def _image_of(pull: object) -> object:
    found: ImagePull = pull  # type: ignore[assignment]
    return found.image()


def _every_call(runtime: GuardedRuntime, container_id: str) -> list[Callable[[], object]]:
    return [
        lambda: runtime.network_exists(NETWORK),
        lambda: runtime.ensure_image(IMAGE, PullPolicy.IF_MISSING),
        lambda: runtime.request_image(IMAGE, PullPolicy.IF_MISSING),
        lambda: runtime.inspect(container_id),
        lambda: runtime.stop(container_id, 1),
        lambda: runtime.remove(container_id),
        runtime.list_games,
    ]


if __name__ == "__main__":
    unittest.main()
