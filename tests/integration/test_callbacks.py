"""The API's callbacks, over real HTTP: hints that cost a poll at most, and prove nothing."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from acedatacloud import AceDataCloud

from cavendish import Client, State
from cavendish.endpoints.encryption import new_key as new_secret
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.announcements import AHEAD, APART
from cavendish.store.keys import LaneKeys
from cavendish_worker.service.callback_urls import CallbackUrls
from ending import settle, settle_pending
from servers import eventually
from serving import caller, service

SERVICE, LANE = "nano-banana", Lane("default", "nano-banana")
PUBLIC = "https://us.example"


@pytest.fixture
def here(settings: Settings) -> Settings:
    """Settings of a service that the API can reach."""
    return replace(settings, public_url=PUBLIC, secret_key=(new_secret(), new_secret()))


@pytest.fixture
def urls(here: Settings) -> CallbackUrls:
    return CallbackUrls(here.public_url, here.secret_key)


@pytest.fixture
def http(store: Store, here: Settings) -> Iterator[httpx.Client]:
    with service(here) as address, caller(address) as opened:
        yield opened


@pytest.fixture
def path(urls: CallbackUrls) -> str:
    """The path of our callback, as the API calls it."""
    return urls.url("default", SERVICE).removeprefix(PUBLIC)


def told(task_id: object, **more: object) -> dict[str, object]:
    return {"success": True, "task_id": task_id, "trace_id": "t", "data": []} | more


def due_at(store: Store, task_id: str) -> float:
    (at,) = store.connection.redis.zmscore(LaneKeys(LANE).due(""), [task_id])  # type: ignore[misc]
    return float(at)


def announced(store: Store, task_id: str) -> bool:
    return due_at(store, task_id) <= store.fleet.now() + APART


def claimable(store: Store) -> list[str]:
    now = store.fleet.now()
    found = [each for each in store.tasks.candidates(LANE, now, 1000) if each.due <= now]
    return [each.id for each in found if each.is_announced]


def test_a_callback_has_its_id_polled_now(
    http: httpx.Client, path: str, store: Store, client: Client
) -> None:
    """What else it says is not believed: only the poll ends the id."""
    task_id, other = str(uuid.uuid4()), str(uuid.uuid4())
    client.submit([task_id, other], service=SERVICE)
    store.connection.redis.zadd(LaneKeys(LANE).due(""), {task_id: 9e9, other: 9e9})
    assert http.post(path, json=told(task_id)).status_code == 204
    eventually(lambda: announced(store, task_id), "it is due")
    assert claimable(store) == [task_id]
    assert due_at(store, other) == 9e9
    task = client.get(task_id, service=SERVICE)
    assert task is not None
    assert (task.state, task.polls) == (State.PENDING, 0)


def test_a_callback_that_comes_before_the_submit_is_remembered(
    http: httpx.Client, path: str, store: Store, client: Client
) -> None:
    """A fast task may end before its producer has told us of it."""
    task_id = str(uuid.uuid4())
    assert http.post(path, json=told(task_id)).status_code == 204
    client.submit([task_id], service=SERVICE)
    store.connection.redis.zadd(LaneKeys(LANE).due(""), {task_id: 9e9})
    eventually(lambda: announced(store, task_id), "it is due")


def test_repeated_callbacks_cost_a_poll_now_and_then(
    http: httpx.Client, path: str, store: Store, client: Client
) -> None:
    """After a poll that one of them brought, the next one comes seconds later."""
    task_id = str(uuid.uuid4())
    client.submit([task_id], service=SERVICE)
    store.announcements.announce("default", SERVICE, [task_id], store.fleet.now())
    polled_at = _poll(store, task_id)
    for _ in range(50):
        assert http.post(path, json=told(task_id)).status_code == 204
    eventually(lambda: announced(store, task_id), "it is due")
    assert due_at(store, task_id) == pytest.approx(polled_at + APART, abs=0.01)


def test_a_first_callback_is_believed_enough_for_a_poll_however_lately_there_was_one(
    store: Store, client: Client
) -> None:
    """It goes before ids that have been due for some seconds."""
    task_id = str(uuid.uuid4())
    client.submit([task_id], service=SERVICE)
    _poll(store, task_id)
    now = store.fleet.now()
    assert store.announcements.announce("default", SERVICE, [task_id], now) == set()
    assert due_at(store, task_id) == pytest.approx(now - AHEAD, abs=0.01)
    (candidate,) = store.tasks.candidates(LANE, now, 1000)
    assert candidate.is_announced
    assert candidate.wanted_at == pytest.approx(now, abs=0.01)


def test_a_repeated_callback_waits_from_the_first_one_on(store: Store, client: Client) -> None:
    task_id, now = str(uuid.uuid4()), store.fleet.now()
    client.submit([task_id], service=SERVICE)
    for later in (0.0, 1.0, 2.0):
        store.announcements.announce("default", SERVICE, [task_id], now + later)
    (candidate,) = store.tasks.candidates(LANE, now + 2, 1000)
    assert candidate.announced_at == pytest.approx(now, abs=0.01)


def _poll(store: Store, task_id: str) -> float:
    """A poll that found an id pending, to be polled again much later."""
    settle_pending(store, LANE, task_id)
    at = store.connection.redis.hget(LaneKeys(LANE).task(task_id), "polled_at")
    return float(str(at))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"task_id": 7}',
        b'{"task_id": ""}',
        b'{"task_id": "a\\u0000"}',
        b'{"id": "x"}',
        b"[" * 5000,
        b"x" * (2**20 + 1),
        json.dumps(told("x" * 300)).encode(),
    ],
)
def test_what_names_no_id_is_taken_and_means_nothing(
    body: bytes, http: httpx.Client, path: str, store: Store, client: Client
) -> None:
    assert http.post(path, content=body).status_code == 204
    assert client.count() == 0


def test_a_url_that_is_none_of_ours_is_not_found(
    http: httpx.Client, path: str, urls: CallbackUrls
) -> None:
    token = path.rpartition("/")[2]
    for wrong in (
        path[:-1],
        path + "0",
        f"/callbacks/default/{SERVICE}/",
        f"/callbacks/other/{SERVICE}/{token}",
        f"/callbacks/default/flux/{token}",
        f"/callbacks/default/{SERVICE}/é",
    ):
        assert http.post(wrong, json=told("a")).status_code == 404
    older = CallbackUrls(PUBLIC, urls.keys[1:]).url("default", SERVICE).removeprefix(PUBLIC)
    assert http.post(older, json=told("a")).status_code == 204  # a rotation breaks none


def test_a_flood_of_forged_ids_keeps_no_true_one_out_and_tracks_none(
    http: httpx.Client, path: str, store: Store, client: Client
) -> None:
    task_id = str(uuid.uuid4())
    client.submit([task_id], service=SERVICE)
    store.connection.redis.zadd(LaneKeys(LANE).due(""), {task_id: 9e9})
    for number in range(500):
        http.post(path, json=told(f"forged-{number}"))
    http.post(path, json=told(task_id))
    eventually(lambda: announced(store, task_id), "it is due")
    assert client.count() == 1


def test_an_ended_id_is_not_touched(
    http: httpx.Client, path: str, store: Store, client: Client
) -> None:
    task_id = str(uuid.uuid4())
    client.submit([task_id], service=SERVICE)
    settle(store, LANE, task_id)
    before = client.get(task_id, service=SERVICE)
    assert http.post(path, json=told(task_id, success=False)).status_code == 204
    http.post(path, json=told("another"))
    assert client.get(task_id, service=SERVICE) == before


def test_a_submit_that_names_no_callback_gets_ours_and_nobody_sees_it(
    store: Store, here: Settings, urls: CallbackUrls, served: Callable[..., str]
) -> None:
    """One that names its own keeps it."""
    asked, task_id = list[dict[str, Any]](), str(uuid.uuid4())

    async def api(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(await request.aread()))
        return httpx.Response(200, json={"task_id": task_id})

    with (
        service(replace(here, api_url=served(api))) as address,
        AceDataCloud(api_token="emulated", base_url=address) as sdk,
    ):
        handle = sdk.nano_banana.generate(action="generate", prompt="p")
        sdk.nano_banana.generate(action="generate", prompt="p", callback_url="https://a.example")
        record = {"id": task_id, "request": asked[0], "response": {"success": True}}
        settle(store, LANE, task_id, record=record | {"finished_at": 1.0})
        state = handle.wait(max_wait=60)
    ours = urls.url("default", SERVICE)
    assert [each["callback_url"] for each in asked] == [ours, "https://a.example"]
    assert asked[0]["async"] is True
    assert "callback_url" not in state["request"]


def test_without_a_public_address_or_a_key_there_are_no_callbacks(
    store: Store, settings: Settings
) -> None:
    assert CallbackUrls("", ("key",)).url("default", SERVICE) == ""
    assert CallbackUrls(PUBLIC, ()).url("default", SERVICE) == ""
    with service(settings) as address, caller(address) as http:
        path = CallbackUrls(PUBLIC, ("key",)).url("default", SERVICE).removeprefix(PUBLIC)
        assert http.post(path, json=told("a")).status_code == 404
