"""Keeps the content of a refused `cavendish.submit` message, and submits it again later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kombu.utils.json import dumps, loads

from cavendish.errors import SubmissionError
from cavendish.model import printable
from cavendish.store import Store
from cavendish.store.refused import LARGEST, RefusedSubmit
from cavendish_worker.telemetry.metrics import recorded

#: Characters of what is too large to be kept as it came, and of the names that others chose.
_BEGINNING, _NAME = 2000, 100


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a message, as far as Celery says it: the header `origin`, and the id of the task."""

    store: Store
    origin: str = ""
    task_id: str = ""

    def keep(self, ids: Any, options: dict[str, Any], error: SubmissionError) -> str:
        """Keep a refused submit; returns the id under which it is found.

        Raises StoreUnavailable.
        """
        recorded.REFUSED.add(error.kind)
        sent = _as_sent(ids, options)
        whole = sent is not None and len(sent) <= LARGEST
        kept = sent if whole else (sent or "")[:_BEGINNING]
        return self.store.refused.keep(
            RefusedSubmit(
                self.store.fleet.now(),
                error.kind,
                printable(str(error), 500),
                printable(self.origin, _NAME),
                printable(self.task_id, _NAME),
                _name(options.get("producer")),
                _name(options.get("service")),
                len(ids) if isinstance(ids, list) else 0,
                len(sent or ""),
                whole,
                sent=kept or "",
            )
        )


def what_was_sent(refused: RefusedSubmit) -> tuple[Any, dict[str, Any]] | None:
    """The ids and the options of a refused submit; None if they were too large to be kept."""
    if not refused.whole:
        return None
    try:
        ids, options = loads(refused.sent)
    except (ValueError, TypeError, RecursionError):
        return None
    return (ids, options) if isinstance(options, dict) else None


def _as_sent(ids: Any, options: dict[str, Any]) -> str | None:
    """JSON, with Celery's own marks of types such as UUID; None if it cannot be written."""
    try:
        return str(dumps([ids, options]))
    except (ValueError, TypeError, RecursionError):
        return None


def _name(value: Any) -> str:
    return printable(value, _NAME) if isinstance(value, str) else ""
