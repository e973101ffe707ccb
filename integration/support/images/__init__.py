"""Images for this suite only: a folder each with a Dockerfile on the reference engine, or one tiny program.

An image's tag is a hash of its inputs. So an existing image is the right one, and runs on one daemon never remove each
other's, even of different versions of the suite. They are kept between runs; their own layers are small.
"""

import hashlib
from functools import cache
from pathlib import Path

from harness import daemon
from harness.images.building import content_tag, have
from harness.images.recipe import Recipe
from harness.rtm import engine_image

#: The version of every image, the reference engine's, so that patches between them are valid.
VERSION = "1.0.0"


@cache
def made(name: str) -> str:
    """The reference of the image in the folder `name`, built when missing."""
    engine, recipe = engine_image(), Recipe(name, Path(__file__).parent / name)
    tag = _tag(name, recipe.inputs(engine.ref) + engine.image_id)
    return have(tag, lambda: recipe.build(daemon.client(), engine.ref, tag))


@cache
def engine_as(version: str) -> str:
    """Tag the engine's image with another version; return the reference."""
    engine = engine_image()
    repository = f"rtm-harness/suite-engine-{engine.image_id.removeprefix('sha256:')[:12]}"
    daemon.client().tag(engine.image_id, repository, version)
    return f"{repository}:{version}"


@cache
def tiny(behaviour: str) -> str:
    """The reference of an image of one of `BEHAVIOURS` of `rtmanager.fakes.tiny_image`; imported when missing.

    It has no labels, no environment and no user. Its behaviour begins with its first instruction.
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
    # The letter `s`: a digest of digits alone would be a number, which may not begin with 0 in a version.
    return f"rtm-harness/suite-{name}:{VERSION}-s{content_tag(made_of)}"
