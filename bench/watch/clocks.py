"""Two clocks: the processor time of this process, and elapsed time."""

import time
from collections.abc import Callable
from typing import TypeVar

from bench.comparison import Sample

T = TypeVar("T")


def on_both_clocks(work: Callable[[], T]) -> tuple[Sample, T]:
    """Time a call by both clocks; returns the seconds and the call's result."""
    began, worked = time.perf_counter(), time.process_time()
    found = work()
    return {"CPU": time.process_time() - worked, "wall": time.perf_counter() - began}, found
