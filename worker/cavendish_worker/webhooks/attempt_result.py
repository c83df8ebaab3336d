"""Pure: what a receiver's answer means for the delivery, and for its endpoint.

2xx means delivered. 410 and `webhook-delivery: disable` disable the endpoint; its deliveries wait
until it is enabled again. `webhook-delivery: abort-message` buries this one delivery. After any
other answer the delivery is retried, not before `Retry-After`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cavendish.model import LoggedAttempt, printable
from cavendish.policy import circuit
from cavendish.policy.backoff import WEBHOOK_WINDOW
from cavendish.stored_json import read_lines
from cavendish_worker.polling.upstream_errors import retry_after

#: Characters of an answer that are kept with each attempt, and attempts that are kept: 16 KiB in
#: all.
ANSWER_KEPT, ATTEMPTS_KEPT = 1024, 16
_OVERLOADED = frozenset({429, 502, 504})


class ResultKind(StrEnum):
    """What becomes of a delivery after an attempt."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REJECTED = "rejected"  # no further attempt can succeed: it goes to the dead letters
    OUR_FAULT = "our_fault"  # the attempt does not count, and the endpoint is not blamed
    NOT_SENT = "not_sent"  # it was claimed, but no call was made
    SKIPPED = "skipped"  # the endpoint does not choose this kind of webhook: closed without a call


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """What came of one attempt.

    `rest`: seconds for which nothing is sent to the endpoint; `disable`: why it is to be disabled;
    `sent_at`: seconds since the epoch; `seconds`: length of the call; `address`: the address that
    was dialled.
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
        outcome = printable(self.outcome, ANSWER_KEPT)  # other characters might break the line
        line = {"at": round(self.sent_at, 3), "outcome": outcome, "seconds": round(self.seconds, 3)}
        rest = {"status": self.status, "address": self.address, "answer": self.answer}
        line |= {name: value for name, value in rest.items() if value}
        return json.dumps(line, ensure_ascii=False)


def log_with(log: str, result: AttemptResult) -> str:
    """The delivery log after one more attempt; the last ATTEMPTS_KEPT lines are kept."""
    return "\n".join([*log.splitlines(), result.entry()][-ATTEMPTS_KEPT:])


def delivered_before(log: str) -> bool:
    """True if an attempt in the delivery log was answered 2xx: the attempt of now is a replay."""
    return any(200 <= (one.status or 0) < 300 for one in read_lines(LoggedAttempt, log))


def classified(status: int, headers: Mapping[str, str]) -> AttemptResult:
    """Read the answer of a receiver."""
    outcome, wish = f"HTTP {status}", headers.get("webhook-delivery", "").strip().lower()
    disable = "webhook-delivery: disable" if wish == "disable" else ""
    if status == 410:
        disable = "410 Gone"
    if 200 <= status < 300:
        return AttemptResult(ResultKind.DELIVERED, outcome, status, disable=disable)
    if wish == "abort-message":
        outcome += "; the receiver aborts the message"
        return AttemptResult(ResultKind.REJECTED, outcome, status, disable=disable)
    asked = retry_after(headers)
    rest = None
    if status in _OVERLOADED or (status == 503 and asked):
        rest = min(max(asked or 0.0, circuit.REST), WEBHOOK_WINDOW)
    kind = ResultKind.OUR_FAULT if disable else ResultKind.RETRY
    return AttemptResult(kind, outcome, status, retry_after=asked, rest=rest, disable=disable)


def excerpt(answer: bytes) -> str:
    """The beginning of an answer, as printable text."""
    return printable(answer[: 4 * ANSWER_KEPT].decode(errors="replace"), ANSWER_KEPT)
