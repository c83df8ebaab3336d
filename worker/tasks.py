"""The switchboard: the named Celery tasks, and how one leads to the next.

    beat ─► dispatch ─► retrieve ─► deliver        submit ◄─ producers
      ├───► expire ───────────────────┤
      └───► sweep ────────────────────┘

No task does work of its own. A message that is lost costs time only: leases run out, and beat asks again.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from celery.exceptions import OperationalError, Reject

from scheduler.beat import DELIVER, DISPATCH, EXPIRE, RETRIEVE, SUBMIT, SWEEP
from scheduler.errors import BookUnavailable, SettingsError, SubmissionError
from scheduler.settings import Settings
from scheduler.tracking import Lane
from worker import closing, heartbeat, intake
from worker.app import build
from worker.dispatch import drain
from worker.expire import expire_lane
from worker.metrics import serving
from worker.webhooks.sweep import sweep as sweep_up
from worker.wiring import hands

try:
    app = build(Settings.load())
except SettingsError as error:  # Celery would print a traceback of its loader around it
    sys.stderr.write(f"{error}\n")
    sys.exit(2)
heartbeat.attach()
serving.attach()

#: What ends a Celery task without being its fault: the book or the broker is away. Beat asks again.
AWAY = (BookUnavailable, OperationalError)


@app.task(name=SUBMIT, throws=(SubmissionError,))
def submit(ids: Any = None, *more: Any, **wishes: Any) -> str:
    """The producers' door for those who install nothing of ours."""
    if more:
        raise SubmissionError("cavendish.submit takes one list of ids; all else goes by keyword.")
    try:
        return intake.take_in(hands().client, ids, wishes, submit.request.get("traceparent"))
    except BookUnavailable as away:
        time.sleep(1)  # not lost, and not a busy loop: back into the queue until the book is there again
        raise Reject(str(away), requeue=True) from None


@app.task(name=DISPATCH, throws=AWAY, send_events=False)
def dispatch() -> str:
    """Beat's tick: send what is worth a look, at the pace of its account. Flower is spared it: four a second, mostly in vain."""
    hand = hands()
    return str(drain(hand.dispatching, hand.upstream.accounts, hand.book.clock(), send_retrieve) or "another has this tick")


@app.task(name=RETRIEVE, throws=AWAY)
def retrieve(lane: str, ids: list[str], token: str, until: float) -> str:
    """Ask about one claimed batch, and write back what came of it."""
    hand = hands()
    retrieval = hand.retrieval(hand.book.clock(), Lane.parse(lane), token)
    with hand.seats_to_ask.taken() as seated:
        done = retrieval.run(ids, until) if seated else retrieval.give_back(ids)
    if done.debts:
        send_deliver()
    return str(done)


@app.task(name=DELIVER, throws=AWAY)
def deliver() -> str:
    """Go on a round and pay what is owed, fresh or due again; one that is under way only looks again."""
    if hands().upstream.stopping.is_set():
        send_deliver()
        return "left to another worker: this one ends"
    return str(hands().courier.deliver(send_deliver) or "left to the round that is under way")


@app.task(name=SWEEP, throws=AWAY)
def sweep() -> str:
    """The net under every webhook: owe again what lies in no queue."""
    settings = hands().settings
    swept = sweep_up(hands().book, settings.operations_webhook, settings.dead_retention)
    if swept.reowed:
        send_deliver()
    return str(swept)


@app.task(name=EXPIRE, throws=AWAY)
def expire() -> str:
    """The net under every deadline."""
    hand, ended = hands(), 0
    clock = hand.book.clock()
    for lane in hand.book.tasks.lanes():
        expired, debts = expire_lane(hand.book, lane, clock, hand.expiring)
        if debts:
            send_deliver()
        ended += expired
    return f"{ended} expired" if ended else "nothing overdue"


def send_retrieve(lane: Lane, ids: list[str], token: str, until: float) -> None:
    """One message per batch. It is worthless from `until` on, when the leases of its ids have run out."""
    retrieve.apply_async((str(lane), ids, token, until), **_shown(lane, ids))


def send_deliver() -> None:
    """Something is owed. A message says no more than that: what it is lies in the book."""
    deliver.apply_async()


def wind_up() -> None:
    """This worker is to end: it takes nothing new, gives back what waits, and another goes on with the deliveries."""
    hand = hands()
    hand.upstream.stopping.set()
    hand.dispatching.stopping.set()
    within = closing.time_for_calls(hand.settings.shutdown_timeout)
    hand.courier.stop(within)
    hand.loop.run(hand.upstream.leave(within), timeout=1)
    send_deliver()


def _shown(lane: Lane, ids: list[str]) -> dict[str, Any]:
    """What Flower shows of a batch instead of its long lists."""
    return {
        "argsrepr": f"{lane}, {len(ids)} ids",
        "kwargsrepr": f"first {ids[0]}" if len(ids[0]) < 20 else f"first {ids[0][:18]}…",
    }


closing.attach(app, wind_up)
