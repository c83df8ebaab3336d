"""key list: the keys of the HTTP API."""

from __future__ import annotations

from dataclasses import asdict

import click

from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import print_json
from cavendish_worker.cli.tables import table
from cavendish_worker.wording.times import moment


@click.command("list", short_help="List the keys, and when each was last used.")
@json_option
def command(as_json: bool) -> None:
    """List the keys of the HTTP API: rights, limits, last use, expiry; no secrets.

    \b
    cavendish key list
    """
    store, _ = open_store()
    keys, used, now = store.api_keys.all(), store.api_keys.last_used(), store.fleet.now()
    if as_json:
        rows = [asdict(key) | {"last_used": used.get(key.name)} for key in keys]
        print_json([{name: row[name] for name in row if name != "digest"} for row in rows])
    elif keys:
        columns = ("name", "key", "may", "accounts", "services", "own", "last use", "expires")
        table(
            columns,
            [
                (
                    key.name,
                    f"{key.prefix}_…",
                    ",".join(key.may),
                    ",".join(key.accounts) or "all",
                    ",".join(key.services) or "all",
                    "own ids" if key.own else "all ids",
                    moment(used[key.name]) if key.name in used else "never",
                    _expiry(key.expires_at, now),
                )
                for key in keys
            ],
            spare=("services", "accounts", "own", "last use"),
        )
    else:
        click.echo("no keys")


def _expiry(at: float | None, now: float) -> str:
    if at is None:
        return "never"
    return f"{moment(at)} (expired)" if at <= now else moment(at)
