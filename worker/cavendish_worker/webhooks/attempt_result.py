"""Pure: what does a receiver's answer mean for the delivery, and for its endpoint?

2xx pays. 410 and `webhook-delivery: disable` end the sending to the endpoint; the delivery waits
until it is enabled again. `webhook-delivery: abort-message` buries this one delivery. Anything else
is tried later, not before `Retry-After`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cavendish.model import printable
from cavendish.policy import circuit
from cavendish.policy.backoff import WEBHOOK_WINDOW
from cavendish_worker.polling.upstream_errors import retry_after

#: Characters of an answer that are written down with each try, and attempts that are: 16 KiB in
#: all.
ANSWER_KEPT, ATTEMPTS_KEPT = 1024, 16
_OVERLOADED = frozenset({429, 502, 504})


class ResultKind(StrEnum):
    """What becomes of a delivery after a try."""

    DELIVERED = "delivered"
    LATER = "retry_later"
    REFUSED = "refused"  # no further try can mend it
    OURS = "ours"  # the fault is ours: no try is charged, and the endpoint is not blamed
    UNSENT = "unsent"  # it was claimed and not tried


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """What one try met.

    `rest`: seconds for which the whole endpoint is left alone; `disable`: why nothing more is sent
    to it.
    """

    kind: ResultKind
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
        """One line of the delivery log.

        JSON with at, outcome, seconds (and status, address, answer where there are any).
        """
        outcome = printable(self.outcome, ANSWER_KEPT)  # what is not might break the line
        said = {"at": round(self.sent_at, 3), "outcome": outcome, "seconds": round(self.seconds, 3)}
        said |= {
            name: value
            for name in ("status", "address", "answer")
            if (value := getattr(self, name))
        }
        return json.dumps(said, ensure_ascii=False)


def log_with(log: str, result: AttemptResult) -> str:
    """The delivery log of a delivery after one more try; of many, the last are kept."""
    return "\n".join([*log.splitlines(), result.entry()][-ATTEMPTS_KEPT:])


def delivered_before(log: str) -> bool:
    """True if a try in the delivery log was answered 2xx: what is tried now is a replay."""
    for line in log.splitlines():
        try:
            if 200 <= json.loads(line).get("status", 0) < 300:
                return True
        except (AttributeError, TypeError, ValueError, RecursionError):
            continue
    return False


def classified(status: int, headers: Mapping[str, str]) -> AttemptResult:
    """Read an answer."""
    outcome, wish = f"HTTP {status}", headers.get("webhook-delivery", "").strip().lower()
    delivered = 200 <= status < 300
    disable = (
        "410 Gone" if status == 410 else "webhook-delivery: disable" if wish == "disable" else ""
    )
    if delivered:
        return AttemptResult(ResultKind.DELIVERED, outcome, status, disable=disable)
    if wish == "abort-message":
        return AttemptResult(
            ResultKind.REFUSED,
            f"{outcome}; the receiver aborts the message",
            status,
            disable=disable,
        )
    asked = retry_after(headers)
    rest = None
    if status in _OVERLOADED or (status == 503 and asked):
        rest = min(max(asked or 0.0, circuit.REST), WEBHOOK_WINDOW)
    kind = ResultKind.OURS if disable else ResultKind.LATER
    return AttemptResult(kind, outcome, status, retry_after=asked, rest=rest, disable=disable)


def excerpt(answer: bytes) -> str:
    """The first of an answer as text for people."""
    return printable(answer[: 4 * ANSWER_KEPT].decode(errors="replace"), ANSWER_KEPT)
