"""endpoint add: register an endpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from cavendish.endpoint_options import shown
from cavendish.errors import EndpointError
from cavendish.policy.circuit import Circuit
from cavendish.webhook_endpoint import Endpoint, name_complaint
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.endpoint.new_secret import (
    encryption_for,
    new_keys,
    show_once,
    unencrypted_option,
)
from cavendish_worker.cli.endpoint.setting import ask_consent, check, options_of, setting_options
from cavendish_worker.cli.options import json_option


@click.command("add", short_help="Register an endpoint, and create its secret.")
@click.argument("name")
@click.argument("url")
@click.option(
    "--ed25519",
    is_flag=True,
    help="Also sign with a key pair (v1a); only its public half is shown.",
)
@click.option(
    "--consent",
    "ask",
    is_flag=True,
    help="First ask the endpoint whether it accepts our webhooks (CloudEvents).",
)
@setting_options
@unencrypted_option
@json_option
def command(
    name: str, url: str, ask: bool, ed25519: bool, unencrypted: bool, as_json: bool, **named: Any
) -> None:
    """Register an endpoint, and create the secret that signs its webhooks.

    The secret is shown only once.

    \b
    cavendish endpoint add shop https://shop.example/hooks/cavendish
    cavendish submit --service nano-banana --webhook shop ID
    cavendish endpoint add art https://art.example/in --events task.failed --header 'X-Tenant: 7'
    """
    options, (store, settings) = options_of(url, named), open_store()
    allowed, now = store.fleet.allowed() + settings.webhook_allow, store.fleet.now()
    new = Endpoint(name, url, now, consent=ask)
    if complaint := name_complaint(name):
        raise EndpointError(f"Refused: {complaint}.")
    check(options, new, settings, allowed)
    if not store.endpoints.missing([name]):
        raise _taken(name)
    encryption = encryption_for(store, settings, now, unencrypted=unencrypted)
    if ask:
        answer = ask_consent(settings, allowed, url, options.rate, "Nothing was registered.")
        new = replace(new, per_minute=answer.per_minute)
    secret, key, asymmetric = new_keys(encryption, name, now)
    keys = (key, asymmetric) if ed25519 else (key,)
    added = options.applied(replace(new, keys=keys), encryption.encrypt)
    if not store.endpoints.add(added):
        raise _taken(name)
    # An earlier endpoint of this name may have left an open circuit, or may have been disabled.
    store.shared_state.change_circuit(name, lambda _: Circuit())
    store.endpoints.enable(name)
    said: dict[str, Any] = {"name": name} | shown(added) | {"secret": secret}
    said |= {"public_key": asymmetric.public if ed25519 else None, "consent": ask}
    show_once(said, f"{name} is registered for {url}", encryption, as_json=as_json)


def _taken(name: str) -> EndpointError:
    return EndpointError(f"An endpoint is registered as {name!r} already.")
