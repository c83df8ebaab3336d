"""The HTTP API: every error is a problem document, whatever a stranger sends."""

from __future__ import annotations

import gzip
import json
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.service.application import create_app
from cavendish_worker.service.guarded_route import LARGEST_BODY
from cavendish_worker.service.openapi_document import operations
from cavendish_worker.service.parts import Parts
from cavendish_worker.service.task_bodies import Body
from cavendish_worker.telemetry import logs
from conftest import Server
from servers import eventually
from serving import caller, new_key, service

SERVICE = "nano-banana"
DOCUMENT = create_app(Parts.of(Settings())).openapi()
JSON = {"content-type": "application/json"}


def problem(answer: httpx.Response, status: int) -> str:
    """The sentence of a problem document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert (said["status"], said["type"]) == (status, "about:blank")
    assert said["detail"].endswith(".")
    assert "\n" not in said["detail"]
    return str(said["detail"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/tasks/", 404),
        ("GET", "/v1/tasks/nano-banana", 404),
        ("POST", "/v1/tasks/nano-banana", 404),
        ("GET", "/v1/tasks/cancel", 405),
        ("DELETE", "/v1/tasks", 405),
        ("GET", "/v1/tasks/nano-banana/unknown", 404),
        ("GET", "/v1/groups/unknown", 404),
        ("GET", "/v1/endpoints/unknown", 404),
        ("DELETE", "/v1/endpoints/unknown", 404),
        ("DELETE", "/v1/pauses/default", 404),
        ("GET", "/v1/tasks?limit=0", 422),
        ("GET", "/v1/tasks?limt=5", 422),
        ("GET", "/v1/tasks?state=gone", 422),
        ("GET", "/v1/tasks?since=nan", 422),
        ("GET", "/v1/tasks?cursor=x", 422),
        ("GET", "/v1/tasks/nano-banana/a?wait=21", 422),
        ("GET", "/v1/tasks/nano-banana/a?wait=nan", 422),
    ],
)
def test_what_does_not_exist_or_is_not_valid_is_a_problem(
    http: httpx.Client, method: str, path: str, status: int
) -> None:
    """One sentence each."""
    problem(http.request(method, path), status)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 422),
        (b"[" * 100_000, 400),
        (b'{"ids":' * 50_000, 400),
        (b"1" * 5000, 400),
        (b'{"service":"nano-banana","ids":["a"],"deadline":' + b"9" * 5000 + b"}", 400),
        (b"\xff\xfe", 422),
        (b'{"service": "\xff"}', 400),
        (b"null", 422),
        (b"[]", 422),
        (b'{"service":"nano-banana"}', 422),
        (b'{"service":"nano-banana","ids":"a"}', 422),
        (b'{"service":"nano-banana","ids":[1]}', 422),
        (b'{"service":"nano-banana","ids":["a"],"deadline":"60"}', 422),
        (b'{"service":"nano-banana","ids":["a"],"deadline":NaN}', 422),
        (b'{"service":"nano-banana","ids":["a"],"deadline":1e400}', 422),
        (b'{"service":"nano-banana","ids":["a"],"restart":1}', 422),
        (b'{"service":"nano-banana","ids":["a"],"unknown":1}', 422),
        (b'{"service":"nano-banana","ids":["\\ud800"]}', 422),
        (b'{"service":"nano-banana","ids":["a\\u0000b"]}', 422),
        (b'{"service":"nano-banana","ids":["a"],"webhook":"http://127.0.0.1:99999/"}', 422),
        (b'{"service":"nano-banana","ids":["a"],"webhook":"nobody"}', 422),
        (b'{"service":"nano-bananna","ids":["a"]}', 422),
        (
            b'{"service":"nano-banana","ids":["a"],"metadata":'
            + b'{"a":' * 300
            + b"1"
            + b"}" * 301,
            422,
        ),
        (b'{"service":"nano-banana","ids":["a"],"metadata":{"a":"' + b"x" * 9000 + b'"}}', 422),
    ],
    ids=lambda value: str(value[:40]) if isinstance(value, bytes) else "",
)
def test_a_body_with_a_wrong_value_is_a_problem(
    http: httpx.Client, store: Store, body: bytes, status: int
) -> None:
    """Nothing is written, and the service goes on."""
    problem(http.post("/v1/tasks", content=body, headers=JSON), status)
    assert store.tasks.lanes() == []
    assert http.get("/v1/tasks").status_code == 200


def test_a_body_of_another_kind_is_a_415(http: httpx.Client) -> None:
    """JSON is what is read."""
    assert "JSON" in problem(http.post("/v1/tasks", data={"service": SERVICE}), 415)
    problem(http.post("/v1/tasks", content=b"{}"), 415)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(http: httpx.Client) -> None:
    """By its length, or, without one, when it has grown too large."""
    declared = http.build_request("POST", "/v1/tasks", headers=JSON, content=b" " * 10)
    declared.headers["content-length"] = str(LARGEST_BODY + 1)
    answer = raw(http, b"POST /v1/tasks", {**declared.headers}, b"")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"application/problem+json" in answer
    assert b"connection: close" in answer

    sent = 0

    def growing() -> Iterator[bytes]:
        nonlocal sent
        while sent < 100 * 2**20:
            sent += 2**16
            yield b" " * 2**16

    with suppress(httpx.WriteError, httpx.ReadError):  # it is closed while the client still sends
        problem(http.post("/v1/tasks", content=growing(), headers=JSON), 413)
    assert sent < 50 * 2**20


def raw(http: httpx.Client, start: bytes, headers: dict[str, str], body: bytes) -> bytes:
    """The beginning of the answer to bytes as they are."""
    where = urlsplit(str(http.base_url))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall(start + b" HTTP/1.1\r\n" + lines.encode() + b"\r\n" + body)
        return connection.recv(65536)


@pytest.mark.parametrize(
    "noise",
    [
        b"\x00" * 1000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/tasks HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 100_000,
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=lambda noise: str(noise[:24]),
)
def test_noise_ends_a_connection_and_nothing_else(http: httpx.Client, noise: bytes) -> None:
    """The service goes on."""
    where = urlsplit(str(http.base_url))
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        try:
            connection.sendall(noise)
            connection.recv(65536)
        except OSError:
            pass  # it was closed before all was sent
    assert http.get("/v1/tasks").status_code == 200


def test_while_redis_is_away_the_answer_is_a_503(own_server: Server, settings: Settings) -> None:
    """With the time to try again; the service lives, and is not ready."""
    settings = replace(settings, redis_url=own_server.url)
    store = Store(own_server.url)
    key = new_key(store, "ops")
    store.close()
    with service(settings) as address, caller(address, key) as http:
        assert http.get("/v1/tasks").status_code == 200
        own_server.kill()
        answer = http.get("/v1/tasks")
        problem(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
        assert http.get("/healthz").status_code == 200
        problem(http.get("/readyz"), 503)
        own_server.start()
        assert http.get("/v1/tasks").status_code in (200, 401)  # it may have forgotten the keys


def test_a_producer_without_room_is_a_429(settings: Settings, store: Store) -> None:
    """The quota of the producer is what is too much."""
    key = new_key(store, "ops")
    with service(replace(settings, producer_ids=1)) as address, caller(address, key) as http:
        body = {"service": SERVICE, "ids": ["a", "b"]}
        answer = http.post("/v1/tasks", json=body)
        problem(answer, 429)
        assert int(answer.headers["retry-after"]) >= 1


def test_a_name_that_is_taken_is_a_409(http: httpx.Client) -> None:
    """An endpoint is registered once, shown without its secret, changed and removed."""
    body = {"name": "shop", "url": "http://127.0.0.1:9000/hook", "unencrypted": True}
    first = http.post("/v1/endpoints", json=body)
    assert first.status_code == 201
    assert first.headers["location"] == "/v1/endpoints/shop"
    problem(http.post("/v1/endpoints", json=body), 409)
    assert first.json()["secret"] not in http.get("/v1/endpoints").text
    changed = http.patch("/v1/endpoints/shop", json={"events": ["task.failed"]})
    assert changed.json()["events"] == ["task.failed"]
    assert http.post("/v1/endpoints/shop/disable", json={"reason": "x"}).json() == {"changed": True}
    assert http.post("/v1/endpoints/shop/enable").json() == {"changed": True}
    rotated = http.post("/v1/endpoints/shop/rotate", json={"unencrypted": True})
    assert rotated.json()["secret"] != first.json()["secret"]
    assert http.delete("/v1/endpoints/shop").json() == {"waiting": 0}


def test_accounts_are_paused_and_slowed_down(http: httpx.Client) -> None:
    """A pause and a ceiling are resources of an account."""
    paused = http.put("/v1/pauses/default/flux", json={"seconds": 60.0, "reason": "billing"})
    assert (paused.status_code, paused.json()["by"]) == (200, "key ops")
    assert http.put("/v1/pauses/default").json()["until"] is None
    assert len(http.get("/v1/pauses").json()["items"]) == 2
    assert http.delete("/v1/pauses/default").status_code == 200
    assert http.put("/v1/rate-ceilings/default", json={"calls": 5.0}).json()["calls"] == 5.0
    assert http.get("/v1/rate-ceilings").json()["items"][0]["account"] == "default"
    assert http.delete("/v1/rate-ceilings/default").status_code == 204
    problem(http.put("/v1/rate-ceilings/default", json={"calls": -1.0}), 422)


def test_operators_read_status_metrics_and_dead_letters(http: httpx.Client) -> None:
    """As the commands of these names print them."""
    http.post("/v1/tasks", json={"service": SERVICE, "ids": ["a"]})
    assert http.get("/v1/status").json()["lanes"][0]["pending"] == 1
    assert "cavendish_store_up 1.0" in http.get("/metrics").text
    assert http.get("/v1/dead-letters").json() == {"items": []}
    problem(http.post("/v1/dead-letters/revive", json={}), 422)
    assert http.post("/v1/dead-letters/revive", json={"all": True}).json()["items"] == []
    assert http.post("/v1/dead-letters/drop", json={"all": True}).json()["dropped"] == 0
    body = {"endpoint": "https://example.com/hook", "since": 0.0}
    assert http.post("/v1/replays", json=body).json()["replayed"] == 0


def test_the_pages_load_nothing_from_anywhere(address: str) -> None:
    """The document is OpenAPI 3.1, and the page for people shows each of its operations."""
    with caller(address) as http:
        document = http.get("/openapi.json").json()
        page = http.get("/docs")
    assert document["openapi"].startswith("3.1")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert "//" not in page.text.replace("https://example.com", "")
    for path in document["paths"]:
        assert f"<code>{path}</code>" in page.text
    assert "cav_" not in json.dumps(document["paths"])


def test_a_key_that_asks_too_often_is_a_429(settings: Settings, store: Store) -> None:
    """And no other key is."""
    busy, calm = new_key(store, "busy"), new_key(store, "calm")
    with service(replace(settings, http_rate=3.0)) as address:
        with caller(address, busy) as http:
            answers = [http.get("/v1/tasks") for _ in range(20)]
            refused = [one for one in answers if one.status_code != 200]
            problem(refused[0], 429)
            assert int(refused[0].headers["retry-after"]) >= 1
        with caller(address, calm) as http:
            assert http.get("/v1/tasks").status_code == 200


def test_a_request_has_an_id_and_a_line_in_the_log_without_secrets(
    address: str, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    """The line names the operation and the key; no id of a task, no body, no secret."""
    logs.set_up("json", "info")
    key = new_key(store, "shop")
    with caller(address, key) as http:
        http.post(
            "/v1/tasks", json={"service": SERVICE, "ids": ["some-id"], "metadata": {"a": "b"}}
        )
        kept = http.get(f"/v1/tasks/{SERVICE}/some-id", headers={"x-request-id": "from-proxy-7"})
        odd = http.get("/v1/tasks", headers={"x-request-id": 'a"b c'})
    assert kept.headers["x-request-id"] == "from-proxy-7"
    assert odd.headers["x-request-id"] not in ("", 'a"b c')
    said = ""
    while said.count("http.request") < 3:  # a line is written after its answer
        said += capfd.readouterr().err
    lines = [json.loads(line) for line in said.splitlines() if "http.request" in line]
    assert [(one["method"], one["path"], one["status"], one["key"]) for one in lines] == [
        ("POST", "/v1/tasks", 201, "shop"),
        ("GET", "/v1/tasks/{service}/{task_id:path}", 200, "shop"),
        ("GET", "/v1/tasks", 200, "shop"),
    ]
    assert "some-id" not in said
    assert key[20:] not in said


def test_a_caller_who_goes_in_the_middle_of_a_body_leaves_no_traceback(
    address: str, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.set_up("console", "info")
    where, key = urlsplit(address), new_key(store, "hasty")
    head = f"POST /v1/tasks HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n"
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall(head.encode() + b"content-length: 100\r\n\r\n{")
    said = str(eventually_said(capfd))
    assert "status=400" in said
    assert "Traceback" not in said


def eventually_said(capfd: pytest.CaptureFixture[str]) -> str:
    """What is logged until the first line about a request."""
    said = list[str]()
    eventually(
        lambda: said.append("".join(capfd.readouterr())) or "http.request" in "".join(said),
        "a line",
    )
    return "".join(said)


def test_whoever_sends_a_head_or_a_body_too_slowly_is_not_waited_for(
    address: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow head ends the connection, also the second one of it; a slow body is a 408."""
    monkeypatch.setattr("cavendish_worker.service.patience.HEAD_WITHIN", 0.3)
    monkeypatch.setattr("cavendish_worker.service.guarded_route.BODY_WITHIN", 0.3)
    where, key = urlsplit(address), new_key(store, "slow")
    place = where.hostname, where.port
    for first in (b"", b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"):
        with socket.create_connection(place, timeout=20) as connection:
            connection.sendall(first)
            answer = b""
            while first and not answer.endswith(b"}"):
                answer += connection.recv(65536)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: ")
            assert connection.recv(65536) == b""
    head = f"POST /v1/tasks HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n"
    with socket.create_connection(place, timeout=20) as connection:
        connection.sendall(head.encode() + b"content-length: 100\r\n\r\n{")
        assert connection.recv(65536).startswith(b"HTTP/1.1 408")


GUARDED = [
    pytest.param(method, path, one, id=f"{method} {path}")
    for method, path, one in operations(DOCUMENT)
    if one.get("security")
]


def query_names(operation: dict[str, Any]) -> list[str]:
    return [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]


@pytest.mark.parametrize(("method", "path", "operation"), GUARDED)
def test_a_parameter_that_an_operation_does_not_have_is_refused_before_anything_is_done(
    http: httpx.Client, address: str, method: str, path: str, operation: dict[str, Any]
) -> None:
    """On each operation that has a key; the sentence names it, and those that there are."""
    where, known = re.sub(r"\{\w+\}", "x", path), query_names(operation)
    said = problem(http.request(method, where, params={"wiat": "20"}), 422)
    names = ", ".join(sorted(known)) or "none"
    assert said == f"query wiat: There is no such parameter; this resource has {names}."
    for name in known:
        twice = http.request(method, where, params=[(name, "1"), (name, "1")])
        problem(twice, 422)
        assert name == "state" or "given twice" in twice.json()["detail"]
    assert "unknown parameter" in operation["responses"]["422"]["description"]
    with caller(address) as stranger:
        problem(stranger.request(method, where, params={"wiat": "20"}), 401)


def test_a_parameter_that_is_known_is_read_where_others_are_not(http: httpx.Client) -> None:
    """A list may be given item by item."""
    assert http.get("/v1/tasks?state=failed&state=expired&limit=3").status_code == 200
    long = problem(http.get("/v1/tasks", params={"x" * 5000: "1"}), 422)
    assert len(long) < 500


_MANY = "1," * 1_000_000 + "1"
_PAIRS = ",".join(f'"h{number}":1' for number in range(500_000))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/tasks", '{"service":"nano-banana","ids":[' + "{}," * 200_000 + "{}]}"),
        ("/v1/tasks", '{"service":"nano-banana","ids":[' + _MANY + "]}"),
        ("/v1/tasks", '{"service":"nano-banana","ids":["a"],"webhook":[' + _MANY + "]}"),
        ("/v1/tasks", "{" + ",".join(f'"f{n}":1' for n in range(300_000)) + "}"),
        ("/v1/tasks/cancel", '{"filter":{"state":[' + _MANY + "]}}"),
        ("/v1/dead-letters/drop", '{"deliveries":[' + _MANY + "]}"),
        ("/v1/endpoints", '{"name":"a","url":"http://b.example","events":[' + _MANY + "]}"),
        ("/v1/endpoints", '{"name":"a","url":"http://b.example","headers":{' + _PAIRS + "}}"),
    ],
)
def test_a_body_with_a_million_faults_is_told_of_one(
    http: httpx.Client, path: str, body: str
) -> None:
    """Telling of each took minutes and gigabytes, in which nobody else was answered."""
    answer = http.post(path, content=body, headers=JSON)
    assert answer.status_code in (413, 422)
    assert len(answer.json().get("errors", ())) <= 3
    assert len(answer.content) < 10_000


def test_lists_in_bodies_stop_at_their_first_fault() -> None:
    """Each list of each body: of a field that is added later, too."""

    def lists(schema: Any) -> Iterator[dict[str, Any]]:
        for each in schema.values() if isinstance(schema, dict) else schema:
            if isinstance(each, dict | list):
                yield from lists(each)
        if isinstance(schema, dict) and schema.get("type") == "list":
            yield schema

    bodies = [Body]
    for each in bodies:  # a class in which others are found is not left out
        bodies += each.__subclasses__()
    found = [one for each in bodies for one in lists(each.__pydantic_core_schema__)]
    assert len(found) > 8
    assert all(one.get("fail_fast") for one in found)


def schemas_of_requests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each schema in what requests may say, with its place."""
    known = DOCUMENT["components"]["schemas"]
    found: list[tuple[str, dict[str, Any]]] = []
    for method, path, one in operations(DOCUMENT):
        bodies = one.get("requestBody", {}).get("content", {}).values()
        said = [each["schema"] for each in (*one.get("parameters", ()), *bodies)]
        found += [(f"{method} {path}", schema) for schema in said]
    for where, schema in found:  # it grows
        if "$ref" in schema:
            found.append((where, known[schema["$ref"].rpartition("/")[2]]))
        found += [(where, each) for each in schema.get("anyOf", ())]
        found += [(f"{where} {name}", each) for name, each in schema.get("properties", {}).items()]
        found += [(where, schema["items"])] if "items" in schema else []
        yield where, schema


def test_whatever_may_be_long_in_a_request_has_a_bound_in_the_document() -> None:
    """Each list, and each object with names of the caller's own."""
    unbounded = {
        where
        for where, schema in schemas_of_requests()
        if (schema.get("type") == "array" and "maxItems" not in schema)
        or (schema.get("additionalProperties") and "maxProperties" not in schema)
    }
    assert unbounded == set()
    assert {where.split()[-1] for where, one in schemas_of_requests() if "maxItems" in one} >= {
        "ids", "webhook", "events", "deliveries", "remove_headers", "reset", "state",
    }  # fmt: skip


_TASK = {"service": SERVICE, "ids": ["a"]}
_ENDPOINT = {"name": "a", "url": "http://b.example"}


@pytest.mark.parametrize(
    ("path", "told", "why"),
    [
        ("/v1/tasks", _TASK | {"ids": ["a"] * 10_001}, "ids: At most 10,000 may"),
        ("/v1/tasks", _TASK | {"webhook": ["http://b.example"] * 9}, "webhook: At most 8 may"),
        ("/v1/tasks", _TASK | {"metadata": {str(n): 1 for n in range(9000)}}, "metadata: At most"),
        ("/v1/tasks", _TASK | {"metadata": {"a": "b" * 9000}}, "larger than 8 KiB"),
        ("/v1/tasks", _TASK | {"model": "m" * 100_000}, "at most 100 characters"),
        ("/v1/tasks/cancel", {"filter": {"state": ["failed"] * 7}}, "state: At most 6 may"),
        ("/v1/tasks/cancel", {"filter": {"state": []}}, "state"),
        ("/v1/dead-letters/drop", {"deliveries": ["a"] * 10_001}, "At most 10,000 may"),
        ("/v1/endpoints", _ENDPOINT | {"events": ["task.*"] * 51}, "events: At most 50 may"),
        ("/v1/endpoints", _ENDPOINT | {"headers": {f"x-{n}": "y" for n in range(11)}}, "10 may"),
        ("/v1/endpoints", _ENDPOINT | {"headers": {"x": "y" * 3000}}, "1 to 2048 printable"),
        ("/v1/endpoints", _ENDPOINT | {"headers": {"x" * 100_000: "y"}}, "1 to 64 letters"),
        ("/v1/endpoints", _ENDPOINT | {"headers": {"x": 7}}, "value of 'x' must be a text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_too_many_and_too_large_is_said_in_a_sentence(
    http: httpx.Client, path: str, told: dict[str, Any], why: str
) -> None:
    said = problem(http.post(path, json=told), 422)
    assert why in said
    assert len(said) < 300


def test_an_unknown_field_is_named(http: httpx.Client) -> None:
    said = problem(http.post("/v1/tasks", json={"service": SERVICE, "ids": ["a"], "id": "b"}), 422)
    assert "'id'" in said


def test_a_compressed_body_is_a_415(http: httpx.Client) -> None:
    """And the sentence says why."""
    headers = JSON | {"content-encoding": "gzip"}
    said = problem(http.post("/v1/tasks", content=gzip.compress(b"{}"), headers=headers), 415)
    assert "compressed" in said


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/tasks", "GET, POST"),
        ("/v1/pauses/default", "DELETE, PUT"),
        ("/v1/endpoints/shop", "DELETE, GET, PATCH"),
        ("/healthz", "GET, HEAD"),
    ],
)
def test_a_405_names_every_method_of_the_resource(
    http: httpx.Client, path: str, methods: str
) -> None:
    """Each of them is a route of its own."""
    answer = http.request("OPTIONS", path)
    problem(answer, 405)
    assert answer.headers["allow"] == methods


def test_monitors_may_ask_by_head(http: httpx.Client) -> None:
    """Many do by default, and take a 405 for an outage."""
    assert [http.head(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


def test_the_offer_of_another_protocol_is_ignored(
    http: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """Java's client makes it with its first request."""
    logs.set_up("json", "info")
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMA"}
    body = {"service": SERVICE, "ids": ["a"]}
    assert http.post("/v1/tasks", json=body, headers=offer).status_code == 201
    assert http.get("/v1/tasks").status_code == 200
    assert "pgrade" not in capsys.readouterr().err
