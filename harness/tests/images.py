"""A stand-in for a Docker daemon that has only images."""

import os
import unittest
from typing import Any
from unittest import mock


class Images:
    """The images of a daemon, without the daemon."""

    def __init__(self) -> None:
        self.there: dict[str, dict[str, Any]] = {}
        self.built: list[str] = []
        self.bases: list[str] = []
        self._ids = iter(range(1, 100))

    def add(self, name: str, labels: dict[str, str] | None = None) -> None:
        self.there[name] = {"Id": f"id{next(self._ids)}", "Config": {"Labels": labels}, "RepoTags": [name]}

    def tag(self, image: str, repository: str, version: str) -> None:
        found = self.inspect(None, image)
        assert found is not None
        self.there[f"{repository}:{version}"] = found

    def inspect(self, _client: object, name: str) -> dict[str, Any] | None:
        found = (image for image in self.there.values() if image["Id"] == name)
        return self.there.get(name) or next(found, None)

    def images(self, *, filters: dict[str, str]) -> list[dict[str, Any]]:
        name, _, value = filters["label"].partition("=")
        every = ({**each, "Labels": each["Config"]["Labels"]} for each in self.there.values())
        return [each for each in every if (each["Labels"] or {}).get(name) == value]

    def build(self, *, tag: str, labels: dict[str, str], buildargs: dict[str, str], **_how: object) -> list[Any]:
        self.built.append(tag)
        self.bases.append(buildargs["BASE_IMAGE"])
        self.add(tag, labels)
        return []


class ImagesTestCase(unittest.TestCase):
    """A test in which the daemon is the stand-in."""

    def setUp(self) -> None:
        self.images = Images()
        client = mock.Mock(build=self.images.build, tag=self.images.tag, images=self.images.images)
        self.registry = mock.Mock(return_value=True)
        self.pull = mock.Mock(side_effect=self.images.add)
        self.make_base = mock.Mock(side_effect=lambda _client, base: self.images.add(base.tag))
        for target, stand_in in (
            ("harness.daemon.client", mock.Mock(return_value=client)),
            ("harness.images.catalogue.inspect", self.images.inspect),
            ("harness.images.recipe.inspect", self.images.inspect),
            ("harness.images.registry.pull", self.pull),
            ("harness.images.catalogue._registry_answers", self.registry),
            ("harness.images.debian.build", self.make_base),
        ):
            self.enterContext(mock.patch(target, stand_in))
        settings = {name: value for name, value in os.environ.items() if not name.startswith("RTM_IT_")}
        self.enterContext(mock.patch.dict(os.environ, settings, clear=True))
