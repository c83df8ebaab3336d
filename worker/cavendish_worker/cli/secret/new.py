"""secret new: a secret for CAVENDISH_WEBHOOK_SECRET."""

from __future__ import annotations

import click

from cavendish.endpoints.signing import new_secret
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import print_json


@click.command("new", short_help="Print a new secret for CAVENDISH_WEBHOOK_SECRET.")
@json_option
def command(as_json: bool) -> None:
    """Print a new secret of 32 random bytes. It is not stored.

    To rotate: set CAVENDISH_WEBHOOK_SECRET of the workers to NEW,OLD, so that both sign each
    webhook; give NEW to the receivers; then remove OLD.

    \b
    export CAVENDISH_WEBHOOK_SECRET=$(cavendish secret new)
    """
    secret = new_secret()
    print_json({"secret": secret}) if as_json else click.echo(secret)
