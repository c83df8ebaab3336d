"""endpoint remove: forget a registered endpoint."""

from __future__ import annotations

import click

from cavendish_worker import doctor
from cavendish_worker.cli.connect import not_registered, open_store
from cavendish_worker.cli.endpoint.which import name_argument, view_of
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
    store, _ = open_store()
    if store.endpoints.missing([name]):
        raise not_registered(name)
    waiting = view_of(store, name).waiting
    more = f"; {doctor.counted(waiting)} for it, and will become dead letters" if waiting else ""
    confirm(f"Remove {name}{more}?", yes=yes)
    if not store.endpoints.remove(name):
        raise not_registered(name)
    if as_json:
        print_json({"name": name, "removed": True, "waiting": waiting})
    else:
        click.echo(f"{name} is removed{more}")
