"""Durations and times as people write and read them: 90s, 2h, 2026-11-22 22:50:01."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from cavendish.stored_json import END_OF_TIME

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhd]?)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str, default_unit: str = "") -> float | None:
    """Seconds in a text such as 90s, 2h or 7d; None for any other text.

    A number without a unit has the `default_unit`; without one it is no duration.
    """
    found = _DURATION.fullmatch(text.strip())
    unit = found[2] or default_unit if found else ""
    return float(found[1]) * _SECONDS[unit] if found and unit else None


def moment(at: float | None) -> str:
    """A time for people, UTC; empty for None, and for what no calendar has."""
    if at is None or not 0 <= at < END_OF_TIME:
        return ""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"
