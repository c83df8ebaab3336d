"""The HTTP API: events as Server-Sent Events, that go on where a client stopped."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import httpx

from cavendish import Client
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.service.event_routes import STREAMS
from cavendish_worker.service.key_ring import FRESH_FOR
from ending import blocked, settle
from serving import caller, new_key, service

SERVICE = "nano-banana"
LANE = Lane("default", SERVICE)


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The events of a stream, read as the standard says."""
    one: dict[str, Any] = {}
    for line in lines:
        if not line and "data" in one:
            yield one | json.loads(one.pop("data"))
            one = {}
        name, _, value = line.partition(": ")
        if name in ("event", "id", "data"):
            one[{"id": "position"}.get(name, name)] = value


def test_a_stream_tells_the_ends_and_goes_on_behind_the_last_one(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """With `Last-Event-ID`, as browsers send it, nothing is missed and nothing repeated."""
    client.submit(["a", "b", "c"], service=SERVICE)
    settle(store, LANE, "a")
    with http.stream("GET", "/v1/events?after=0") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = events(answer.iter_lines())
        first = next(found)
        assert (first["event"], first["id"], first["state"]) == ("ended", "a", "succeeded")
        blocked(store)
        settle(store, LANE, "b")
        assert next(found)["id"] == "b"
    settle(store, LANE, "c")
    again = {"last-event-id": first["position"]}
    with http.stream("GET", "/v1/events?after=0&follow=false", headers=again) as answer:
        assert [one["id"] for one in events(answer.iter_lines())] == ["b", "c"]


def test_a_stream_says_that_events_were_missed_and_goes_on(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """A reader that was away for too long is told so."""
    ids = [f"id-{n}" for n in range(400)]
    client.submit(ids, service=SERVICE)
    settle(store, LANE, ids[0])
    (first,) = client.events(after="0", follow=False)
    for start in range(1, 400, 100):
        settle(store, LANE, *ids[start : start + 100], kept=100)
    query = {"after": first.position, "follow": "false"}
    with http.stream("GET", "/v1/events", params=query) as answer:
        found = list(events(answer.iter_lines()))
    assert found[0]["event"] == "missed"
    assert found[-1]["id"] == ids[-1]


def test_a_malformed_position_is_a_422(http: httpx.Client) -> None:
    """While the answer can still be an error, it is one."""
    assert http.get("/v1/events?after=nonsense").status_code == 422


def test_the_end_of_the_service_ends_streams_and_waits(settings: Settings, store: Store) -> None:
    """Politely: a stream ends, and a get that waits says what is known."""
    with Client(settings=settings) as client:
        client.submit(["slow"], service=SERVICE)
    with ExitStack() as opened, ThreadPoolExecutor(1) as pool:
        running = opened.enter_context(ExitStack())
        http = opened.enter_context(
            caller(running.enter_context(service(settings)), new_key(store, "ops"))
        )
        answer = opened.enter_context(http.stream("GET", "/v1/events"))
        lines = answer.iter_lines()
        assert next(lines).startswith("retry: ")
        waiting = pool.submit(http.get, f"/v1/tasks/{SERVICE}/slow?wait=20")
        blocked(store)
        running.close()
        assert set(lines) <= {""}
        assert waiting.result().json()["state"] == "pending"


def test_a_key_that_is_revoked_or_expires_hears_of_nothing_more(
    address: str, client: Client, store: Store
) -> None:
    """Neither its streams nor its waits: they were allowed when they began."""
    client.submit(["a", "b"], service=SERVICE)
    soon = store.fleet.now() + 3
    keys = [new_key(store, "gone", "read"), new_key(store, "short", "read", expires_at=soon)]
    with ExitStack() as opened, ThreadPoolExecutor(2) as pool:
        callers = [opened.enter_context(caller(address, key)) for key in keys]
        streams = [opened.enter_context(each.stream("GET", "/v1/events")) for each in callers]
        lines = [each.iter_lines() for each in streams]
        assert [next(each) for each in lines] == ["retry: 1000"] * 2
        held = [pool.submit(each.get, f"/v1/tasks/{SERVICE}/b?wait=20") for each in callers]
        blocked(store)
        store.api_keys.revoke("gone")
        time.sleep(max(soon - store.fleet.now(), 0) + FRESH_FOR)
        settle(store, LANE, "a", "b")
        assert [set(each) for each in lines] == [{""}] * 2
        assert [each.result().status_code for each in held] == [401] * 2


def test_streams_that_are_opened_at_once_are_counted(address: str, store: Store) -> None:
    """Each from its first moment: a hundred for a key, however they come."""
    key = new_key(store, "many", "read")
    limits = httpx.Limits(max_connections=None)

    async def opened() -> list[int]:
        headers = {"authorization": f"Bearer {key}"}
        async with (
            httpx.AsyncClient(
                base_url=address, headers=headers, trust_env=False, timeout=30, limits=limits
            ) as http,
            AsyncExitStack() as stack,
        ):
            streams = [http.stream("GET", "/v1/events") for _ in range(STREAMS + 20)]
            answers = await asyncio.gather(*map(stack.enter_async_context, streams))
            return [each.status_code for each in answers]

    assert sorted(asyncio.run(opened())) == [200] * STREAMS + [429] * 20
