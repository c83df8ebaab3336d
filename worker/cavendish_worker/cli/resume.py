"""resume: make calls again for an account, or a service of it, that was paused."""

from __future__ import annotations

from dataclasses import asdict

import click

from cavendish import Client
from cavendish_worker.cli.options import account_option, json_option, service_option
from cavendish_worker.cli.output import plain, print_json


@click.command("resume", short_help="Make calls again for an account or a service that was paused.")
@account_option(required=True)
@service_option(help="Resume this service of the account, if it was paused alone.")
@json_option
def command(account: str, service: str | None, as_json: bool) -> None:
    """End a pause that an operator began. The exit code is 0 also if nothing was paused.

    The pause of an account and those of its services end one by one. A pause by the API ends when
    the API accepts the token again.

    \b
    cavendish resume --account default
    cavendish resume --account default --service flux
    """
    with Client() as client:
        ended = client.resume(account, service)
        left = [pause for pause in client.pauses() if pause.account == account]
    if as_json:
        rest = [asdict(pause) for pause in left]
        print_json({"resumed": asdict(ended) if ended else None, "still_paused": rest})
        return
    name = account if service is None else f"{account}/{service}"
    click.echo(plain(f"{name}: {f'resumed; it was {ended.told}' if ended else 'was not paused'}"))
    for pause in left:
        click.echo(plain(f"{pause.name}: still {pause.told}"))
