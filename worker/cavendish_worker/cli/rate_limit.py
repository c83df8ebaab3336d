"""rate-limit: the ceiling that an operator sets for the calls of an account."""

from __future__ import annotations

from dataclasses import asdict

import click

from cavendish import Client
from cavendish_worker.cli.options import account_option, by_option, json_option
from cavendish_worker.cli.output import plain, print_json


@click.command("rate-limit", short_help="Show, set or remove the rate ceiling of an account.")
@account_option(required=True)
@click.option("--calls", type=float, metavar="N", help="Make at most N calls per second.")
@click.option(
    "--default",
    "default",
    is_flag=True,
    help="Remove the ceiling: CAVENDISH_RATE of the workers applies again.",
)
@by_option
@json_option
def command(
    account: str, calls: float | None, default: bool, by: str | None, as_json: bool
) -> None:
    """Set the rate ceiling of an account, instead of CAVENDISH_RATE, without a restart.

    It limits the calls of all workers together, within a second from now. Below the ceiling they
    still learn what the API allows. Without --calls and --default the command shows the ceiling.

    \b
    cavendish rate-limit --account default --calls 5
    cavendish rate-limit --account default --default
    """
    if calls is not None and default:
        raise click.UsageError("Give either --calls or --default, not both.")
    with Client() as client:
        if calls is not None or default:
            client.set_rate_ceiling(account, calls, by=by)
        known = {one.account: one for one in client.rate_ceilings()}.get(account)
    if as_json:
        unset = {"account": account, "calls": None, "since": None, "by": None}
        print_json(asdict(known) if known else unset)
    elif known is None:
        click.echo(
            f"{account}: no ceiling is set here; CAVENDISH_RATE of the workers applies, if set"
        )
    else:
        click.echo(plain(f"{account}: {known.told}"))
