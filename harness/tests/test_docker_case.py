"""The base classes when a test fails: its own failure is reported, and its resources are removed."""

import io
import shutil
import unittest
from pathlib import Path
from unittest import mock

from harness import DockerTestCase, ServicesTestCase, WaitFailed, daemon, images
from harness.cases import docker
from harness.runs import flag


def setUpModule() -> None:
    flag.check()


class Wanting(ServicesTestCase):
    def setUp(self) -> None:
        super().setUp()

    def it(self) -> None:
        self.fail("it is not reached")


class SweepingTest(unittest.TestCase):
    """A run that never calls `start_services` sweeps what killed runs left, too."""

    def setUp(self) -> None:
        docker._sweep_once.cache_clear()
        self.addCleanup(docker._sweep_once.cache_clear)
        self.sweep = self.enterContext(mock.patch.object(docker, "sweep"))

    def test_the_first_class_of_a_process_sweeps(self) -> None:
        for _ in range(2):
            DockerTestCase.setUpClass()
            ServicesTestCase.setUpClass()
        self.sweep.assert_called_once_with()

    def test_a_class_that_is_skipped_does_not(self) -> None:
        with mock.patch.dict("os.environ", {flag.VARIABLE: "0"}), self.assertRaises(unittest.SkipTest):
            DockerTestCase.setUpClass()
        self.sweep.assert_not_called()


class FolderNameTest(unittest.TestCase):
    def test_a_long_name_of_a_method_loses_its_end(self) -> None:
        self.assertEqual(docker.folder_name("tests.test_shop.Shop." + "m" * 255), "tests.test_shop.Shop." + "m" * 130)

    def test_letters_of_every_alphabet_stay_and_what_a_path_reserves_goes(self) -> None:
        self.assertEqual(docker.folder_name("shop.Ünï.test_a/b: ../.. ☃"), "shop.Ünï.test_a-b")
        self.assertEqual(docker.folder_name("../.shop.Shop.test"), "shop.Shop.test")

    def test_a_name_fits_into_a_folders(self) -> None:
        for name in ("日" * 300, "日" * 90 + ".S." + "本" * 255, "a." * 200 + "b", "☃", ""):
            with self.subTest(name):
                made = docker.folder_name(name)
                self.assertLessEqual(len(made.encode()), 151)
                self.assertNotIn("\N{REPLACEMENT CHARACTER}", made)

    def test_a_locale_without_these_letters_will_do(self) -> None:
        with mock.patch("sys.getfilesystemencoding", return_value="ascii"):
            self.assertEqual(docker.folder_name("shop.Ünï.test"), "shop.-n-.test")


class NoServicesTest(unittest.TestCase):
    def test_services_that_do_not_come_up_are_the_tests_error_and_its_directory_is_kept(self) -> None:
        test, result = Wanting("it"), unittest.TestResult()
        with (
            mock.patch("harness.fixtures.services.shared", side_effect=WaitFailed("no PostgreSQL")),
            mock.patch("sys.stderr", io.StringIO()) as errors,
        ):
            test.run(result)
        self.addCleanup(shutil.rmtree, test.state_root.directory)
        [(_, error)] = result.errors
        self.assertIn("no PostgreSQL", error)
        self.assertIn(str(test.state_root.directory), errors.getvalue())
        missing = Path(test.state_root.directory, "missing.txt").read_text()
        self.assertIn("services", missing)
        self.assertNotIn("super()", missing)


class WithoutSuper(ServicesTestCase):
    def setUp(self) -> None:
        pass

    def uses_redis(self) -> None:
        self.redis.ping()

    def makes_a_network(self) -> None:
        self.create_network()

    def has_a_misspelled_name(self) -> None:
        self.redsi  # type: ignore[attr-defined]  # noqa: B018

    @property
    def broken(self) -> int:
        return len("").real_name  # type: ignore[attr-defined,no-any-return]

    def has_a_broken_property(self) -> None:
        self.broken  # noqa: B018


class Below(WithoutSuper):
    def setUp(self) -> None:
        super().setUp()


class NoSuperTest(unittest.TestCase):
    def error_of(self, test: ServicesTestCase) -> str:
        result = unittest.TestResult()
        with mock.patch("sys.stderr", io.StringIO()):
            test.run(result)
        shutil.rmtree(test.state_root.directory)
        [(_, error)] = result.errors
        return error

    def test_a_setup_that_does_not_call_that_of_its_base_is_named(self) -> None:
        for how in ("uses_redis", "makes_a_network"):
            with self.subTest(how), mock.patch("harness.fixtures.network.create") as create:
                self.assertIn("setUp of WithoutSuper does not call super().setUp()", self.error_of(WithoutSuper(how)))
                create.assert_not_called()
        self.assertIn("setUp of Below or WithoutSuper does not call", self.error_of(Below("uses_redis")))

    def test_another_attribute_that_is_missing_is_only_that(self) -> None:
        error = self.error_of(WithoutSuper("has_a_misspelled_name"))
        self.assertIn("'WithoutSuper' object has no attribute 'redsi'", error)
        self.assertNotIn("super().setUp()", error)
        error = self.error_of(WithoutSuper("has_a_broken_property"))
        self.assertIn("'int' object has no attribute 'real_name'", error.splitlines()[-1])


class EndingTest(unittest.TestCase):
    def test_what_a_test_started_is_gone_when_it_has_ended_however_it_ends(self) -> None:
        for ends in ("passes", "fails"):
            with self.subTest(ends):
                test, result = Ending(ends), unittest.TestResult()
                with mock.patch("sys.stderr", io.StringIO()):
                    test.run(result)
                self.assertEqual(len(result.failures), int(ends == "fails"), result.errors)
                there = {each["Id"] for each in daemon.client().containers(all=True)}
                self.assertNotIn(test.started, there)
                self.assertEqual(test.state_root.directory.exists(), ends == "fails")
                if ends == "fails":
                    shutil.rmtree(test.state_root.directory)


class Ending(ServicesTestCase):
    started = ""

    def setUp(self) -> None:
        super().setUp()
        network = self.create_network()
        self.started = self.start_container(
            images.redis(), entrypoint=["sleep"], command=["600"], network=network.name
        ).container_id

    def passes(self) -> None:
        self.assertTrue(self.started)

    def fails(self) -> None:
        self.fail("as told")
