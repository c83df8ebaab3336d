"""The transport over real sockets.

Who gets which connection, and that none is ever lost, whatever ends a call.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from cavendish_worker.http import stream, transport
from cavendish_worker.http.dial import Backend
from cavendish_worker.http.stream import Connection
from cavendish_worker.http.transport import Call, PooledTransport, place_of, read_raw
from receiving import OK, Authority, Peer, receiving


async def call(through: PooledTransport, url: str, body: bytes = b"{}", **timeouts: float) -> bytes:
    """A POST: as webhooks are sent, or through httpx where it has timeouts."""
    if not timeouts:
        place = place_of(httpx.URL(url))
        head = b"Host: %b\r\nContent-Length: %d\r\n" % (place.host, len(body))
        call = Call(place, "POST", head, body)
        return (await through.exchange(call, 1000, 5.0)).body
    response = await through.handle_async_request(
        httpx.Request("POST", url, content=body, extensions={"timeout": timeouts})
    )
    try:
        return await read_raw(response, 1000) or b""
    finally:
        await response.aclose()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(3):
        while not true():
            await asyncio.sleep(0.01)


def test_one_call_after_another_goes_over_one_connection_and_each_is_one_packet() -> None:
    async def run() -> None:
        async with receiving() as receiver, PooledTransport() as pool:
            for number in range(20):
                assert await call(pool, receiver.url, b"%d" % number) == b"ok"
            (peer,) = receiver.open
            assert (receiver.made, peer.packets) == (1, 20)
            assert receiver.requests[7].startswith(b"POST /hook HTTP/1.1\r\nHost: 127.0.0.1:")
            assert receiver.requests[7].endswith(b"\r\n\r\n7")

    asyncio.run(run())


def test_three_hundred_calls_at_once_are_all_answered_over_no_more_connections_than_allowed() -> (
    None
):
    async def run() -> None:
        async with (
            receiving(lambda peer: peer.say(OK, 0.02)) as receiver,
            PooledTransport() as pool,
        ):
            assert (
                await asyncio.gather(*(call(pool, receiver.url) for _ in range(300)))
                == [b"ok"] * 300
            )
            assert receiver.made <= transport.CONNECTIONS_PER_ORIGIN

    asyncio.run(run())


def test_who_waits_for_a_connection_gets_it_in_turn() -> None:
    async def run() -> None:
        async with (
            receiving(lambda peer: peer.say(OK, 0.02)) as receiver,
            PooledTransport(connections=2) as pool,
        ):
            await asyncio.gather(*(call(pool, receiver.url, b"%d" % number) for number in range(8)))
            assert [request[-1:] for request in receiver.requests] == [
                b"%d" % number for number in range(8)
            ]
            assert receiver.made == 2

    asyncio.run(run())


def test_who_waits_too_long_for_a_connection_is_told_so_and_costs_nobody_theirs() -> None:
    async def run() -> None:
        async with (
            receiving(lambda peer: peer.say(OK, 0.2)) as receiver,
            PooledTransport(connections=1) as pool,
        ):
            first = asyncio.create_task(call(pool, receiver.url))
            await asyncio.sleep(0)
            with pytest.raises(httpx.PoolTimeout):
                await call(pool, receiver.url, pool=0.05)
            assert await first == b"ok"
            assert await call(pool, receiver.url) == b"ok"
            assert receiver.made == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    "then",
    [
        lambda peer: peer.link.close(),
        lambda peer: peer.link.abort(),
        lambda peer: peer.link.write(OK),
    ],
)
def test_a_connection_that_was_closed_or_spoken_on_while_idle_is_not_used_again(
    then: Callable[[Peer], object],
) -> None:
    async def run() -> None:
        async with receiving() as receiver, PooledTransport() as pool:
            assert await call(pool, receiver.url) == b"ok"
            (peer,) = receiver.open
            then(peer)
            await asyncio.sleep(0.02)
            assert await call(pool, receiver.url) == b"ok"
            assert receiver.made == 2
            await until(lambda: len(receiver.open) == 1)

    asyncio.run(run())


@pytest.mark.parametrize("end", [lambda peer: peer.link.close(), lambda peer: peer.link.abort()])
def test_a_server_that_closes_instead_of_answering_is_a_clean_error(
    end: Callable[[Peer], object],
) -> None:
    async def run() -> None:
        async with receiving(end) as receiver, PooledTransport(connections=1) as pool:
            for _ in range(3):
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                    await call(pool, receiver.url)
            receiver.answer = lambda peer: peer.say(OK)
            assert await call(pool, receiver.url) == b"ok"
            assert len(receiver.requests) == 4

    asyncio.run(run())


def test_a_call_may_be_given_up_at_any_moment_without_costing_a_connection_or_a_place() -> None:
    chance = random.Random(7)

    def slowly(peer: Peer) -> None:
        peer.say(OK[:-1], 0.01 * chance.random())
        peer.say(OK[-1:], 0.01 + 0.01 * chance.random())

    async def run() -> None:
        async with receiving(slowly) as receiver, PooledTransport(connections=3) as pool:

            async def hasty() -> int:
                patience = chance.choice([None, 0.0, *[0.03 * chance.random()] * 8])
                await asyncio.sleep(0.2 * chance.random())
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        return len(await call(pool, receiver.url))
                return 0

            answers = await asyncio.gather(*(hasty() for _ in range(400)))
            assert 0 < sum(answers) < 800
            await until(lambda: len(receiver.open) <= 3)
            async with asyncio.timeout(20):
                assert (
                    await asyncio.gather(*(call(pool, receiver.url) for _ in range(9)))
                    == [b"ok"] * 9
                )
            assert len(receiver.open) == 3

    asyncio.run(run())


def test_a_call_given_up_while_dialling_leaves_its_place_to_the_next() -> None:
    class Slow(Backend):
        async def connect_tcp(
            self, host: str, port: int, timeout: float | None = None
        ) -> Connection:
            await asyncio.sleep(0.1)
            return await super().connect_tcp(host, port, timeout)

    async def run() -> None:
        async with receiving() as receiver, PooledTransport(Slow(), connections=1) as pool:
            first = asyncio.create_task(call(pool, receiver.url))
            second = asyncio.create_task(call(pool, receiver.url))
            await asyncio.sleep(0.02)
            first.cancel()
            assert await second == b"ok"
            assert receiver.made == 1

    asyncio.run(run())


def test_a_call_given_up_while_it_ends_leaves_its_place_to_the_next() -> None:
    async def run() -> None:
        async with receiving() as receiver, PooledTransport(connections=1) as pool:
            response = await pool.handle_async_request(httpx.Request("GET", receiver.url))
            end = asyncio.create_task(response.aclose())
            await asyncio.sleep(0)
            end.cancel()
            with suppress(asyncio.CancelledError):
                await end
            assert await call(pool, receiver.url) == b"ok"

    asyncio.run(run())


def test_idle_connections_end_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "KEEPALIVE", 0.05)
    monkeypatch.setattr(transport, "KEEPALIVE", 0.05)

    async def run() -> None:
        async with receiving() as receiver, PooledTransport() as pool:
            await asyncio.gather(*(call(pool, receiver.url) for _ in range(5)))
            assert len(receiver.open) == 5
            await until(lambda: not receiver.open)
            assert await call(pool, receiver.url) == b"ok"

    asyncio.run(run())


def test_of_many_origins_only_the_last_used_keep_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "IDLE", 2)

    async def run() -> None:
        async with receiving(host="0.0.0.0") as receiver, PooledTransport() as pool:
            for number in range(1, 7):
                await call(pool, receiver.url.replace("127.0.0.1", f"127.0.0.{number}"))
            await until(lambda: len(receiver.open) == 2)
            assert await call(pool, receiver.url.replace("127.0.0.1", "127.0.0.6")) == b"ok"
            assert receiver.made == 6

    asyncio.run(run())


def test_what_is_closed_holds_no_connection_and_what_is_under_way_ends_in_peace() -> None:
    async def run() -> None:
        async with receiving(lambda peer: peer.say(OK, 0.1)) as receiver:
            pool = PooledTransport()
            await call(pool, receiver.url)
            under_way = asyncio.gather(call(pool, receiver.url), call(pool, receiver.url))
            await asyncio.sleep(0.02)
            await pool.aclose()
            assert await under_way == [b"ok", b"ok"]
            await until(lambda: not receiver.open)

    asyncio.run(run())


def test_silence_before_and_within_an_answer_ends_in_time() -> None:
    async def run() -> None:
        for said in (b"", OK[:20], OK[:-1]):
            async with (
                receiving(lambda peer, said=said: peer.say(said)) as receiver,
                PooledTransport() as pool,
            ):  # type: ignore[misc]
                with pytest.raises(httpx.ReadTimeout):
                    await call(pool, receiver.url, read=0.05)
                await until(lambda receiver=receiver: not receiver.open)  # type: ignore[misc]

    asyncio.run(run())


def test_a_large_body_arrives_whole_and_one_that_nobody_takes_ends_in_time() -> None:
    async def run() -> None:
        async with receiving() as receiver, PooledTransport() as pool:
            assert await call(pool, receiver.url, b"x" * 10_000_000) == b"ok"
            assert len(receiver.requests[0]) > 10_000_000
            (peer,) = receiver.open
            peer.link.pause_reading()
            with pytest.raises(httpx.WriteTimeout):
                await call(pool, receiver.url, b"x" * 50_000_000, write=0.1, read=0.1)

    asyncio.run(run())


def test_of_an_endless_answer_only_the_beginning_is_read() -> None:
    def pour(peer: Peer) -> None:
        peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        peer.say(b"y" * 3_000_000)

    async def run() -> None:
        async with receiving(pour) as receiver, PooledTransport() as pool:
            assert await call(pool, receiver.url) == b"y" * 1000
            response = await pool.handle_async_request(httpx.Request("GET", receiver.url))
            assert await read_raw(response, 100_000) is None
            await response.aclose()
            await until(lambda: not receiver.open)

    asyncio.run(run())


def test_the_address_at_the_other_end_is_told_with_the_answer_and_after_an_error() -> None:
    async def run() -> None:
        async with receiving() as receiver, PooledTransport() as pool:
            request = httpx.Request("GET", receiver.url)
            response = await pool.handle_async_request(request)
            await response.aclose()
            assert request.extensions["server_addr"] == ("127.0.0.1", request.url.port)
            receiver.answer = lambda peer: peer.link.close()
            request = httpx.Request("GET", receiver.url)
            with pytest.raises(httpx.RemoteProtocolError):
                await pool.handle_async_request(request)
            assert request.extensions["server_addr"][0] == "127.0.0.1"

    asyncio.run(run())


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "unix:///tmp/socket", "http:///nowhere", "/hook"]
)
def test_only_the_web_can_be_called(url: str) -> None:
    with pytest.raises(httpx.UnsupportedProtocol):
        asyncio.run(call(PooledTransport(), url))


class Home(Backend):
    """Finds every name on this machine."""

    async def connect_tcp(self, host: str, port: int, timeout: float | None = None) -> Connection:  # noqa: ARG002
        return await super().connect_tcp("127.0.0.1", port, timeout)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_over_tls_the_name_is_in_the_sni_and_in_the_certificate(authority: Authority) -> None:
    seen: list[str | None] = []

    async def run() -> None:
        tls = authority.server("hooks.example", seen)
        async with receiving(tls=tls) as receiver, PooledTransport(Home(authority.client)) as pool:
            url = receiver.url.replace("127.0.0.1", "hooks.example")
            for _ in range(3):
                assert await call(pool, url) == b"ok"
            assert (seen, receiver.made) == (["hooks.example"], 1)

    asyncio.run(run())


def test_a_certificate_for_another_name_or_from_nobody_is_refused(authority: Authority) -> None:
    async def run() -> None:
        async with receiving(tls=authority.server("hooks.example", [])) as receiver:
            url = receiver.url.replace("127.0.0.1", "other.example")
            async with PooledTransport(Home(authority.client), connections=1) as pool:
                for _ in range(2):
                    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                        await call(pool, url)
            async with PooledTransport(Home()) as pool:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await call(pool, receiver.url.replace("127.0.0.1", "hooks.example"))
            assert receiver.requests == []
            await until(lambda: not receiver.open)

    asyncio.run(run())


def test_two_names_on_one_address_never_share_a_connection(authority: Authority) -> None:
    async def run() -> None:
        async with receiving() as receiver, PooledTransport(Home()) as pool:
            for name in ("a.example", "b.example", "a.example", "b.example"):
                await call(pool, receiver.url.replace("127.0.0.1", name))
            assert receiver.made == 2
        async with (
            receiving(tls=authority.server("a.example", [])) as receiver,
            PooledTransport(Home(authority.client)) as pool,
        ):
            assert await call(pool, receiver.url.replace("127.0.0.1", "a.example")) == b"ok"
            with pytest.raises(httpx.ConnectError):
                await call(pool, receiver.url.replace("127.0.0.1", "b.example"))

    asyncio.run(run())


def test_a_peer_that_keeps_silent_in_the_handshake_is_left_in_time() -> None:
    async def run() -> None:
        async with receiving() as receiver, PooledTransport() as pool:
            with pytest.raises(httpx.ConnectTimeout):
                await call(pool, receiver.url.replace("http:", "https:"), connect=0.1)
            await until(lambda: not receiver.open)

    asyncio.run(run())


def test_a_connection_over_tls_that_was_closed_while_idle_is_not_used_again(
    authority: Authority,
) -> None:
    async def run() -> None:
        tls = authority.server("hooks.example", [])
        async with receiving(tls=tls) as receiver, PooledTransport(Home(authority.client)) as pool:
            url = receiver.url.replace("127.0.0.1", "hooks.example")
            for made in (1, 2, 3):
                assert await call(pool, url) == b"ok"
                assert receiver.made == made
                (peer,) = receiver.open
                peer.link.close()
                await asyncio.sleep(0.05)

    asyncio.run(run())
