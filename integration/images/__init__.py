"""Images that only this suite needs, each a folder with a Dockerfile on the reference engine."""

from pathlib import Path

from harness import daemon, images
from harness.images.recipe import Recipe


def made(name: str) -> str:
    """The reference of the image `name`, built when what it is made of has changed."""
    recipe, base, tag = (
        Recipe(name, Path(__file__).parent / name),
        images.engine().ref,
        f"rtm-harness/suite-{name}:1.0.0",
    )
    if not recipe.is_current(daemon.client(), base, tag):
        recipe.build(daemon.client(), base, tag)
    return tag
