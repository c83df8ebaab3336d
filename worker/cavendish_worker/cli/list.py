"""list: the tracked ids that match a filter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import click

from cavendish.model import State, TrackedTask
from cavendish.webhook_endpoint import endpoint_of
from cavendish_worker.cli.connect import find_endpoint, open_store
from cavendish_worker.cli.options import (
    account_option,
    endpoint_option,
    json_option,
    limit_option,
    service_option,
    since_option,
)
from cavendish_worker.cli.output import moment, print_json
from cavendish_worker.cli.search import MOST, Filter, Search
from cavendish_worker.cli.tables import table
from cavendish_worker.cli.times import time_of

_STATES = [state.value for state in State]
_COLUMNS = ("id", "state", "lane", "submitted", "ended", "polls", "model, producer", "reason")


@click.command("list", short_help="List ids by state, time, producer or endpoint.")
@service_option(help="Only ids of this service of the remote API.")
@account_option(help="Only ids of this account of the remote API.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(_STATES),
    help="Only ids in this state; may be repeated.",
)
@click.option("--producer", metavar="NAME", help="Only ids of this producer.")
@click.option("--model", metavar="NAME", help="Only ids of this model.")
@endpoint_option(help="Only ids with a webhook to this endpoint.")
@since_option()
@click.option("--until", metavar="TIME", help="Only items older than this; written as --since.")
@limit_option(default=50, type=click.IntRange(1, MOST))
@json_option
def command(limit: int, as_json: bool, **options: Any) -> None:
    """List tracked ids: the pending ones, then the ended ones.

    The pending id that is polled next, and the id that ended last, come first. --since and --until
    compare with the time of the end, or of the submit while an id is pending. Ids that ended
    without a webhook are listed as long as the stream of events holds them (CAVENDISH_EVENTS_KEPT
    per lane); `show` finds them until CAVENDISH_RETENTION is over. The next page of ended ids:
    --until with the end of the last one.

    \b
    cavendish list
    cavendish list --service nano-banana --state failed --since 2h
    cavendish list --endpoint shop --limit 500 --json
    """
    store, _ = open_store()
    now, service, account = store.fleet.now(), options["service"], options["account"]
    lanes = [
        lane
        for lane in store.tasks.lanes()
        if service in (None, lane.service) and account in (None, lane.account)
    ]
    search = Search(store, _filter(now, **options))
    found = [*islice(search.all(lanes), limit + 1)]
    if options["endpoint"] is not None and not found:
        find_endpoint(store, options["endpoint"])  # raises if it is not known at all
    if as_json:
        print_json([task.to_json() for task in found[:limit]])
    else:
        _print(found[:limit], now)
    if len(found) > limit:
        click.echo(f"There are more than {limit}: raise --limit, or narrow the search.", err=True)
    elif search.read >= MOST:
        advice = "narrow the search, for example by --service or --since"
        click.echo(f"Stopped after {MOST:,} records: {advice}.", err=True)


def _filter(now: float, **options: Any) -> Filter:
    endpoint, since, until = options["endpoint"], options["since"], options["until"]
    return Filter(
        frozenset(options["states"] or _STATES),
        options["producer"],
        options["model"],
        None if endpoint is None else endpoint_of(endpoint),
        float("-inf") if since is None else time_of(since, now),
        float("inf") if until is None else time_of(until, now, "--until"),
    )


def _print(tasks: Sequence[TrackedTask], now: float) -> None:
    rows = [
        (
            task.id,
            task.state,
            f"{task.account}/{task.service}",
            moment(task.submitted_at),
            moment(task.settled_at) or f"{now - task.submitted_at:.0f} s so far",
            task.polls,
            " ".join(filter(None, (task.model, task.producer))),
            task.reason,
        )
        for task in tasks
    ]
    spare = ("model, producer", "polls", "submitted", "lane", "reason", "ended")
    if rows:
        table(_COLUMNS, rows, cut="reason", spare=spare)
    else:
        click.echo("no such ids")
