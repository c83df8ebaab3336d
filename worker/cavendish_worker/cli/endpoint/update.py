"""endpoint update: change a registered endpoint, which keeps its secret."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import Any

import click

from cavendish.endpoint_options import RESETS, EndpointOptions, shown
from cavendish.errors import EndpointError
from cavendish.policy.circuit import Circuit
from cavendish.webhook_endpoint import Endpoint
from cavendish_worker.cli.connect import not_registered, open_store
from cavendish_worker.cli.endpoint.new_secret import encryption_for, unencrypted_option
from cavendish_worker.cli.endpoint.setting import ask_consent, check, options_of, setting_options
from cavendish_worker.cli.endpoint.show import in_words
from cavendish_worker.cli.endpoint.which import make_due, name_argument
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import plain, print_json


@click.command("update", short_help="Change an endpoint; it keeps its secret.")
@name_argument
@click.option("--url", metavar="URL", help="Send to this URL from now on.")
@setting_options
@click.option(
    "--remove-header", "removed", multiple=True, metavar="NAME", help="Send this header no more."
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
    """Change an endpoint; what is not named stays, also its secret.

    It counts for whatever is sent from then on; what waits for another URL is due at once. An
    endpoint that has consented is asked anew if its URL or its rate changes.

    \b
    cavendish endpoint update shop --events task.failed,task.expired --retries 4 --retry-for 12h
    cavendish endpoint update shop --header 'X-Tenant: 7' --reset rate
    """
    options, (store, settings) = options_of(url, named), open_store()
    if options == EndpointOptions():
        raise click.UsageError("Nothing to change: name at least one option.")
    allowed = store.fleet.allowed() + settings.webhook_allow
    known = store.endpoints.all().get(name)
    if known is None:
        raise not_registered(name)
    check(options, known, settings, allowed)
    open_to_all = unencrypted or not options.headers
    encryption = encryption_for(store, settings, store.fleet.now(), unencrypted=open_to_all)
    changed = options.applied(known, encryption.encrypt)
    if known.consent and options.of_consent:
        nothing = "Nothing was changed."
        answer = ask_consent(settings, allowed, changed.url, changed.rate, nothing)
        changed = replace(changed, per_minute=answer.per_minute)

    def step(latest: Endpoint) -> Endpoint:
        if replace(latest, keys=known.keys) != known:
            raise EndpointError(f"Somebody else has changed {name!r} just now. Try it again.")
        return replace(changed, keys=latest.keys)

    if store.endpoints.change(name, step) is None:
        raise not_registered(name)
    if changed.url != known.url:  # what the old URL answered says nothing about the new one
        store.shared_state.change_circuit(name, lambda _: Circuit())
        make_due(store, name)
    _print(store.endpoints.disabled().keys(), known, changed, as_json=as_json)


def _print(disabled: Container[str], known: Endpoint, changed: Endpoint, *, as_json: bool) -> None:
    before, after = shown(known), shown(changed)
    names = [name for name in after if before[name] != after[name]]
    if changed.headers != known.headers and "headers" not in names:
        names.append("headers")  # another value, which is not shown
    if as_json:
        pairs = {name: {"before": before[name], "after": after[name]} for name in names}
        print_json({"name": known.name, "changed": pairs, "enabled": known.name not in disabled})
        return
    click.echo(f"{known.name} is changed" if names else f"{known.name} is as it was")
    for name in names:
        then, now = (str(in_words(name, one[name]) or "none") for one in (before, after))
        was = "a new value" if then == now else f"was {then}"
        click.echo(plain(f"{name.replace('_', ' ')}: {now} ({was})"))
    if known.name in disabled:
        advice = f"It is disabled still: cavendish endpoint enable {known.name}"
        click.echo(advice, err=True)
