"""An answer that costs far more than it holds ends after a bounded number of bytes.

Its connection ends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import repeat

import pytest

from cavendish.model import Lane, UpstreamError, UpstreamErrorKind
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.http.stream import BUFFER, FRAMING
from cavendish_worker.http.transport import PooledTransport
from cavendish_worker.polling.upstream import CallLimits, Upstream
from cavendish_worker.webhooks.attempt_result import ResultKind
from cavendish_worker.webhooks.consent import ask
from cavendish_worker.webhooks.post import Target, post
from delivering import SECRET
from receiving import Peer, Receiver, receiving

HEAD, CHUNKED = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
KIB = 1024
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "interim answers with headers": (
        b"",
        b"HTTP/1.1 103 Early Hints\r\nlink: <x>; rel=preload\r\n\r\n" * 100,
    ),
    "header lines": (HEAD, b"a: b\r\n" * KIB),
    "one header line": (HEAD + b"a: ", b"b" * KIB),
    "one reason": (HEAD[:-2], b"b" * KIB),
    "blank lines": (b"", b"\r\n" * KIB),
    "chunks of one byte": (CHUNKED, b"1\r\nx\r\n" * KIB),
    "one chunk extension": (CHUNKED + b"5;", b"e" * KIB),
    "chunk extensions": (CHUNKED, (b"1;%b\r\nx\r\n" % (b"e" * 100)) * 10),
    "one chunk size": (CHUNKED, b"0" * KIB),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"a: b\r\n" * KIB),
    "one trailer": (CHUNKED + b"1\r\nx\r\n0\r\na: ", b"b" * KIB),
}
#: After the head of the final answer, its status is known.
ACKNOWLEDGED = {
    "chunks of one byte",
    "chunk extensions",
    "one chunk extension",
    "one chunk size",
    "trailers",
    "one trailer",
}


class Pouring:
    """Says something, then the same again and again as long as it is read; counts the bytes."""

    def __init__(self, first: bytes, more: bytes) -> None:
        self.first, self.more, self.poured = first, more, 0

    def __call__(self, peer: Peer) -> None:
        peer.link.write(self.first)
        self.pour(peer, repeat(self.more))

    def pour(self, peer: Peer, pieces: Iterator[bytes]) -> None:
        if peer.link.is_closing():
            return
        if peer.link.get_write_buffer_size() < BUFFER:
            peer.link.write(piece := next(pieces))
            self.poured += len(piece)
        asyncio.get_running_loop().call_soon(self.pour, peer, pieces)


async def emptied(receiver: Receiver) -> None:
    async with asyncio.timeout(5):
        while receiver.open:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_endless_answer_to_a_webhook_ends_soon_and_2xx_is_2xx(kind: str) -> None:
    async def run() -> None:
        pouring = Pouring(*ENDLESS[kind])
        async with receiving(pouring) as receiver, PooledTransport() as transport:
            result = await post(
                transport,
                Target(receiver.url, (SECRET,)),
                "msg_1",
                b"{}",
                1.7e9,
                30.0,
                ShutdownDeadline(),
            )
            await emptied(receiver)
            expected = ResultKind.DELIVERED if kind in ACKNOWLEDGED else ResultKind.RETRY
            assert result.kind is expected, result
            assert result.outcome.isprintable()
            assert pouring.poured < 8 * 2**20  # most of it waits in the buffers of the sockets

    asyncio.run(run())


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_endless_answer_of_the_api_ends_soon_and_is_none(kind: str) -> None:
    async def run() -> None:
        pouring = Pouring(*ENDLESS[kind])
        async with (
            receiving(pouring) as receiver,
            PooledTransport() as transport,
        ):
            api = Upstream(
                transport,
                receiver.url.removesuffix("/hook"),
                {"default": "t"},
                CallLimits(30.0, 30.0, 2**24),
            )
            answer = await api.retrieve_batch(Lane("default", "nano-banana"), ["a"])
            await emptied(receiver)
            assert isinstance(answer, UpstreamError)
            assert answer.why is UpstreamErrorKind.DOWN
            assert answer.detail == "AnswerTooCostly: The answer holds more framing than it may."
            assert pouring.poured < 8 * 2**20

    asyncio.run(run())


def test_an_endpoint_that_is_asked_for_consent_cannot_cost_more_either() -> None:
    async def run() -> None:
        for kind in ("interim answers", "chunks of one byte"):
            pouring = Pouring(*ENDLESS[kind])
            async with receiving(pouring) as receiver, PooledTransport() as transport:
                assert not (await ask(transport, receiver.url, "cavendish", None, 30.0)).granted
                await emptied(receiver)

    asyncio.run(run())


def test_sixty_five_thousand_chunks_of_one_byte_are_not_read_to_their_end() -> None:
    async def run() -> None:
        said = CHUNKED + b"1\r\nx\r\n" * 65_000 + b"0\r\n\r\n"
        async with (
            receiving(lambda peer: peer.link.write(said)) as receiver,
            PooledTransport() as transport,
        ):
            target = Target(receiver.url, (SECRET,))
            results = [
                await post(transport, target, f"msg_{n}", b"{}", 1.7e9, 30.0, ShutdownDeadline())
                for n in range(3)
            ]
            assert [(result.kind, result.status) for result in results] == [
                (ResultKind.DELIVERED, 200)
            ] * 3
            assert {result.answer for result in results} == {"x" * 1024}  # the excerpt arrives
            assert receiver.made == 3

    asyncio.run(run())


@pytest.mark.parametrize("size", [1, 100, 1000, 10_000, 60_000])
def test_what_a_sane_receiver_answers_is_read_and_its_connection_kept(size: int) -> None:
    async def run() -> None:
        chunk, body = min(size, 1000), b"x" * size
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (len(part), part)
            for part in (body[i : i + chunk] for i in range(0, size, chunk))
        )
        headed = HEAD + b"".join(b"x-%d: %b\r\n" % (n, b"y" * 200) for n in range(100))
        answers = iter(
            [
                headed + b"content-length: %d\r\n\r\n%b" % (size, body),
                b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 5
                + CHUNKED
                + chunks
                + b"0\r\n\r\n",
                CHUNKED + chunks + b"0\r\nchecksum: z\r\n\r\n",
                headed + b"content-length: 0\r\n\r\n",
            ]
        )
        async with (
            receiving(lambda peer: peer.link.write(next(answers))) as receiver,
            PooledTransport() as transport,
        ):
            for number in range(4):
                target = Target(receiver.url, (SECRET,))
                result = await post(
                    transport, target, f"msg_{number}", b"{}", 1.7e9, 30.0, ShutdownDeadline()
                )
                assert (result.kind, result.answer) == (
                    ResultKind.DELIVERED,
                    "x" * min(size, 1024) if number < 3 else "",
                )
            assert receiver.made == 1

    asyncio.run(run())


def test_a_large_answer_of_the_api_in_chunks_of_a_common_size_is_read() -> None:
    async def run() -> None:
        body = b'{"items":[{"id":"a","pad":"%b"}]}' % (b"x" * 3_000_000)
        parts = [body[start : start + 256] for start in range(0, len(body), 256)]
        said = (
            CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        )
        assert len(said) - len(body) > FRAMING
        async with (
            receiving(lambda peer: peer.link.write(said)) as receiver,
            PooledTransport() as transport,
        ):
            api = Upstream(
                transport,
                receiver.url.removesuffix("/hook"),
                {"default": "t"},
                CallLimits(30.0, 30.0, 2**24),
            )
            answer = await api.retrieve_batch(Lane("default", "nano-banana"), ["a"])
            assert [item["id"] for item in answer.items] == ["a"]  # type: ignore[union-attr]

    asyncio.run(run())
