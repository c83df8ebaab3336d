"""A new secret of an endpoint, shown once, by `add` and `rotate`."""

from __future__ import annotations

from typing import Any

import click

from cavendish.endpoints.webhook_endpoint import NewSecret
from cavendish_worker.cli.output import print_json

_UNENCRYPTED = (
    "CAVENDISH_SECRET_KEY is not set: the store holds this secret unencrypted. Make a key with "
    "`cavendish endpoint new-key`, set it for the workers and here, and rotate the secret."
)

unencrypted_option = click.option(
    "--unencrypted",
    is_flag=True,
    help="Without CAVENDISH_SECRET_KEY here, store secrets unencrypted, even if the workers have "
    "a key.",
)


def show_once(told: NewSecret, said: dict[str, Any], sentence: str, *, as_json: bool) -> None:
    """Print a new secret: with `said`, or after a sentence."""
    if as_json:
        keys = {"secret": told.secret, "public_key": told.public_key, "encrypted": told.encrypted}
        print_json(said | keys)
    else:
        click.echo(f"{sentence}\nsecret      {told.secret}")
        if told.public_key:
            click.echo(f"public key  {told.public_key}")
        click.echo("Give it to the receiver now: it is not shown again.", err=True)
    if not told.encrypted:
        click.echo(_UNENCRYPTED, err=True)
