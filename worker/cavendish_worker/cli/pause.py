"""pause: make no calls for an account, or for one of its services."""

from __future__ import annotations

from dataclasses import asdict

import click

from cavendish import Client
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.options import account_option, by_option, json_option, service_option
from cavendish_worker.cli.output import plain, print_json
from cavendish_worker.cli.times import moment_of
from cavendish_worker.wording.times import duration


@click.command(
    "pause", short_help="Stop the calls for an account or a service, until resumed or for a time."
)
@account_option(required=True)
@service_option(help="Pause this service of the account only.")
@click.option("--for", "length", metavar="TIME", help="Pause for this time: 90s, 30m, 2h.")
@click.option(
    "--until",
    metavar="TIME",
    help="Pause until this time, such as 2026-11-22T22:50:01Z; UTC without an offset.",
)
@click.option(
    "--reason", default="", metavar="TEXT", help="The reason, for those who see the pause."
)
@by_option
@json_option
def command(
    account: str,
    service: str | None,
    length: str | None,
    until: str | None,
    reason: str,
    by: str | None,
    as_json: bool,
) -> None:
    """Make no call for an account, or for one of its services, until it is resumed.

    Pending ids wait, new ids are accepted, webhooks are sent, and deadlines still pass. Calls under
    way are finished. If it is paused already, the new time and reason replace the old ones.

    \b
    cavendish pause --account default --for 30m --reason "the provider migrates"
    cavendish pause --account default --service flux
    """
    seconds = None if length is None else duration(length)
    if length is not None and seconds is None:
        raise click.BadParameter("must be a duration such as 90s, 30m or 2h.", param_hint="--for")
    ends = None if until is None else moment_of(until, "--until")
    with Client() as client:
        pause = client.pause(account, service, seconds=seconds, until=ends, reason=reason, by=by)
    if as_json:
        print_json(asdict(pause))
        return
    click.echo(plain(f"{pause.name}: {pause.told}"))
    if pause.replaced:
        click.echo("It was paused before; time and reason are new.")
    if not _anything(account, service):
        said = "the store has no id of it yet; is the name right?"
        click.echo(f"{pause.name}: {said}", err=True)


def _anything(account: str, service: str | None) -> bool:
    """True if the store has a lane of it."""
    lanes = open_store()[0].tasks.lanes()
    return any(one.account == account and service in (None, one.service) for one in lanes)
