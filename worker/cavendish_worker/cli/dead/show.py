"""dead show: dead letters with all their attempts."""

from __future__ import annotations

from typing import Any

import click

from cavendish.errors import SubmissionError
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.dead.selection import Selection, filters
from cavendish_worker.cli.delivery_log import print_log, read_log
from cavendish_worker.cli.options import json_option, limit_option
from cavendish_worker.cli.output import print_json
from cavendish_worker.cli.tables import pairs
from cavendish_worker.webhooks.dead_letters import fields
from cavendish_worker.wording.times import moment


@click.command("show", short_help="Show dead letters with all their attempts.")
@click.argument("delivery", metavar="DELIVERY|ID")
@filters
@limit_option(type=click.IntRange(min=1))
@json_option
def command(delivery: str, limit: int | None, as_json: bool, **options: Any) -> None:
    """Show dead letters with all their attempts.

    Give the name of one delivery, or the id whose webhooks became dead letters.

    \b
    cavendish dead show 1c4dd0f1-6b0e-4b6f-9f36-0a9e1f3c7a10
    """
    store, _ = open_store()
    found = Selection(**options, deliveries=[delivery]).find(store, limit)
    if not found:
        raise SubmissionError(f"No dead letter has the name {delivery!r} or is about such an id.")
    if as_json:
        print_json([fields(one) | {"log": read_log(one.log)} for one in found])
        return
    for one in found:
        pairs((fields(one) | {"at": moment(one.at)}).items())
        print_log(read_log(one.log))
