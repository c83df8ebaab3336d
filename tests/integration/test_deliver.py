"""Paying debts over real HTTP on the loopback interface, with a real Redis."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from conftest import SECRET, Server
from owing import KEYS, LANE, Owing, Receiver, Served
from standardwebhooks import Webhook

from scheduler import backoff
from scheduler.errors import BookUnavailable
from scheduler.store import Book
from scheduler.tracking import TrackedTask
from worker import logs
from worker.loop import LoopThread
from worker.webhooks import announcement
from worker.webhooks import round as round_of_deliveries
from worker.webhooks.sweep import sweep


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
    assert owing.owed() == 0


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
        owing.make_due()
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
        owing.make_due()
    assert owing.deliver().buried == 1
    (dead,) = owing.book.debts.dead(LANE)
    assert (dead.tries, dead.outcome) == (10, "HTTP 500; all tries are used up")


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
    assert owing.owed() == 1
    run.join()
    assert owing.owed() == 0


def test_a_debt_that_no_message_told_of_is_found_and_more_than_one_claim_are_paid(owing: Owing, served: Served) -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200)

    owing.end(*(f"id-{number}" for number in range(250)), webhook=served(handler))
    assert owing.deliver().paid == 250


def test_debts_removed_by_hand_are_owed_again_and_paid(owing: Owing, served: Served) -> None:
    seen: list[str] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content)["data"]["id"])
        return httpx.Response(500 if len(seen) <= 2 else 200)

    owing.end("a", "b", webhook=served(handler))
    owing.deliver()
    raw = owing.book.connection.redis
    for key in [
        KEYS.owed,
        KEYS.owing,
        *raw.scan_iter("*:queue:*"),
        *raw.scan_iter("*:retries:*"),
        *raw.scan_iter("*:delivery:*"),
    ]:
        raw.delete(key)
    raw.delete(*raw.scan_iter("*:circuit"))
    assert owing.owed() == 0
    assert str(sweep(owing.book, "", 3600)) == "2 owed again"
    assert owing.deliver().paid == 2
    assert sorted(seen) == ["a", "a", "b", "b"]
    assert str(sweep(owing.book, "", 3600)) == "nothing missing"


def test_a_mistake_of_ours_about_one_debt_costs_it_no_try_and_the_others_nothing(
    owing: Owing, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = announcement.body

    def broken(task: TrackedTask, **options: Any) -> bytes:
        return sound(task, **options) if task.id != "b" else (1 / 0).to_bytes()  # type: ignore[attr-defined]

    monkeypatch.setattr(announcement, "body", broken)
    logs.set_up("console", "critical")
    owing.end("a", "b", "c", webhook=served(Receiver()))
    assert str(owing.deliver()) == "2 paid · 1 later · 0 buried"
    assert (owing.debt().task_id, owing.debt().tries) == ("b", 0)
    assert owing.debt().outcome == "ZeroDivisionError of our own"


def test_every_try_is_logged_with_time_status_duration_address_and_the_first_of_the_answer(owing: Owing, served: Served) -> None:
    answers = [httpx.Response(500, text="not today\n" + "x" * 5000), httpx.Response(200, text="thank you")]

    async def handler(_: httpx.Request) -> httpx.Response:
        return answers.pop(0)

    owing.end("a", webhook=served(handler))
    owing.deliver()
    owing.make_due()
    assert owing.deliver().paid == 1
    (name,) = owing.book.connection.redis.scan_iter("*:delivery:*")
    (debt,) = owing.book.debts.load(LANE, [name.rpartition("delivery:")[2]])
    first, second = map(json.loads, debt.log.splitlines())
    assert (first["status"], second["status"], second["answer"]) == (500, 200, "thank you")
    assert first["answer"].startswith("not today x")
    assert len(first["answer"]) == 1024
    assert first["address"] == "127.0.0.1"
    assert 0 <= first["seconds"] < 2
    assert abs(first["at"] - owing.book.fleet.now()) < 60


def test_a_record_that_is_too_large_stays_in_the_book_and_the_webhook_says_where(owing: Owing, served: Served) -> None:
    got: list[dict[str, Any]] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        Webhook(SECRET).verify(request.content, dict(request.headers))
        got.append(json.loads(request.content)["data"])
        return httpx.Response(200)

    owing.end("a", webhook=served(handler), record={"id": "a", "text": "x" * 300_000})
    assert owing.deliver().paid == 1
    assert (got[0]["task"], got[0]["truncated"]) == (None, True)
    assert got[0]["fetch"] == "cavendish show --service nano-banana --account default a"


def test_a_delivery_after_the_results_have_died_says_so(owing: Owing, served: Served) -> None:
    got: list[dict[str, Any]] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        got.append(json.loads(request.content)["data"])
        return httpx.Response(500 if len(got) < 2 else 200)

    owing.end("a", webhook=served(handler))
    owing.deliver(lifetime=3600.0)
    owing.make_due()
    assert owing.deliver(lifetime=0.001).paid == 1
    assert "results_expired" not in got[0]
    assert got[1]["results_expired"] is True


def test_the_book_away_for_a_moment_in_mid_round_makes_no_receiver_hear_twice(
    own_server: Server, loop: LoopThread, served: Served
) -> None:
    heard: list[str] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        heard.append(request.headers["webhook-id"])
        own_server.kill()
        threading.Timer(1.0, own_server.start).start()
        return httpx.Response(200)

    book = Book(own_server.url)
    owing = Owing(book, loop)
    owing.end("a", webhook=served(handler))
    with pytest.raises(BookUnavailable):
        owing.deliver(timeout=5.0)
    assert owing.deliver().paid == 0
    assert owing.owed() == 0
    assert len(heard) == 1
    book.close()


def test_a_stopped_courier_takes_nothing_new_and_writes_down_what_is_under_way(owing: Owing, served: Served) -> None:
    began = threading.Event()

    async def handler(_: httpx.Request) -> httpx.Response:
        began.set()
        await asyncio.sleep(0.5)
        return httpx.Response(200)

    url = served(handler)
    owing.end("a", webhook=url)
    courier, done = owing.courier(), list[Any]()
    run = threading.Thread(target=lambda: done.append(courier.deliver(lambda: None)))
    run.start()
    assert began.wait(5)
    courier.stop()
    owing.end("b", webhook=url)
    assert str(courier.deliver(lambda: None)) == "nothing owed"
    run.join(5)
    assert (done[0].paid, owing.owed()) == (1, 1)


def test_a_poke_makes_the_round_under_way_pay_what_is_fresh_at_once(
    owing: Owing, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_of_deliveries, "PATIENCE", 8.0)
    arrived: list[float] = []

    async def handler(_: httpx.Request) -> httpx.Response:
        arrived.append(time.monotonic())
        return httpx.Response(500 if len(arrived) == 1 else 200)

    url = served(handler)
    owing.end("a", webhook=f"{url}/one")
    courier = owing.courier()
    run = threading.Thread(target=courier.deliver, args=(lambda: None,))
    run.start()
    while not arrived:
        time.sleep(0.01)
    time.sleep(0.2)  # now the round waits for the retry of `a`
    owing.end("b", webhook=f"{url}/two")
    poked = time.monotonic()
    assert courier.deliver(lambda: None) is None
    while len(arrived) < 2:
        time.sleep(0.005)
    assert arrived[1] - poked < 1.0
    courier.stop()
    run.join(10)
