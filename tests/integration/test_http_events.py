"""The HTTP API: events as Server-Sent Events, that go on where a client stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx

from cavendish import Client
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.store import Store
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
