"""secret: make what signs webhooks."""

from __future__ import annotations

import click

from cavendish_worker.cli.output import as_json, print_json
from cavendish_worker.webhooks import signing


@click.group(short_help="Make a secret that signs webhooks.")
def secret() -> None:
    """Make the secret that signs webhooks to plain URLs (CAVENDISH_WEBHOOK_SECRET).

    \b
    cavendish secret new
    """


@secret.command(short_help="Print a new whsec_… secret.")
@as_json
def new(as_json: bool) -> None:  # noqa: FBT001 (click)
    """Print a new secret of 32 random bytes. It is kept nowhere.

    To rotate: set CAVENDISH_WEBHOOK_SECRET to NEW,OLD for the workers, so that each webhook is
    signed with both; give NEW to the receivers; then take OLD out.

    \b
    cavendish secret new
    """
    made = signing.new_secret()
    if as_json:
        print_json({"secret": made})
    else:
        click.echo(made)


COMMANDS = (secret,)
