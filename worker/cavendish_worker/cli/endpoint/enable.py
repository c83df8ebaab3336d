"""endpoint enable: send to an endpoint again."""

from __future__ import annotations

import click

from cavendish_worker.cli.endpoint.which import open_endpoints, print_switched, which_argument
from cavendish_worker.cli.options import json_option


@click.command("enable", short_help="Send to an endpoint again.")
@which_argument
@json_option
def command(which: str, as_json: bool) -> None:
    """Send to an endpoint again, whether it was disabled or its circuit is open.

    The deliveries that wait for it are due at once.

    \b
    cavendish endpoint enable shop
    """
    view, changed = open_endpoints().enable(which)
    sentence = f"{which} {'is enabled' if changed else 'was not disabled'}"
    print_switched(view, sentence, enabled=True, was_disabled=changed, as_json=as_json)
