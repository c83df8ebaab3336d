"""The switchboard: the named Celery tasks, and how one leads to the next.

    beat ─► dispatch ─► retrieve ─► deliver        submit ◄─ producers
      ├───► expire ───────────────────┤
      └───► reconcile run ────────────────────┘

No task does work of its own. A message that is lost costs time only: leases run out, and beat asks
again.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from celery.exceptions import OperationalError, Reject

from cavendish.errors import SettingsError, StoreUnavailable, SubmissionError
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.task_names import DELIVER, DISPATCH, EXPIRE, RECONCILE, RETRIEVE, SUBMIT
from cavendish_worker.celeryapp import heartbeat, shutdown, submit_message
from cavendish_worker.celeryapp.app import build
from cavendish_worker.polling.dispatch import drain
from cavendish_worker.polling.expire import expire_lane
from cavendish_worker.runtime import get_runtime
from cavendish_worker.telemetry.metrics import serving
from cavendish_worker.webhooks.reconcile import reconcile as reconcile_all

try:
    app = build(Settings.load())
except SettingsError as error:  # Celery would print a traceback of its loader around it
    sys.stderr.write(f"{error}\n")
    sys.exit(2)
heartbeat.attach()
serving.attach()

#: What ends a Celery task without being its fault: the store or the broker is away. Beat asks
#: again.
AWAY = (StoreUnavailable, OperationalError)


@app.task(name=SUBMIT, throws=(SubmissionError,))
def submit(ids: Any = None, *more: Any, **options: Any) -> str:
    """The producers' door for those who install nothing of ours."""
    if more:
        raise SubmissionError("cavendish.submit takes one list of ids; all else goes by keyword.")
    try:
        return submit_message.take_in(
            get_runtime().client, ids, options, submit.request.get("traceparent")
        )
    except StoreUnavailable as away:
        time.sleep(
            1
        )  # not lost, and not a busy loop: back into the queue until the store is there again
        raise Reject(str(away), requeue=True) from None


@app.task(name=DISPATCH, throws=AWAY, send_events=False)
def dispatch() -> str:
    """Beat's tick.

    Send what is worth a poll, at the rate limit of its account. Flower is spared it: four a second,
    mostly in vain.
    """
    runtime = get_runtime()
    return str(
        drain(runtime.dispatching, runtime.upstream.accounts, runtime.store.clock(), send_retrieve)
        or "another has this tick"
    )


@app.task(name=RETRIEVE, throws=AWAY)
def retrieve(lane: str, ids: list[str], token: str, until: float) -> str:
    """Ask about one claimed batch, and write back what came of it."""
    runtime = get_runtime()
    retrieval = runtime.retrieval(runtime.store.clock(), Lane.parse(lane), token)
    with runtime.retrieve_limit.taken() as seated:
        done = retrieval.run(ids, until) if seated else retrieval.give_back(ids)
    if done.deliveries:
        send_deliver()
    return str(done)


@app.task(name=DELIVER, throws=AWAY)
def deliver() -> str:
    """Go on a round and pay what is pending, fresh or due again.

    One that is under way only polls again.
    """
    if get_runtime().upstream.stopping.is_set():
        send_deliver()
        return "left to another worker: this one ends"
    return str(
        get_runtime().delivery_worker.deliver(send_deliver) or "left to the round that is under way"
    )


@app.task(name=RECONCILE, throws=AWAY)
def reconcile() -> str:
    """The net under every webhook: owe again what lies in no queue."""
    settings = get_runtime().settings
    reconciled = reconcile_all(
        get_runtime().store, settings.operations_webhook, settings.dead_retention
    )
    if reconciled.restored:
        send_deliver()
    return str(reconciled)


@app.task(name=EXPIRE, throws=AWAY)
def expire() -> str:
    """The net under every deadline."""
    runtime, ended = get_runtime(), 0
    clock = runtime.store.clock()
    for lane in runtime.store.tasks.lanes():
        expired, deliveries = expire_lane(runtime.store, lane, clock, runtime.expiring)
        if deliveries:
            send_deliver()
        ended += expired
    return f"{ended} expired" if ended else "nothing overdue"


def send_retrieve(lane: Lane, ids: list[str], token: str, until: float) -> None:
    """One message per batch.

    It is worthless from `until` on, when the leases of its ids have run out.
    """
    retrieve.apply_async((str(lane), ids, token, until), **_shown(lane, ids))


def send_deliver() -> None:
    """Something is pending. A message says no more than that: what it is lies in the store."""
    deliver.apply_async()


def wind_up() -> None:
    """This worker is to end.

    It takes nothing new, gives back what waits, and another goes on with the deliveries.
    """
    runtime = get_runtime()
    runtime.upstream.stopping.set()
    runtime.dispatching.stopping.set()
    within = shutdown.time_for_calls(runtime.settings.shutdown_timeout)
    runtime.delivery_worker.stop(within)
    runtime.loop.run(runtime.upstream.leave(within), timeout=1)
    send_deliver()


def _shown(lane: Lane, ids: list[str]) -> dict[str, Any]:
    """What Flower shows of a batch instead of its long lists."""
    return {
        "argsrepr": f"{lane}, {len(ids)} ids",
        "kwargsrepr": f"first {ids[0]}" if len(ids[0]) < 20 else f"first {ids[0][:18]}…",
    }


shutdown.attach(app, wind_up)
