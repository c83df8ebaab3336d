"""key revoke: delete a key of the HTTP API."""

from __future__ import annotations

import click

from cavendish.errors import SubmissionError
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import print_json


@click.command("revoke", short_help="Delete a key.")
@click.argument("name")
@json_option
def command(name: str, as_json: bool) -> None:
    """Delete the key NAME of the HTTP API. It stops working within two seconds.

    \b
    cavendish key revoke shop
    """
    store, _ = open_store()
    if not store.api_keys.revoke(name):
        raise SubmissionError(f"There is no key {name!r}; see `cavendish key list`.")
    if as_json:
        print_json({"name": name, "revoked": True})
    else:
        click.echo(f"{name} is revoked")
