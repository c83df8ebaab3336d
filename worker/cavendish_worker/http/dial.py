"""Opens connections: dials an address or a name, with TLS for https."""

from __future__ import annotations

import asyncio
import ssl
from functools import cache

import httpx

from cavendish.policy.addresses import literal
from cavendish_worker.http.stream import Connection

#: Seconds for which one address of a name is dialled alone, before the next one is dialled too.
HAPPY_EYEBALLS = 0.25


@cache
def tls_context() -> ssl.SSLContext:
    """One context per process: building it takes some 30 ms, sharing it nothing."""
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Backend:
    """Opens connections. A subclass may choose the address (`connect_tcp`) or the way (`open`)."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls

    async def connect_tcp(self, host: str, port: int, timeout: float | None = None) -> Connection:
        """A connection to a name or an address. Raises ConnectError and ConnectTimeout of httpx."""
        loop, delay = asyncio.get_running_loop(), None if literal(host) else HAPPY_EYEBALLS
        try:
            async with asyncio.timeout(timeout):
                _, connection = await loop.create_connection(
                    Connection, host, port, happy_eyeballs_delay=delay
                )
        except TimeoutError:
            raise httpx.ConnectTimeout("No connection in time.") from None
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(str(error)) from error
        return connection

    async def open(self, origin: httpx.URL, timeout: float | None) -> Connection:
        """A connection that can take a request. Of `origin`, scheme, host and port are used."""
        connection = await self.connect_tcp(host_of(origin), port_of(origin), timeout)
        return await self.secured(connection, origin, timeout)

    async def secured(
        self, connection: Connection, origin: httpx.URL, timeout: float | None
    ) -> Connection:
        """The same connection, with TLS if the origin wants it; its certificate is of that name.

        If TLS fails, the connection is closed.
        """
        if origin.scheme == "https":
            try:
                await connection.start_tls(self._tls or tls_context(), host_of(origin), timeout)
            except BaseException:
                connection.close()
                raise
        return connection


def host_of(origin: httpx.URL) -> str:
    """The host as it is dialled: ASCII, an IPv6 address without brackets."""
    return origin.raw_host.decode("ascii")


def port_of(origin: httpx.URL) -> int:
    """The port of a URL, or the usual one of its scheme."""
    return origin.port or {"http": 80, "https": 443}[origin.scheme]
