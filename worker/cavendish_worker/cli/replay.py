"""replay: deliver again what a receiver acknowledged and lost."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import click

from cavendish.endpoint_view import find_endpoint
from cavendish.model import OPERATIONS, Lane
from cavendish.store import Store
from cavendish.store.deliveries import PAGE
from cavendish.store.keys import delivery_of
from cavendish.webhook_endpoint import endpoint_in
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.options import (
    endpoint_option,
    json_option,
    limit_option,
    rate_option,
    since_option,
)
from cavendish_worker.cli.output import print_json
from cavendish_worker.cli.reopening import CHUNK, MOST, reopen, spread
from cavendish_worker.cli.times import time_of

#: When an id ended, its lane, and the name of the delivery.
Ended = tuple[float, Lane, str]


@click.command("replay", short_help="Send delivered webhooks of an endpoint again.")
@endpoint_option(required=True, help="The endpoint whose webhooks are sent again.")
@since_option(
    required=True,
    help="Only webhooks of ids that ended after this: a duration (90s, 2h, 3d) or a time.",
)
@rate_option
@limit_option(
    default=MOST,
    type=click.IntRange(1, MOST),
    help="Maximum number of webhooks; those of one second are never divided.",
)
@json_option
def command(endpoint: str, since: str, rate: float, limit: int, as_json: bool) -> None:
    """Send delivered webhooks of an endpoint again, the oldest first.

    They keep their webhook-ids. It reaches back as far as ended ids are kept (CAVENDISH_RETENTION).

    \b
    cavendish replay --endpoint shop --since 3h
    """
    store, _ = open_store()
    found, now = find_endpoint(store, endpoint), store.fleet.now()
    start, lanes = time_of(since, now), [*store.tasks.listed_lanes(), OPERATIONS]
    ended = heapq.merge(*(_ended(store, lane, start, found) for lane in lanes))
    replayed, cut = _replay(store, ended, now, rate, limit)
    go_on = None if cut is None else f"{datetime.fromtimestamp(cut, UTC):%Y-%m-%dT%H:%M:%SZ}"
    if as_json:
        print_json({"endpoint": found, "replayed": replayed, "since": go_on})
    else:
        click.echo(f"{replayed} are sent again" + spread(replayed, rate))
    if go_on:
        click.echo(f"There are more: go on with --since {go_on}", err=True)


def _replay(
    store: Store, ended: Iterable[Ended], now: float, rate: float, limit: int
) -> tuple[int, int | None]:
    """Returns how many were reopened, and the second at which the limit cut off the rest."""
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
    """The deliveries to an endpoint for the ids of a lane that ended since then, in that order.

    The next page begins at the time of the last id, after those of that very time: the reconcile
    run may remove some meanwhile.
    """
    at, there = since, 0
    while page := store.closed.ended_since(lane, at, there, PAGE):
        for task_id, ended, webhooks in page:
            at, there = ended, (there if ended == at else 0) + 1
            for subscription in webhooks.split():
                if endpoint_in(subscription) == endpoint:
                    yield ended, lane, delivery_of(subscription, task_id)
