"""cancel: end pending ids as cancelled; they are polled no more."""

from __future__ import annotations

from typing import Any

import click

from cavendish.undo import Undo
from cavendish_worker.cli.changing import carry_out, changing_options, chosen
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.options import by_option


@click.command("cancel", short_help="Cancel pending ids, and stop polling them.")
@changing_options
@click.option("--silent", is_flag=True, help="Send no webhooks; groups still count the ids.")
@click.option(
    "--reason", default="", metavar="TEXT", help="The reason; each task and webhook has it."
)
@by_option
def command(
    ids: tuple[str, ...],
    form: str,
    *,
    silent: bool,
    reason: str,
    by: str | None,
    every: bool,
    yes: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """End pending ids as cancelled: those that are named, or all that match the options.

    They are no longer polled, and the answer to a call under way is dropped. Their webhooks are
    sent as `task.cancelled`. Ended ids stay as they are. Exit code 1 if an id is not tracked.

    \b
    cavendish cancel --service nano-banana ID1 ID2
    cavendish cancel --producer careless --since 1h --reason "wrong model"
    """
    store, settings = open_store()
    found = chosen(store, ids, form, options, every=every)
    changes = Undo(store, settings).cancel(*found, silent=silent, reason=reason, by=by)
    carry_out(store, found, changes, "cancelled", sure=yes or bool(ids), as_json=as_json)
