"""Pure: what does a receiver's answer mean for the debt, and for its endpoint?

2xx pays. 410 and `webhook-delivery: disable` end the sending to the endpoint; the debt waits until it is enabled again.
`webhook-delivery: abort-message` buries this one debt. Anything else is tried later, not before `Retry-After`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from scheduler import circuit
from scheduler.backoff import WEBHOOK_WINDOW
from scheduler.tracking import printable
from worker.refusals import retry_after

#: Characters of an answer that are written down with each try, and tries that are: 16 KiB in all.
ANSWER_KEPT, TRIES_KEPT = 1024, 16
_OVERLOADED = frozenset({429, 502, 504})


class Fate(StrEnum):
    """What becomes of a debt after a try."""

    PAID = "paid"
    LATER = "later"
    REFUSED = "refused"  # no further try can mend it
    OURS = "ours"  # the fault is ours: no try is charged, and the endpoint is not blamed
    UNSENT = "unsent"  # it was claimed and not tried


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one try met. `rest`: seconds for which the whole endpoint is left alone; `disable`: why nothing more is sent to it."""

    fate: Fate
    outcome: str
    status: int | None = None
    retry_after: float | None = None
    rest: float | None = None
    disable: str = ""
    sent_at: float = 0.0
    seconds: float = 0.0
    address: str = ""
    answer: str = ""

    def entry(self) -> str:
        """One line of the delivery log: JSON with at, outcome, seconds (and status, address, answer where there are any)."""
        outcome = printable(self.outcome, ANSWER_KEPT)  # what is not might break the line
        said = {"at": round(self.sent_at, 3), "outcome": outcome, "seconds": round(self.seconds, 3)}
        said |= {name: value for name in ("status", "address", "answer") if (value := getattr(self, name))}
        return json.dumps(said, ensure_ascii=False)


def log_with(log: str, receipt: Receipt) -> str:
    """The delivery log of a debt after one more try; of many, the last are kept."""
    return "\n".join([*log.splitlines(), receipt.entry()][-TRIES_KEPT:])


def paid_before(log: str) -> bool:
    """True if a try in the delivery log was answered 2xx: what is tried now is a replay."""
    for line in log.splitlines():
        try:
            if 200 <= json.loads(line).get("status", 0) < 300:
                return True
        except (AttributeError, TypeError, ValueError, RecursionError):
            continue
    return False


def judged(status: int, headers: Mapping[str, str]) -> Receipt:
    """Read an answer."""
    outcome, wish = f"HTTP {status}", headers.get("webhook-delivery", "").strip().lower()
    paid = 200 <= status < 300
    disable = "410 Gone" if status == 410 else "webhook-delivery: disable" if wish == "disable" else ""
    if paid:
        return Receipt(Fate.PAID, outcome, status, disable=disable)
    if wish == "abort-message":
        return Receipt(Fate.REFUSED, f"{outcome}; the receiver aborts the message", status, disable=disable)
    asked = retry_after(headers)
    rest = None
    if status in _OVERLOADED or (status == 503 and asked):
        rest = min(max(asked or 0.0, circuit.REST), WEBHOOK_WINDOW)
    fate = Fate.OURS if disable else Fate.LATER
    return Receipt(fate, outcome, status, retry_after=asked, rest=rest, disable=disable)


def excerpt(answer: bytes) -> str:
    """The first of an answer as text for people."""
    return printable(answer[: 4 * ANSWER_KEPT].decode(errors="replace"), ANSWER_KEPT)
