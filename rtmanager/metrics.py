"""Counters and gauges, in the text format of Prometheus (version 0.0.4).

A `Metrics` belongs to one manager, so that two in a process do not count together. Everything here is thread-safe.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
#: Prometheus reserves names that begin with two underscores.
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")

#: The values of a metric's labels, in the order of their names.
Labels = tuple[str, ...]


class _Metric:
    """One name with its samples."""

    kind = ""

    def __init__(self, name: str, help_text: str, labels: Labels) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a metric")
        if not all(map(_LABEL.fullmatch, labels)) or len(set(labels)) < len(labels):
            raise ValueError(f"{name} has labels {labels!r}: expected names, each once")
        self._name = name
        self._help = help_text
        self._labels = labels
        self._samples: dict[Labels, float] = {}
        self._lock = threading.Lock()

    def lines(self) -> list[str]:
        """Return the metric as text; samples in the order of their labels' values."""
        with self._lock:
            samples = sorted(self._samples.items())
        return [
            f"# HELP {self._name} {_escaped(self._help)}",
            f"# TYPE {self._name} {self.kind}",
            *(f"{self._name}{self._pairs(values)} {_number(sample)}" for values, sample in samples),
        ]

    def _checked(self, values: Labels) -> Labels:
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels!r}, got the values {values!r}")
        return values

    def _pairs(self, values: Labels) -> str:
        if not values:
            return ""
        pairs = (f'{name}="{_escaped_value(value)}"' for name, value in zip(self._labels, values, strict=True))
        return "{" + ",".join(pairs) + "}"


class Counter(_Metric):
    """A count of events since the start; without labels it begins with 0."""

    kind = "counter"

    def __init__(self, name: str, help_text: str, labels: Labels) -> None:
        if not name.endswith("_total"):
            raise ValueError(f"the counter {name} should end in _total")
        super().__init__(name, help_text, labels)
        if not labels:
            self._samples[()] = 0

    def inc(self, *labels: str, by: float = 1) -> None:
        """Add to the sample with these label values. Raises `ValueError` for a negative step."""
        if not by >= 0:
            raise ValueError(f"the counter {self._name} cannot change by {by}")
        self._checked(labels)
        with self._lock:
            self._samples[labels] = self._samples.get(labels, 0) + by


class ReadCounter(_Metric):
    """A count that is kept elsewhere and read when it is rendered."""

    kind = "counter"

    def __init__(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        if not name.endswith("_total"):
            raise ValueError(f"the counter {name} should end in _total")
        super().__init__(name, help_text, ())
        self._read = read

    def lines(self) -> list[str]:
        """See the base class; reads the count first."""
        count = self._read()
        with self._lock:
            self._samples[()] = count
        return super().lines()


class Gauge(_Metric):
    """A present value; without a sample before the first measurement."""

    kind = "gauge"

    def set(self, value: float, *labels: str) -> None:
        """Set the sample with these label values."""
        self._checked(labels)
        with self._lock:
            self._samples[labels] = value

    def replace(self, samples: Mapping[Labels, float]) -> None:
        """Replace all samples at once; label values that are not among `samples` disappear."""
        replacement = {self._checked(labels): value for labels, value in samples.items()}
        with self._lock:
            self._samples = replacement


class Metrics:
    """The metrics of one manager, each with a unique name."""

    def __init__(self) -> None:
        self._by_name: dict[str, _Metric] = {}
        self._lock = threading.Lock()

    def counter(self, name: str, help_text: str, *labels: str) -> Counter:
        """Add a counter. Raises `ValueError` for a name that is taken or malformed."""
        counter = Counter(name, help_text, labels)
        self._add(name, counter)
        return counter

    def read_counter(self, name: str, help_text: str, read: Callable[[], float]) -> ReadCounter:
        """Add a counter without labels whose value `read` returns. Raises as `counter`."""
        counter = ReadCounter(name, help_text, read)
        self._add(name, counter)
        return counter

    def gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        """Add a gauge. Raises `ValueError` for a name that is taken or malformed."""
        gauge = Gauge(name, help_text, labels)
        self._add(name, gauge)
        return gauge

    def render(self) -> str:
        """Render all metrics in the order of their names."""
        with self._lock:
            metrics = sorted(self._by_name.items())
        return "".join(f"{line}\n" for _, metric in metrics for line in metric.lines())

    def _add(self, name: str, metric: _Metric) -> None:
        with self._lock:
            if name in self._by_name:
                raise ValueError(f"there is a metric {name} already")
            self._by_name[name] = metric


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escaped_value(text: str) -> str:
    return _escaped(text).replace('"', '\\"')


def _number(value: float) -> str:
    value = float(value)  # a bool is a number too, and the format has no `True`
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
