"""Pure: how late ends were noticed, minute by minute, as the points of a small chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Minutes that it shows, and its size in pixels.
MINUTES, WIDTH, HEIGHT = 15, 300.0, 60.0


@dataclass(frozen=True, slots=True)
class Chart:
    """The lines of p50 and p95 as SVG has them, the last values, and the highest (seconds)."""

    p50: str
    p95: str
    last50: float | None
    last95: float | None
    most: float


def chart(delays: Mapping[int, Sequence[float]]) -> Chart:
    """The oldest minute on the left; a minute without ends is left out."""
    known = sorted((minute, sorted(some)) for minute, some in delays.items() if some)
    rows = [(minute, _share(some, 50), _share(some, 95)) for minute, some in known]
    most = max((p95 for _, _, p95 in rows), default=0.0) or 1.0
    return Chart(
        _line([(minute, p50) for minute, p50, _ in rows], most),
        _line([(minute, p95) for minute, _, p95 in rows], most),
        rows[0][1] if rows else None,
        rows[0][2] if rows else None,
        most,
    )


def _share(ranked: Sequence[float], share: int) -> float:
    return ranked[min(len(ranked) * share // 100, len(ranked) - 1)]


def _line(points: Sequence[tuple[int, float]], most: float) -> str:
    """Of one point alone a short line, as a point would not be seen."""
    if len(points) == 1:
        (minute, seconds), end = points[0], 0.3 if points[0][0] == 0 else -0.3
        return f"{_point(minute + end, seconds, most)} {_point(minute, seconds, most)}"
    return " ".join(_point(*point, most) for point in points)


def _point(minute: float, seconds: float, most: float) -> str:
    across = WIDTH * (1 - minute / (MINUTES - 1))
    return f"{across:.1f},{HEIGHT * (1 - seconds / most):.1f}"
