"""The remote API over real sockets that close, keep silent, drip and swell.

Each is an answer of its own, in time.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from cavendish.model import Answered, Lane, Quota, UpstreamError, UpstreamErrorKind
from cavendish_worker.devstack.emulator.tasks_api import Reset, Stall
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.http.transport import PooledTransport
from cavendish_worker.polling.upstream import CallLimits, Upstream

LANE = Lane("default", "nano-banana")


@pytest.fixture
def ask(loop: LoopThread) -> Iterator[Callable[..., Answered | UpstreamError]]:
    """Ask about two ids at an address, with a deadline of half a second."""
    transport = PooledTransport()

    def call(url: str, limit: int = 2**20) -> Answered | UpstreamError:
        upstream = Upstream(
            transport, url, {"default": "secret-token"}, CallLimits(0.3, 0.5, limit)
        )
        return loop.run(upstream.retrieve_batch(LANE, ["a", "b"]), timeout=60)

    yield call
    loop.run(transport.aclose(), timeout=5)


@pytest.fixture
def says() -> Iterator[Callable[..., str]]:
    """A TCP server that says chunks, one each tenth of a second, and then closes."""
    servers: list[socket.socket] = []

    def start(*chunks: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def run() -> None:
            try:
                peer, _ = server.accept()
                with peer:
                    peer.recv(65536)
                    for chunk in chunks:
                        peer.sendall(chunk)
                        time.sleep(0.1)
            except OSError:
                return

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


def test_the_question_is_what_the_contract_says(
    ask: Callable[..., Answered], served: Callable[..., str]
) -> None:
    seen: list[tuple[str, str, object]] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        seen.append(
            (request.url.path, request.headers["authorization"], json.loads(request.content))
        )
        return httpx.Response(
            200, json={"items": [], "count": 0}, headers={"ratelimit": '"default";r=50;t=30'}
        )

    assert ask(served(handler)) == Answered([], Quota(50, 30))
    question = {"action": "retrieve_batch", "ids": ["a", "b"], "limit": 2}
    assert seen == [("/nano-banana/tasks", "Bearer secret-token", question)]


@pytest.mark.parametrize("fault", [Reset("closed"), Stall("silent")])
def test_a_closed_and_a_silent_connection_are_no_answer_in_time(
    ask: Callable[..., UpstreamError], served: Callable[..., str], fault: httpx.TransportError
) -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        raise fault

    assert ask(served(handler)).why is UpstreamErrorKind.DOWN


def test_a_drip_that_keeps_each_read_alive_ends_at_the_wall_clock(
    ask: Callable[..., UpstreamError], says: Callable[..., str]
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    assert (
        ask(says(head, *[b" "] * 40)).detail == "no answer within 0.5 s"
    )  # and not that it was closed, 4 s after it began


def test_a_closed_port_is_no_answer(ask: Callable[..., UpstreamError]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "ConnectError" in ask(f"http://127.0.0.1:{port}").detail


def test_an_answer_that_swells_is_neither_inflated_nor_kept(
    ask: Callable[..., UpstreamError], says: Callable[..., str]
) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(bomb)}\r\n\r\n".encode()
    )
    assert "larger than 1048576 bytes" in ask(says(head + bomb)).detail


def test_an_answer_packed_without_being_asked_is_unpacked(
    ask: Callable[..., Answered], says: Callable[..., str]
) -> None:
    body = gzip.compress(b'{"items": [{"id": "a"}]}')
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    )
    assert ask(says(head + body)).items == [{"id": "a"}]


def test_bytes_that_are_no_text_cost_their_record_a_dead_letter_and_its_batch_nothing(
    ask: Callable[..., Answered], served: Callable[..., str]
) -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, content=b'{"items": [{"id": "a", "prompt": "\xff\xfe"}, {"id": "b"}]}'
        )

    assert ask(served(handler)) == Answered(
        [{"id": "a", "prompt": "\ufffd\ufffd"}, {"id": "b"}], None
    )


@pytest.mark.parametrize("record", [b'{"id": "\xff"}', b'{"task_id": "b\xff"}'])
def test_an_id_that_is_no_text_is_not_taken_for_an_absent_one(
    ask: Callable[..., UpstreamError], served: Callable[..., str], record: bytes
) -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b'{"items": [{"id": "a"}, %b]}' % record)

    assert ask(served(handler)) == UpstreamError(
        UpstreamErrorKind.DOWN, "the answer is no JSON, or an id in it is no text"
    )
