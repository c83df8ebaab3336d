"""Pure: how long tasks take, and when the next look is worth it.

The first law: nothing finishes within the first seconds, and the older an id is, the less a moment matters.
"""

from __future__ import annotations

FIRST_LOOK = 2.0
SHORTEST, LONGEST, SHARE = 1.0, 30.0, 0.1


def first_look(submitted_at: float) -> float:
    """When a new id is worth its first look."""
    return submitted_at + FIRST_LOOK


def next_look(submitted_at: float, looked_at: float, deadline_at: float) -> float:
    """When an id that was still pending at `looked_at` is worth the next look; at the latest at its deadline."""
    age = max(looked_at - submitted_at, 0.0)
    at = looked_at + min(max(SHARE * age, SHORTEST), LONGEST)
    return min(at, deadline_at) if looked_at < deadline_at else at
