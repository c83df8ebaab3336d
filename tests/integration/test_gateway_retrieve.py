"""The vendor's own SDK, unmodified, asks the gateway about ids; a real Redis holds them."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest
from acedatacloud import AceDataCloud, AsyncAceDataCloud
from acedatacloud._runtime.errors import AuthenticationError, TokenMismatchError, ValidationError

from cavendish import Client, State
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.devstack.ports import free_port
from cavendish_worker.service.key_ring import FRESH_FOR
from cavendish_worker.telemetry.metrics import answered
from conftest import Server
from ending import blocked, settle, settle_pending
from servers import eventually
from serving import caller, new_key, service

SERVICE, LANE = "nano-banana", Lane("default", "nano-banana")
TASKS = f"/{SERVICE}/tasks"
URL = "https://cdn.example.com/a.png"
DONE = {"response": {"data": [{"image_url": URL}]}, "finished_at": 1_780_000_000.0}
NIL = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def address(store: Store, settings: Settings) -> Iterator[str]:
    """Where the gateway listens."""
    with service(settings) as where:
        yield where


@pytest.fixture
def http(address: str) -> Iterator[httpx.Client]:
    """A plain client with the token of the account `default`."""
    with caller(address, "emulated") as opened:
        yield opened


@pytest.fixture
def sdk(address: str) -> Iterator[AceDataCloud]:
    """The SDK with the token of the account `default`."""
    with AceDataCloud(api_token="emulated", base_url=address) as opened:
        yield opened


def new_id() -> str:
    return str(uuid.uuid4())


def end_soon(store: Store, *ids: str, **options: Any) -> threading.Thread:
    """End ids as soon as somebody waits for them."""

    def end() -> None:
        blocked(store)
        settle(store, LANE, *ids, **options)

    thread = threading.Thread(target=end)
    thread.start()
    return thread


def test_the_sdk_waits_for_an_id_and_has_its_record(
    sdk: AceDataCloud, client: Client, store: Store
) -> None:
    """The record lacks the flag without which the vendor's MCP server waits for ever."""
    task_id = new_id()
    client.submit([task_id], service=SERVICE)
    ending = end_soon(store, task_id, record=DONE | {"id": task_id})
    found = sdk.tasks.wait(task_id, service=SERVICE, max_wait=60)
    ending.join()
    response = {"data": [{"image_url": URL}], "success": True}
    assert found == DONE | {"id": task_id, "response": response}


def test_the_async_sdk_waits_for_many_ids_each_in_one_request(
    address: str, client: Client, store: Store
) -> None:
    """Each request is held until its id has ended; a second one would come after three seconds."""
    ids = [new_id() for _ in range(50)]
    client.submit(ids, service=SERVICE)
    asked = []

    async def count(request: httpx.Request) -> None:
        asked.append(request)

    async def wait() -> list[Any]:
        async with AsyncAceDataCloud(api_token="emulated", base_url=address) as sdk:
            sdk._transport._client.event_hooks["request"].append(count)
            waits = [sdk.tasks.wait(each, service=SERVICE, max_wait=60) for each in ids]
            return await asyncio.gather(*waits)

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(lambda: asyncio.run(wait()))
        eventually(lambda: len(asked) == len(ids), "all ask")
        settle(store, LANE, *ids)
        found = waiting.result(60)
    assert [each["id"] for each in found] == ids
    assert len(asked) == len(ids)


def test_a_client_has_at_most_sixty_requests_held_and_the_others_are_answered(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """Held ones would keep all connections of its pool."""
    ids = [new_id() for _ in range(70)]
    client.submit(ids, service=SERVICE)
    http._transport._pool._max_connections = 1000  # type: ignore[attr-defined]
    with ThreadPoolExecutor(70) as pool:
        asks = [pool.submit(http.post, TASKS, json={"id": each}) for each in ids]
        eventually(lambda: sum(each.done() for each in asks) == 10, "ten are answered")
        time.sleep(0.3)
        assert sum(each.done() for each in asks) == 10
        settle(store, LANE, *ids)
        answers = [each.result(60).json() for each in asks]
    assert sum(each == {"id": each["id"], "response": {}} for each in answers) == 10


def test_near_the_end_of_a_hold_the_client_is_told_just_after_a_poll(
    http: httpx.Client, client: Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not ask for the next seconds, and after a poll no end will be found for the longest.

    The hold itself lasts for longer than this test.
    """
    task_id = new_id()
    client.submit([task_id], service=SERVICE)
    for name in ("gateway.lookup.HOLD", "gateway.lookup.PAUSE", "held_requests.LONGEST"):
        monkeypatch.setattr(f"cavendish_worker.service.{name}", 3600.0)
    monkeypatch.setattr("cavendish_worker.service.gateway.lookup.LOOK", 0.05)
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(http.post, TASKS, json={"id": task_id}, timeout=60)
        eventually(lambda: held() == 1, "it is held")
        time.sleep(0.5)
        assert held() == 1
        settle_pending(store, LANE, task_id)
        answer = asking.result(60).json()
    assert answer == {"id": task_id, "response": {}}


@pytest.mark.parametrize("state", [State.FAILED, State.EXPIRED, State.UNKNOWN, State.CANCELLED])
def test_whatever_end_an_id_has_the_sdk_returns_it_as_failed(
    state: State, sdk: AceDataCloud, client: Client, store: Store
) -> None:
    """Today it waits for ten minutes for an id that the API does not know."""
    task_id = new_id()
    client.submit([task_id], service=SERVICE)
    settle(store, LANE, task_id, state=state)
    handle = sdk.tasks.wait(task_id, service=SERVICE, max_wait=60)
    assert handle["response"]["success"] is False
    assert set(handle["response"]["error"]) == {"code", "message"}


def test_an_id_that_nobody_submitted_is_tracked_from_its_first_question(
    sdk: AceDataCloud, client: Client, store: Store
) -> None:
    task_id = new_id()
    ending = end_soon(store, task_id)
    assert sdk.tasks.wait(task_id, service=SERVICE, max_wait=60)["id"] == task_id
    ending.join()
    task = client.get(task_id, service=SERVICE)
    assert task is not None
    assert task.producer == "gateway"


@pytest.mark.parametrize("odd", [NIL, "", " ", "x" * 300, "no-uuid", "a\x00b", "{}"])
def test_what_cannot_be_an_id_of_the_api_is_not_known_and_not_tracked(
    odd: str, http: httpx.Client, client: Client
) -> None:
    """The nil UUID is how one of the vendor's clients tests a token."""
    answer = http.post(TASKS, json={"id": odd, "action": "retrieve"})
    assert (answer.status_code, answer.json()) == (200, {})
    batch = http.post(TASKS, json={"ids": [odd], "action": "retrieve_batch"})
    assert batch.json() == {"items": [], "count": 0}
    assert client.count() == 0


def test_an_empty_batch_tests_a_token(http: httpx.Client) -> None:
    answer = http.post(TASKS, json={"ids": [], "action": "retrieve_batch"})
    assert (answer.status_code, answer.json()) == (200, {"items": [], "count": 0})


def test_a_producer_lets_only_so_many_ids_be_tracked_that_nobody_submitted(
    http: httpx.Client, client: Client
) -> None:
    ids = [new_id() for _ in range(1000)]
    first = http.post(TASKS, json={"ids": ids, "action": "retrieve_batch"}).json()
    assert first["count"] == 1000
    assert http.post(TASKS, json={"id": new_id()}).json() == {}
    assert client.count() == 1000


def test_a_batch_is_answered_at_once_in_the_order_asked_for_each_id_once(
    http: httpx.Client, client: Client, store: Store
) -> None:
    ids = [new_id() for _ in range(3)]
    client.submit(ids[:2], service=SERVICE)
    settle(store, LANE, ids[0], record=DONE | {"id": ids[0]})
    asked = {"ids": [ids[1], ids[0], ids[1], "no-uuid", 7, ids[2]], "action": "retrieve_batch"}
    answer = http.post(TASKS, json=asked).json()
    assert [each["id"] for each in answer["items"]] == [ids[1], ids[0], ids[2]]
    assert [bool(each["response"]) for each in answer["items"]] == [False, True, False]
    assert answer["count"] == 3


def test_errors_are_those_that_the_sdk_knows(address: str, sdk: AceDataCloud) -> None:
    other = AceDataCloud(api_token="another", base_url=address)
    with other, pytest.raises(AuthenticationError) as refused:
        other.tasks.wait(new_id(), service=SERVICE)
    assert refused.value.code == "invalid_token"
    with pytest.raises(ValidationError):
        sdk._transport.request("POST", TASKS, json={"action": "retrieve"})


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b"7", b"[" * 5000, b'{"id": 7}', b"null"])
def test_a_body_that_asks_nothing_is_refused_in_the_form_of_the_api(
    body: bytes, http: httpx.Client
) -> None:
    answer = http.post(TASKS, content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_request"
    assert answer.json()["trace_id"]


def test_a_body_that_is_too_large_or_has_too_many_ids_is_refused(http: httpx.Client) -> None:
    large = http.post(TASKS, content=b'{"id": "' + b"a" * 2**21 + b'"}')
    assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")
    many = http.post(TASKS, json={"ids": ["a"] * 1001, "action": "retrieve_batch"})
    assert many.status_code == 400


def test_an_account_does_not_see_the_ids_of_another(
    store: Store, settings: Settings, client: Client, tmp_path: Any
) -> None:
    """Its own question about such an id lets it be tracked in its own account."""
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"other": "second"}')
    task_id = new_id()
    client.submit([task_id], service=SERVICE)
    settle(store, LANE, task_id)
    asked = {"ids": [task_id], "action": "retrieve_batch"}
    with (
        service(replace(settings, api_tokens_file=tokens)) as address,
        caller(address, "second") as other,
    ):
        (item,) = other.post(TASKS, json=asked).json()["items"]
    assert item == {"id": task_id, "response": {}}
    assert client.get(task_id, service=SERVICE, account="other") is not None


def test_a_key_opens_the_gateway_as_far_as_it_may(
    address: str, store: Store, client: Client
) -> None:
    task_id, foreign = new_id(), new_id()
    client.submit([task_id], service=SERVICE, producer="own")
    client.submit([foreign], service=SERVICE, producer="another")
    settle(store, LANE, task_id, foreign)
    asked = {"ids": [task_id, foreign], "action": "retrieve_batch"}
    own_key, submit_key = new_key(store, "own", "read", own=True), new_key(store, "s", "submit")
    flux_key, read_key = new_key(store, "flux", services=("flux",)), new_key(store, "r", "read")
    with caller(address, own_key) as own:
        assert [each["id"] for each in own.post(TASKS, json=asked).json()["items"]] == [task_id]
        assert own.post(TASKS, json={"id": foreign}).json() == {}
        assert own.post(f"/{SERVICE}/images", json={}).json()["error"]["code"] == "disabled"
        assert own.post(TASKS, json={"trace_id": "t"}).status_code == 401
    with caller(address, read_key) as reads:
        for said in ({"action": "delete", "id": foreign}, {"action": "cancel"}):
            assert reads.post(TASKS, json=said).json()["error"]["code"] == "disabled"
    with caller(address, submit_key) as submits:
        assert submits.post(TASKS, json=asked).json()["error"]["code"] == "disabled"
    with (
        AceDataCloud(api_token=flux_key, base_url=address) as flux,
        pytest.raises(TokenMismatchError),
    ):
        flux.tasks.get(task_id, service=SERVICE)


def test_a_key_that_is_revoked_while_it_waits_has_no_record(
    address: str, store: Store, client: Client
) -> None:
    """It was allowed when its request came."""
    task_id = new_id()
    client.submit([task_id], service=SERVICE)
    with caller(address, new_key(store, "gone")) as gone, ThreadPoolExecutor(1) as pool:
        held = pool.submit(gone.post, TASKS, json={"id": task_id})
        blocked(store)
        store.api_keys.revoke("gone")
        time.sleep(FRESH_FOR)
        settle(store, LANE, task_id)
        assert held.result().json()["error"]["code"] == "invalid_token"


def test_a_wait_survives_that_redis_is_killed_and_comes_back(
    own_server: Server, settings: Settings
) -> None:
    """Today one outage of four seconds ends the wait. A key is good for so long, too."""
    here = replace(settings, redis_url=own_server.url)
    with Client(settings=here) as client, service(here) as address:
        store, task_id = Store(own_server.url), new_id()
        client.submit([task_id], service=SERVICE)
        key = new_key(store, "app")
        with caller(address, key) as app:  # whoever has called once is known without the store
            app.post(TASKS, json={"ids": [], "action": "retrieve_batch"})
        with ThreadPoolExecutor() as pool:
            waits = [pool.submit(_wait, address, token, task_id) for token in ("emulated", key)]
            eventually(lambda: held() == 2, "both are held, so the key is known")
            own_server.kill()
            with caller(address, "emulated") as http:
                asked = {"ids": [task_id], "action": "retrieve_batch"}
                assert http.post(TASKS, json=asked).json()["items"][0]["response"] == {}
            time.sleep(4)
            own_server.start()
            eventually(lambda: client.get(task_id, service=SERVICE), "it is back")
            settle(store, LANE, task_id)
            assert [each.result(60)["id"] for each in waits] == [task_id] * 2
        store.close()


def held() -> float | None:
    """How many requests the services of this process hold."""
    return answered.REGISTRY.get_sample_value("cavendish_http_held_waits")


def _wait(address: str, token: str, task_id: str) -> Any:
    with AceDataCloud(api_token=token, base_url=address) as sdk:
        return sdk.tasks.wait(task_id, service=SERVICE, max_wait=90)


def test_a_wait_survives_that_the_service_ends_and_another_one_takes_its_place(
    store: Store, settings: Settings, client: Client
) -> None:
    """Who is held is answered as pending, and asks again."""
    task_id, port = new_id(), free_port()
    client.submit([task_id], service=SERVICE)
    with ThreadPoolExecutor() as pool:
        with service(settings, port) as address:
            waiting = pool.submit(_wait, address, "emulated", task_id)
            blocked(store)
        with service(settings, port):
            settle(store, LANE, task_id)
            assert waiting.result(60)["id"] == task_id


def test_the_gateway_can_be_turned_off(store: Store, settings: Settings) -> None:
    with service(replace(settings, gateway="off")) as address, caller(address, "emulated") as http:
        assert http.post(TASKS, json={"id": new_id()}).status_code == 404
        assert http.post(f"/{SERVICE}/images", json={}).status_code == 404
        assert http.get("/healthz").status_code == 200


def test_paths_of_our_own_are_no_services(http: httpx.Client) -> None:
    for path in ("/v1/nothing", "/docs/x", "/callbacks/x", "/UPPER/tasks", "/a_b/tasks"):
        answer = http.post(path, json={})
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
