"""endpoint remove: forget a registered endpoint."""

from __future__ import annotations

import click

from cavendish_worker import doctor
from cavendish_worker.cli.endpoint.which import name_argument, open_endpoints
from cavendish_worker.cli.options import confirm, json_option, yes_option
from cavendish_worker.cli.output import print_json


@click.command("remove", short_help="Forget a registered endpoint and its secrets.")
@name_argument
@yes_option
@json_option
def command(name: str, yes: bool, as_json: bool) -> None:
    """Forget a registered endpoint and its secrets.

    Its pending deliveries become dead letters when they are due.

    \b
    cavendish endpoint remove shop
    """
    endpoints = open_endpoints()
    waiting = endpoints.waiting(name)
    more = f"; {doctor.counted(waiting)} for it, and will become dead letters" if waiting else ""
    confirm(f"Remove {name}{more}?", yes=yes)
    endpoints.remove(name)
    if as_json:
        print_json({"name": name, "removed": True, "waiting": waiting})
    else:
        click.echo(f"{name} is removed{more}")
