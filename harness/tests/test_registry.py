"""A real image registry: pushed images can be pulled, requests are listed, and nothing stays."""

import unittest
from typing import Any
from unittest import mock

from harness import daemon
from harness.errors import HarnessError
from harness.fixtures import container, listening, registry
from harness.fixtures.registry import NAMESPACE, Registry
from harness.fixtures.stalling import Stalling
from harness.images.recipe import inspect
from harness.images.variant import variant
from harness.runs import flag, identity

SHOP: Registry


def setUpModule() -> None:
    global SHOP
    flag.check()
    SHOP = registry.start()
    unittest.addModuleCleanup(SHOP.close)


def small(content: str) -> str:
    """The id of an image that contains nothing but `content`, and so is made quickly."""
    return variant("scratch", content)


def pull(ref: str) -> list[dict[str, Any]]:
    """Pull `ref` to the end; returns Docker's events."""
    repository, _, tag = ref.rpartition(":")
    return list(daemon.client().pull(repository, tag, stream=True, decode=True))


def image_id(ref: str) -> str | None:
    found = inspect(daemon.client(), ref)
    return str(found["Id"]) if found else None


def references(prefix: str) -> list[str]:
    return [ref for ref in registry.references(daemon.client()) if ref.startswith(prefix)]


class RegistryTest(unittest.TestCase):
    def named(self) -> str:
        """A small image that has a name."""
        name = f"{NAMESPACE}named/{self.id().lower()}"
        daemon.client().tag(small(self.id()), name, "1")
        self.addCleanup(daemon.client().remove_image, f"{name}:1")
        return f"{name}:1"

    def test_what_was_pushed_is_gone_here_and_comes_back_by_a_pull(self) -> None:
        made = small(self.id())
        ref = SHOP.push(made, "gone:1.0.0")
        self.assertEqual((image_id(ref), image_id(made)), (None, None))

        pull(ref)

        self.assertEqual(image_id(ref), made)

    def test_an_image_that_has_a_name_keeps_it(self) -> None:
        name = self.named()
        before = image_id(name)

        ref = SHOP.push(name, "named:1.0.0")

        self.assertEqual((image_id(name), image_id(ref)), (before, None))

    def test_another_image_takes_the_place_of_the_first(self) -> None:
        for content in ("first", "second"):
            made = small(content)
            pull(SHOP.push(made, "changing:1.0.0"))
            self.assertEqual(image_id(SHOP.reference("changing:1.0.0")), made)

    def test_what_was_pulled_stays_as_it_is_while_another_image_takes_its_place(self) -> None:
        made = small("pulled")
        ref = SHOP.push(made, "staying:1.0.0")
        pull(ref)

        SHOP.push(small("in its place"), "staying:1.0.0")

        self.assertEqual(image_id(ref), made)

    def test_what_docker_requests_is_seen_and_nothing_else(self) -> None:
        ref, other = (SHOP.push(small(self.id()), f"asked:1.0.{patch}") for patch in (0, 1))
        pull(ref)
        pull(ref)

        self.assertEqual((SHOP.manifest_requests(ref), SHOP.manifest_requests(other)), (2, 0))
        self.assertIn(registry.Request("GET", "/v2/", 200), SHOP.requests())
        self.assertEqual(SHOP.requests(), SHOP.requests(), "looking leaves no trace")

    def test_an_image_that_is_not_here_cannot_be_pushed(self) -> None:
        from docker.errors import ImageNotFound

        self.assertRaises(ImageNotFound, SHOP.push, "no-such-image:1")

    def test_a_registry_that_does_not_answer_is_named_and_the_image_keeps_no_name_of_it(self) -> None:
        with registry.start() as gone:
            gone.container.remove()
            with self.assertRaisesRegex(HarnessError, "cannot be pushed as .*connection refused"):
                gone.push(self.named())
            self.assertEqual(references(f"localhost:{gone.port}/"), [])

    def test_every_image_that_was_pulled_goes_with_its_registry(self) -> None:
        own = registry.start()
        pull(own.push(small("old")))
        pull(own.push(small("new")))  # leaves the old one only its digest
        prefix = f"127.0.0.1:{own.port}/"
        self.assertEqual(len(references(prefix)), 3)

        own.close()

        self.assertEqual(references(prefix), [])
        with self.assertRaises(OSError):
            registry.answer_to(own.host, own.port, "/v2/")

    def test_a_start_sweeps_what_a_killed_run_left(self) -> None:
        repository = f"127.0.0.1:1/{NAMESPACE}0dead2/game"
        daemon.client().tag(small(self.id()), repository, "1.0.0")

        registry.start().close()

        self.assertEqual(references(repository), [])

    def test_an_image_that_a_container_has_is_named_and_its_registry_goes(self) -> None:
        own = registry.start()
        ref = own.push(small(self.id()))
        pull(ref)
        user = self.use(ref)

        with self.assertRaisesRegex(HarnessError, f"{user[:12]}.*before its registry"):
            own.close()

        with self.assertRaises(OSError):
            registry.answer_to(own.host, own.port, "/v2/")

    def test_what_a_killed_run_left_is_swept_and_nothing_of_a_run_that_is_alive(self) -> None:
        name = self.named()
        repositories = [
            f"{host}:1/{NAMESPACE}{run}/game"
            for host, run in (("127.0.0.1", "0dead0"), ("localhost", "0dead0"), ("127.0.0.1", identity.current().run))
        ]
        for repository in repositories:
            daemon.client().tag(name, repository, "1.0.0")
        self.addCleanup(registry.forget_images, daemon.client(), repositories[2])

        removed = registry.sweep_images(daemon.client())

        refs = [f"{each}:1.0.0" for each in repositories]
        self.assertEqual([image_id(ref) for ref in refs], [None, None, image_id(name)])
        self.assertEqual(set(refs).intersection(removed), set(refs[:2]))

    def test_what_a_killed_run_left_in_use_stands_in_nobodys_way(self) -> None:
        ref = f"127.0.0.1:1/{NAMESPACE}0dead1/game:1.0.0"
        daemon.client().tag(small(self.id()), ref.removesuffix(":1.0.0"), "1.0.0")  # its only name
        self.use(ref)

        registry.start().close()  # which sweeps

        self.assertIsNotNone(image_id(ref))

    def use(self, ref: str) -> str:
        """Create a container of an image, both removed at the end of the test; returns its id."""
        made = daemon.client().create_container(ref, command=["x"], labels=identity.current().labels())
        self.addCleanup(registry.forget_images, daemon.client(), ref)
        self.addCleanup(container.remove, daemon.client(), made["Id"])
        return str(made["Id"])


class PublishedPortTest(unittest.TestCase):
    def test_with_a_published_port_the_daemon_reaches_it_just_as_well(self) -> None:
        with mock.patch.object(listening, "shares_our_network", return_value=False), registry.start() as own:
            self.assertNotEqual(own.container.inspect()["HostConfig"]["NetworkMode"], "host")
            ref = own.push(small(self.id()))
            pull(ref)
            self.assertEqual(own.manifest_requests(ref), 1)


class TakenPortTest(unittest.TestCase):
    def test_a_port_that_was_taken_meanwhile_is_replaced_by_another(self) -> None:
        if not listening.shares_our_network():
            self.skipTest("containers of this daemon cannot share the network of this process")
        ports = [SHOP.port, listening.free_port()]
        with mock.patch.object(listening, "free_port", side_effect=ports), registry.start() as own:
            self.assertEqual(own.port, ports[1])


class StallingTest(unittest.TestCase):
    def setUp(self) -> None:
        if not listening.shares_our_network():
            self.skipTest("the daemon does not reach this process")
        self.slow = Stalling(SHOP)
        self.addCleanup(self.slow.close)

    def begin(self, ref: str) -> "Pulling":
        begun = Pulling(ref)
        self.addCleanup(begun.cut)
        return begun

    def test_a_layer_is_held_until_it_is_released(self) -> None:
        made = small(self.id())
        SHOP.push(made, "slow:1.0.0")
        ref = self.slow.reference("slow:1.0.0")
        pulling = self.begin(ref)
        self.slow.wait_until_held()
        self.assertIsNone(image_id(ref))

        self.slow.release()

        pulling.finish()
        self.assertEqual(image_id(ref), made)

    def test_a_pull_that_was_given_up_is_begun_anew(self) -> None:
        made = small(self.id())
        SHOP.push(made, "again:1.0.0")
        ref = self.slow.reference("again:1.0.0")
        given_up = self.begin(ref)
        self.slow.wait_until_held(1)
        given_up.cut()
        again = self.begin(ref)
        self.slow.wait_until_held(2)

        self.slow.release()

        again.finish()
        self.assertEqual(image_id(ref), made)

    def test_its_end_breaks_off_what_is_held(self) -> None:
        SHOP.push(small(self.id()), "cut:1.0.0")
        pulling = self.begin(self.slow.reference("cut:1.0.0"))
        self.slow.wait_until_held()

        self.slow.close()

        pulling.wait_for("Retrying in")

    def test_its_end_removes_what_was_pulled_by_this_way(self) -> None:
        SHOP.push(small(self.id()), "pulled:1.0.0")
        self.slow.release()
        pull(self.slow.reference("pulled:1.0.0"))
        prefix = f"127.0.0.1:{self.slow.port}/"
        self.assertEqual(len(references(prefix)), 2)

        self.slow.close()

        self.assertEqual(references(prefix), [])

    def test_an_unknown_tag_is_refused_as_the_registry_does(self) -> None:
        from docker.errors import NotFound

        with self.assertRaisesRegex(NotFound, "manifest unknown"):
            pull(self.slow.reference("base:no-such-tag"))


class Pulling:
    """A running pull, to be awaited or abandoned."""

    def __init__(self, ref: str) -> None:
        client = daemon.client()
        repository, _, tag = ref.rpartition(":")
        url = f"{client.base_url}/v{client.api_version}/images/create"
        self._answer = client.post(url, params={"fromImage": repository, "tag": tag}, stream=True)

    def finish(self) -> None:
        for _line in self._answer.iter_lines():
            pass  # the answer ends with the pull

    def wait_for(self, text: str) -> None:
        """Read until Docker's output contains `words`; AssertionError when it ends without."""
        if not any(text in line for line in self._answer.iter_lines(decode_unicode=True)):
            raise AssertionError(f"the pull ended without {text!r}")

    def cut(self) -> None:
        self._answer.close()
