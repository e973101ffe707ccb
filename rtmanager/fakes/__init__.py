"""In-memory implementations of the ports, for tests of the layers above them.

They pass the same contract tests as the real adapters, so a test against a fake is meaningful.
"""

from rtmanager.fakes.runtime import Call, FakeImage, FakeRuntime, Meant
from rtmanager.fakes.state_directories import FakeStateDirectories

__all__ = ["Call", "FakeImage", "FakeRuntime", "FakeStateDirectories", "Meant"]
