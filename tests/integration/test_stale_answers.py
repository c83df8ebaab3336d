"""What a peer says too early or too much never becomes the answer to a later call.

It costs that call nothing either.
"""

from __future__ import annotations

import asyncio
import json
import select
from dataclasses import dataclass

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.model import Answered, Lane
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.http.transport import PooledTransport
from cavendish_worker.polling.upstream import CallLimits, Upstream
from cavendish_worker.webhooks.post import Target, post
from delivering import SECRET
from hostile import cases
from receiving import Peer, receiving

#: Statuses of answers to a request that was read, and of those that were made up before.
HONEST, STALE = 201, 202
CALLS = 3


def framed(status: int, body: bytes, framing: str) -> bytes:
    head = b"HTTP/1.1 %d X\r\n" % status
    match framing:
        case "chunked":
            return head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
                len(body),
                body,
            )
        case "trailers":
            return head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\na: b\r\n\r\n" % (
                len(body),
                body,
            )
        case "interim":
            return b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + framed(status, body, "length")
        case _:
            return head + b"content-length: %d\r\n\r\n%b" % (len(body), body)


framings = st.sampled_from(["length", "chunked", "trailers", "interim"])
seconds = st.builds(
    framed, st.just(STALE), st.just(b'{"items":[{"id":"stale"}]}'), framings
) | st.just(b"HTTP/1.1 202 X\r\ncontent-length: 0\r\n\r\n")
surplus = seconds | seconds.flatmap(
    lambda whole: st.integers(1, len(whole) - 1).map(lambda cut: whole[:cut])
)
surplus |= st.sampled_from(
    [b"zzz", b"\r\n", b"\r\n\r\n", b"\n", b"0\r\n\r\n", b"HTTP/1.1 100 Go\r\n\r\n", b"\0", b"H"]
)
surplus |= st.binary(min_size=1, max_size=40)


@dataclass
class Blurting:
    """Answers each request, and then says more, piece by piece, until another request comes."""

    framing: str
    more: bytes
    cuts: list[int]

    def __call__(self, peer: Peer) -> None:
        request = peer.receiver.requests[-1].partition(b"\r\n\r\n")[2]
        asked = json.loads(request).get("ids", ["a"])[0]
        answer = framed(HONEST, b'{"items":[{"id":"%b"}]}' % asked.encode(), self.framing)
        said = answer + self.more
        ends = [*sorted({cut % len(said) for cut in self.cuts} - {0}), len(said)]
        pieces = [said[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        self.say(peer, pieces, len(answer))

    def say(self, peer: Peer, pieces: list[bytes], left: int) -> None:
        waiting = select.poll()
        waiting.register(peer.link.get_extra_info("socket").fileno(), select.POLLIN)
        if peer.link.is_closing() or (left <= 0 and waiting.poll(0)):
            return
        peer.link.write(pieces[0])
        if pieces[1:]:
            asyncio.get_running_loop().call_soon(self.say, peer, pieces[1:], left - len(pieces[0]))


stories = st.builds(Blurting, framings, surplus, st.lists(st.integers(0, 10_000), max_size=4))


def test_each_webhook_is_judged_by_an_answer_to_itself() -> None:
    async def story(blurting: Blurting, pause: int) -> None:
        async with receiving(blurting) as receiver, PooledTransport() as transport:
            for number in range(CALLS):
                result = await post(
                    transport,
                    Target(receiver.url, (SECRET,)),
                    f"msg_{number}",
                    b"{}",
                    1.7e9,
                    5.0,
                    ShutdownDeadline(),
                )
                assert result.status == HONEST, result
                assert len(receiver.requests) == number + 1
                for _ in range(pause):
                    await asyncio.sleep(0)

    @cases(200)
    @given(blurting=stories, pause=st.integers(0, 6))
    def prove(blurting: Blurting, pause: int) -> None:
        asyncio.run(story(blurting, pause))

    prove()


def test_each_question_to_the_api_is_answered_by_an_answer_to_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"{__name__}.HONEST", 200)

    async def story(blurting: Blurting, pause: int) -> None:
        async with (
            receiving(blurting) as receiver,
            httpx.AsyncClient(transport=PooledTransport()) as client,
        ):
            api = Upstream(
                client,
                receiver.url.removesuffix("/hook"),
                {"default": "t"},
                CallLimits(5.0, 5.0, 2**20),
            )
            for number in range(CALLS):
                answer = await api.retrieve_batch(Lane("default", "nano-banana"), [f"id{number}"])
                assert isinstance(answer, Answered), answer
                assert [item["id"] for item in answer.items] == [f"id{number}"]
                assert len(receiver.requests) == number + 1
                for _ in range(pause):
                    await asyncio.sleep(0)

    @cases(200)
    @given(blurting=stories, pause=st.integers(0, 6))
    def prove(blurting: Blurting, pause: int) -> None:
        asyncio.run(story(blurting, pause))

    prove()


def test_an_answer_before_the_question_is_none() -> None:
    async def run() -> None:
        asked = list[bytes]()

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(framed(STALE, b"", "length"))
            asked.append(await reader.read(1000))
            writer.close()

        async with (
            await asyncio.start_server(greet, "127.0.0.1", 0) as server,
            PooledTransport() as transport,
        ):
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            try:
                response = await transport.handle_async_request(
                    httpx.Request("POST", url, content=b"{}")
                )
            except httpx.RemoteProtocolError:
                pass
            else:  # it spoke after we did
                assert response.status_code == STALE
                await response.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_no_request_is_sent_twice_where_a_kept_connection_dies_under_it(end: str) -> None:
    async def run() -> None:
        async with receiving() as receiver, PooledTransport() as transport:
            for method in ("POST", "OPTIONS"):
                receiver.answer = lambda peer: peer.say(
                    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
                )
                response = await transport.handle_async_request(httpx.Request(method, receiver.url))
                await response.aclose()
                before, made = len(receiver.requests), receiver.made
                receiver.answer = lambda peer: getattr(peer.link, end)()
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                    await transport.handle_async_request(httpx.Request(method, receiver.url))
                assert (len(receiver.requests), receiver.made) == (before + 1, made)

    asyncio.run(run())
