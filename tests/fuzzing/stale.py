"""Peers that say more than they were asked, cut at any place, over real sockets.

What a peer says too early or too much never becomes the answer to a later call, at either end, and
it costs that call nothing.
"""

from __future__ import annotations

import asyncio
import json
import select
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from cavendish.model import Answered, Lane
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.http.transport import PooledTransport
from cavendish_worker.polling.upstream import CallLimits, Upstream
from cavendish_worker.webhooks.post import Target, post
from delivering import SECRET
from fuzzing.tally import Tally
from receiving import Peer, receiving

#: Statuses of answers to a webhook that was read, and of those that were made up before; the API
#: answers 200 to what it has read.
HONEST, STALE, FINE = 201, 202, 200
CALLS = 3


def framed(status: int, body: bytes, framing: str) -> bytes:
    head = b"HTTP/1.1 %d X\r\n" % status
    chunked = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(body), body)
    match framing:
        case "chunked":
            return head + chunked + b"\r\n"
        case "trailers":
            return head + chunked + b"a: b\r\n\r\n"
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
    status: int = HONEST

    def __call__(self, peer: Peer) -> None:
        request = peer.receiver.requests[-1].partition(b"\r\n\r\n")[2]
        asked = json.loads(request).get("ids", ["a"])[0]
        answer = framed(self.status, b'{"items":[{"id":"%b"}]}' % asked.encode(), self.framing)
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
#: A peer, and the turns of the event loop that pass between two calls.
Story = Callable[[Blurting, int], Coroutine[Any, Any, None]]


async def judge_webhooks(blurting: Blurting, pause: int) -> None:
    """Each webhook is judged by an answer to itself."""
    async with receiving(blurting) as receiver, PooledTransport() as transport:
        target = Target(receiver.url, (SECRET,))
        for number in range(CALLS):
            words = (target, f"msg_{number}", b"{}", 1.7e9, 5.0, ShutdownDeadline())
            result = await post(transport, *words)
            assert result.status == HONEST, result
            assert len(receiver.requests) == number + 1
            for _ in range(pause):
                await asyncio.sleep(0)


async def judge_calls(blurting: Blurting, pause: int) -> None:
    """Each question to the API is answered by an answer to itself."""
    blurting.status = FINE
    async with (
        receiving(blurting) as receiver,
        PooledTransport() as transport,
    ):
        url, limits = receiver.url.removesuffix("/hook"), CallLimits(5.0, 5.0, 2**20)
        api = Upstream(transport, url, {"default": "t"}, limits)
        for number in range(CALLS):
            answer = await api.retrieve_batch(Lane("default", "nano-banana"), [f"id{number}"])
            assert isinstance(answer, Answered), answer
            assert [item["id"] for item in answer.items] == [f"id{number}"]
            assert len(receiver.requests) == number + 1
            for _ in range(pause):
                await asyncio.sleep(0)


def for_each_story(rules: settings, judge: Story, seed: int | None = None) -> None:
    """Judge so many peers; raises what the first wrong one raised."""

    def prove(blurting: Blurting, pause: int) -> None:
        asyncio.run(judge(blurting, pause))

    proof = rules(given(blurting=stories, pause=st.integers(0, 6))(prove))
    (proof if seed is None else seeded(seed)(proof))()


def run(seed: int, count: int) -> Tally:
    """So many peers at each end."""
    tally = Tally("stale bytes", seed)
    rules = settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    for judge in (judge_webhooks, judge_calls):

        async def counted(blurting: Blurting, pause: int, judge: Story = judge) -> None:
            tally.made += 1
            await judge(blurting, pause)
            tally.good += 1

        try:
            for_each_story(rules, counted, seed)
        except AssertionError as error:
            tally.mistake(f"{judge.__name__}: {error}")
        except Exception as error:  # whatever it is, it would reach a log
            tally.traceback(f"{judge.__name__}: {error!r}")
    return tally.end()
