"""refused drop: forget refused submits and quarantined messages for good."""

from __future__ import annotations

import sys

import click

from cavendish_worker.cli.options import confirm, json_option, yes_option
from cavendish_worker.cli.output import print_json
from cavendish_worker.cli.refused.places import entries_argument, places


@click.command("drop", short_help="Forget some of them for good.")
@entries_argument
@click.option("--all", "everything", is_flag=True, help="Drop all of them.")
@yes_option
@json_option
def command(entries: tuple[str, ...], everything: bool, yes: bool, as_json: bool) -> None:
    """Forget refused submits and quarantined messages for good.

    \b
    cavendish refused drop 5b0c6d1e2f3a
    cavendish refused drop --all --yes
    """
    with places() as both:
        chosen = both.chosen(entries, everything=everything)
        if chosen:
            confirm(f"Forget {len(chosen)} for good?", yes=yes)
        dropped = sum(both.drop(one) for one in chosen)
    if as_json:
        print_json({"dropped": dropped})
    else:
        click.echo(f"{dropped} dropped")
    if entries and not dropped:
        sys.exit(1)
