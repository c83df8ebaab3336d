"""The HTTP API: what keys open, and that one never learns of the ids of another."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from cavendish import Client
from cavendish.policy.access import digest_of
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.service.application import create_app
from cavendish_worker.service.openapi_document import operations
from cavendish_worker.service.parts import Parts
from serving import caller, new_key
from shell import Run

SERVICE = "nano-banana"
SECRET_ID = "id-of-somebody-else"
DOCUMENT = create_app(Parts.of(Settings())).openapi()
OPERATIONS = [(method, path) for method, path, one in operations(DOCUMENT) if one.get("security")]


@pytest.fixture
def victim(client: Client, store: Store) -> str:
    """What others have in the store: tasks, a group, a pause."""
    client.submit(
        [SECRET_ID], service=SERVICE, account="theirs", producer="victim", group="their-group"
    )
    client.submit([SECRET_ID], service=SERVICE, producer="victim", group="their-group")
    client.pause("theirs", "flux")
    return SECRET_ID


@pytest.fixture(params=["account", "own"])
def stranger(
    request: pytest.FixtureRequest, address: str, store: Store, victim: str
) -> Iterator[httpx.Client]:
    """A client whose key is for another account, or for its own ids only."""
    if request.param == "account":
        key = new_key(store, "stranger", accounts=("mine",))
    else:
        key = new_key(store, "stranger", "submit", "read", own=True)
    with caller(address, key) as http:
        yield http


def bodies(path: str, account: str) -> Iterator[dict[str, object]]:
    """What a stranger may say to an operation, by its path."""
    ids: dict[str, object] = {"service": SERVICE, "account": account, "ids": [SECRET_ID]}
    yield ids
    yield ids | {"deadline": 60.0}
    yield {"filter": {}, "deadline": 60.0}
    yield {"filter": {"account": account}, "deadline": 60.0}
    yield {"filter": {"producer": "victim"}}
    yield {"deliveries": [SECRET_ID]}
    yield {"all": True}
    yield {"calls": 1.0}
    yield {}


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_key_never_learns_of_the_ids_of_others(
    method: str, path: str, stranger: httpx.Client, client: Client
) -> None:
    """Over every operation of the document, whatever is said to it."""
    before = (
        client.get(SECRET_ID, service=SERVICE),
        client.get(SECRET_ID, service=SERVICE, account="theirs"),
    )
    for account in ("theirs", "default"):
        values = {"service": SERVICE, "task_id": SECRET_ID, "name": "their-group"}
        where = path.format_map(values | {"which": "shop", "account": account})
        for body in bodies(path, account) if method != "GET" else [None]:
            only_events = {"follow": "false"} if path == "/v1/events" else {}
            for more in ({}, {"account": account}, {"account": account, "after": "0"}):
                query = more | only_events
                answer = stranger.request(method, where, json=body, params=query)
                assert answer.status_code < 500, answer.text
                said = json.dumps(body or {})
                if SECRET_ID in answer.text:  # it says what it was told, and no more
                    assert SECRET_ID in said or SECRET_ID in where
                    assert "pending" not in answer.text
                    assert "done" not in answer.text
                assert "victim" not in answer.text or "victim" in said
    assert before == (
        client.get(SECRET_ID, service=SERVICE),
        client.get(SECRET_ID, service=SERVICE, account="theirs"),
    )


def test_a_key_that_sees_its_own_ids_sees_these(address: str, store: Store, client: Client) -> None:
    """It submits as the producer of its name, and finds what it submitted."""
    client.submit(["theirs"], service=SERVICE, producer="victim")
    with caller(address, new_key(store, "shop", "submit", "read", own=True)) as http:
        http.post("/v1/tasks", json={"service": SERVICE, "ids": ["mine"]})
        assert [one["id"] for one in http.get("/v1/tasks").json()["items"]] == ["mine"]
        assert http.get(f"/v1/tasks/{SERVICE}/mine").status_code == 200
        assert http.get(f"/v1/tasks/{SERVICE}/theirs").status_code == 404
        group = {"service": SERVICE, "ids": ["mine"], "group": "order"}
        assert http.post("/v1/tasks", json=group).status_code == 403
        assert http.post("/v1/tasks", json=group | {"group": "shop/order"}).status_code == 200
        named = {"service": SERVICE, "ids": ["x"], "producer": "victim"}
        assert http.post("/v1/tasks", json=named).status_code == 403


@pytest.mark.parametrize("right", ["submit", "read", "operate"])
def test_a_key_does_what_it_may_and_nothing_else(address: str, store: Store, right: str) -> None:
    """Each right opens its operations."""
    needed = {
        "read": http_get("/v1/tasks"),
        "operate": http_get("/v1/pauses"),
        "submit": ("POST", "/v1/tasks", {"service": SERVICE, "ids": ["a"]}),
    }
    with caller(address, new_key(store, "some", right)) as http:
        for name, (method, path, body) in needed.items():
            answer = http.request(method, path, json=body)
            assert (answer.status_code == 403) == (name != right), answer.text


def http_get(path: str) -> tuple[str, str, None]:
    return "GET", path, None


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_without_a_key_every_operation_is_a_401(address: str, method: str, path: str) -> None:
    """Also with a wrong one, and before the body is read."""
    with caller(address) as http:
        for said in ("", "Bearer", "Bearer cav_00000000_" + "x" * 43, "Basic YTpi", "Bearer \xff"):
            answer = http.request(
                method, path, headers={"authorization": said.encode("latin-1")}, content=b"{" * 99
            )
            assert answer.status_code == 401
            assert answer.json()["status"] == 401


def test_a_key_is_made_listed_used_and_revoked(run: Run, address: str, store: Store) -> None:
    """The store has no secret, and a revoked or expired key opens nothing any more."""
    made = run("key", "add", "shop", "--may", "read,submit", "--account", "default", "--json")
    text = json.loads(made.stdout)["key"]
    stored = store.connection.redis.hgetall("cavendish:api-keys")
    assert text not in str(stored)
    assert digest_of(text) in str(stored)
    with caller(address, text) as http:
        assert http.get("/v1/tasks").status_code == 200
        time.sleep(2.1)
        assert http.get("/v1/tasks").status_code == 200
        (listed,) = json.loads(run("key", "list", "--json").stdout)
        assert listed["last_used"] is not None
        assert text[20:] not in run("key", "list").stdout
        assert run("key", "revoke", "shop").exit_code == 0
        time.sleep(2.1)
        assert http.get("/v1/tasks").status_code == 401
    with caller(address, new_key(store, "old", expires_at=time.time() - 1)) as http:
        assert http.get("/v1/tasks").status_code == 401
    assert run("key", "list").stdout.startswith("name")
    assert run("key", "revoke", "nobody").exit_code == 1


@pytest.mark.parametrize(
    "words",
    [
        ["Shop", "--may", "read"],
        ["shop", "--may", "everything"],
        ["shop", "--may", ""],
        ["shop", "--may", "read", "--account", "A b"],
        ["shop", "--may", "read", "--service", "A b"],
        ["shop", "--may", "operate", "--own"],
        ["shop", "--may", "read", "--expires", "soon"],
    ],
)
def test_a_key_that_cannot_be_is_refused_in_a_sentence(run: Run, words: list[str]) -> None:
    """Nothing is stored then."""
    done = run("key", "add", *words)
    assert done.exit_code != 0
    assert "Traceback" not in done.output
    assert run("key", "list").stdout == "no keys\n"
