"""dead revive: deliver dead letters again."""

from __future__ import annotations

import sys
from typing import Any

import click

from cavendish.controller import whoever_calls
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.dead.selection import Selection, deliveries_argument, filters
from cavendish_worker.cli.options import json_option, limit_option, rate_option
from cavendish_worker.cli.output import print_json
from cavendish_worker.webhooks.reopening import MOST, reopen, spread


@click.command("revive", short_help="Deliver dead letters again.")
@deliveries_argument
@click.option("--all", "everything", is_flag=True, help="Revive all dead letters.")
@filters
@limit_option(default=MOST, type=click.IntRange(1, MOST))
@rate_option
@json_option
def command(limit: int, rate: float, as_json: bool, everything: bool, **options: Any) -> None:
    """Deliver dead letters again, each with all its attempts.

    Select them by name, by id, or by options.

    \b
    cavendish dead revive --all
    cavendish dead revive --endpoint shop --since 2d --rate 10
    """
    selection = Selection(**options)
    selection.require(everything=everything)
    store, _ = open_store()
    found = [(one.lane, one.name) for one in selection.find(store, limit + 1)]
    chosen = found[:limit]
    now, by = store.fleet.now(), whoever_calls()
    revived = reopen(store, chosen[::-1], now, rate, dead=True, by=by)
    if as_json:
        print_json(revived)
    else:
        click.echo(f"{len(revived)} revived" + spread(len(revived), rate))
    if left := len(chosen) - len(revived):
        reason = "the task record expired, or another process revived it"
        click.echo(f"{left} could not be revived: {reason}.", err=True)
    if len(found) > limit:
        click.echo(f"There are more: one run revives at most {limit}. Run it again.", err=True)
    if selection.deliveries and not revived:
        sys.exit(1)
