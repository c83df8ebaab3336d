"""refused list: refused submits and quarantined messages."""

from __future__ import annotations

import click

from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import print_json
from cavendish_worker.cli.refused.places import fields, places
from cavendish_worker.cli.tables import table
from cavendish_worker.wording.times import moment


@click.command("list", short_help="List refused submits and quarantined messages.")
@json_option
def command(as_json: bool) -> None:
    """List refused submits and quarantined messages, the newest first.

    At most 200 refused submits (16 MiB together), 100 messages that killed workers, and 100
    messages that no worker can read are kept. The oldest are dropped for new ones; among refused
    submits, the oldest of the producer that has most of them.

    \b
    cavendish refused list
    """
    with places() as both:
        found, lost = both.list(), both.store.refused.lost()
    if as_json:
        print_json([fields(one) for one in found])
        return
    rows = [
        (
            one["id"],
            moment(one["at"]),
            one["kind"],
            one["ids"] or "",
            one["producer"] or one["sender"],
            one["reason"],
        )
        for one in map(fields, found)
    ]
    if rows:
        columns = ("id", "refused", "kind", "ids", "sender", "reason")
        table(columns, rows, cut="reason", spare=("ids", "sender", "refused"))
    else:
        click.echo("nothing refused")
    if lost:
        click.echo(f"{lost} older ones were dropped, since only so many are kept.", err=True)
