"""Egress of webhooks: resolve once, refuse if an address is not public, dial that very address.

The check sits inside the dial, so nothing can change between check and connect; Host header, SNI
and the certificate check keep the name. With a proxy, the proxy resolves and checks the names.
Redirects and proxies from the environment are off. The `__cause__` of the httpx error tells what
went wrong: `AddressRefused` for good, `ResolverAway`, `NetworkAway` and `ProxyAway` for our faults.
"""

from __future__ import annotations

import errno
import ssl
import time
from base64 import b64encode
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

import httpx

from cavendish.policy.addresses import Address, Network, innermost, literal, may_dial
from cavendish_worker.http.dial import Backend, host_of, port_of
from cavendish_worker.http.faults import AddressRefused, NetworkAway, ProxyAway, ResolverAway
from cavendish_worker.http.resolver import Resolver
from cavendish_worker.http.stream import Connection
from cavendish_worker.http.transport import PooledTransport

__all__ = [
    "AddressRefused",
    "NetworkAway",
    "ProxiedBackend",
    "ProxyAway",
    "PublicBackend",
    "ResolverAway",
    "transport",
]

_NETWORK_ERRORS = {
    getattr(errno, name)
    for name in "ENETUNREACH ENETDOWN EMFILE ENFILE EADDRNOTAVAIL ENOBUFS ENOMEM".split()
}
#: Answers with which a proxy says that the endpoint, not itself, is at fault.
_BEYOND_THE_PROXY = {502, 503, 504}


class Gate:
    """Which addresses and ports may be reached.

    Public addresses at the allowed ports; what the operator allowed on purpose at any port.
    """

    def __init__(
        self, allowed: Iterable[Network] = (), ports: Sequence[range] | None = None
    ) -> None:
        self._allowed, self._ports = tuple(allowed), ports

    def check_address(self, address: Address, port: int) -> None:
        if not may_dial(address, self._allowed):
            raise AddressRefused("The address is not public.")
        inner = innermost(address)
        if not any(inner.version == net.version and inner in net for net in self._allowed):
            self.check_port(port)

    def check_port(self, port: int) -> None:
        if self._ports is not None and not any(port in ports for ports in self._ports):
            raise AddressRefused("The port is not one that webhooks may reach.")

    def check_name(self, port: int) -> None:
        """Before a name is resolved: refuse a port that no address can allow."""
        if not self._allowed:
            self.check_port(port)


class PublicBackend(Backend):
    """Dials public addresses only, and those that the operator allowed on purpose."""

    def __init__(
        self,
        allowed: Iterable[Network] = (),
        ports: Sequence[range] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls)
        self._gate = Gate(allowed, ports)
        self._resolver = Resolver()

    async def connect_tcp(self, host: str, port: int, timeout: float | None = None) -> Connection:
        """Dial the addresses of a name in turn. Notes of the error name those that failed."""
        began, errors = time.monotonic(), list[Exception]()
        addresses = await self._addresses(host, port)
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            share = None if timeout is None else max(began + timeout - time.monotonic(), 0) / left
            try:
                return await self._dial(address, port, share)
            except (httpx.ConnectError, httpx.ConnectTimeout, NetworkAway) as error:
                error.add_note(f"Dialled {address}.")
                errors.append(error)
        raise next((error for error in errors if not isinstance(error, NetworkAway)), errors[-1])

    async def _dial(self, address: Address, port: int, timeout: float | None) -> Connection:
        try:
            connection = await super().connect_tcp(str(address), port, timeout)
        except httpx.ConnectError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _NETWORK_ERRORS:
                raise NetworkAway(str(error)) from error
            raise
        try:
            self._check_peer(connection, address)
        except (httpx.ConnectError, AddressRefused):
            connection.close()
            raise
        return connection

    def _check_peer(self, connection: Connection, address: Address) -> None:
        """Something between us and the peer may have led us elsewhere."""
        peer = connection.peer
        if peer is None:
            raise httpx.ConnectError("The connection was closed at once.")
        if ip_address(peer[0]) != address:
            raise AddressRefused("The connection leads to another address than was dialled.")
        self._gate.check_address(ip_address(peer[0]), peer[1])

    async def _addresses(self, host: str, port: int) -> list[Address]:
        known = literal(host)
        if known is None:
            self._gate.check_name(port)
            addresses = await self._resolver.addresses(host, port)
        else:
            addresses = [known]
        for address in addresses:
            self._gate.check_address(address, port)
        return addresses


class ProxiedBackend(Backend):
    """Every connection goes through a proxy, which resolves and checks names.

    Literal addresses are checked here, unless `guarded` is False: for an origin that the operator
    named.
    """

    def __init__(
        self,
        proxy: str,
        allowed: Iterable[Network] = (),
        ports: Sequence[range] | None = None,
        tls: ssl.SSLContext | None = None,
        *,
        guarded: bool = True,
    ) -> None:
        super().__init__(tls)
        self._proxy = httpx.URL(proxy)
        token = b64encode(f"{self._proxy.username}:{self._proxy.password}".encode())
        self._headers = (
            b"Proxy-Authorization: Basic %b\r\n" % token if self._proxy.userinfo else b""
        )
        self._gate = Gate(allowed, ports) if guarded else None

    async def open(self, origin: httpx.URL, timeout: float | None) -> Connection:
        if self._gate is not None:
            self._check(self._gate, host_of(origin), port_of(origin))
        try:
            to_proxy = await super().open(self._proxy, timeout)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise ProxyAway("The proxy cannot be reached.") from None
        authority = b"%b:%d" % (_bracketed(origin.raw_host), port_of(origin))
        if origin.scheme == "http":
            to_proxy.forward = (b"http://" + authority, self._headers)
            return to_proxy
        try:
            await self._tunnel(to_proxy, authority, timeout)
            return await self.secured(to_proxy, origin, timeout)
        except BaseException:
            to_proxy.close()
            raise

    def _check(self, gate: Gate, host: str, port: int) -> None:
        known = literal(host)
        if known is None:
            gate.check_port(port)
        else:
            gate.check_address(known, port)

    async def _tunnel(self, to_proxy: Connection, target: bytes, timeout: float | None) -> None:
        asked = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (target, target, self._headers)
        try:
            await to_proxy.ask(asked, timeout, no_body=True)
            status = (await to_proxy.answer(timeout)).code
        except (httpx.NetworkError, httpx.TimeoutException, httpx.ProtocolError):
            raise ProxyAway("The proxy does not answer.") from None
        if status in _BEYOND_THE_PROXY:
            raise httpx.ConnectError(f"The proxy does not reach the endpoint: HTTP {status}.")
        if not 200 <= status < 300:
            raise ProxyAway(f"The proxy refuses: HTTP {status}.")
        if not to_proxy.usable():
            raise ProxyAway("The proxy sends more than it was asked for.")


def _bracketed(host: bytes) -> bytes:
    return b"[%b]" % host if b":" in host else host


def transport(
    allowed: Iterable[Network],
    ports: Sequence[range] | None = None,
    proxy: str | None = None,
    connections: int = 200,
) -> PooledTransport:
    """For direct calls: it knows no redirects, cookies or variables of the environment.

    `connections`: how many to one origin, at most. The address dialled (with a proxy: the proxy's)
    is `request.extensions["server_addr"]`, also after an error on a connection. What was dialled in
    vain is in the `__notes__` of the error.
    """
    backend = ProxiedBackend(proxy, allowed, ports) if proxy else PublicBackend(allowed, ports)
    return PooledTransport(backend, connections)
