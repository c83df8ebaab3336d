"""What all routes of the HTTP service share: settings, client, store, keys, held requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ParamSpec, TypeVar

from fastapi import Depends, Request

from cavendish import AsyncClient
from cavendish.environment.local_paths import store_url
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.service.callback_hints import CallbackHints
from cavendish_worker.service.callback_urls import CallbackUrls
from cavendish_worker.service.gateway.gateway import Gateway
from cavendish_worker.service.held_requests import HeldRequests
from cavendish_worker.service.key_ring import KeyRing
from cavendish_worker.service.request_rates import RequestRates

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one process, built once. `store` is for what no client does.

    `gateway`: None if the settings turn it off.
    """

    settings: Settings
    client: AsyncClient
    store: Store
    keys: KeyRing
    rates: RequestRates
    held: HeldRequests
    gateway: Gateway | None
    callback_urls: CallbackUrls
    callback_hints: CallbackHints

    @classmethod
    def of(cls, settings: Settings) -> Parts:
        """Build them; they connect at the first request."""
        store = Store(store_url(settings), settings.shards)
        client = AsyncClient(settings=settings)
        keys, held = KeyRing(store.api_keys), HeldRequests()
        rates = RequestRates(settings.http_rate)
        on, urls = settings.gateway == "on", CallbackUrls(settings.public_url, settings.secret_key)
        hints = CallbackHints(store)
        shared = settings, client, store, keys, held, urls, hints
        gateway = Gateway.of(*shared) if on else None
        return cls(settings, client, store, keys, rates, held, gateway, urls, hints)

    async def read(self, work: Callable[P, R], *args: P.args, **options: P.kwargs) -> R:
        """Do in a thread what blocks."""
        return await asyncio.to_thread(work, *args, **options)

    async def close(self) -> None:
        """Close the connections to Redis and to the API."""
        await self.callback_hints.close()
        if self.gateway is not None:
            await self.gateway.close()
        await self.client.close()
        self.store.close()


def parts_of(request: Request) -> Parts:
    """The parts of the application that a request came to."""
    found: Parts = request.app.state.parts
    return found


async def _shared(request: Request) -> Parts:
    """Not blocking, and so no thread's work: FastAPI runs plain functions in threads."""
    return parts_of(request)


#: A parameter of a route that needs them.
Shared = Annotated[Parts, Depends(_shared)]
