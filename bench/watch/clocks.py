"""Two clocks: the processor time of this process, whatever it waits for, and the time that passes."""

import time
from collections.abc import Callable
from typing import TypeVar

from bench.comparison import Sample

T = TypeVar("T")


def on_both_clocks(work: Callable[[], T]) -> tuple[Sample, T]:
    """What a call took by either, and what it returned."""
    began, worked = time.perf_counter(), time.process_time()
    found = work()
    return {"CPU": time.process_time() - worked, "wall": time.perf_counter() - began}, found
