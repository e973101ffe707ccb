"""Images of folders: built once for what is in them, and named after it."""

import secrets
import tempfile
import unittest
from pathlib import Path

from harness import daemon, images
from harness.errors import ImageUnavailable
from harness.fixtures import container
from harness.images.building import build_image
from harness.images.recipe import inspect
from harness.runs import flag


def setUpModule() -> None:
    flag.check()


class BuildImageTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())) / f"shop-{secrets.token_hex(4)}"
        (self.folder / "goods").mkdir(parents=True)
        (self.folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY goods /goods\n")
        (self.folder / "goods" / "list").write_text("apples")

    def build(self) -> str:
        ref = build_image(self.folder, images.redis())
        self.addCleanup(lambda: inspect(daemon.client(), ref) and daemon.client().remove_image(ref))
        return ref

    def test_what_is_in_the_folder_is_in_the_image(self) -> None:
        with container.start(self.build(), entrypoint=["cat"], command=["/goods/list"]) as shown:
            self.assertEqual((shown.wait_for_exit(), shown.logs()), (0, "apples"))

    def test_the_same_content_is_not_built_again_and_another_beside_it(self) -> None:
        first = self.build()
        made = inspect(daemon.client(), first)
        self.assertEqual(self.build(), first)
        self.assertEqual(inspect(daemon.client(), first), made)
        (self.folder / "goods" / "list").write_text("pears")
        self.assertNotEqual(self.build(), first)
        self.assertIsNotNone(inspect(daemon.client(), first))

    def test_a_folder_without_a_dockerfile_is_named(self) -> None:
        (self.folder / "Dockerfile").unlink()
        with self.assertRaisesRegex(ImageUnavailable, f"no Dockerfile in .*{self.folder.name}"):
            self.build()

    def test_a_build_that_fails_shows_why_and_leaves_no_image(self) -> None:
        (self.folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo sold out; exit 3\n")
        with self.assertRaisesRegex(ImageUnavailable, "(?s)sold out"):
            self.build()
