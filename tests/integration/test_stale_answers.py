"""What a peer says too early or too much never becomes the answer to a later call.

It costs that call nothing either.
"""

from __future__ import annotations

import asyncio

import httpx
import pytest

from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.http.transport import PooledTransport
from cavendish_worker.webhooks.post import Target, post
from delivering import SECRET
from fuzzing.stale import STALE, for_each_story, framed, judge_calls, judge_webhooks
from hostile import cases
from receiving import receiving


def test_each_webhook_is_judged_by_an_answer_to_itself() -> None:
    for_each_story(cases(200), judge_webhooks)


def test_each_question_to_the_api_is_answered_by_an_answer_to_itself() -> None:
    for_each_story(cases(200), judge_calls)


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


@pytest.mark.parametrize(
    "body", [b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n", b"content-length: 2\r\n\r\nok"]
)
def test_what_follows_the_body_of_an_interim_answer_acknowledges_nothing(body: bytes) -> None:
    async def run() -> None:
        said = b"HTTP/1.1 194 X\r\n" + body + framed(200, b"ok", "length")
        async with (
            receiving(lambda peer: peer.link.write(said)) as receiver,
            PooledTransport() as transport,
        ):
            target = Target(receiver.url, (SECRET,))
            result = await post(transport, target, "msg_1", b"{}", 1.7e9, 5.0, ShutdownDeadline())
            assert result.outcome == "RemoteProtocolError: An interim answer has a body."

    asyncio.run(run())
