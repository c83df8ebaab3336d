"""Paying deliveries over real HTTP on the loopback interface, with a real Redis."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from cavendish.endpoints.webhook_endpoint import endpoint_of
from cavendish.errors import StoreUnavailable
from cavendish.model import Lane, TrackedTask
from cavendish.policy import backoff
from cavendish.store import Store
from cavendish.store.due_index import Place
from cavendish.store.keys import LaneKeys
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.telemetry import logs
from cavendish_worker.webhooks import delivery_loop, delivery_worker, payload
from cavendish_worker.webhooks.reconcile import reconcile
from conftest import SECRET, Server
from delivering import KEYS, LANE, Delivering, Receiver, Served
from servers import eventually


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


def test_an_payload_is_signed_whole_and_verified_by_the_standard_library(
    endpoint_index: Delivering, served: Served
) -> None:
    got: list[httpx.Request] = []

    def receive(request: httpx.Request) -> httpx.Response:
        Webhook(SECRET).verify(request.content, dict(request.headers))
        got.append(request)
        return httpx.Response(200)

    async def handler(request: httpx.Request) -> httpx.Response:
        return receive(request)

    endpoint_index.end("a", webhook=f"{served(handler)}/hook?x=1")
    assert str(endpoint_index.deliver()) == "1 delivered · 0 to retry · 0 buried"
    (request,) = got
    body = json.loads(request.content)
    assert body["type"] == "task.succeeded"
    assert body["data"]["task"] == {"id": "a", "text": "水彩"}
    assert body["data"]["metadata"] == {"order": 7}
    assert request.url.query == b"x=1"
    assert request.headers["content-type"] == "application/json"
    assert endpoint_index.pending_deliveries() == 0


def test_a_failing_receiver_is_tried_later_under_the_same_name_and_with_the_same_bytes(
    endpoint_index: Delivering, served: Served
) -> None:
    seen: list[tuple[str, bytes]] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        seen.append((request.headers["webhook-id"], request.content))
        return httpx.Response(500 if len(seen) < 3 else 204)

    endpoint_index.end("a", webhook=served(handler))
    for attempts in (1, 2):
        assert endpoint_index.deliver().retries == 1
        delivery = endpoint_index.delivery()
        assert (delivery.attempts, delivery.outcome) == (attempts, "HTTP 500")
        wait = (delivery.at or 0) - endpoint_index.store.fleet.now()
        assert backoff.WEBHOOK_WAITS[attempts] - 1 < wait <= backoff.WEBHOOK_WAITS[attempts] * 1.1
        endpoint_index.make_due()
    assert endpoint_index.deliver().delivered == 1
    assert len(set(seen)) == 1


def test_a_retry_after_of_the_receiver_is_a_floor(
    endpoint_index: Delivering, served: Served
) -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(429, headers={"retry-after": "900"})

    endpoint_index.end("a", webhook=served(handler))
    endpoint_index.deliver()
    assert (endpoint_index.delivery().at or 0) - endpoint_index.store.fleet.now() >= 899


def test_ten_attempts_and_then_the_dead_letters_with_the_reason(
    endpoint_index: Delivering, served: Served
) -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(500)

    endpoint_index.end("a", webhook=served(handler))
    for _ in range(9):
        endpoint_index.deliver()
        endpoint_index.make_due()
    assert endpoint_index.deliver().buried == 1
    (dead,) = endpoint_index.store.closed.dead(LANE)
    assert (dead.attempts, dead.outcome) == (10, "HTTP 500; all attempts are used up")


def test_a_redirect_is_a_failure_and_not_followed(
    endpoint_index: Delivering, served: Served
) -> None:
    seen: list[str] = []

    async def elsewhere(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(200)

    target = served(elsewhere)

    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(307, headers={"location": f"{target}/stolen"})

    endpoint_index.end("a", webhook=served(handler))
    assert endpoint_index.deliver().retries == 1
    assert seen == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"],
)
def test_a_private_address_gets_no_connection_at_all(endpoint_index: Delivering, host: str) -> None:
    connections: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        endpoint_index.end("a", webhook=f"http://{host}:{server.getsockname()[1]}/hook")
        assert endpoint_index.deliver(allow="").buried == 1
        with pytest.raises(TimeoutError):
            connections.append(server.accept())
    assert "not public" in endpoint_index.store.closed.dead(LANE)[0].outcome


def test_a_name_that_resolves_to_a_private_address_gets_no_connection(
    endpoint_index: Delivering, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 80)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: answers)
    endpoint_index.end("a", webhook="http://rebound.example/hook")
    assert endpoint_index.deliver().buried == 1


def test_silence_ends_at_the_wall_clock_deadline(
    endpoint_index: Delivering, raw_server: Callable[[bytes, bool], str]
) -> None:
    endpoint_index.end(
        "a", webhook=raw_server(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab", True)
    )
    assert endpoint_index.deliver(timeout=0.5).retries == 1
    assert endpoint_index.delivery().outcome == "no answer within 0.5 s"
    assert endpoint_index.delivery().attempts == 1


def test_a_call_in_which_the_worker_stood_still_is_charged_to_nobody(
    endpoint_index: Delivering, served: Served
) -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        endpoint_index.loop.call(lambda: time.sleep(0.6))
        await asyncio.sleep(1)
        return httpx.Response(200)

    endpoint_index.end("a", webhook=served(handler))
    assert endpoint_index.deliver(timeout=0.5).retries == 1
    delivery = endpoint_index.delivery()
    assert delivery.attempts == 0
    assert "no answer within 0.5 s, but this worker stood still for" in delivery.outcome
    (circuit,) = endpoint_index.store.shared_state.circuits([delivery.endpoint])
    assert circuit.failures == 0


@pytest.mark.parametrize(
    "says", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab"]
)
def test_a_broken_answer_is_tried_later(
    endpoint_index: Delivering, raw_server: Callable[[bytes, bool], str], says: bytes
) -> None:
    endpoint_index.end("a", webhook=raw_server(says, False))
    assert endpoint_index.deliver().retries == 1


@pytest.mark.parametrize("damaged", ["inbox", "endpoint_index", "queue"])
def test_a_lane_whose_keys_are_damaged_keeps_no_webhook_of_another_lane(
    endpoint_index: Delivering,
    served: Served,
    damaged: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    receiver, raw = Receiver(), endpoint_index.store.connection.redis
    endpoint_index.end("a", webhook=served(receiver))
    veo = LaneKeys(Lane("default", "veo"))
    now = endpoint_index.store.fleet.now()
    endpoint_index.store.deliveries.index.note([Place("default", veo.lane, now)], now)
    raw.zadd(veo.inbox, {"shop:x": now})
    key = veo.queue("shop") if damaged == "queue" else getattr(veo, damaged)
    raw.delete(key)
    raw.set(key, "?")
    logs.set_up("json", "error")
    assert endpoint_index.deliver().delivered == 1
    assert receiver.ids == ["a"]
    assert capsys.readouterr().err.count("lane.unreadable") == 1


def test_a_closed_port_is_tried_later(endpoint_index: Delivering) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    endpoint_index.end("a", webhook=f"http://127.0.0.1:{port}/")
    assert endpoint_index.deliver().retries == 1
    assert "ConnectError" in endpoint_index.delivery().outcome


def test_a_bomb_in_the_answer_is_neither_inflated_nor_read_to_its_end(
    endpoint_index: Delivering, served: Served
) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)

    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(bomb)
        )

    sent = served(handler)
    endpoint_index.end("a", webhook=sent)
    assert endpoint_index.deliver().delivered == 1


def test_without_a_secret_nothing_is_sent_and_no_attempt_is_charged(
    endpoint_index: Delivering, served: Served
) -> None:
    seen: list[httpx.Request] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    endpoint_index.end("a", webhook=served(handler))
    assert endpoint_index.deliver(secret="").retries == 1
    assert (seen, endpoint_index.delivery().attempts) == ([], 0)


def test_what_can_no_longer_be_read_is_buried_with_its_reason(endpoint_index: Delivering) -> None:
    endpoint_index.end("a", webhook="http://127.0.0.1:1/")
    endpoint_index.store.connection.redis.delete(KEYS.task("a"))
    assert endpoint_index.deliver().buried == 1
    assert "no longer be read" in endpoint_index.store.closed.dead(LANE)[0].outcome


def test_one_slow_receiver_does_not_keep_the_others_from_being_delivered(
    endpoint_index: Delivering, served: Served
) -> None:
    async def slow(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(1.5)
        return httpx.Response(200)

    async def quick(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200)

    endpoint_index.end("slow", webhook=served(slow))
    endpoint_index.end(*(f"q{number}" for number in range(30)), webhook=served(quick))
    run = threading.Thread(target=endpoint_index.deliver)
    run.start()
    time.sleep(1.0)
    assert endpoint_index.pending_deliveries() == 1
    run.join()
    assert endpoint_index.pending_deliveries() == 0


def test_a_delivery_that_no_message_told_of_is_found_and_more_than_one_claim_are_delivered(
    endpoint_index: Delivering, served: Served
) -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200)

    endpoint_index.end(*(f"id-{number}" for number in range(250)), webhook=served(handler))
    assert endpoint_index.deliver().delivered == 250


def test_deliveries_removed_by_hand_are_pending_again_and_delivered(
    endpoint_index: Delivering, served: Served
) -> None:
    seen: list[str] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content)["data"]["id"])
        return httpx.Response(500 if len(seen) <= 2 else 200)

    endpoint_index.end("a", "b", webhook=served(handler))
    endpoint_index.deliver()
    raw = endpoint_index.store.connection.redis
    for key in [
        KEYS.inbox,
        KEYS.endpoint_index,
        *raw.scan_iter("*:queue:*"),
        *raw.scan_iter("*:retries:*"),
        *raw.scan_iter("*:delivery:*"),
    ]:
        raw.delete(key)
    raw.delete(*raw.scan_iter("*:circuit"))
    assert endpoint_index.pending_deliveries() == 0
    assert str(reconcile(endpoint_index.store, "", 3600, 3600)) == "2 pending again"
    assert endpoint_index.deliver().delivered == 2
    assert sorted(seen) == ["a", "a", "b", "b"]
    assert str(reconcile(endpoint_index.store, "", 3600, 3600)) == "nothing missing"


def test_a_mistake_of_ours_about_one_delivery_costs_it_no_attempt_and_the_others_nothing(
    endpoint_index: Delivering, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = payload.body

    def broken(task: TrackedTask, **options: Any) -> bytes:
        return sound(task, **options) if task.id != "b" else (1 / 0).to_bytes()  # type: ignore[attr-defined]

    monkeypatch.setattr(payload, "body", broken)
    logs.set_up("console", "critical")
    endpoint_index.end("a", "b", "c", webhook=served(Receiver()))
    assert str(endpoint_index.deliver()) == "2 delivered · 1 to retry · 0 buried"
    assert (endpoint_index.delivery().task_id, endpoint_index.delivery().attempts) == ("b", 0)
    assert endpoint_index.delivery().outcome == "ZeroDivisionError of our own"


def test_every_attempt_is_logged_with_time_status_duration_address_and_the_first_of_the_answer(
    endpoint_index: Delivering, served: Served
) -> None:
    answers = [
        httpx.Response(500, text="not today\n" + "x" * 5000),
        httpx.Response(200, text="thank you"),
    ]

    async def handler(_: httpx.Request) -> httpx.Response:
        return answers.pop(0)

    endpoint_index.end("a", webhook=served(handler))
    endpoint_index.deliver()
    endpoint_index.make_due()
    assert endpoint_index.deliver().delivered == 1
    (name,) = endpoint_index.store.connection.redis.scan_iter("*:delivery:*")
    (delivery,) = endpoint_index.store.deliveries.load(LANE, [name.rpartition("delivery:")[2]])
    first, second = map(json.loads, delivery.log.splitlines())
    assert (first["status"], second["status"], second["answer"]) == (500, 200, "thank you")
    assert first["answer"].startswith("not today x")
    assert len(first["answer"]) == 1024
    assert first["address"] == "127.0.0.1"
    assert first["seconds"] >= 0
    assert abs(first["at"] - endpoint_index.store.fleet.now()) < 60


def test_a_record_that_is_too_large_stays_in_the_store_and_the_webhook_says_where(
    endpoint_index: Delivering, served: Served
) -> None:
    got: list[dict[str, Any]] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        Webhook(SECRET).verify(request.content, dict(request.headers))
        got.append(json.loads(request.content)["data"])
        return httpx.Response(200)

    endpoint_index.end("a", webhook=served(handler), record={"id": "a", "text": "x" * 300_000})
    assert endpoint_index.deliver().delivered == 1
    assert (got[0]["task"], got[0]["truncated"]) == (None, True)
    assert got[0]["fetch"] == "cavendish show --service nano-banana --account default a"


def test_a_delivery_after_the_results_have_died_says_so(
    endpoint_index: Delivering, served: Served
) -> None:
    got: list[dict[str, Any]] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        got.append(json.loads(request.content)["data"])
        return httpx.Response(500 if len(got) < 2 else 200)

    endpoint_index.end("a", webhook=served(handler))
    endpoint_index.deliver(lifetime=3600.0)
    endpoint_index.make_due()
    assert endpoint_index.deliver(lifetime=0.001).delivered == 1
    assert "results_expired" not in got[0]
    assert got[1]["results_expired"] is True


def test_a_store_that_is_away_for_a_moment_makes_no_receiver_get_a_webhook_twice(
    own_server: Server, loop: LoopThread, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_loop, "PATIENCE", 0.05)
    heard: list[str] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        heard.append(request.headers["webhook-id"])
        own_server.kill()
        threading.Timer(1.0, own_server.start).start()
        return httpx.Response(200)

    store = Store(own_server.url)
    endpoint_index = Delivering(store, loop)
    endpoint_index.end("a", webhook=served(handler))
    with pytest.raises(StoreUnavailable):
        endpoint_index.deliver(timeout=5.0)
    assert endpoint_index.deliver().delivered == 0
    assert endpoint_index.pending_deliveries() == 0
    assert len(heard) == 1
    store.close()


def test_a_stopped_delivery_worker_takes_nothing_new_and_writes_down_what_is_under_way(
    endpoint_index: Delivering, served: Served
) -> None:
    began = threading.Event()

    async def handler(_: httpx.Request) -> httpx.Response:
        began.set()
        await asyncio.sleep(0.5)
        return httpx.Response(200)

    url = served(handler)
    endpoint_index.end("a", webhook=url)
    delivery_worker, done = endpoint_index.delivery_worker(), list[Any]()
    run = threading.Thread(target=lambda: done.append(delivery_worker.deliver(lambda: None)))
    run.start()
    assert began.wait(60)
    delivery_worker.stop()
    endpoint_index.end("b", webhook=url)
    assert str(delivery_worker.deliver(lambda: None)) == "nothing pending"
    run.join(60)
    assert (done[0].delivered, endpoint_index.pending_deliveries()) == (1, 1)


def test_a_poke_makes_the_round_under_way_pay_what_is_fresh_at_once(
    endpoint_index: Delivering, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_loop, "PATIENCE", 3600.0)
    arrived: list[str] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        arrived.append(request.url.path)
        return httpx.Response(500 if request.url.path == "/one" else 200)

    url = served(handler)
    endpoint_index.end("a", webhook=f"{url}/one")
    delivery_worker = endpoint_index.delivery_worker()
    run = threading.Thread(target=delivery_worker.deliver, args=(lambda: None,))
    run.start()
    raw, retries = endpoint_index.store.connection.redis, KEYS.retries(endpoint_of(f"{url}/one"))
    eventually(lambda: raw.exists(retries), "the try of `a` is written down", 60)
    raw.zadd(
        retries, dict.fromkeys(raw.zrange(retries, 0, -1), endpoint_index.store.fleet.now() + 600)
    )  # for which the round waits
    raw.zadd(
        KEYS.endpoint_index, {endpoint_of(f"{url}/one"): endpoint_index.store.fleet.now() + 600}
    )
    endpoint_index.end("b", webhook=f"{url}/two")
    assert delivery_worker.deliver(lambda: None) is None
    eventually(lambda: len(arrived) > 1, "something is sent", 60)
    assert arrived == ["/one", "/two"]
    delivery_worker.stop()
    run.join(60)


def test_an_idle_loop_that_lingers_delivers_what_comes_meanwhile_and_ends_when_it_is_stopped(
    endpoint_index: Delivering, served: Served
) -> None:
    receiver = Receiver()
    url, done = served(receiver), list[Any]()
    endpoint_index.end("a", webhook=url)
    worker = endpoint_index.delivery_worker(linger=3600.0)
    run = threading.Thread(target=lambda: done.append(worker.deliver(lambda: None)))
    run.start()
    eventually(lambda: not endpoint_index.pending_deliveries(), "`a` is delivered", 60)
    endpoint_index.end("b", webhook=url)
    assert worker.poke(LANE)
    eventually(lambda: not endpoint_index.pending_deliveries(), "`b` is delivered", 60)
    worker.stop()
    run.join(60)
    assert receiver.ids == ["a", "b"]
    assert str(done[0]) == "2 delivered · 0 to retry · 0 buried"


def test_a_busy_worker_tells_the_others_once_a_second_and_not_for_each_batch(
    endpoint_index: Delivering, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr(delivery_worker, "time", SimpleNamespace(monotonic=lambda: now[0]))
    began, over = threading.Event(), asyncio.Event()

    async def handler(_: httpx.Request) -> httpx.Response:
        began.set()
        await over.wait()
        return httpx.Response(200)

    endpoint_index.end("a", webhook=served(handler))
    worker = endpoint_index.delivery_worker(calls=1, timeout=60.0)
    assert not worker.poke(LANE)  # no loop runs here
    run = threading.Thread(target=worker.deliver, args=(lambda: None,))
    run.start()
    assert began.wait(60)
    assert [worker.poke(LANE) for _ in range(5)] == [False, True, True, True, True]
    now[0] += 1.0
    assert [worker.poke(LANE) for _ in range(2)] == [False, True]
    worker.stop(0.0)
    run.join(60)
