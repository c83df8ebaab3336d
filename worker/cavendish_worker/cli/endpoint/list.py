"""endpoint list: the endpoints."""

from __future__ import annotations

from typing import Any

import click

from cavendish.endpoints.endpoint_view import views
from cavendish.endpoints.webhook_endpoint import name_complaint
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import print_json
from cavendish_worker.cli.tables import table
from cavendish_worker.wording.times import moment


@click.command("list", short_help="List the endpoints.")
@json_option
def command(as_json: bool) -> None:
    """List the endpoints.

    These are the registered ones, and those known by their URL that are disabled or for which
    deliveries wait.

    \b
    cavendish endpoint list
    """
    store, _ = open_store()
    now = store.fleet.now()
    found = [view.to_json(now) for view in views(store)]
    if as_json:
        print_json([{name: one[name] for name in one if name != "keys"} for one in found])
    elif found:
        columns = ("endpoint", "state", "circuit", "waiting", "signatures", "last success", "url")
        spare = ("signatures", "last success", "circuit", "url")
        table(columns, map(_row, found), cut="url", spare=spare)
    else:
        click.echo("no endpoints")


def _row(shown: dict[str, Any]) -> tuple[object, ...]:
    overlap = f" ({shown['overlapping']} overlap)" if shown["overlapping"] else ""
    return (
        shown["name"],
        _state(shown),
        shown["circuit"],
        shown["waiting"],
        " ".join(shown["signatures"]) + overlap,
        moment(shown["last_success"]),
        shown["url"],
    )


def _state(shown: dict[str, Any]) -> str:
    if not shown["enabled"]:
        return f"disabled since {moment(shown['disabled_at'])}: {shown['reason']}"
    if shown["registered"]:
        return "enabled"
    return "by its URL" if name_complaint(shown["name"]) else "not registered"
