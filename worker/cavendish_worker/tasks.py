"""The switchboard: the named Celery tasks, and how one leads to the next.

    beat ─► dispatch ─► retrieve ─► deliver        submit ◄─ producers
      ├───► expire ───────────────────┤
      └───► reconcile ────────────────┘

No task does work of its own. A lost message costs only time: leases run out, and beat sends again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from celery.exceptions import OperationalError, Reject

from cavendish.errors import SettingsError, StoreUnavailable, SubmissionError
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.task_names import DELIVER, DISPATCH, EXPIRE, RECONCILE, RETRIEVE, SUBMIT
from cavendish_worker.celeryapp import heartbeat, shutdown, submit_message, worker_metrics
from cavendish_worker.celeryapp.app import build
from cavendish_worker.celeryapp.publishing import publish_together
from cavendish_worker.celeryapp.refused_submits import Sender
from cavendish_worker.console import flower
from cavendish_worker.polling.dispatch_round import Claimed
from cavendish_worker.polling.expire import expire_all
from cavendish_worker.runtime import Runtime, get_runtime
from cavendish_worker.webhooks.reconcile import reconcile as reconcile_all

try:
    settings = Settings.load()
    app = build(settings)
except SettingsError as error:  # Celery would print a traceback of its loader around it
    sys.stderr.write(f"{error}\n")
    sys.exit(2)
flower.set_up(settings)
heartbeat.attach()
worker_metrics.attach()

#: Errors that are no fault of the task: the store or the broker is away. Beat sends again.
AWAY = (StoreUnavailable, OperationalError)
#: Seconds for which the many tasks of a worker share one reading of the clock of Redis.
CLOCK_FOR = 1.0


@app.task(name=SUBMIT, throws=(SubmissionError,))
def submit(ids: Any = None, *more: Any, **options: Any) -> str:
    """Submit ids for a producer that has only Celery."""
    request = submit.request
    try:
        runtime = get_runtime()
        sender = Sender(runtime.store, str(request.get("origin") or ""), str(request.id or ""))
        if more:
            why = "cavendish.submit takes one list of ids; all else goes by keyword."
            error = SubmissionError(why, "ids")
            raise submit_message.refused([ids, *more], options, error, sender.keep)
        header = request.get("traceparent")
        return submit_message.take_in(runtime.client, ids, options, header, sender.keep)
    except StoreUnavailable as away:
        time.sleep(1)  # the message goes back into its queue, and must not loop at full speed
        raise Reject(str(away), requeue=True) from None


@app.task(name=DISPATCH, throws=AWAY, send_events=False)
def dispatch(part: list[str] | None = None) -> str:
    """Send the batches that are worth a poll, within the rate limit of their account.

    `part`: the accounts that another worker left to this one; without it, a tick of beat. Flower
    does not show it: there are four a second, and most find nothing due.
    """
    runtime = begun(DISPATCH) if part is None else get_runtime()
    accounts, clock = runtime.upstream.accounts, runtime.store.clock(CLOCK_FOR)
    runtime.rounds.backlog.count = retrieves_waiting
    if part is None:
        dispatched = runtime.dispatcher.dispatch(accounts, clock, send_retrieves, send_dispatch)
    else:
        mine = frozenset(accounts) & frozenset(part)
        dispatched = runtime.dispatcher.dispatch(mine, clock, send_retrieves)
    return str(dispatched or "skipped: tick already taken")


@app.task(name=RETRIEVE, throws=AWAY)
def retrieve(lane: str, ids: list[str], token: str, until: float) -> str:
    """Ask the API about one claimed batch, and write back what it answers."""
    runtime = get_runtime()
    batch = (runtime.store.clock(CLOCK_FOR), Lane.parse(lane), ids, token)
    with runtime.retrieve_limit.acquired() as free:
        retriever = runtime.retriever
        done = retriever.retrieve(*batch, until) if free else retriever.give_back(*batch)
    if done.deliveries and not runtime.delivery_worker.poke(batch[1]):
        send_deliver()
    return str(done)


@app.task(name=DELIVER, throws=AWAY)
def deliver() -> str:
    """Deliver the pending webhooks. A delivery loop that already runs looks for new ones."""
    runtime = begun(DELIVER)
    if runtime.upstream.stopping.is_set():
        send_deliver()
        return "skipped: this worker shuts down, another one delivers"
    delivered = runtime.delivery_worker.deliver(send_deliver)
    return str(delivered or "skipped: delivery loop already running")


@app.task(name=RECONCILE, throws=AWAY)
def reconcile() -> str:
    """The net under every webhook: make a delivery pending again that is in no queue."""
    runtime = begun(RECONCILE)
    s = runtime.settings
    reconciled = reconcile_all(runtime.store, s.operations_webhook, s.dead_retention, s.retention)
    if reconciled.restored:
        send_deliver()
    return str(reconciled)


@app.task(name=EXPIRE, throws=AWAY)
def expire() -> str:
    """The net under every deadline: end ids that could not be polled in time."""
    runtime = begun(EXPIRE)
    clock = runtime.store.clock()
    ended = expire_all(runtime.store, clock, runtime.expiry_config, send_deliver)
    return f"{ended} expired" if ended else "nothing overdue"


def begun(task: str) -> Runtime:
    """The runtime for a message of beat, which may send the next one from now on."""
    runtime = get_runtime()
    runtime.store.fleet.taken(task)
    return runtime


def send_retrieves(batches: Sequence[Claimed]) -> None:
    """Send a message for each batch; it is worthless once the leases of the batch run out.

    Raises OperationalError; some may have left then.
    """

    def send(producer: Any) -> None:
        for batch in batches:
            send_retrieve(batch, producer)

    publish_together(app, send)


def send_retrieve(batch: Claimed, producer: Any) -> None:
    """Publish the message for one batch."""
    lane, ids, token, until = batch
    first = ids[0] if len(ids[0]) < 20 else f"{ids[0][:18]}…"
    # What Flower shows instead of the long list:
    shown: dict[str, Any] = {"argsrepr": f"{lane}, {len(ids)} ids", "kwargsrepr": f"first {first}"}
    words = (str(lane), ids, token, until)
    retrieve.apply_async(words, producer=producer, retry=False, **shown)


def retrieves_waiting() -> int:
    """Messages of batches that no worker has taken yet. Raises OperationalError."""
    pool: Any = app.pool
    with pool.acquire(block=True) as connection:
        try:
            declared = connection.default_channel.queue_declare(RETRIEVE, passive=True)
            return int(declared.message_count)
        except connection.channel_errors:  # Kombu has no queue in Redis while nothing is in it
            return 0


def send_dispatch(accounts: list[str]) -> None:
    """Let another worker dispatch these accounts."""
    dispatch.apply_async((accounts,))


def send_deliver() -> None:
    """Tell a worker that deliveries are pending. The message holds no more: the store has them."""
    deliver.apply_async()


def shut_down() -> None:
    """Begin nothing new, give back what waits, and let another worker deliver."""
    runtime = get_runtime()
    runtime.upstream.stopping.set()
    runtime.dispatcher.stopping.set()
    within = shutdown.time_for_calls(runtime.settings.shutdown_timeout)
    runtime.delivery_worker.stop(within)
    runtime.loop.run(runtime.upstream.shut_down(within), timeout=1)
    send_deliver()


shutdown.attach(app, shut_down)
