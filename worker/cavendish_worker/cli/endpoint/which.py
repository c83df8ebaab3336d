"""Finds the endpoint that a command names, and makes the EndpointManager."""

from __future__ import annotations

import asyncio

import click

from cavendish.endpoints.endpoint_manager import EndpointManager
from cavendish.endpoints.endpoint_view import EndpointView
from cavendish.endpoints.webhook_endpoint import Consent
from cavendish.policy.addresses import Network
from cavendish.settings import Settings
from cavendish_worker import doctor
from cavendish_worker.cli.connect import complete_endpoint, open_store
from cavendish_worker.cli.output import print_json
from cavendish_worker.http import egress
from cavendish_worker.webhooks import consent

which_argument = click.argument("which", metavar="NAME|URL|HASH", shell_complete=complete_endpoint)
name_argument = click.argument("name", shell_complete=complete_endpoint)


def open_endpoints() -> EndpointManager:
    """What manages the endpoints of the store that the environment names."""
    store, settings = open_store()

    def ask(url: str, rate: float | None, allowed: tuple[Network, ...]) -> Consent:
        return asyncio.run(_ask(settings, allowed, url, rate))

    return EndpointManager(store, settings, ask)


async def _ask(
    settings: Settings, allowed: tuple[Network, ...], url: str, rate: float | None
) -> Consent:
    proxy, timeout = settings.egress_proxy or None, settings.webhook_timeout
    asked = int(rate) if rate else None
    async with egress.transport(allowed, settings.webhook_ports, proxy) as transport:
        return await consent.ask(transport, url, settings.webhook_origin, asked, timeout)


def print_switched(
    view: EndpointView, sentence: str, *, enabled: bool, was_disabled: bool, as_json: bool
) -> None:
    """Print that an endpoint was enabled or disabled, and how many deliveries wait for it."""
    if as_json:
        said = {"endpoint": view.name, "enabled": enabled, "was_disabled": was_disabled}
        print_json(said | {"waiting": view.waiting})
    else:
        click.echo(f"{sentence}; {doctor.counted(view.waiting)} for it")
