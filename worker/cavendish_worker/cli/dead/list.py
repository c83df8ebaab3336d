"""dead list: the dead letters."""

from __future__ import annotations

from typing import Any

import click

from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.dead.selection import Selection, filters
from cavendish_worker.cli.options import json_option, limit_option
from cavendish_worker.cli.output import print_json
from cavendish_worker.cli.tables import table
from cavendish_worker.webhooks.dead_letters import fields
from cavendish_worker.wording.times import moment


@click.command("list", short_help="List the dead letters.")
@filters
@limit_option(type=click.IntRange(min=1))
@json_option
def command(limit: int | None, as_json: bool, **options: Any) -> None:
    """List the dead letters, the newest first.

    \b
    cavendish dead list
    cavendish dead list --endpoint shop --since 3d --reason "HTTP 5"
    """
    store, _ = open_store()
    found = Selection(**options).find(store, limit)
    if as_json:
        print_json([fields(one) for one in found])
        return
    rows = [
        (
            one.name,
            one.lane,
            moment(one.at),
            one.attempts,
            one.url or one.endpoint,  # a registered endpoint is known by its name
            one.outcome,
        )
        for one in found
    ]
    if rows:
        columns = ("delivery", "lane", "died", "attempts", "endpoint", "reason")
        table(columns, rows, cut="reason", spare=("lane", "attempts", "died", "endpoint", "reason"))
    else:
        click.echo("no dead letters")
