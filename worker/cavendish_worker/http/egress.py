"""The way out for webhooks: resolve once, refuse if any address is not public, dial that very
address.

The check sits inside the dial, so nothing can change between check and connect; Host header, SNI
and the certificate check keep the name. With a proxy, names are the proxy's to resolve and to
check. Redirects and proxies from the environment are off. What goes wrong is told apart:
`AddressRefused` for good, `ResolverAway`, `NetworkAway` and `ProxyAway` for our own faults; they
are the `__cause__` of the httpx error that a caller meets.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address

import httpcore
import httpx

from cavendish.policy.addresses import Address, Network, innermost, literal, may_dial
from cavendish_worker.http.stream import Backend, Connection, Stream
from cavendish_worker.http.transport import PooledTransport

RESOLVE_TIMEOUT, RESOLVERS = 5.0, 32
#: Seconds for which another name's success shows that the resolver works.
RESOLVER_PROVEN = 60.0

_RESOLVER_ERRORS = {socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM}
_NETWORK_ERRORS = {
    getattr(errno, name)
    for name in "ENETUNREACH ENETDOWN EMFILE ENFILE EADDRNOTAVAIL ENOBUFS ENOMEM".split()
}
#: Answers with which a proxy says that the endpoint, not itself, is at fault.
_BEYOND_THE_PROXY = {502, 503, 504}


class AddressRefused(httpcore.ConnectError):
    """The name stands for an address or port that webhooks may not reach.

    The text does not tell what lives there.
    """


class ResolverAway(httpcore.ConnectError):
    """Names cannot be resolved at the moment, and this one is not known to be the only one."""


class NetworkAway(httpcore.ConnectError):
    """This machine cannot make connections: no route, or no more sockets."""


class ProxyAway(httpcore.ConnectError):
    """The proxy that all webhooks go through cannot be reached, or refuses to serve us."""


class Gate:
    """Which addresses and ports may be reached.

    Public ones, and those that the operator allowed on purpose, at any port.
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
        """Before a name is resolved: refuse what no address could make right."""
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
        #: The last two names that were resolved, and when.
        self._resolved: dict[str, float] = {}
        # Threads of their own: a name server that keeps silent must not hold up the names of the
        # remote API.
        self._resolvers = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="cavendish-dns")

    async def connect_tcp(self, host: str, port: int, timeout: float | None = None) -> Stream:
        """Try the addresses of a name one after the other.

        What was dialled in vain is a note of the error.
        """
        began, errors = time.monotonic(), list[Exception]()
        addresses = await self._addresses(host, port)
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            share = None if timeout is None else max(began + timeout - time.monotonic(), 0) / left
            try:
                return await self._dial(address, port, share)
            except AddressRefused:
                raise
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                error.add_note(f"Dialled {address}.")
                errors.append(error)
        raise next((error for error in errors if not isinstance(error, NetworkAway)), errors[-1])

    async def _dial(self, address: Address, port: int, timeout: float | None) -> Stream:
        try:
            stream = await super().connect_tcp(str(address), port, timeout)
        except httpcore.ConnectError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _NETWORK_ERRORS:
                raise NetworkAway(str(error)) from error
            raise
        try:
            self._check_peer(stream, address)
        except httpcore.ConnectError:
            stream.close()
            raise
        return stream

    def _check_peer(self, stream: Stream, address: Address) -> None:
        """What stands between us and the peer may have sent us elsewhere."""
        peer = stream.get_extra_info("server_addr")
        if peer is None:
            raise httpcore.ConnectError("The connection was closed at once.")
        if ip_address(peer[0]) != address:
            raise AddressRefused("The connection leads to another address than was dialled.")
        self._gate.check_address(ip_address(peer[0]), peer[1])

    async def _addresses(self, host: str, port: int) -> list[Address]:
        known = literal(host)
        if known is None:
            self._gate.check_name(port)
            addresses = await self._resolve(host, port)
        else:
            addresses = [known]
        for address in addresses:
            self._gate.check_address(address, port)
        return addresses

    async def _resolve(self, name: str, port: int) -> list[Address]:
        ask = partial(
            socket.getaddrinfo, name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT):
                rows = await asyncio.get_running_loop().run_in_executor(self._resolvers, ask)
        except (OSError, UnicodeError) as error:
            ours = (
                isinstance(error, TimeoutError) or getattr(error, "errno", None) in _RESOLVER_ERRORS
            )
            if ours and not self._proven_by_others(name):
                raise ResolverAway("Names cannot be resolved.") from error
            raise httpcore.ConnectError("The name cannot be resolved.") from error
        if not rows:
            raise httpcore.ConnectError("The name has no address.")
        self._resolved.pop(name, None)
        self._resolved[name] = time.monotonic()
        for older in list(self._resolved)[:-2]:
            del self._resolved[older]
        return [ip_address(address) for address in dict.fromkeys(str(row[4][0]) for row in rows)]

    def _proven_by_others(self, name: str) -> bool:
        now = time.monotonic()
        return any(
            other != name and now - at < RESOLVER_PROVEN for other, at in self._resolved.items()
        )


class ProxiedBackend(Backend):
    """Every connection goes through a proxy, which resolves names and guards them.

    Literal addresses are checked here.
    """

    def __init__(
        self,
        proxy: str,
        allowed: Iterable[Network] = (),
        ports: Sequence[range] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls)
        url = httpx.URL(proxy)
        self._origin = httpcore.Origin(
            url.raw_scheme, url.raw_host, url.port or {"http": 80, "https": 443}[url.scheme]
        )
        token = b64encode(f"{url.username}:{url.password}".encode())
        self._headers = [(b"Proxy-Authorization", b"Basic " + token)] if url.userinfo else []
        self._gate = Gate(allowed, ports)

    async def open(self, origin: httpcore.Origin, timeout: float | None) -> Connection:
        known = literal(origin.host.decode())
        if known is None:
            self._gate.check_port(origin.port)
        else:
            self._gate.check_address(known, origin.port)
        try:
            to_proxy = await super().open(self._origin, timeout)
        except (httpcore.ConnectError, httpcore.ConnectTimeout):
            raise ProxyAway("The proxy cannot be reached.") from None
        if origin.scheme == b"http":
            return Connection(
                to_proxy.stream, _Forwarded(to_proxy.http, self._origin, self._headers)
            )
        try:
            await self._tunnel(to_proxy, origin, timeout)
            return await self.speaking(to_proxy.stream, origin, timeout)
        except BaseException:
            to_proxy.stream.close()
            raise

    async def _tunnel(
        self, to_proxy: Connection, origin: httpcore.Origin, timeout: float | None
    ) -> None:
        target = b"%b:%d" % (_bracketed(origin.host), origin.port)
        request = httpcore.Request(
            "CONNECT",
            _at(self._origin, target),
            headers=[(b"Host", target), *self._headers],
            extensions={"timeout": {"read": timeout, "write": timeout}},
        )
        try:
            response = await to_proxy.http.handle_async_request(request)
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
            raise ProxyAway("The proxy does not answer.") from None
        if response.status in _BEYOND_THE_PROXY:
            raise httpcore.ConnectError(
                f"The proxy does not reach the endpoint: HTTP {response.status}."
            )
        if not 200 <= response.status < 300:
            raise ProxyAway(f"The proxy refuses: HTTP {response.status}.")


class _Forwarded(httpcore.AsyncConnectionInterface):
    """A connection to a proxy that is told whole URLs, for one http:// origin."""

    def __init__(
        self,
        http: httpcore.AsyncConnectionInterface,
        proxy: httpcore.Origin,
        headers: Sequence[tuple[bytes, bytes]],
    ) -> None:
        self._http, self._proxy, self._headers = http, proxy, headers

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        origin = request.url.origin
        target = b"http://%b:%d%b" % (_bracketed(origin.host), origin.port, request.url.target)
        response = await self._http.handle_async_request(
            httpcore.Request(
                request.method,
                _at(self._proxy, target),
                headers=[*self._headers, *request.headers],
                content=request.stream,
                extensions=request.extensions,
            )
        )
        if response.status == 407:
            await response.aclose()
            raise ProxyAway("The proxy refuses: HTTP 407.")
        return response

    def is_idle(self) -> bool:
        return self._http.is_idle()

    def has_expired(self) -> bool:
        return self._http.has_expired()


def _bracketed(host: bytes) -> bytes:
    return b"[%b]" % host if b":" in host else host


def _at(origin: httpcore.Origin, target: bytes) -> httpcore.URL:
    return httpcore.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=target)


def transport(
    allowed: Iterable[Network],
    ports: Sequence[range] | None = None,
    proxy: str | None = None,
    connections: int = 200,
) -> httpx.AsyncBaseTransport:
    """For direct calls: it knows no redirects, cookies or variables at all. `connections` are to
    one origin, at most.

    The address dialled is `response.extensions["network_stream"].get_extra_info("server_addr")`,
    and, also after an error on a connection, `request.extensions["server_addr"]` (with a proxy: the
    proxy's). What was dialled in vain is in the error's `__notes__`.
    """
    return PooledTransport(
        ProxiedBackend(proxy, allowed, ports) if proxy else PublicBackend(allowed, ports),
        connections,
    )
