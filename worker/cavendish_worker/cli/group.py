"""group: how far a group of ids is."""

from __future__ import annotations

import click

from cavendish import Client, Group, SubmissionError
from cavendish_worker.cli.options import account_option, json_option
from cavendish_worker.cli.output import counts, print_json
from cavendish_worker.cli.tables import pairs
from cavendish_worker.wording.times import moment


@click.command("group", short_help="Show how far a group of ids is.")
@click.argument("name")
@account_option(default="default", show_default=True)
@json_option
def command(name: str, account: str, as_json: bool) -> None:
    """Show how many ids of a group have joined it, and how many have ended.

    \b
    cavendish group order-7
    """
    with Client() as client:
        found = client.group(name, account=account)
    if found is None:
        raise SubmissionError(f"No group of the account {account!r} is called {name!r}.")
    if as_json:
        print_json(found.to_json())
    else:
        show(found)


def show(group: Group) -> None:
    """Print a group for people."""
    pairs(
        [
            ("group", group.name),
            ("account", group.account),
            ("size", "not given yet" if group.size is None else group.size),
            ("submitted", group.joined),
            ("ended", counts(dict(group.counts)) or "none"),
            ("first submit", moment(group.first_submitted_at)),
            ("complete", moment(group.completed_at) or "no"),
        ]
    )
