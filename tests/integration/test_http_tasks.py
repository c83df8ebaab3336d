"""The HTTP API: tasks, over real HTTP and with a real Redis."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import pytest

from cavendish import Client
from cavendish.model import Lane
from cavendish.store import Store
from ending import blocked, settle
from serving import caller, new_key

SERVICE = "nano-banana"


def test_an_id_that_is_submitted_over_http_is_tracked(http: httpx.Client, client: Client) -> None:
    """A new id is 201, a known one 200, and the client reads what the service wrote."""
    body = {"service": SERVICE, "ids": ["a", {"id": "b", "key": "order-7"}]}
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


@pytest.mark.parametrize(
    "task_id", ["a/b", "../../etc", "a%2Fb", "a?b=c#d", "ä 日本 🍌", "//", "a//b/", "%", "get"]
)
def test_every_id_has_a_path(http: httpx.Client, task_id: str) -> None:
    """Percent-encoded, an id may hold whatever the client takes."""
    assert http.post("/v1/tasks", json={"service": SERVICE, "ids": [task_id]}).status_code == 201
    found = http.get(f"/v1/tasks/{SERVICE}/{quote(task_id, safe='')}")
    assert (found.status_code, found.json().get("id")) == (200, task_id)


@pytest.mark.parametrize("key", ["whole", "submitter", "own", "elsewhere", "none"])
@pytest.mark.parametrize("task_id", ["ended", "pending", "nobody", "a/b"])
def test_a_get_by_the_short_way_says_what_fastapi_says(
    address: str, store: Store, client: Client, key: str, task_id: str
) -> None:
    """A parameter that changes nothing sends a get the long way. Names of keys stand in answers."""
    client.submit(["ended", "pending", "a/b"], service=SERVICE)
    settle(store, Lane("default", SERVICE), "ended", record={"id": "ended", "n": [1.50, None]})
    keys = {
        "whole": new_key(store, "whole"),
        "submitter": new_key(store, "submitter", "submit"),
        "own": new_key(store, "own", "read", own=True),
        "elsewhere": new_key(store, "elsewhere", "read", services=("flux",)),
        "none": "cav_00000000_nothing",
    }
    with caller(address, keys[key]) as http:
        for wait in ("", "wait=0", "wait=0.01", "wait=21", "wait=-1", "wait=x"):
            short, long = (
                http.get(f"/v1/tasks/{SERVICE}/{quote(task_id, safe='')}?{wait}{more}")
                for more in ("", "&account=default")
            )
            assert (short.status_code, short.content) == (long.status_code, long.content)
            differ = ("x-request-id", "date")
            first, second = (
                {name: text for name, text in one.headers.items() if name not in differ}
                for one in (short, long)
            )
            assert first == second


@pytest.mark.parametrize("task_id", [".", "..", "x" * 200])
def test_an_id_that_no_path_can_hold_is_got_by_a_body(http: httpx.Client, task_id: str) -> None:
    """Clients remove dots from a path, whether they are encoded or not."""
    http.post("/v1/tasks", json={"service": SERVICE, "ids": [task_id]})
    found = http.post("/v1/tasks/get", json={"service": SERVICE, "ids": [task_id, "other"]}).json()
    assert [one["id"] for one in found["items"]] == [task_id]
    assert found["missing"] == ["other"]


def test_a_wrong_id_is_refused_alone_and_wrong_ids_only_are_a_422(http: httpx.Client) -> None:
    """The answer says what became of each."""
    some = http.post("/v1/tasks", json={"service": SERVICE, "ids": ["good", " bad"]})
    assert [one["outcome"] for one in some.json()["items"]] == ["new", "refused"]
    none = http.post("/v1/tasks", json={"service": SERVICE, "ids": [" bad"]})
    assert none.status_code == 422
    assert "white space" in none.json()["detail"]
    assert none.json()["items"][0]["outcome"] == "refused"


def test_a_get_that_waits_is_answered_at_the_end(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """It brings the record."""
    client.submit(["slow"], service=SERVICE)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(http.get, f"/v1/tasks/{SERVICE}/slow?wait=20")
        blocked(store)
        settle(store, Lane("default", SERVICE), "slow")
        found = answer.result(20)
    assert found.json()["state"] == "succeeded"
    assert found.json()["record"] == {"id": "slow"}


def test_a_get_that_waits_too_long_says_what_is_known(http: httpx.Client, client: Client) -> None:
    """That is no error: the client asks again."""
    client.submit(["slow"], service=SERVICE)
    found = http.get(f"/v1/tasks/{SERVICE}/slow?wait=0.05")
    assert (found.status_code, found.json()["state"]) == (200, "pending")


def test_a_list_has_pages_and_a_count(http: httpx.Client, client: Client) -> None:
    """`next` leads to the page behind, and null ends it."""
    client.submit([f"id-{n}" for n in range(5)], service=SERVICE, producer="shop")
    first = http.get("/v1/tasks", params={"limit": 3, "producer": "shop"}).json()
    params = {"limit": 3, "producer": "shop", "cursor": first["next"]}
    second = http.get("/v1/tasks", params=params).json()
    assert len({one["id"] for one in first["items"] + second["items"]}) == 5
    assert second["next"] is None
    assert http.get("/v1/tasks/count", params={"state": "pending"}).json() == {"count": 5}


def test_ids_are_cancelled_put_off_and_forgotten(http: httpx.Client, client: Client) -> None:
    """By ids, or by a filter; who did it is the key."""
    client.submit(["a", "b", "c"], service=SERVICE)
    ids = {"service": SERVICE, "ids": ["a", "nowhere"]}
    later = http.post("/v1/tasks/deadline", json={**ids, "deadline": 60.0}).json()["items"]
    assert [one["outcome"] for one in later] == ["done", "unknown"]
    said = http.post("/v1/tasks/cancel", json={**ids, "reason": "a mistake"}).json()["items"]
    assert [one["outcome"] for one in said] == ["done", "unknown"]
    task = client.get("a", service=SERVICE)
    assert task is not None
    assert task.reason == "cancelled by key ops: a mistake"
    gone = http.post("/v1/tasks/forget", json={"filter": {"service": SERVICE}}).json()["items"]
    assert {one["id"] for one in gone} == {"a", "b", "c"}
    assert client.count() == 0


@pytest.mark.parametrize(
    "body", [{}, {"ids": ["a"]}, {"ids": ["a"], "service": SERVICE, "filter": {}}, {"ids": "a"}]
)
def test_what_is_to_be_forgotten_is_named_in_one_way(http: httpx.Client, body: object) -> None:
    """Nothing is forgotten by a mistake."""
    assert http.post("/v1/tasks/forget", json=body).status_code == 422


def test_a_group_is_complete_when_its_ids_have_ended(http: httpx.Client) -> None:
    """A get waits for it."""
    body = {"service": SERVICE, "ids": ["a"], "group": "order/7", "group_size": 1}
    assert http.post("/v1/tasks", json=body).status_code == 201
    assert http.get("/v1/groups/order%2F7?wait=0.05").json()["completed_at"] is None
    assert http.get("/v1/groups/other").status_code == 404
