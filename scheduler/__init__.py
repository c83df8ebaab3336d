"""The book: what is tracked, when it is worth a look, how fast we may ask, what came of it.

Knows Redis and time; no Celery, no HTTP, and it logs nothing. This is its public face.
"""

from scheduler.client import Client
from scheduler.errors import BookUnavailable, CavendishError, EventsMissed, SettingsError, SubmissionError, WaitTimeout
from scheduler.tracking import Event, State, Submitted, TrackedTask

__all__ = [
    "BookUnavailable",
    "CavendishError",
    "Client",
    "Event",
    "EventsMissed",
    "SettingsError",
    "State",
    "SubmissionError",
    "Submitted",
    "TrackedTask",
    "WaitTimeout",
]
