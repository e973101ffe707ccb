"""The benches of watching: engines of both kinds, one list per pass, one kill for all sides."""

import os
import resource
import unittest
from collections.abc import Iterator
from contextlib import closing
from unittest import mock

from bench import child
from bench.errors import BenchError
from bench.synthetic import engines, games
from bench.watch import probing, reconciling
from bench.watch.exits import Shared
from rtmanager.adapters.docker import decode
from rtmanager.adapters.docker.runtime import DockerRuntime
from rtmanager.adapters.probing import EngineProbes
from rtmanager.domain.drift import Observation, decide
from rtmanager.fakes.findings import MemoryFindings
from rtmanager.fakes.store import MemoryStore


class ChildTest(unittest.TestCase):
    def test_it_is_there_for_as_long_as_it_is_wanted(self) -> None:
        with child.running("bench.synthetic.daemon", "1") as host:
            path = host.removeprefix("unix://")
            self.assertTrue(os.path.exists(path))

        self.assertFalse(os.path.exists(path), "it has taken away what it had")

    def test_one_that_does_not_come_up_is_no_figure(self) -> None:
        with (
            mock.patch("bench.child.sys.executable", "/bin/true"),
            self.assertRaisesRegex(BenchError, "did not come up"),
            child.running("bench.synthetic.engines"),
        ):
            self.fail("it came up")


class EnginesTest(unittest.TestCase):
    there: engines.Engines

    @classmethod
    def setUpClass(cls) -> None:
        cls.there = cls.enterClassContext(engines.running())

    def test_both_sides_find_the_healthy_ones_healthy(self) -> None:
        targets = self.there.healthy(300)
        with closing(EngineProbes()) as probes, closing(probing.PlainClient()) as plain:
            answers = probes.probe(targets, 5)

            self.assertEqual(plain.probe(targets, 5), (300, 300))
        self.assertEqual(sum(answer.good for answer in answers.values()), 300)

    def test_the_hanging_ones_take_the_request_and_send_nothing(self) -> None:
        with closing(EngineProbes()) as probes:
            answers = probes.probe(self.there.hanging(3), 0.1)

        self.assertEqual({answer.error for answer in answers.values()}, {"no answer within 0.1 s"})

    def test_each_has_an_address_of_its_own(self) -> None:
        targets = self.there.hanging(10_000)

        self.assertEqual(len({target.host for target in targets}), 10_000)
        self.assertEqual({target.host.partition(".")[0] for target in targets}, {"127"})


class DescriptorsTest(unittest.TestCase):
    def allow(self, soft: int, hard: int) -> Iterator[tuple[int, int]]:
        with (
            mock.patch.object(resource, "getrlimit", return_value=(soft, hard)),
            mock.patch.object(resource, "setrlimit") as setting,
        ):
            probing.allow_descriptors(2500)
        return (call.args[1] for call in setting.call_args_list)

    def test_the_soft_limit_is_raised_where_it_is_too_low_and_left_alone_else(self) -> None:
        self.assertEqual(list(self.allow(1024, 4096)), [(2500, 4096)])
        self.assertEqual(list(self.allow(1024, resource.RLIM_INFINITY)), [(2500, resource.RLIM_INFINITY)])
        self.assertEqual(list(self.allow(20_000, 20_000)), [])
        self.assertEqual(list(self.allow(resource.RLIM_INFINITY, resource.RLIM_INFINITY)), [])

    def test_a_hard_limit_that_is_too_low_is_reported(self) -> None:
        with self.assertRaisesRegex(BenchError, "2500 descriptors are needed, the hard limit is 2000"):
            self.allow(1024, 2000)


class ReconcilingTest(unittest.TestCase):
    def test_records_and_containers_agree_in_everything(self) -> None:
        listed = [view for each in games.listed(300) if (view := decode.listed(each)) is not None]

        self.assertEqual(decide(games.records(300), listed, Observation(games.STARTED), games.HOUSE), [])
        self.assertEqual(len({each.addresses["galaxy-net"] for each in listed}), 300)

    def test_a_pass_over_the_crowd_needs_no_inspect(self) -> None:
        store = MemoryStore(lambda: games.STARTED)
        for record in games.records(20):
            store.put_record(record)
        with child.running("bench.synthetic.daemon", "20") as host, closing(DockerRuntime(host)) as runtime:
            drift_scan = reconciling.drift_scan(MemoryFindings(store), runtime)
            self.assertFalse(drift_scan.step())

            *_, one_more = games.records(21)
            store.put_record(one_more)
            with self.assertRaisesRegex(BenchError, "game-00020 differs"):
                drift_scan.step()

    def test_a_pass_that_requests_more_than_one_list_is_no_figure(self) -> None:
        counts = [0, 1, 1, 3]
        run = reconciling.counted(lambda: None, lambda: counts.pop(0))

        self.assertEqual(set(run()), {"CPU", "wall"})
        with self.assertRaisesRegex(BenchError, "requested the list of Docker 2 times"):
            run()


class SharedTest(unittest.TestCase):
    def test_each_round_happens_once_whoever_is_first(self) -> None:
        happened = iter([{"ours": 1.0, "theirs": 2.0}, {"ours": 3.0, "theirs": 4.0}])
        shared = Shared(lambda: next(happened))

        seen = [shared.seen_by(side)["the whole"] for side in ("ours", "theirs", "theirs", "ours")]

        self.assertEqual(seen, [1, 2, 4, 3])
