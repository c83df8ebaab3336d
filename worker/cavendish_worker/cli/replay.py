"""replay: send again what a receiver took and lost."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import click

from cavendish.model import OPERATIONS, Lane
from cavendish.store import Store
from cavendish.store.deliveries import PAGE
from cavendish.store.keys import delivery_of
from cavendish.webhook_endpoint import endpoint_in
from cavendish_worker.cli.arguments import (
    endpoint_names,
    meant,
    opened,
    rate_option,
    time_of,
)
from cavendish_worker.cli.output import as_json, print_json
from cavendish_worker.cli.reopening import CHUNK, MOST, over, reopen

#: When an id ended, its lane, and the delivery.
Ended = tuple[float, Lane, str]


@click.command(short_help="Announce again what a receiver took and lost.")
@click.option(
    "--endpoint",
    "which",
    required=True,
    metavar="NAME|URL|HASH",
    shell_complete=endpoint_names,
    help="Whose webhooks to send again.",
)
@click.option(
    "--since",
    required=True,
    metavar="TIME",
    help="Of ids that ended so long back (2h, 3d), or since a time.",
)
@rate_option
@click.option(
    "--limit",
    default=MOST,
    type=click.IntRange(1, MOST),
    show_default=True,
    metavar="N",
    help="About how many.",
)
@as_json
def replay(which: str, since: str, rate: float, limit: int, as_json: bool) -> None:
    """Announce again what a receiver took and lost, under the same webhook-ids, the oldest first.

    It goes as far back as ended ids are kept (CAVENDISH_RETENTION). What ended within one second is
    never cut by --limit.

    \b
    cavendish replay --endpoint shop --since 3h
    """
    store, _ = opened()
    endpoint, now = meant(store, which), store.fleet.now()
    start = time_of(since, now)
    lanes = [*store.tasks.lanes(), OPERATIONS]
    ended = heapq.merge(*(_ended(store, lane, start, endpoint) for lane in lanes))
    replayed, cut = _replay(store, ended, now, rate, limit)
    go_on = (
        None if cut is None else datetime.fromtimestamp(cut, UTC).isoformat().replace("+00:00", "Z")
    )
    if as_json:
        print_json({"endpoint": endpoint, "replayed": replayed, "since": go_on})
    else:
        click.echo(f"{replayed} are announced again" + over(replayed, rate))
    if go_on:
        click.echo(f"There are more: go on with --since {go_on}", err=True)


def _replay(
    store: Store, ended: Iterable[Ended], now: float, rate: float, limit: int
) -> tuple[int, int | None]:
    """Returns how many were reopened, and the second in which the limit cut the rest off."""
    done, second, batch = 0, None, list[tuple[Lane, str]]()
    for at, lane, name in ended:
        fresh = int(at) != second
        if len(batch) >= CHUNK or (fresh and done + len(batch) >= limit):
            done += len(reopen(store, batch, now + done / rate, rate, dead=False))
            batch = []
        if fresh and done >= limit:
            return done, int(at)
        second = int(at)
        batch.append((lane, name))
    return done + len(reopen(store, batch, now + done / rate, rate, dead=False)), None


def _ended(store: Store, lane: Lane, since: float, endpoint: str) -> Iterator[Ended]:
    """What an endpoint was pending for the ids of a lane that ended since then, in that order.

    The next page begins at the time of the last, behind those of that very time: the reconcile run
    may remove some meanwhile.
    """
    at, there = since, 0
    while page := store.deliveries.ended_since(lane, at, there, PAGE):
        for task_id, ended, webhooks in page:
            at, there = ended, (there if ended == at else 0) + 1
            for subscription in webhooks.split():
                if endpoint_in(subscription) == endpoint:
                    yield ended, lane, delivery_of(subscription, task_id)


COMMANDS = (replay,)
