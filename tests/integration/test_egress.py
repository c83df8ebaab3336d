"""The way out over real sockets.

What may not be reached gets no connection, and our own faults are told from the endpoint's.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest

from cavendish.endpoints.signing import new_secret
from cavendish_worker.http import egress, resolver
from cavendish_worker.http.dial import Backend
from cavendish_worker.http.egress import (
    AddressRefused,
    NetworkAway,
    ProxiedBackend,
    ProxyAway,
    PublicBackend,
    ResolverAway,
)
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.http.stream import Connection
from cavendish_worker.http.transport import PooledTransport, read_raw
from cavendish_worker.webhooks.attempt_result import AttemptResult
from cavendish_worker.webhooks.post import Target, post
from proxying import Proxy
from receiving import Authority, receiving

LOOPBACK = (ip_network("127.0.0.0/8"),)
WEB = (range(80, 81), range(443, 444))
Served = Callable[[Callable[[httpx.Request], object]], str]
Answer = str | Exception


async def call(through: httpx.AsyncBaseTransport, url: str) -> tuple[int, bytes]:
    """One POST, straight through the transport, which is closed after it."""
    limits = dict.fromkeys(("connect", "read", "write", "pool"), 2.0)
    async with through:
        response = await through.handle_async_request(
            httpx.Request("POST", url, content=b"{}", extensions={"timeout": limits})
        )
        try:
            return response.status_code, await read_raw(response, 1000) or b""
        finally:
            await response.aclose()


def fault(through: httpx.AsyncBaseTransport, url: str) -> BaseException:
    """The error behind the httpx error of a call."""
    with pytest.raises(httpx.ConnectError) as caught:
        asyncio.run(call(through, url))
    assert caught.value.__cause__ is not None
    return caught.value.__cause__


@contextmanager
def untouched(host: str = "127.0.0.1") -> Iterator[int]:
    """A listening port that must not get a connection."""
    with socket.create_server((host, 0)) as server:
        yield server.getsockname()[1]
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[Answer]]]:
    """What the resolver says about a name, answer by answer.

    The last one stays. An Exception is raised.
    """
    store: dict[str, list[list[Answer]]] = {}
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *rest: object, **more: object) -> list[object]:
        if host not in store:
            return real(host, port, *rest, **more)  # type: ignore[arg-type,return-value]
        answers = store[host].pop(0) if len(store[host]) > 1 else store[host][0]
        if isinstance(answers[0], Exception):
            raise answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return store


async def ok(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=b"ok")


def test_a_name_is_resolved_once_and_what_was_checked_is_what_is_dialled(
    names: dict[str, list[list[Answer]]],
) -> None:
    names["rebound.example"] = [["127.0.0.2"], ["127.0.0.1"]]
    with untouched() as port, socket.create_server(("127.0.0.2", port)) as allowed:
        through = egress.transport([ip_network("127.0.0.2/32")])
        url = f"http://rebound.example:{port}/"

        async def run() -> None:
            first = asyncio.create_task(call(through, url))
            peer, _ = await asyncio.to_thread(allowed.accept)
            await asyncio.to_thread(peer.recv, 65536)  # an answer before the request would be none
            peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            assert await first == (200, b"")
            peer.close()

        asyncio.run(run())
        assert isinstance(fault(through, url), AddressRefused)


@pytest.mark.parametrize(
    "answers",
    [["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["10.0.0.7"], ["169.254.169.254"]],
)
def test_one_address_that_is_not_public_is_enough_for_a_refusal(
    names: dict[str, list[list[Answer]]], answers: list[Answer]
) -> None:
    names["mixed.example"] = [answers]
    with untouched() as port:
        assert (
            str(fault(egress.transport(()), f"http://mixed.example:{port}/"))
            == "The address is not public."
        )


def test_a_redirect_to_the_inside_is_not_followed(served: Served) -> None:
    with untouched("127.0.0.2") as port:

        async def handler(_: httpx.Request) -> httpx.Response:
            return httpx.Response(307, headers={"location": f"http://127.0.0.2:{port}/"})

        url = served(handler)

        async def run() -> int:
            async with httpx.AsyncClient(
                transport=egress.transport(LOOPBACK), trust_env=False
            ) as client:
                return (await client.post(url, content=b"{}")).status_code

        assert asyncio.run(run()) == 307


def test_a_connection_that_leads_elsewhere_than_was_dialled_is_refused(
    monkeypatch: pytest.MonkeyPatch, served: Served
) -> None:
    real, asked = Backend.connect_tcp, list[httpx.Request]()

    async def astray(
        self: Backend, host: str, port: int, timeout: float | None = None
    ) -> Connection:
        assert host == "127.0.0.9"
        return await real(self, "127.0.0.1", port, timeout)

    async def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200)

    monkeypatch.setattr(Backend, "connect_tcp", astray)
    url = served(handler).replace("127.0.0.1", "127.0.0.9")
    assert isinstance(fault(egress.transport(LOOPBACK), url), AddressRefused)
    assert asked == []


def test_a_forbidden_port_is_refused_before_its_name_is_resolved(
    names: dict[str, list[list[Answer]]],
) -> None:
    names["ports.example"] = [[AssertionError("was resolved")]]
    error = fault(egress.transport((), WEB), "http://ports.example:25/")
    assert (type(error), str(error)) == (
        AddressRefused,
        "The port is not one that webhooks may reach.",
    )
    assert isinstance(fault(egress.transport((), WEB), "http://8.8.8.8:25/"), AddressRefused)


def test_ports_of_allowed_networks_are_free(
    served: Served, names: dict[str, list[list[Answer]]]
) -> None:
    url = served(ok)
    names["inside.example"], names["outside.example"] = [["127.0.0.1"]], [["8.8.8.8"]]
    for host in ("127.0.0.1", "inside.example"):
        assert asyncio.run(
            call(egress.transport(LOOPBACK, WEB), url.replace("127.0.0.1", host))
        ) == (200, b"ok")
    refused = fault(egress.transport(LOOPBACK, WEB), url.replace("127.0.0.1", "outside.example"))
    assert str(refused) == "The port is not one that webhooks may reach."


def test_the_next_address_of_a_name_is_tried_and_what_was_dialled_in_vain_is_noted(
    served: Served, names: dict[str, list[list[Answer]]]
) -> None:
    url = served(ok).replace("127.0.0.1", "two.example")
    names["two.example"] = [["127.0.0.3", "127.0.0.1"], ["127.0.0.3"]]
    assert asyncio.run(call(egress.transport(LOOPBACK), url)) == (200, b"ok")
    with pytest.raises(httpx.ConnectError) as caught:
        asyncio.run(call(egress.transport(LOOPBACK), url))
    assert caught.value.__notes__ == ["Dialled 127.0.0.3."]


def test_a_webhook_does_not_spend_its_time_on_the_first_address_of_a_name_that_is_silent(
    names: dict[str, list[list[Answer]]],
) -> None:
    names["two.example"] = [["127.0.0.2", "127.0.0.3"]]
    target = Target("http://two.example:PORT/", (new_secret(),))

    async def run() -> AttemptResult:
        with socket.create_server(("127.0.0.2", 0), backlog=0) as silent, ExitStack() as full:
            port = silent.getsockname()[1]
            for _ in range(4):  # it takes no further connection
                one = full.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex(("127.0.0.2", port))
            answers = await asyncio.start_server(answer, "127.0.0.3", port)
            async with answers, egress.transport(LOOPBACK) as through:
                to = replace(target, url=target.url.replace("PORT", str(port)))
                said = await post(through, to, "msg_1", b"{}", 1.7e9, 2.0, ShutdownDeadline())
                await asyncio.sleep(0.05)  # the connections end
                return said

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    result = asyncio.run(run())
    assert (result.outcome, result.address) == ("HTTP 204", "127.0.0.3")


@pytest.mark.parametrize("code", [socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM])
def test_a_resolver_that_is_away_is_our_own_fault_unless_other_names_are_resolved(
    served: Served, names: dict[str, list[list[Answer]]], code: int
) -> None:
    names["lost.example"], names["good.example"] = (
        [[socket.gaierror(code, "away")]],
        [["127.0.0.1"]],
    )
    good = served(ok).replace("127.0.0.1", "good.example")
    backend = PublicBackend(LOOPBACK)
    assert isinstance(fault(PooledTransport(backend), "http://lost.example/"), ResolverAway)
    assert asyncio.run(call(PooledTransport(backend), good)) == (200, b"ok")
    names["good.example"] = [[socket.gaierror(code, "away")]]
    theirs = fault(PooledTransport(backend), "http://lost.example/")
    assert isinstance(theirs, socket.gaierror)
    assert isinstance(fault(PooledTransport(backend), good), ResolverAway)


def test_the_proof_of_another_name_grows_old(
    served: Served, names: dict[str, list[list[Answer]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names["lost.example"], names["good.example"] = (
        [[socket.gaierror(socket.EAI_AGAIN, "away")]],
        [["127.0.0.1"]],
    )
    backend = PublicBackend(LOOPBACK)
    asyncio.run(call(PooledTransport(backend), served(ok).replace("127.0.0.1", "good.example")))
    monkeypatch.setattr(resolver, "RESOLVER_PROVEN", 0.0)
    assert isinstance(fault(PooledTransport(backend), "http://lost.example/"), ResolverAway)


def test_a_name_that_does_not_exist_is_the_endpoints_fault(
    names: dict[str, list[list[Answer]]],
) -> None:
    names["no.example"] = [[socket.gaierror(socket.EAI_NONAME, "no such name")]]
    assert not isinstance(fault(egress.transport(()), "http://no.example/"), ResolverAway)


def test_a_silent_name_server_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading  # noqa: PLC0415

    done = threading.Event()
    monkeypatch.setattr(resolver, "RESOLVE_TIMEOUT", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: done.wait(5))
    assert isinstance(fault(egress.transport(()), "http://silent.example/"), ResolverAway)
    done.set()


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENOBUFS])
def test_a_network_that_is_away_is_our_own_fault(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async def connect(*_: object) -> None:
        raise OSError(number, "away")

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", connect)
    assert isinstance(fault(egress.transport(LOOPBACK), "http://127.0.0.1:9/"), NetworkAway)


def test_no_more_files_is_our_own_fault() -> None:
    import resource  # noqa: PLC0415

    async def run() -> BaseException | None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            await call(egress.transport(LOOPBACK), "http://127.0.0.1:9/")
        except httpx.ConnectError as error:
            return error.__cause__
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return None

    assert isinstance(asyncio.run(run()), NetworkAway)


def test_a_closed_port_is_the_endpoints_fault() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert not isinstance(
        fault(egress.transport(LOOPBACK), f"http://127.0.0.1:{port}/"), NetworkAway
    )


def through_proxy(
    proxy: Proxy, url: str, userinfo: str = "", ports: tuple[range, ...] | None = None
) -> tuple[int, bytes]:
    async def run() -> tuple[int, bytes]:
        async with proxy.running():
            return await call(
                egress.transport((), ports, f"http://{userinfo}127.0.0.1:{proxy.port}"), url
            )

    return asyncio.run(run())


def test_with_a_proxy_it_is_the_proxy_that_resolves_names(
    served: Served, names: dict[str, list[list[Answer]]]
) -> None:
    names["hooks.example"] = [[AssertionError("was resolved")]]
    proxy = Proxy()
    url = served(ok).replace("127.0.0.1", "hooks.example")
    assert through_proxy(proxy, url, userinfo="me:pass%20word@") == (200, b"ok")
    (head,) = proxy.heads
    assert head.startswith(b"POST " + url.encode() + b"/ HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6cGFzcyB3b3Jk\r\n" in head


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_with_a_proxy_literal_addresses_and_ports_are_still_refused(scheme: str) -> None:
    for url in (
        "127.0.0.1",
        "169.254.169.254",
        "[::1]",
        "2130706433",
        "localhost",
        "hooks.example:25",
        "8.8.8.8:25",
    ):
        proxy = Proxy()
        with pytest.raises(httpx.ConnectError) as caught:
            through_proxy(proxy, f"{scheme}://{url}/", ports=WEB)
        assert isinstance(caught.value.__cause__, AddressRefused)
        assert proxy.heads == []


@pytest.mark.parametrize("url", ["http://hooks.example/", "https://hooks.example/"])
def test_a_proxy_that_refuses_us_is_our_own_fault_and_its_password_stays_secret(url: str) -> None:
    proxy = Proxy(b"407 Proxy Authentication Required")
    with pytest.raises(httpx.ConnectError, match="HTTP 407") as caught:
        through_proxy(proxy, url, userinfo="me:hunter2@")
    assert isinstance(caught.value.__cause__, ProxyAway)
    assert "hunter2" not in repr(caught.value)
    assert len(proxy.heads) == 1


@pytest.mark.parametrize(
    ("status", "ours"),
    [(b"403 Forbidden", True), (b"502 Bad Gateway", False), (b"504 Late", False)],
)
def test_a_proxy_that_does_not_reach_the_endpoint_is_not_at_fault_itself(
    status: bytes, ours: bool
) -> None:
    with pytest.raises(httpx.ConnectError) as caught:
        through_proxy(Proxy(status), "https://hooks.example/")
    assert isinstance(caught.value.__cause__, ProxyAway) is ours


@pytest.mark.parametrize("url", ["http://hooks.example/", "https://hooks.example/"])
def test_a_proxy_that_is_not_there_is_our_own_fault(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = fault(egress.transport((), None, f"http://me:hunter2@127.0.0.1:{port}"), url)
    assert (type(error), str(error)) == (ProxyAway, "The proxy cannot be reached.")


OLD = pytest.mark.skipif(
    sys.version_info < (3, 11, 4), reason="asyncio of this Python trips over TLS within TLS"
)


@pytest.mark.parametrize("scheme", ["http", pytest.param("https", marks=OLD)])
def test_tls_goes_through_a_proxy_to_the_endpoint_itself(tmp_path: Path, scheme: str) -> None:
    authority, seen = Authority(tmp_path), list[str | None]()

    async def run() -> None:
        proxy = Proxy(tls=authority.server("localhost", []) if scheme == "https" else None)
        async with (
            proxy.running(),
            receiving(tls=authority.server("hooks.example", seen)) as receiver,
        ):
            backend = ProxiedBackend(f"{scheme}://localhost:{proxy.port}", tls=authority.client)
            url = receiver.url.replace("127.0.0.1", "hooks.example")
            assert await call(PooledTransport(backend), url) == (200, b"ok")
            assert proxy.heads[0].startswith(
                b"CONNECT " + url.split("/")[2].encode() + b" HTTP/1.1\r\n"
            )
            assert seen == ["hooks.example"]
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await call(PooledTransport(backend), url.replace("hooks", "other"))
            assert len(receiver.requests) == 1

    asyncio.run(run())


def test_what_a_proxy_slips_in_before_the_handshake_is_not_taken_for_the_answer(
    tmp_path: Path,
) -> None:
    authority, forged = Authority(tmp_path), b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"

    async def run() -> None:
        proxy = Proxy(slips_in=b" " * (64 * 1024 - len(b"HTTP/1.1 200 OK\r\n\r\n")) + forged)
        async with (
            proxy.running(),
            receiving(tls=authority.server("hooks.example", [])) as receiver,
        ):
            backend = ProxiedBackend(f"http://127.0.0.1:{proxy.port}", tls=authority.client)
            url = receiver.url.replace("127.0.0.1", "hooks.example")
            with pytest.raises(httpx.ConnectError) as caught:
                await call(PooledTransport(backend), url)
            assert isinstance(caught.value.__cause__, ProxyAway)
            assert receiver.requests == []

    asyncio.run(run())


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"])
def test_neither_a_silent_nor_a_refusing_proxy_keeps_a_connection(says: bytes) -> None:
    async def run() -> None:
        left = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(says)
            await reader.read()
            writer.close()
            left.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        through = egress.transport(
            (), None, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        )
        with pytest.raises(httpx.ConnectError if says else TimeoutError):
            async with asyncio.timeout(0.1):
                await through.handle_async_request(httpx.Request("GET", "https://hooks.example/"))
        await asyncio.wait_for(left.wait(), 2)
        server.close()

    asyncio.run(run())
