"""endpoint enable: send to an endpoint again."""

from __future__ import annotations

import click

from cavendish.policy.circuit import afresh
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.endpoint.which import make_due, print_switched, view_of, which_argument
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
    store, _ = open_store()
    view = view_of(store, which)
    store.shared_state.change_circuit(view.name, afresh)
    changed = store.endpoints.enable(view.name)
    make_due(store, view.name)
    sentence = f"{which} {'is enabled' if changed else 'was not disabled'}"
    print_switched(view, sentence, enabled=True, was_disabled=changed, as_json=as_json)
