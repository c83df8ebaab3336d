"""endpoint add: register an endpoint."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from cavendish.errors import EndpointError
from cavendish.policy.addresses import Network, webhook_complaint
from cavendish.policy.circuit import Circuit
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.webhook_endpoint import Endpoint, name_complaint
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.endpoint.new_secret import (
    encryption_for,
    new_keys,
    show_once,
    unencrypted_option,
)
from cavendish_worker.cli.options import json_option
from cavendish_worker.http import egress
from cavendish_worker.webhooks import consent


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
@click.option(
    "--rate",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --consent: ask for this many calls per minute.",
)
@unencrypted_option
@json_option
def command(name: str, url: str, ask: bool, rate: int | None, as_json: bool, **flags: bool) -> None:
    """Register an endpoint, and create the secret that signs its webhooks.

    The secret is shown only once.

    \b
    cavendish endpoint add shop https://shop.example/hooks/cavendish
    cavendish submit --service nano-banana --webhook shop ID
    """
    if rate and not ask:
        raise click.UsageError("--rate goes with --consent.")
    store, settings = open_store()
    allowed = store.fleet.allowed() + settings.webhook_allow
    _check(store, settings, allowed, name, url)
    now = store.fleet.now()
    encryption = encryption_for(store, settings, now, unencrypted=flags["unencrypted"])
    answer = asyncio.run(_ask(settings, allowed, url, rate)) if ask else consent.Consent()
    if not answer.granted:
        raise EndpointError(f"{url} does not consent: {answer.complaint}. Nothing was registered.")
    secret, key, asymmetric = new_keys(encryption, name, now)
    keys = (key, asymmetric) if flags["ed25519"] else (key,)
    if not store.endpoints.add(
        Endpoint(name, url, now, keys, consent=ask, per_minute=answer.per_minute)
    ):
        raise _taken(name)
    # An earlier endpoint of this name may have left an open circuit, or may have been disabled.
    store.shared_state.change_circuit(name, lambda _: Circuit())
    store.endpoints.enable(name)
    said: dict[str, Any] = {"name": name, "url": url, "secret": secret}
    said |= {"public_key": asymmetric.public if flags["ed25519"] else None}
    said |= {"consent": ask, "per_minute": answer.per_minute}
    show_once(said, f"{name} is registered for {url}", encryption, as_json=as_json)


def _taken(name: str) -> EndpointError:
    return EndpointError(f"An endpoint is registered as {name!r} already.")


def _check(
    store: Store, settings: Settings, allowed: tuple[Network, ...], name: str, url: str
) -> None:
    """Raise EndpointError for a name or a URL that cannot be registered."""
    complaint = name_complaint(name) or webhook_complaint(url, allowed, settings.webhook_ports)
    if not complaint and "#" in url:
        complaint = "the webhook URL must not have a #fragment, which is never sent"
    if complaint:
        raise EndpointError(f"Refused: {complaint}.")
    if not store.endpoints.missing([name]):
        raise _taken(name)


async def _ask(
    settings: Settings, allowed: tuple[Network, ...], url: str, rate: int | None
) -> consent.Consent:
    proxy, timeout = settings.egress_proxy or None, settings.webhook_timeout
    async with egress.transport(allowed, settings.webhook_ports, proxy) as transport:
        return await consent.ask(transport, url, settings.webhook_origin, rate, timeout)
