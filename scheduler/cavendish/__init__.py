"""The store: what is tracked, when it is worth a poll, how fast we may ask, what came of it.

Knows Redis and time; no Celery, no HTTP, and it logs nothing. This is its public face.
"""

from cavendish.client import Client
from cavendish.errors import (
    CavendishError,
    EventsMissed,
    SettingsError,
    StoreUnavailable,
    SubmissionError,
    WaitTimeout,
)
from cavendish.model import Event, State, Submitted, TrackedTask

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
