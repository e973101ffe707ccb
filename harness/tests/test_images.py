"""The choice of an image, and when it is rebuilt."""

import dataclasses
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from harness.errors import ImageUnavailable
from harness.images import catalogue, debian
from harness.images.recipe import Recipe
from harness.tests.images import ImagesTestCase


class RecipeTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n")
        self.recipe = Recipe("thing", self.folder)

    def test_the_inputs_change_with_a_file_a_name_and_the_base(self) -> None:
        seen = {self.recipe.inputs("a"), self.recipe.inputs("b")}
        (self.folder / "more").write_text("x")
        seen.add(self.recipe.inputs("a"))
        (self.folder / "more").rename(self.folder / "other")
        seen.add(self.recipe.inputs("a"))
        self.assertEqual(len(seen), 4)

    def test_the_same_content_is_the_same_input_wherever_it_lies(self) -> None:
        with tempfile.TemporaryDirectory() as other:
            (Path(other) / "Dockerfile").write_bytes((self.folder / "Dockerfile").read_bytes())
            self.assertEqual(Recipe("thing", Path(other)).inputs("a"), self.recipe.inputs("a"))

    def test_a_failed_build_shows_the_last_lines_of_the_build(self) -> None:
        client = mock.Mock()
        client.build.return_value = [{"stream": "Step 1: RUN it\n"}, {"error": "exit code 3"}]
        with (
            mock.patch("harness.images.recipe.inspect", return_value=None),
            self.assertRaisesRegex(ImageUnavailable, r"(?s)exit code 3.*RUN it"),
        ):
            self.recipe.build(client, "base", "thing:1")


class CatalogueTest(ImagesTestCase):
    def test_with_a_registry_the_ordinary_image_is_the_base(self) -> None:
        self.assertRegex(catalogue.postgres(), "^rtm-harness/postgres:[0-9a-f]{12}$")
        self.assertEqual(self.images.bases, ["postgres:16-alpine"])
        self.pull.assert_called_once_with("postgres:16-alpine")
        self.make_base.assert_not_called()

    def test_without_a_registry_the_base_is_made_here_once_for_all(self) -> None:
        self.registry.return_value = False
        catalogue.postgres()
        catalogue.redis()
        self.assertEqual(self.images.bases, [debian.SERVERS.tag] * 2)
        self.make_base.assert_called_once()
        self.pull.assert_not_called()

    def test_a_registry_that_refuses_the_pull_is_as_good_as_none(self) -> None:
        self.pull.side_effect = ImageUnavailable("too many requests")
        catalogue.redis()
        self.assertEqual(self.images.bases, [debian.SERVERS.tag])

    def test_a_source_that_was_requested_is_the_only_one(self) -> None:
        self.pull.side_effect = ImageUnavailable("too many requests")
        os.environ["RTM_IT_IMAGE_SOURCE"] = "registry"
        self.assertRaisesRegex(ImageUnavailable, "too many requests", catalogue.redis)
        os.environ["RTM_IT_IMAGE_SOURCE"] = "local"
        catalogue.redis()
        self.assertEqual(self.images.bases, [debian.SERVERS.tag])
        self.registry.assert_not_called()

    def test_an_unknown_source_is_named(self) -> None:
        os.environ["RTM_IT_IMAGE_SOURCE"] = "moon"
        self.assertRaisesRegex(ImageUnavailable, "RTM_IT_IMAGE_SOURCE is 'moon'", catalogue.redis)

    def test_what_is_there_and_current_is_used_and_no_registry_queried(self) -> None:
        self.registry.return_value = False
        first = catalogue.redis()
        self.registry.reset_mock()
        self.assertEqual(catalogue.redis(), first)
        self.assertEqual(self.images.built, [first])
        self.registry.assert_not_called()

    def test_a_base_that_changed_under_its_name_means_building_anew(self) -> None:
        before = catalogue.redis()
        self.images.add("redis:7-alpine")
        after = catalogue.redis()
        self.assertNotEqual(before, after)
        self.assertEqual(self.images.built, [before, after])
        self.assertIn(before, self.images.there)

    def test_a_base_that_was_removed_does_not(self) -> None:
        tag = catalogue.redis()
        del self.images.there["redis:7-alpine"]
        self.assertEqual(catalogue.redis(), tag)
        self.assertEqual(self.images.built, [tag])

    def test_an_image_of_the_environment_is_the_base(self) -> None:
        os.environ["RTM_IT_POSTGRES_IMAGE"] = "my/postgres:17"
        self.images.add("my/postgres:17")
        catalogue.postgres()
        self.assertEqual(self.images.bases, ["my/postgres:17"])
        self.pull.assert_not_called()

    def test_one_of_our_own_images_is_used_as_it_is(self) -> None:
        made = catalogue.postgres()
        os.environ["RTM_IT_POSTGRES_IMAGE"] = made
        self.images.built.clear()
        self.assertEqual(catalogue.postgres(), made)
        self.assertEqual(self.images.built, [])

    def test_a_base_for_anything_is_one_that_is_there_before_any_registry_is_queried(self) -> None:
        self.images.add(debian.SERVERS.tag)
        self.assertEqual(catalogue.base_image(), debian.SERVERS.tag)
        self.registry.assert_not_called()

    def test_a_base_for_anything_is_pulled_or_made_or_given(self) -> None:
        self.assertEqual(catalogue.base_image(), "python:3.12-alpine")
        self.images.there.clear()
        self.registry.return_value = False
        self.assertEqual(catalogue.base_image(), debian.SERVERS.tag)
        os.environ["RTM_IT_BASE_IMAGE"] = "my/base:1"
        self.assertEqual(catalogue.base_image(), "my/base:1")

    def test_the_image_registry_has_a_base_of_its_own_and_is_made_when_it_is_requested(self) -> None:
        self.registry.return_value = False
        catalogue.ensure(catalogue.USUAL)
        self.assertEqual([call.args[1] for call in self.make_base.call_args_list], [debian.SERVERS])
        catalogue.image_registry()
        self.assertEqual(self.make_base.call_args.args[1], debian.REGISTRY)

    def test_with_a_registry_the_image_registry_is_the_ordinary_one(self) -> None:
        catalogue.image_registry()
        self.assertEqual(self.images.bases, ["registry:2"])
        self.pull.assert_called_once_with("registry:2")


class BaseTest(unittest.TestCase):
    def test_its_name_changes_with_what_it_is_made_of(self) -> None:
        base = debian.REGISTRY
        others = [
            dataclasses.replace(base, packages=("dash",)),
            dataclasses.replace(base, users={"a": 1}),
            dataclasses.replace(base, with_dependencies=True),
        ]
        self.assertEqual(len({each.tag for each in (base, *others)}), 4)

    def test_of_dependencies_those_are_unpacked_that_something_runs(self) -> None:
        names = ("docker-registry_2.8.2_amd64.deb", "perl-base_5.36_amd64.deb", "libcrypt1_4.4_amd64.deb")
        taken = {
            base.name: [name for name in names if base.unpacks(Path(name))]
            for base in (debian.SERVERS, debian.REGISTRY)
        }
        self.assertEqual(taken, {"base": [names[0], names[2]], "registry-base": [names[0]]})

    def test_where_none_can_be_made_the_way_out_is_named(self) -> None:
        with (
            mock.patch.object(debian, "possible", return_value=False),
            self.assertRaisesRegex(ImageUnavailable, "name images in RTM_IT_REGISTRY_IMAGE$"),
        ):
            debian.build(mock.Mock(), debian.REGISTRY)
