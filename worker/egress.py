"""The way out for webhooks: resolve once, refuse if any address is not public, dial that very address.

The check sits inside the dial, so nothing can change between check and connect; Host header, SNI and the
certificate check keep the name. Redirects and proxies from the environment are off where the client is built.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address
from typing import Any

import httpcore
import httpx

from scheduler.addresses import Network, literal, may_dial
from worker.transport import ShardedTransport

RESOLVE_TIMEOUT, RESOLVERS = 5.0, 32


class AddressRefused(httpcore.ConnectError):
    """The name stands for an address that webhooks may not reach. The text does not tell what lives there."""


class PublicBackend(httpcore.AsyncNetworkBackend):
    """Dials public addresses only, and those that the operator allowed on purpose."""

    def __init__(self, allowed: Iterable[Network] = ()) -> None:
        self._allowed = tuple(allowed)
        self._inner = httpcore.AnyIOBackend()
        # Threads of their own: a name server that keeps silent must not hold up the names of the remote API.
        self._resolvers = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="cavendish-dns")

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        last: Exception = httpcore.ConnectError("The name has no address.")
        for address in await self._addresses(host, port):
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last

    async def _addresses(self, host: str | bytes, port: int) -> list[str]:
        name = host.decode("ascii") if isinstance(host, bytes) else host
        known = literal(name)
        if known is not None:
            found = [str(known)]
        else:
            resolve = partial(socket.getaddrinfo, name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            try:
                async with asyncio.timeout(RESOLVE_TIMEOUT):
                    rows = await asyncio.get_running_loop().run_in_executor(self._resolvers, resolve)
            except TimeoutError:
                raise httpcore.ConnectTimeout("The name was not resolved in time.") from None
            except (OSError, UnicodeError):
                raise httpcore.ConnectError("The name cannot be resolved.") from None
            found = list(dict.fromkeys(str(row[4][0]) for row in rows))
        if not all(may_dial(ip_address(address), self._allowed) for address in found):
            raise AddressRefused("The address is not public.")
        return found

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise AddressRefused("Webhooks do not go to unix sockets.")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def client(allowed: Iterable[Network]) -> httpx.AsyncClient:
    """An HTTP client that reaches public addresses only, follows no redirects and believes no proxy variables."""
    return httpx.AsyncClient(
        transport=ShardedTransport(PublicBackend(allowed)),
        trust_env=False,
        follow_redirects=False,
        headers={"user-agent": "Cavendish", "accept-encoding": "identity", "accept": "*/*"},
    )
