"""The endpoint that a command is about, and what several commands do to it."""

from __future__ import annotations

import click

from cavendish.model import OPERATIONS
from cavendish.store import Store
from cavendish.webhook_endpoint import is_url
from cavendish_worker import doctor
from cavendish_worker.cli.connect import complete_endpoint, find_endpoint
from cavendish_worker.cli.output import print_json
from cavendish_worker.webhooks.endpoint_cache import FRESH_FOR

which_argument = click.argument("which", metavar="NAME|URL|HASH", shell_complete=complete_endpoint)
name_argument = click.argument("name", shell_complete=complete_endpoint)


def view_of(store: Store, text: str) -> doctor.EndpointView:
    """What is known of an endpoint; one of which nothing is known works, and nothing waits for it.

    Raises EndpointError for a name that is not known.
    """
    name = find_endpoint(store, text)
    views = {view.name: view for view in doctor.endpoints(store)}
    return views.get(name) or doctor.EndpointView(
        name, text if is_url(text) else "", None, None, store.shared_state.circuits([name])[0], 0
    )


def make_due(store: Store, name: str) -> None:
    """Let the deliveries that wait for an endpoint be due at once."""
    # Workers cache endpoints for a moment. A delivery worker that came earlier would still find
    # this one as it was, and leave it for a minute if it was disabled.
    at = store.fleet.now() + FRESH_FOR
    for lane in [*store.tasks.listed_lanes(), OPERATIONS]:
        store.deliveries.hasten(lane, name, at)
        store.deliveries.postpone(lane, {name: at})


def print_switched(
    view: doctor.EndpointView, sentence: str, *, enabled: bool, was_disabled: bool, as_json: bool
) -> None:
    """Print that an endpoint was enabled or disabled, and how many deliveries wait for it."""
    if as_json:
        said = {"endpoint": view.name, "enabled": enabled, "was_disabled": was_disabled}
        print_json(said | {"waiting": view.waiting})
    else:
        click.echo(f"{sentence}; {doctor.counted(view.waiting)} for it")
