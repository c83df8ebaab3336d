"""dead drop: forget dead letters for good."""

from __future__ import annotations

import sys
from typing import Any

import click

from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.dead.selection import Selection, deliveries_argument, filters
from cavendish_worker.cli.options import confirm, json_option, limit_option, yes_option
from cavendish_worker.cli.output import print_json
from cavendish_worker.webhooks.reopening import chunks


@click.command("drop", short_help="Forget dead letters for good.")
@deliveries_argument
@click.option("--all", "everything", is_flag=True, help="Drop all dead letters.")
@filters
@limit_option(type=click.IntRange(min=1))
@yes_option
@json_option
def command(limit: int | None, yes: bool, as_json: bool, everything: bool, **options: Any) -> None:
    """Forget dead letters for good.

    `submit --restart` may then track their ids again.

    \b
    cavendish dead drop 1c4dd0f1-6b0e-4b6f-9f36-0a9e1f3c7a10
    cavendish dead drop --endpoint shop --yes
    """
    selection = Selection(**options)
    selection.require(everything=everything)
    store, _ = open_store()
    chosen = [(one.lane, one.name) for one in selection.find(store, limit)]
    if chosen:
        confirm(f"Forget {len(chosen)} dead letters for good?", yes=yes)
    dropped = sum(len(store.closed.drop(lane, names)) for lane, names in chunks(chosen))
    if as_json:
        print_json({"dropped": dropped})
    else:
        click.echo(f"{dropped} dropped")
    if selection.deliveries and not dropped:
        sys.exit(1)
