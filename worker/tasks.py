"""The switchboard: the named Celery tasks, and how one leads to the next.

    beat ─► dispatch ─► retrieve ─► deliver        submit ◄─ producers
      └───► expire ───────────────────┘ └◄─ beat (the sweep)

No task does work of its own. A message that is lost costs time only: leases run out, and beat asks again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from celery.exceptions import OperationalError, Reject

from scheduler.beat import DELIVER, DISPATCH, EXPIRE, RETRIEVE, SUBMIT
from scheduler.errors import BookUnavailable, SettingsError, SubmissionError
from scheduler.settings import Settings
from scheduler.tracking import Lane
from worker import heartbeat, intake
from worker.app import build
from worker.deliver import AT_ONCE
from worker.dispatch import drain
from worker.expire import expire_lane
from worker.wiring import hands

try:
    app = build(Settings.load())
except SettingsError as error:  # Celery would print a traceback of its loader around it
    sys.stderr.write(f"{error}\n")
    sys.exit(2)
heartbeat.attach()

#: What ends a Celery task without being its fault: the book or the broker is away. Beat asks again.
AWAY = (BookUnavailable, OperationalError)


@app.task(name=SUBMIT, throws=(SubmissionError,))
def submit(ids: Any = None, *more: Any, **wishes: Any) -> str:
    """The producers' door for those who install nothing of ours."""
    if more:
        raise SubmissionError("cavendish.submit takes one list of ids; all else goes by keyword.")
    try:
        return intake.take_in(hands().client, ids, wishes)
    except BookUnavailable as away:
        time.sleep(1)  # not lost, and not a busy loop: back into the queue until the book is there again
        raise Reject(str(away), requeue=True) from None


@app.task(name=DISPATCH, throws=AWAY)
def dispatch() -> str:
    """Beat's tick: send what is worth a look, at the pace of its account."""
    hand = hands()
    return str(drain(hand.dispatching, hand.upstream.accounts, hand.book.clock(), send_retrieve) or "another has this tick")


@app.task(name=RETRIEVE, throws=AWAY)
def retrieve(lane: str, ids: list[str], token: str) -> str:
    """Ask about one claimed batch, and write back what came of it."""
    hand = hands()
    retrieval = hand.retrieval(hand.book.clock(), Lane.parse(lane), token)
    with hand.seats_to_ask.taken() as seated:
        done = retrieval.run(ids) if seated else retrieval.give_back(ids)
    send_deliver(Lane.parse(lane), done.debts)
    return str(done)


@app.task(name=DELIVER, throws=AWAY)
def deliver(lane: str | None = None, debts: Sequence[str] = ()) -> str:
    """Pay the debts just made, or sweep up whatever is owed."""
    hand = hands()
    with (hand.seat_to_sweep if lane is None else hand.seats_to_deliver).taken() as seated:
        if not seated:
            return "all seats are taken: left to the sweep"
        return str(hand.sweep() if lane is None else hand.delivery(hand.book.clock(), Lane.parse(lane)).run(debts))


@app.task(name=EXPIRE, throws=AWAY)
def expire() -> str:
    """The net under every deadline."""
    hand, ended = hands(), 0
    clock = hand.book.clock()
    for lane in hand.book.tasks.lanes():
        expired, debts = expire_lane(hand.book, lane, clock, hand.expiring)
        send_deliver(lane, debts)
        ended += expired
    return f"{ended} expired" if ended else "nothing overdue"


def send_retrieve(lane: Lane, ids: list[str], token: str) -> None:
    """One message per batch. It is worthless once the leases of its ids have run out."""
    args, expires = (str(lane), ids, token), hands().settings.lease
    retrieve.apply_async(args, expires=expires, **_shown(f"'{lane}', {len(ids)} ids", ids[0]))


def send_deliver(lane: Lane, debts: Sequence[str]) -> None:
    """The fast way for debts just made; the message carries their names only."""
    for start in range(0, len(debts), AT_ONCE):
        part = list(debts[start : start + AT_ONCE])
        args, expires = (str(lane), part), hands().settings.lease
        deliver.apply_async(args, expires=expires, **_shown(f"'{lane}', {len(part)} debts", part[0]))


def _shown(args: str, first: str) -> dict[str, Any]:
    """What Flower shows of a message instead of its long lists."""
    return {"argsrepr": f"({args})", "kwargsrepr": f"first={first}"}
