"""The exception of the benchmarks."""


class BenchError(Exception):
    """A benchmark cannot run, or its work failed; it then yields no figure. The message names the remedy."""
