"""The engine's image: its names, and when it is rebuilt."""

import os
from unittest import mock

from harness.images import catalogue
from harness.rtm.images import ENGINE, ENGINE_ALIASES, engine_image
from harness.tests.images import ImagesTestCase
from rtmanager.domain.image_ref import Version, version_of


class EngineTest(ImagesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch("harness.rtm.images.inspect", self.images.inspect))

    def test_an_image_of_which_a_name_is_gone_is_built_again(self) -> None:
        engine = engine_image()
        for name in (engine.ref, engine.patched_ref, *ENGINE_ALIASES):
            with self.subTest(gone=name):
                before = engine_image()
                del self.images.there[name]
                after = engine_image()
                self.assertEqual((before.ref, before.patched_ref), (after.ref, after.patched_ref))
                self.assertNotEqual(before.image_id, after.image_id)
                self.assertEqual({self.images.there[each]["Id"] for each in self.engines()}, {after.image_id})
        self.assertEqual(len(self.images.built), 5)

    def engines(self) -> list[str]:
        return [name for name in self.images.there if name.startswith("galaxy/game:")]

    def test_another_checkouts_engine_and_what_people_call_the_engine_stay_where_they_are(self) -> None:
        mine = engine_image()
        for name in ENGINE_ALIASES:
            self.images.add(name)
        theirs = {name: self.images.there[name] for name in ENGINE_ALIASES}
        self.assertEqual(engine_image(), mine)
        self.assertEqual({name: self.images.there[name] for name in theirs}, theirs)

    def test_the_two_names_of_the_engine_are_versions_that_a_patch_may_go_between(self) -> None:
        engine = engine_image()
        self.assertEqual(version_of(engine.ref), Version(1, 0, 0))
        self.assertEqual(version_of(engine.patched_ref), Version(1, 0, 1))
        for digits in ("012345678901", "deadbeef0000"):
            self.assertEqual(version_of(ENGINE.names(digits)[0]), Version(1, 0, 0))

    def test_a_finished_engine_image_may_also_be_named_as_its_base(self) -> None:
        made = engine_image()
        os.environ["RTM_IT_ENGINE_BASE_IMAGE"] = made.ref
        self.assertEqual(engine_image().image_id, made.image_id)
        self.assertEqual(self.images.built, [made.ref])
        self.assertIsNotNone(catalogue.up_to_date(ENGINE))

    def test_a_given_engine_image_is_used_as_it_is_under_both_names(self) -> None:
        os.environ["RTM_IT_ENGINE_IMAGE"] = "my/engine:1"
        self.images.add("my/engine:1")
        engine = engine_image()
        self.assertEqual(engine.image_id, self.images.there["my/engine:1"]["Id"])
        for name in (engine.ref, engine.patched_ref, *ENGINE_ALIASES):
            self.assertEqual(self.images.there[name]["Id"], engine.image_id)
        self.assertEqual(self.images.built, [])
