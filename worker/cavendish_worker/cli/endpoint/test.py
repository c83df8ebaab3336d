"""endpoint test: send a signed test webhook to an endpoint."""

from __future__ import annotations

import asyncio
import sys

import click

from cavendish.encryption import Encryption
from cavendish.endpoint_view import not_registered
from cavendish.env_parsers import secrets_of
from cavendish.errors import EndpointError
from cavendish.policy.addresses import Network, webhook_complaint
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.webhook_endpoint import endpoint_of, is_url
from cavendish_worker.cli.connect import complete_endpoint, open_store
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import print_json
from cavendish_worker.http import egress
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.webhooks import payload
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind
from cavendish_worker.webhooks.post import Target, post


@click.command("test", short_help="Send a signed test webhook to an endpoint.")
@click.argument("which", metavar="NAME|URL", shell_complete=complete_endpoint)
@json_option
def command(which: str, as_json: bool) -> None:
    """Send a signed `endpoint.test` from this process, by the rules of all webhooks.

    Exit code 0 only if the receiver answers 2xx.

    \b
    cavendish endpoint test shop
    """
    store, settings = open_store()
    now, allowed = store.fleet.now(), store.fleet.allowed() + settings.webhook_allow
    target, endpoint = _target(store, settings, which, now), endpoint_of(which)
    if complaint := webhook_complaint(target.url, allowed, settings.webhook_ports):
        raise EndpointError(f"Refused: {complaint}.")
    name = payload.event_id("endpoint.test", endpoint, repr(now))
    about = {"endpoint": endpoint, "url": target.url}
    body = payload.operations_event("endpoint.test", about, now)
    result = asyncio.run(_send(settings, allowed, target, name, body, now))
    taken = result.kind is ResultKind.DELIVERED
    if as_json:
        fields = ("outcome", "status", "seconds", "address", "answer")
        print_json(
            {**about, "webhook_id": name, "taken": taken}
            | {field: getattr(result, field) for field in fields}
        )
    else:
        where = f" at {result.address}" if result.address else ""
        click.echo(f"{result.outcome}{where} after {result.seconds:.3f} s")
        if result.answer:
            click.echo(result.answer[:200])
    if not taken:
        sys.exit(1)


def _target(store: Store, settings: Settings, which: str, now: float) -> Target:
    """Where the test goes, and the secrets that sign it. Raises EndpointError."""
    if is_url(which):
        if not settings.webhook_secret:
            raise EndpointError(
                "CAVENDISH_WEBHOOK_SECRET is not set; unsigned webhooks are never sent."
            )
        return Target(which, secrets_of(settings.webhook_secret))
    registered = store.endpoints.all().get(which)
    if registered is None:
        raise not_registered(which)
    encryption = Encryption(settings.secret_key)
    keys = tuple(encryption.decrypt(which, key.encrypted) for key in registered.living_keys(now))
    headers = tuple(
        (one.name, encryption.decrypt(which, one.encrypted, one.name)) for one in registered.headers
    )
    origin = settings.webhook_origin if registered.consent else ""
    return Target(registered.url, keys, origin, headers)


async def _send(
    settings: Settings,
    allowed: tuple[Network, ...],
    target: Target,
    name: str,
    body: bytes,
    now: float,
) -> AttemptResult:
    proxy, timeout = settings.egress_proxy or None, settings.webhook_timeout
    async with egress.transport(allowed, settings.webhook_ports, proxy) as transport:
        return await post(transport, target, name, body, now, timeout, ShutdownDeadline())
