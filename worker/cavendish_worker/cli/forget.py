"""forget: erase all that is kept of ids."""

from __future__ import annotations

from typing import Any

import click

from cavendish.undo import Undo
from cavendish_worker.cli.changing import carry_out, changing_options, chosen
from cavendish_worker.cli.connect import open_store


@click.command("forget", short_help="Erase all data of ids.")
@changing_options
def command(
    ids: tuple[str, ...],
    form: str,
    *,
    every: bool,
    yes: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Erase ids for good: those that are named, or all that match the options.

    Records, results, metadata, deliveries and their logs, dead letters and events are deleted at
    once; the append-only file of Redis loses them at its next rewrite. Pending ids are cancelled
    first, without a webhook. Totals and learned durations stay. Exit code 1 if an id is not
    tracked.

    \b
    cavendish forget --service nano-banana --yes ID1 ID2
    cavendish forget --producer shop-7 --yes
    """
    store, settings = open_store()
    found = chosen(store, ids, form, options, every=every, pending=False)
    changes = Undo(store, settings).forget(*found)
    carry_out(store, found, changes, "forgotten", sure=yes, as_json=as_json)
