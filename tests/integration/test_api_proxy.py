"""The API is asked through the proxy that a setting or the environment names, over real sockets."""

from __future__ import annotations

import asyncio
import json

import pytest

from cavendish.model import Answered, Lane, UpstreamError
from cavendish_worker.http import api_proxy, dial
from cavendish_worker.http.api_proxy import Route, route
from cavendish_worker.polling.upstream import CallLimits, Upstream
from proxying import Proxy
from receiving import Authority, Peer, receiving

LANE, API = Lane("default", "nano-banana"), "https://api.example"
VARIABLES = [f"{kind}_proxy" for kind in ("http", "https", "all", "no")]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names no proxy before a test does."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def ask(url: str, setting: str) -> Answered | UpstreamError:
    through, limits = api_proxy.transport(url, setting), CallLimits(2.0, 2.0, 2**20)
    async with through:
        upstream = Upstream(through, url, {"default": "secret-token"}, limits)
        return await upstream.retrieve_batch(LANE, ["a"])


def says_item(peer: Peer) -> None:
    body = json.dumps({"items": [{"id": "a"}]}).encode()
    peer.link.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("by", ["setting", "environment"])
def test_each_call_goes_through_the_proxy_and_a_kept_connection_serves_the_next(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, scheme: str, by: str
) -> None:
    authority = Authority(tmp_path)  # type: ignore[arg-type]
    monkeypatch.setattr(dial, "tls_context", lambda: authority.client)

    async def run() -> None:
        proxy = Proxy()
        tls = authority.server("api.example", []) if scheme == "https" else None
        async with proxy.running(), receiving(says_item, tls=tls) as receiver:
            url = receiver.url.removesuffix("/hook").replace("127.0.0.1", "api.example")
            address = f"http://me:pw@127.0.0.1:{proxy.port}"
            if by == "environment":
                monkeypatch.setenv(f"{scheme.upper()}_PROXY", address)
            for number in (1, 2):
                answer = await ask(url, address if by == "setting" else "")
                assert isinstance(answer, Answered)
                assert len(proxy.heads) == number
            assert proxy.heads[0].startswith(
                b"CONNECT api.example:" if scheme == "https" else b"POST http://api.example:"
            )
            assert b"Proxy-Authorization: Basic bWU6cHc=" in proxy.heads[0]
            assert (b"secret-token" in proxy.heads[0]) is (scheme == "http")

    asyncio.run(run())


def test_a_proxy_that_is_away_or_refuses_is_said_without_its_login() -> None:
    async def run() -> None:
        proxy = Proxy(b"407 Login")
        async with proxy.running():
            refused = await ask(API, f"http://me:hunter2@127.0.0.1:{proxy.port}")
        away = await ask(API, f"http://me:hunter2@127.0.0.1:{proxy.port}")
        assert refused.detail == "ConnectError: The proxy refuses: HTTP 407."  # type: ignore[union-attr]
        assert away.detail == "ConnectError: The proxy cannot be reached."  # type: ignore[union-attr]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("environment", "url", "proxy", "source"),
    [
        ({}, API, "", ""),
        ({"HTTPS_PROXY": "http://p:1"}, API, "http://p:1", "HTTPS_PROXY"),
        (
            {"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:1"},
            API,
            "http://p:1",
            "HTTPS_PROXY",
        ),
        ({"HTTP_PROXY": "http://p:1"}, API, "", ""),
        ({"HTTP_PROXY": "http://p:1"}, "http://api.example", "http://p:1", "HTTP_PROXY"),
        ({"ALL_PROXY": "https://u:pw@p:1"}, API, "https://u:pw@p:1", "ALL_PROXY"),
        ({"ALL_PROXY": "p:3128"}, API, "http://p:3128", "ALL_PROXY"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example"}, API, "", ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "other, .api.example"}, API, "", ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, API, "", ""),
        (
            {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "api.example:444"},
            API,
            "http://p:1",
            "HTTPS_PROXY",
        ),
        ({"HTTP_PROXY": "http://p:1"}, "http://127.0.0.1:8000", "", ""),
        ({"HTTP_PROXY": "http://p:1"}, "http://localhost:8000", "", ""),
        (
            {"ALL_PROXY": "socks5://p:1"},
            API,
            "",
            "ALL_PROXY names no HTTP proxy and is ignored",
        ),
        (
            {"HTTPS_PROXY": "http://p:x"},
            API,
            "",
            "HTTPS_PROXY names no HTTP proxy and is ignored",
        ),
    ],
)
def test_the_environment_is_read_as_other_programs_do(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, proxy: str, source: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert route(url, "") == Route(proxy, source)
    assert route(url, "none") == Route()
    assert route(url, "http://u:pw@s:1") == Route("http://u:pw@s:1", "CAVENDISH_API_PROXY")
    assert route(url, "http://u:pw@s:1").host == "s:1"
