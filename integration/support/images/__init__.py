"""Images that only this suite needs: a folder each with a Dockerfile on the reference engine, or one tiny program.

An image's tag tells what it is made of. So an image that is there is the right one, and two runs on one daemon,
of this version of the suite or of two, never take each other's away. They are kept between runs; what they add to
the engine's own layers is next to nothing.
"""

import hashlib
from functools import cache
from pathlib import Path

from harness import daemon
from harness.images.building import content_tag, have
from harness.images.recipe import Recipe
from harness.rtm import engine_image

#: Every image has the version of the reference engine, so that a patch may go from one to another.
VERSION = "1.0.0"


@cache
def made(name: str) -> str:
    """The reference of the image that the folder `name` describes, built when it is not there."""
    engine, recipe = engine_image(), Recipe(name, Path(__file__).parent / name)
    tag = _tag(name, recipe.inputs(engine.ref) + engine.image_id)
    return have(tag, lambda: recipe.build(daemon.client(), engine.ref, tag))


@cache
def engine_as(version: str) -> str:
    """The engine's image under another version."""
    engine = engine_image()
    repository = f"rtm-harness/suite-engine-{engine.image_id.removeprefix('sha256:')[:12]}"
    daemon.client().tag(engine.image_id, repository, version)
    return f"{repository}:{version}"


@cache
def tiny(behaviour: str) -> str:
    """The reference of an image of one of `BEHAVIOURS` of `rtmanager.fakes.tiny_image`; imported when missing.

    It has no labels, no environment and no user, and does what it does from its first instruction on.
    """
    from rtmanager.fakes import tiny_image

    client = daemon.client()
    program = tiny_image.archive(str(client.version()["Arch"]), behaviour)
    tag = _tag(behaviour, hashlib.sha256(program).hexdigest())
    repository, _, version = tag.rpartition(":")
    command = [f'CMD ["{tiny_image.COMMAND}"]']
    return have(
        tag, lambda: client.import_image_from_data(program, repository=repository, tag=version, changes=command)
    )


def _tag(name: str, made_of: str) -> str:
    # The letter keeps a digest of digits alone from being a number, which a version may not begin with 0.
    return f"rtm-harness/suite-{name}:{VERSION}-s{content_tag(made_of)}"
