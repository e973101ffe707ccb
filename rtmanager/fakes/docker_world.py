"""Docker resources of one test: a network, tiny images and a directory, all but the images removed afterwards."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import tempfile
import uuid
from contextlib import suppress

import docker
from docker.errors import DockerException, NotFound

from rtmanager.domain.container import LABEL_GAME_ID
from rtmanager.fakes import tiny_image

#: Repository of the images of this module; they are kept between runs (a few hundred bytes each).
REPOSITORY = "galaxy/tiny"

#: Label with the digest of an image's content, so that a changed program makes a new image.
LABEL_DIGEST = "com.galaxy.test.digest"

#: Memory limit in the labels of every image of this module.
MEMORY = "32m"


def docker_host() -> str:
    """The Docker host that tests use: the manager's own setting, Docker's, or the usual socket."""
    environment = os.environ
    return environment.get("RTMANAGER_DOCKER_HOST") or environment.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def why_no_docker(host: str) -> str | None:
    """Why no daemon answers at `host`, for a skip; None when one does."""
    try:
        docker.APIClient(base_url=host, version="auto", timeout=5).close()
    except DockerException as error:
        return f"no Docker daemon answers at {host}: {error}"
    return None


class DockerWorld:
    """Docker resources of one test; `close` removes the network, the directory and the containers of its games."""

    def __init__(self, host: str) -> None:
        self.client = docker.APIClient(base_url=host, version="auto", timeout=60)
        self._run = f"t{uuid.uuid4().hex[:10]}"
        self._numbers = itertools.count(1)
        self._architecture = str(self.client.version()["Arch"])
        self.state_path = tempfile.mkdtemp(prefix="rtm-test-")
        os.chmod(self.state_path, 0o777)
        self.network = f"rtm-test-{self._run}"
        self.client.create_network(self.network)

    def game_id(self) -> str:
        """A new game id, unique on the host."""
        return f"{self._run}-{next(self._numbers)}"

    def image(self, behaviour: str) -> str:
        """The reference of an image with one of `tiny_image.BEHAVIOURS`; it is built when it is missing.

        `latest` is another name of `waits`; no container can be created from `without-command`.
        """
        program = behaviour if behaviour in tiny_image.BEHAVIOURS else "waits"
        archive = tiny_image.archive(self._architecture, program)
        digest = hashlib.sha256(archive + behaviour.encode()).hexdigest()
        reference = f"{REPOSITORY}:{behaviour}"
        if self._digest(reference) != digest:
            changes = [f"LABEL com.galaxy.memory={MEMORY} {LABEL_DIGEST}={digest}"]
            if behaviour != "without-command":
                changes.append(f'CMD ["{tiny_image.COMMAND}"]')
            self.client.import_image_from_data(archive, repository=REPOSITORY, tag=behaviour, changes=changes)
        return reference

    def spare_image(self) -> str:
        """The reference of a new image for this test alone, with the behaviour `waits`."""
        reference = f"{REPOSITORY}:spare-{self.game_id()}"
        archive = tiny_image.archive(self._architecture, "waits")
        changes = [f"LABEL com.galaxy.test.spare={reference}", f'CMD ["{tiny_image.COMMAND}"]']
        self.client.import_image_from_data(archive, repository=REPOSITORY, tag=reference.split(":")[1], changes=changes)
        return reference

    def forget_image(self, reference: str) -> None:
        """Remove an image if it is there."""
        with suppress(NotFound):
            self.client.remove_image(reference, force=True)

    def close(self) -> None:
        """Remove everything that was made here, except the images."""
        for container in self.client.containers(all=True, filters={"label": LABEL_GAME_ID}):
            if container["Labels"][LABEL_GAME_ID].startswith(self._run):
                self.client.remove_container(container["Id"], force=True, v=True)
        self.client.remove_network(self.network)
        self.client.close()
        shutil.rmtree(self.state_path)

    def _digest(self, reference: str) -> str | None:
        try:
            found = self.client.inspect_image(reference)  # type: ignore[no-untyped-call]
        except NotFound:
            return None
        return (found["Config"].get("Labels") or {}).get(LABEL_DIGEST)
