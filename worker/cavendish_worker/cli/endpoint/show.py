"""endpoint show: one endpoint."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from cavendish.endpoints.endpoint_view import view_of
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.endpoint.which import which_argument
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import print_json
from cavendish_worker.cli.tables import pairs, table
from cavendish_worker.wording.times import moment

_TIMES = ("disabled_at", "open_until", "last_success", "created_at")


@click.command("show", short_help="Show one endpoint: its state, its circuit and its keys.")
@which_argument
@json_option
def command(which: str, as_json: bool) -> None:
    """Show one endpoint: its state, its options, its circuit and its keys, but no secret.

    \b
    cavendish endpoint show shop
    """
    store, _ = open_store()
    now, view = store.fleet.now(), view_of(store, which)
    (last_day,) = store.attempt_counts.of([view.name], now)
    shown = view.to_json(now) | {
        "attempts_24h": last_day.delivered + last_day.failed,
        "success_rate_24h": last_day.success_rate,
    }
    if as_json:
        print_json(shown)
        return
    keys = shown.pop("keys")
    pairs((name.replace("_", " "), in_words(name, value)) for name, value in shown.items())
    if keys:
        rows = [
            (key["kind"], moment(key["made_at"]), moment(key["until"]), key["public_key"] or "")
            for key in keys
        ]
        table(("key", "made", "signs until", "public key"), rows)


def in_words(name: str, value: Any) -> object:
    """A value of an endpoint for people; the text of a time or a duration."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name in _TIMES:
        return moment(value)
    if name == "success_rate_24h":
        return None if value is None else f"{value:.1%}"
    if name == "retry_for":
        return str(timedelta(seconds=value))
    return " ".join(value) if isinstance(value, list) else value
