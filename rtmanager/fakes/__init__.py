"""In-memory implementations of the ports to the containers' world, for tests of everything above it.

They are held to the same contract tests as the real ones, so that what passes against them means something.
"""

from rtmanager.fakes.runtime import Call, FakeImage, FakeRuntime, Meant
from rtmanager.fakes.state_directories import FakeStateDirectories

__all__ = ["Call", "FakeImage", "FakeRuntime", "FakeStateDirectories", "Meant"]
