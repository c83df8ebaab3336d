"""endpoint new-key: a key for CAVENDISH_SECRET_KEY."""

from __future__ import annotations

import click

from cavendish.endpoints.encryption import new_key
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import print_json


@click.command("new-key", short_help="Print a new key for CAVENDISH_SECRET_KEY.")
@json_option
def command(as_json: bool) -> None:
    """Print a new key for CAVENDISH_SECRET_KEY.

    The key encrypts the secrets of endpoints in the store.

    \b
    export CAVENDISH_SECRET_KEY=$(cavendish endpoint new-key)
    """
    key = new_key()
    print_json({"key": key}) if as_json else click.echo(key)
