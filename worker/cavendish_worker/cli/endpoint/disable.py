"""endpoint disable: send nothing to an endpoint."""

from __future__ import annotations

import click

from cavendish_worker.cli.endpoint.which import open_endpoints, print_switched, which_argument
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import plain


@click.command("disable", short_help="Send nothing to an endpoint until it is enabled.")
@which_argument
@click.option(
    "--reason",
    default="by hand",
    show_default=True,
    metavar="TEXT",
    help="The reason, for those who see it later.",
)
@json_option
def command(which: str, reason: str, as_json: bool) -> None:
    """Send nothing to an endpoint until it is enabled; its deliveries wait.

    \b
    cavendish endpoint disable shop --reason "moves to another host"
    """
    view, changed = open_endpoints().disable(which, plain(reason))
    sentence = f"{which} {'is disabled' if changed else 'was disabled before'}"
    print_switched(view, sentence, enabled=False, was_disabled=not changed, as_json=as_json)
