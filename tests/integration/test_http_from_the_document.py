"""The HTTP API from its OpenAPI document: random requests, and a client in another language."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import textwrap
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from cavendish import Client
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.service.application import create_app
from cavendish_worker.service.openapi_document import operations
from cavendish_worker.service.parts import Parts
from ending import settle
from serving import new_key

SERVICE = "nano-banana"
DOCUMENT = create_app(Parts.of(Settings())).openapi()
OPERATIONS = {f"{method} {path}": one for method, path, one in operations(DOCUMENT)}
CASES = int(os.environ.get("FUZZ_CASES", "15"))

_TEXTS = st.one_of(
    st.sampled_from(["default", SERVICE, "a", "..", "/", "%2F", "shop", "0", "x" * 300]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without a reference."""
    if "$ref" in schema:
        return dict(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    return schema


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a schema, and now and then anything else."""
    return st.one_of(_meant(resolved(schema)), _meant(resolved(schema)), _ANYTHING)


def _meant(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "anyOf" in schema:
        return st.one_of([values(each) for each in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        fields = schema.get("properties", {})
        required = {name: values(fields[name]) for name in schema.get("required", ())}
        other = {name: values(one) for name, one in fields.items() if name not in required}
        return st.fixed_dictionaries(required, optional=other)
    if kind == "array":
        return st.lists(values(schema.get("items", {})), max_size=3)
    plain = {
        "boolean": st.booleans(),
        "integer": st.integers(-1, 2000),
        "number": st.floats(-10, 1e7),
        "null": st.none(),
        "string": _TEXTS,
    }
    return plain.get(str(kind), _ANYTHING)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", OPERATIONS)
@given(data=st.data())
@settings(
    max_examples=CASES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_request_is_a_500_and_each_answer_is_one_of_the_document(
    name: str, http: httpx.Client, data: st.DataObject
) -> None:
    """Whatever is said to an operation, its status and its JSON are what the document promises."""
    method, path = name.split(" ")
    said, query, headers = OPERATIONS[name], {}, {}
    for each in said.get("parameters", ()):
        value = data.draw(values(each["schema"]), label=each["name"])
        if each["in"] == "path":
            path = path.replace(f"{{{each['name']}}}", quote(str(value), safe="") or "x")
        elif each["in"] == "query" and value is not None:
            query[each["name"]] = value if not isinstance(value, dict) else str(value)
        elif each["in"] == "header" and isinstance(value, str) and value.isascii():
            headers[each["name"]] = "".join(filter(str.isprintable, value)).strip()
    query |= {"follow": "false", "after": "0"} if path == "/v1/events" else {}
    query |= {"wait": 0} if "wait" in query else {}
    content = None
    if body := said.get("requestBody"):
        value = data.draw(values(body["content"]["application/json"]["schema"]), label="body")
        if isinstance(value, dict) and "wait" in value:
            value["wait"] = 0
        content, headers["content-type"] = json.dumps(value).encode(), "application/json"
    answer = http.request(method, path, params=query, headers=headers, content=content)
    assert answer.status_code < 500, answer.text
    if "/." in path:
        return  # the client made another path of it
    if answer.status_code == 405:
        return  # an id that is empty
    promised = said["responses"].get(str(answer.status_code))
    assert promised is not None, (answer.status_code, answer.text)
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if kind.endswith("json"):
        schema = promised["content"][kind]["schema"] | {"components": DOCUMENT["components"]}
        Draft202012Validator(schema).validate(answer.json())


def test_a_client_in_node_waits_for_an_end_and_follows_events(
    address: str, store: Store, client: Client
) -> None:
    """Nothing but what Node brings: fetch, JSON, a stream of lines."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = textwrap.dedent(
        """
        const [address, key] = process.argv.slice(2);
        const headers = {authorization: `Bearer ${key}`, "content-type": "application/json"};
        const call = async (method, path, body) => {
          const answer = await fetch(address + path, {method, headers, body: JSON.stringify(body)});
          if (!answer.ok) throw new Error((await answer.json()).detail);
          return answer.json();
        };
        const sent = await call("POST", "/v1/tasks", {service: "nano-banana", ids: ["of/node"]});
        console.log(sent.items[0].outcome);
        const path = `/v1/tasks/nano-banana/${encodeURIComponent("of/node")}`;
        const task = await call("GET", path + "?wait=20");
        console.log(task.state);
        const stream = await fetch(`${address}/v1/events?after=0&follow=false`, {headers});
        console.log((await stream.text()).includes("of/node"));
        const unknown = call("GET", "/v1/tasks/nano-banana/unknown");
        await unknown.catch(error => console.log(error.message));
        """
    )
    words = [node, "--input-type=module", "-", address, new_key(store, "node")]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(script)
        process.stdin.close()
        assert process.stdout.readline() == "new\n"
        settle(store, Lane("default", SERVICE), "of/node")
        lines = process.stdout.read().split("\n")
    assert process.returncode == 0, lines
    assert lines[:2] == ["succeeded", "true"]
    assert lines[2].endswith("is not tracked for the service 'nano-banana'.")


class Plain:
    """A client as a Go program has one: plain HTTP/1.1 over one connection, and what the document
    says of each operation, found by its summary.
    """

    def __init__(self, address: str, key: str) -> None:
        where = urlsplit(address)
        self._connection = HTTPConnection(where.hostname or "", where.port, timeout=30)
        self._headers = {"authorization": f"Bearer {key}"}
        self._connection.request("GET", "/openapi.json")
        document = json.loads(self._connection.getresponse().read())
        self._operations = {one["summary"]: each for *each, one in operations(document)}

    def close(self) -> None:
        self._connection.close()

    def call(self, summary: str, body: object = None, **said: str) -> tuple[int, Any]:
        """Status and JSON of an operation; `said` fills its path, and the rest is the query."""
        method, path = self._operations[summary]
        for name in re.findall(r"\{(\w+)\}", path):
            path = path.replace(f"{{{name}}}", quote(said.pop(name), safe=""))
        headers, content = dict(self._headers), None
        if body is not None:
            headers["content-type"], content = "application/json", json.dumps(body)
        self._connection.request(method, f"{path}?{urlencode(said)}", content, headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_a_plain_client_made_from_the_document_does_all_of_a_producers_work(
    address: str, store: Store
) -> None:
    """Over one kept connection: submit, wait, list by pages, move a deadline, cancel, forget."""
    plain = Plain(address, new_key(store, "plain"))
    ids = [f"of/plain {number}" for number in range(5)]
    told = {"service": SERVICE, "ids": ids, "group": "g", "group_size": 5}
    assert plain.call("Submit ids", told)[0] == 201
    assert plain.call("Submit ids", told)[0] == 200
    settle(store, Lane("default", SERVICE), ids[0])
    status, task = plain.call("Get a task", service=SERVICE, task_id=ids[0], wait="5")
    assert (status, task["state"], task["id"]) == (200, "succeeded", ids[0])
    found, cursor = [], ""
    while cursor is not None:
        more = {"cursor": cursor} if cursor else {}
        status, page = plain.call("List tasks", limit="2", **more)
        assert status == 200
        found += [one["id"] for one in page["items"]]
        cursor = page["next"]
    assert sorted(found) == ids
    some = {"service": SERVICE, "ids": ids[1:3]}
    status, moved = plain.call("Give tasks another deadline", some | {"deadline": 600.0})
    assert [one["outcome"] for one in moved["items"]] == ["done"] * 2
    status, ended = plain.call("Cancel tasks", some)
    assert [one["outcome"] for one in ended["items"]] == ["done"] * 2
    assert plain.call("Get a group", name="g")[1]["joined"] == 5
    status, gone = plain.call("Forget tasks", {"service": SERVICE, "ids": ids})
    assert [one["outcome"] for one in gone["items"]] == ["done"] * 5
    status, problem = plain.call("Get a task", service=SERVICE, task_id=ids[0])
    assert (status, problem["status"]) == (404, 404)
    plain.close()
