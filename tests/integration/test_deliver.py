"""Paying debts over real HTTP on the loopback interface, with a real Redis."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network

import httpx
import pytest
from conftest import SECRET
from standardwebhooks import Webhook

from scheduler import backoff
from scheduler.clock import Clock
from scheduler.store import Book
from scheduler.store.debts import Debt
from scheduler.store.keys import LaneKeys
from scheduler.submission import Wishes
from scheduler.tracking import Lane, State
from scheduler.verdicts import Outcome
from worker import egress
from worker.deliver import Delivered, Delivery, Knobs, sweep
from worker.loop import LoopThread

LANE = Lane("default", "nano-banana")
KEYS = LaneKeys(LANE)
Served = Callable[[Callable[[httpx.Request], object]], str]


class Owing:
    """A book with debts to one receiver, and deliveries of them."""

    def __init__(self, book: Book, loop: LoopThread) -> None:
        self.book, self.loop = book, loop
        self.clients: dict[str, httpx.AsyncClient] = {}

    def end(self, *ids: str, webhook: str) -> None:
        now = self.book.fleet.now()
        wishes = Wishes("nano-banana", "default", (webhook,), 1000.0, '{"order":7}', "", "", False)
        self.book.tasks.add(ids, wishes, now - 10, now - 10)
        self.book.tasks.claim(LANE, now + 60, "t1", self.book.tasks.candidates(LANE, now, 1000))
        tasks = self.book.tasks.load(LANE, ids).tasks
        outcomes = [(Outcome(task, State.SUCCEEDED, record={"id": task.id, "text": "水彩"}), 0.0) for task in tasks.values()]
        self.book.tasks.settle(LANE, "t1", now, outcomes, 3600, 100)

    def delivery(
        self, clock: Clock, lane: Lane = LANE, *, secret: str = SECRET, timeout: float = 2.0, allow: str = "127.0.0.0/8"
    ) -> Delivery:
        client = self.clients.setdefault(allow, egress.client([ip_network(allow)] if allow else []))
        return Delivery(self.book, client, self.loop, Knobs(secret, timeout, 60.0, 3600.0, 7200.0), clock, lane)

    def deliver(self, *wished: str, **options: object) -> Delivered:
        return self.delivery(self.book.clock(), **options).run(wished)  # type: ignore[arg-type]

    def debt(self) -> Debt:
        (name, at), *_ = self.book.connection.redis.zrange(KEYS.owed, 0, -1, withscores=True)  # type: ignore[misc]
        return self.book.debts.load(LANE, [name], [at])[0]


@pytest.fixture
def owing(book: Book, loop: LoopThread) -> Iterator[Owing]:
    bench = Owing(book, loop)
    yield bench
    for client in bench.clients.values():
        loop.run(client.aclose(), timeout=5)


@pytest.fixture
def raw_server() -> Iterator[Callable[[bytes, bool], str]]:
    """A TCP server that says given bytes to whoever connects, and may then keep silent."""
    servers: list[socket.socket] = []

    def start(says: bytes, hang: bool) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def run() -> None:
            try:
                while True:
                    peer, _ = server.accept()
                    peer.recv(65536)
                    peer.sendall(says)
                    if hang:
                        threading.Timer(5, peer.close).start()
                    else:
                        peer.close()
            except OSError:
                return

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/hook"

    yield start
    for server in servers:
        server.close()


def test_an_announcement_is_signed_whole_and_verified_by_the_standard_library(owing: Owing, served: Served) -> None:
    got: list[httpx.Request] = []

    def receive(request: httpx.Request) -> httpx.Response:
        Webhook(SECRET).verify(request.content, dict(request.headers))
        got.append(request)
        return httpx.Response(200)

    async def handler(request: httpx.Request) -> httpx.Response:
        return receive(request)

    owing.end("a", webhook=f"{served(handler)}/hook?x=1")
    assert str(owing.deliver()) == "1 paid · 0 later · 0 buried"
    (request,) = got
    body = json.loads(request.content)
    assert body["type"] == "task.succeeded"
    assert body["data"]["task"] == {"id": "a", "text": "水彩"}
    assert body["data"]["metadata"] == {"order": 7}
    assert request.url.query == b"x=1"
    assert request.headers["content-type"] == "application/json"
    assert owing.book.connection.redis.zcard(KEYS.owed) == 0


def test_a_failing_receiver_is_tried_later_under_the_same_name_and_with_the_same_bytes(owing: Owing, served: Served) -> None:
    seen: list[tuple[str, bytes]] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        seen.append((request.headers["webhook-id"], request.content))
        return httpx.Response(500 if len(seen) < 3 else 204)

    owing.end("a", webhook=served(handler))
    for tries in (1, 2):
        assert owing.deliver().later == 1
        debt = owing.debt()
        assert (debt.tries, debt.outcome) == (tries, "HTTP 500")
        wait = (debt.at or 0) - owing.book.fleet.now()
        assert backoff.WEBHOOK_WAITS[tries] - 1 < wait <= backoff.WEBHOOK_WAITS[tries] * 1.1
        owing.book.connection.redis.zadd(KEYS.owed, {debt.name: 0})
    assert owing.deliver().paid == 1
    assert len(set(seen)) == 1


def test_a_retry_after_of_the_receiver_is_a_floor(owing: Owing, served: Served) -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(429, headers={"retry-after": "900"})

    owing.end("a", webhook=served(handler))
    owing.deliver()
    assert (owing.debt().at or 0) - owing.book.fleet.now() >= 899


def test_ten_tries_and_then_the_dead_letters_with_the_reason(owing: Owing, served: Served) -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(500)

    owing.end("a", webhook=served(handler))
    for _ in range(9):
        owing.deliver()
        owing.book.connection.redis.zadd(KEYS.owed, {owing.debt().name: 0})
    assert owing.deliver().buried == 1
    (dead,) = owing.book.debts.dead(LANE)
    assert (dead.tries, dead.outcome) == (10, "HTTP 500; all tries are used up")


def test_410_buries_at_once(owing: Owing, served: Served) -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(410)

    owing.end("a", webhook=served(handler))
    assert owing.deliver().buried == 1
    assert owing.book.debts.dead(LANE)[0].outcome == "HTTP 410"


def test_a_redirect_is_a_failure_and_not_followed(owing: Owing, served: Served) -> None:
    seen: list[str] = []

    async def elsewhere(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(200)

    target = served(elsewhere)

    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(307, headers={"location": f"{target}/stolen"})

    owing.end("a", webhook=served(handler))
    assert owing.deliver().later == 1
    assert seen == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_a_private_address_gets_no_connection_at_all(owing: Owing, host: str) -> None:
    connections: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        owing.end("a", webhook=f"http://{host}:{server.getsockname()[1]}/hook")
        assert owing.deliver(allow="").buried == 1
        with pytest.raises(TimeoutError):
            connections.append(server.accept())
    assert "not public" in owing.book.debts.dead(LANE)[0].outcome


def test_a_name_that_resolves_to_a_private_address_gets_no_connection(owing: Owing, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 80)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: answers)
    owing.end("a", webhook="http://rebound.example/hook")
    assert owing.deliver().buried == 1


def test_silence_ends_at_the_wall_clock_deadline(owing: Owing, raw_server: Callable[[bytes, bool], str]) -> None:
    owing.end("a", webhook=raw_server(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab", True))
    started = time.monotonic()
    assert owing.deliver(timeout=0.5).later == 1
    assert time.monotonic() - started < 2
    assert owing.debt().outcome == "no answer within 0.5 s"


@pytest.mark.parametrize("says", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab"])
def test_a_broken_answer_is_tried_later(owing: Owing, raw_server: Callable[[bytes, bool], str], says: bytes) -> None:
    owing.end("a", webhook=raw_server(says, False))
    assert owing.deliver().later == 1


def test_a_closed_port_is_tried_later(owing: Owing) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    owing.end("a", webhook=f"http://127.0.0.1:{port}/")
    assert owing.deliver().later == 1
    assert "ConnectError" in owing.debt().outcome


def test_a_bomb_in_the_answer_is_neither_inflated_nor_read_to_its_end(owing: Owing, served: Served) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)

    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(bomb))

    sent = served(handler)
    owing.end("a", webhook=sent)
    assert owing.deliver().paid == 1


def test_without_a_secret_nothing_is_sent_and_no_try_is_charged(owing: Owing, served: Served) -> None:
    seen: list[httpx.Request] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    owing.end("a", webhook=served(handler))
    assert owing.deliver(secret="").later == 1
    assert (seen, owing.debt().tries) == ([], 0)


def test_what_can_no_longer_be_read_is_buried_with_its_reason(owing: Owing) -> None:
    owing.end("a", webhook="http://127.0.0.1:1/")
    owing.book.connection.redis.delete(KEYS.task("a"))
    assert owing.deliver().buried == 1
    assert "no longer be read" in owing.book.debts.dead(LANE)[0].outcome


def test_one_slow_receiver_does_not_keep_the_others_from_being_paid(owing: Owing, served: Served) -> None:
    import asyncio  # noqa: PLC0415

    async def slow(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(1.5)
        return httpx.Response(200)

    async def quick(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200)

    owing.end("slow", webhook=served(slow))
    owing.end(*(f"q{number}" for number in range(30)), webhook=served(quick))
    run = threading.Thread(target=owing.deliver)
    run.start()
    time.sleep(1.0)
    assert owing.book.connection.redis.zcard(KEYS.owed) == 1
    run.join()
    assert owing.book.connection.redis.zcard(KEYS.owed) == 0


def test_the_sweep_pays_what_no_message_told_of(owing: Owing, served: Served) -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200)

    owing.end(*(f"id-{number}" for number in range(250)), webhook=served(handler))
    assert sweep(owing.book, owing.delivery).paid == 250
