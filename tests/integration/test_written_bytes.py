"""What is written to a receiver is, byte for byte, what httpx's own transport would write.

Whatever the URL and the headers are.
"""

from __future__ import annotations

import asyncio

import httpx
import pytest

from cavendish_worker.http import egress
from cavendish_worker.http.egress import ProxiedBackend
from cavendish_worker.http.transport import PooledTransport
from proxying import Proxy
from receiving import receiving

TARGETS = [
    "",
    "/",
    "/?",
    "/hook?",
    "?a=b",
    "/hook;x=1?y=%20z&y=+&z",
    "/%2F%2f%41/%zz/%",
    "//double//slash/",
    "/a/../b/./c",
    "/ü/水?ключ=значение",
    "/a b?c d=e f",
    "/'\"<>[]{}|^`~!$&()*,=@:",
    "/hook#fragment",
    "/?next=https://e.com/?a=b#c",
    "/%E2%82%AC?%C3%A9=%00",
    "/" + "x" * 3000,
]
HEADERS: list[list[tuple[str, str]] | list[tuple[bytes, bytes]]] = [
    [(b"X-Text", "é ü".encode()), (b"x-latin", b"\xe9")],
    [],
    [("X-Mixed-Case", "A"), ("x-lower", "b"), ("ACCEPT", "c"), ("x-lower", "again")],
    [
        ("user-agent", "Cavendish"),
        ("accept-encoding", "identity"),
        ("Cookie", "a=b"),
        ("x-empty", ""),
    ],
    [("authorization", "Bearer t"), ("content-type", "application/json"), ("x-inner", "a  b\tc")],
]


async def written(
    transport: httpx.AsyncBaseTransport, request: httpx.Request, receiver_requests: list[bytes]
) -> bytes:
    response = await transport.handle_async_request(request)
    await response.aread()
    await response.aclose()
    return receiver_requests.pop()


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "GET"])
def test_it_is_what_httpx_would_write(method: str) -> None:
    async def run() -> None:
        async with (
            receiving() as receiver,
            PooledTransport() as ours,
            httpx.AsyncHTTPTransport() as theirs,
        ):
            root = receiver.url.removesuffix("/hook")
            for target in TARGETS:
                for headers in HEADERS:
                    body = '{"é":1}'.encode() if method == "POST" else None
                    requests = [
                        httpx.Request(method, f"{root}{target}", headers=headers, content=body)
                        for _ in range(2)
                    ]
                    here, there = [
                        await written(transport, request, receiver.requests)
                        for transport, request in zip((ours, theirs), requests, strict=True)
                    ]
                    assert here == there
                    assert b"aiohttp" not in here.lower()

    asyncio.run(run())


def test_a_login_in_the_url_does_not_leave() -> None:
    async def run() -> None:
        async with receiving() as receiver, PooledTransport() as ours:
            request = httpx.Request(
                "POST", receiver.url.replace("//", "//me:hunter2@"), content=b"{}"
            )
            assert b"hunter2" not in (said := await written(ours, request, receiver.requests))
            assert b"Basic" not in said

    asyncio.run(run())


@pytest.mark.parametrize(
    "header",
    [
        ("x-a", "b\r\nx-c: d"),
        ("x-a", "b\n"),
        ("x a", "b"),
        ("x-a", "b\0"),
        ("x-a:", "b"),
        ("", "b"),
    ],
)
def test_a_header_that_would_be_two_or_none_is_not_written(header: tuple[str, str]) -> None:
    async def run() -> None:
        async with receiving() as receiver, PooledTransport() as ours:
            request = httpx.Request("POST", receiver.url, headers=[header], content=b"{}")
            with pytest.raises(httpx.LocalProtocolError):
                await ours.handle_async_request(request)
            assert receiver.made == 0

    asyncio.run(run())


def test_a_proxy_gets_the_whole_url_and_nothing_of_ours_but_its_login() -> None:
    async def run() -> None:
        proxy = Proxy()
        async with proxy.running(), receiving() as receiver:
            through = PooledTransport(ProxiedBackend(f"http://me:pw@127.0.0.1:{proxy.port}"))
            async with through:
                url = f"{receiver.url}?a=%zz".replace("127.0.0.1", "hooks.example")
                request = httpx.Request("POST", url, headers={"x-one": "1"}, content=b"{}")
                await (await through.handle_async_request(request)).aclose()
            host = request.headers["host"].encode()
            lines = proxy.heads[0].split(b"\r\n")
            assert lines[0] == b"POST http://%b/hook?a=%%zz HTTP/1.1" % host
            assert lines[1:5] == [
                b"Proxy-Authorization: Basic bWU6cHc=",
                b"Host: " + host,
                b"x-one: 1",
                b"Content-Length: 2",
            ]

    asyncio.run(run())


def test_connect_says_no_more_than_where_to() -> None:
    async def run() -> None:
        proxy = Proxy(b"502 Bad Gateway")
        async with (
            proxy.running(),
            egress.transport((), None, f"http://me:pw@127.0.0.1:{proxy.port}") as through,
        ):
            with pytest.raises(httpx.ConnectError):
                await through.handle_async_request(
                    httpx.Request("POST", "https://hooks.example/x", content=b"{}")
                )
        assert proxy.heads == [
            b"CONNECT hooks.example:443 HTTP/1.1\r\nHost: hooks.example:443\r\n"
            b"Proxy-Authorization: Basic bWU6cHc=\r\n\r\n"
        ]

    asyncio.run(run())
