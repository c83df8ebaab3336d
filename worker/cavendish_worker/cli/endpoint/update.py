"""endpoint update: change a registered endpoint, which keeps its secret."""

from __future__ import annotations

from typing import Any

import click

from cavendish.endpoints.endpoint_options import RESETS, EndpointOptions, shown
from cavendish.endpoints.webhook_endpoint import Endpoint
from cavendish_worker.cli.endpoint.new_secret import unencrypted_option
from cavendish_worker.cli.endpoint.setting import options_of, setting_options
from cavendish_worker.cli.endpoint.show import in_words
from cavendish_worker.cli.endpoint.which import name_argument, open_endpoints
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import plain, print_json

_UNENCRYPTED = (
    "CAVENDISH_SECRET_KEY is not set: the store holds these headers unencrypted. Make a key with "
    "`cavendish endpoint new-key`, set it for the workers and here, and give the headers again."
)


@click.command("update", short_help="Change an endpoint; it keeps its secret.")
@name_argument
@click.option("--url", metavar="URL", help="Send to this URL from now on.")
@setting_options
@click.option(
    "--remove-header", "removed", multiple=True, metavar="NAME", help="Stop sending this header."
)
@click.option(
    "--reset",
    multiple=True,
    type=click.Choice(RESETS),
    help="Take the default again: all events, no headers, no rate, the default retries.",
)
@unencrypted_option
@json_option
def command(name: str, url: str | None, unencrypted: bool, as_json: bool, **named: Any) -> None:
    """Change an endpoint; what is not named stays as it is, also its secret.

    The change counts for everything that is sent from then on. With a new URL all waiting
    deliveries are due at once. An endpoint that has consented is asked again if its URL or its rate
    changes.

    \b
    cavendish endpoint update shop --events task.failed,task.expired --retries 4 --retry-for 12h
    cavendish endpoint update shop --header 'X-Tenant: 7' --reset rate
    """
    options, endpoints = options_of(url, named), open_endpoints()
    if options == EndpointOptions():
        raise click.UsageError("Nothing to change: name at least one option.")
    before, after = endpoints.update(name, options, unencrypted=unencrypted)
    _print(before, after, enabled=not endpoints.show(name).disabled, as_json=as_json)
    if options.headers and not endpoints.encrypts:
        click.echo(_UNENCRYPTED, err=True)


def _print(known: Endpoint, changed: Endpoint, *, enabled: bool, as_json: bool) -> None:
    before, after = shown(known), shown(changed)
    names = [name for name in after if before[name] != after[name]]
    if changed.headers != known.headers and "headers" not in names:
        names.append("headers")  # another value, which is not shown
    if as_json:
        pairs = {name: {"before": before[name], "after": after[name]} for name in names}
        print_json({"name": known.name, "changed": pairs, "enabled": enabled})
        return
    click.echo(f"{known.name} is changed" if names else f"{known.name} is as it was")
    for name in names:
        then, now = (str(in_words(name, one[name]) or "none") for one in (before, after))
        was = "a new value" if then == now else f"was {then}"
        click.echo(plain(f"{name.replace('_', ' ')}: {now} ({was})"))
    if not enabled:
        advice = f"It is still disabled: cavendish endpoint enable {known.name}"
        click.echo(advice, err=True)
