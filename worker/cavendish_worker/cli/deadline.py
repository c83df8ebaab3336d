"""deadline: give pending ids another deadline."""

from __future__ import annotations

from typing import Any

import click

from cavendish.undo import Undo
from cavendish_worker.cli.changing import carry_out, changing_options, chosen
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.options import by_option
from cavendish_worker.wording.times import duration


@click.command("deadline", short_help="Give pending ids another deadline.")
@changing_options
@by_option
@click.option(
    "--in",
    "length",
    required=True,
    metavar="TIME",
    help="The new deadline, from now on: 600 (seconds), 10m, 2h, 3d.",
)
def command(
    ids: tuple[str, ...],
    form: str,
    *,
    length: str,
    by: str | None,
    every: bool,
    yes: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Let pending ids expire earlier or later: those that are named, or all that match.

    Exit code 1 if an id is not tracked.

    \b
    cavendish deadline --service nano-banana --in 600 ID1 ID2
    cavendish deadline --state pending --model veo-3 --in 2h
    """
    seconds = duration(length, "s")
    if seconds is None:
        raise click.BadParameter("must be a duration such as 600, 10m or 2h.", param_hint="--in")
    store, settings = open_store()
    found = chosen(store, ids, form, options, every=every)
    changes = Undo(store, settings).set_deadline(*found, seconds, by)
    carry_out(store, found, changes, "changed", sure=yes or bool(ids), as_json=as_json)
