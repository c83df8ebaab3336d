"""The HTTP API: tasks, over real HTTP and with a real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from cavendish import Client
from cavendish.settings import Settings
from cavendish.store import Store
from serving import caller, new_key, service

SERVICE = "nano-banana"


@pytest.fixture
def address(store: Store, settings: Settings) -> Iterator[str]:
    """Where the service listens."""
    with service(settings) as where:
        yield where


@pytest.fixture
def http(address: str, store: Store) -> Iterator[httpx.Client]:
    """A client with a key that may do everything."""
    with caller(address, new_key(store, "ops")) as opened:
        yield opened


def test_an_id_that_is_submitted_over_http_is_tracked(http: httpx.Client, client: Client) -> None:
    """A new id is 201, a known one 200, and the client reads what the service wrote."""
    body = {"service": SERVICE, "tasks": ["a", {"id": "b", "key": "order-7"}]}
    first, second = http.post("/v1/tasks", json=body), http.post("/v1/tasks", json=body)
    assert (first.status_code, second.status_code) == (201, 200)
    assert [one["outcome"] for one in first.json()["items"]] == ["new", "new"]
    assert [one["outcome"] for one in second.json()["items"]] == ["known", "known"]
    assert [task.id for task in client.find("order-7")] == ["b"]
    found = http.get(f"/v1/tasks/{SERVICE}/a")
    assert found.status_code == 200
    assert found.json()["state"] == "pending"
    assert found.json()["producer"] == "ops"


def test_the_service_lives_and_is_ready(address: str) -> None:
    """Neither question needs a key."""
    with caller(address) as http:
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code == 200


def test_without_a_key_nothing_is_answered(address: str) -> None:
    """The answer is a problem document."""
    with caller(address) as http:
        answer = http.get(f"/v1/tasks/{SERVICE}/a")
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == "Bearer"
