"""What the benchmarks raise; the message says what to do about it."""


class BenchError(Exception):
    """A benchmark cannot be run here, or what it measures went wrong: then there is no figure at all."""
