"""What an operator did to an id, as its record keeps it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OperatorAct:
    """What an operator did to an id: a `verb` ("deadline", "replay" or "revive"), when and by whom.

    `at`, and the `deadline_at` that was set, are in seconds since the Unix epoch.
    """

    at: float
    verb: str
    by: str
    deadline_at: float | None = None
