"""Sends a signed test webhook to an endpoint from this process, by the rules of all webhooks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from cavendish.endpoints.encryption import Encryption
from cavendish.endpoints.endpoint_view import not_registered
from cavendish.endpoints.webhook_endpoint import endpoint_of, is_url
from cavendish.environment.env_parsers import secrets_of
from cavendish.errors import EndpointError
from cavendish.policy.addresses import Network, webhook_complaint
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.http import egress
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.webhooks import payload
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind
from cavendish_worker.webhooks.post import Target, post


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a test webhook: where it went, its id, and the result of the attempt."""

    endpoint: str
    url: str
    webhook_id: str
    result: AttemptResult

    @property
    def taken(self) -> bool:
        """True if the receiver answered 2xx."""
        return self.result.kind is ResultKind.DELIVERED


def try_endpoint(store: Store, settings: Settings, which: str) -> Trial:
    """Send `endpoint.test` to a registered endpoint, or to a URL.

    Raises EndpointError if it cannot be sent, and StoreUnavailable.
    """
    now, allowed = store.fleet.now(), store.fleet.allowed() + settings.webhook_allow
    target, endpoint = _target(store, settings, which, now), endpoint_of(which)
    if complaint := webhook_complaint(target.url, allowed, settings.webhook_ports):
        raise EndpointError(f"Refused: {complaint}.")
    name = payload.event_id("endpoint.test", endpoint, repr(now))
    about = {"endpoint": endpoint, "url": target.url}
    body = payload.operations_event("endpoint.test", about, now)
    result = asyncio.run(_send(settings, allowed, target, name, body, now))
    return Trial(endpoint, target.url, name, result)


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
