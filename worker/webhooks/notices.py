"""What the operator is told through a webhook of their own: CAVENDISH_OPERATIONS_WEBHOOK. A notice is a debt like any other."""

from __future__ import annotations

from scheduler.endpoints import Disabled, endpoint_of
from scheduler.store import Book
from worker.webhooks import announcement


def disabled(book: Book, operations: str, endpoint: str, why: Disabled, now: float) -> bool:
    """Owe the notice that an endpoint was disabled, once, whoever asks for it and how often. Raises BookUnavailable."""
    if not operations or endpoint == endpoint_of(operations):
        return False
    about = {"endpoint": endpoint, "url": why.url, "reason": why.why, "disabled_at": why.at}
    said = announcement.endpoint_event("endpoint.disabled", about, why.at).decode()
    return book.debts.notify(announcement.event_id("endpoint.disabled", endpoint, repr(why.at)), operations, said, now)
