"""Counters and histograms of one process: cheap to add to from any thread, read at each scrape.

prometheus_client serves for its exposition only. Its own counters write files if
PROMETHEUS_MULTIPROC_DIR is set, which would count each process twice here, and they take any number
of label values, while producers name the services.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

#: Most sets of label values of one family; further ones are counted under OTHER.
MOST_ROWS = 200
OTHER = "OTHER"


class Counter(Collector):
    """A counter; `name` without `_total`, which the exposition adds."""

    def __init__(self, name: str, about: str, labels: Sequence[str] = ()) -> None:
        self._name, self._about, self._labels = name, about, tuple(labels)
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, *labels: str, by: float = 1) -> None:
        """Count one more, or `by` more."""
        with self._lock:
            if labels not in self._rows:
                labels = _place(self._rows, labels)
                self._rows.setdefault(labels, 0.0)
            self._rows[labels] += by

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        family = CounterMetricFamily(self._name, self._about, labels=self._labels)
        with self._lock:
            rows = dict(self._rows)
        for labels, count in rows.items():
            family.add_metric(labels, count)
        yield family


class Gauge(Collector):
    """A number that goes up and down."""

    def __init__(self, name: str, about: str) -> None:
        self._name, self._about, self._lock, self._value = name, about, threading.Lock(), 0.0

    def add(self, by: float) -> None:
        """Let it be so much more, or less."""
        with self._lock:
            self._value += by

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        yield GaugeMetricFamily(self._name, self._about, self._value)


class Histogram(Collector):
    """A histogram of values up to each of its `bounds`."""

    def __init__(
        self, name: str, about: str, bounds: Sequence[float], labels: Sequence[str] = ()
    ) -> None:
        self._name, self._about, self._labels = name, about, tuple(labels)
        self._bounds = tuple(bounds)
        self._shown = [*(repr(float(bound)) for bound in bounds), "+Inf"]
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, ...], tuple[list[int], list[float]]] = (
            {} if labels else {(): self._empty()}
        )

    def _empty(self) -> tuple[list[int], list[float]]:
        return [0] * len(self._shown), [0.0]

    def add(self, value: float, *labels: str) -> None:
        """Count one value; a negative one (from two clocks that differ) counts as 0."""
        if not 0.0 <= value < math.inf:
            if not value < 0.0:  # not a number, or too large for one
                return
            value = 0.0
        with self._lock:
            row = self._rows.get(labels)
            if row is None:
                row = self._rows.setdefault(_place(self._rows, labels), self._empty())
            row[0][bisect_left(self._bounds, value)] += 1
            row[1][0] += value

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        family = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        with self._lock:
            rows = {
                labels: (list(counts), total[0]) for labels, (counts, total) in self._rows.items()
            }
        for labels, (counts, total) in rows.items():
            so_far, buckets = 0, []
            for bound, count in zip(self._shown, counts, strict=True):
                so_far += count
                buckets.append((bound, float(so_far)))
            family.add_metric(labels, buckets, total)
        yield family


def _place(rows: Mapping[tuple[str, ...], object], labels: tuple[str, ...]) -> tuple[str, ...]:
    return labels if len(rows) < MOST_ROWS else (OTHER,) * len(labels)
