"""Client, AsyncClient, the command line and the HTTP API are four doors: what one can, all can.

`VERBS` is the table of every verb with every option. What a door lacks stands there with a reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

import click
import pytest

from cavendish import AsyncClient, Client, Filter
from cavendish.settings import Settings
from cavendish_worker.cli import cli
from cavendish_worker.service.application import create_app
from cavendish_worker.service.openapi_document import operations
from cavendish_worker.service.parts import Parts

#: Reasons for which a door lacks something.
CALLED_BACK = "a command prints its progress"
PRINTED = "only a command prints"
ASKED = "only a command asks a person"
STDIN = "only a command reads stdin"
ONE_ANSWER = "a request has one answer; events are a stream"
BY_KEY = {"by": "it is the key"}
CHOSEN = {"--all": "in Python: `Filter()`", "--format": STDIN}


@dataclass(frozen=True)
class Verb:
    """One verb: its command, and how an option is spelt there, unless `some_name` is --some-name.

    `python_only`: options that the command does not have; `shell_only`: those that no method has;
    each with the reason. `route`: its operation over HTTP, or several; `not_over_http`: options
    that it does not have.
    """

    command: str
    route: str
    spelt: Mapping[str, str] = field(default_factory=dict)
    python_only: Mapping[str, str] = field(default_factory=dict)
    shell_only: Mapping[str, str] = field(default_factory=dict)
    not_over_http: Mapping[str, str] = field(default_factory=dict)


VERBS = {
    "submit": Verb(
        "submit",
        "POST /v1/tasks",
        {"metadata": "--meta"},
        shell_only={"--format": STDIN, "--raw": STDIN},
    ),
    "get": Verb("show", "GET /v1/tasks/{service}/{task_id}"),
    "get_many": Verb(
        "show",
        "POST /v1/tasks/get",
        python_only={
            "ids": "`show` is about one id",
            "with_record": "`show` always shows the record",
        },
    ),
    "find": Verb("list", "GET /v1/tasks"),
    "group": Verb("group", "GET /v1/groups/{name}"),
    "list": Verb(
        "list",
        "GET /v1/tasks",
        {"with_record": "--records"},
        shell_only={"--format": PRINTED},
    ),
    "iter": Verb(
        "list",
        "GET /v1/tasks",
        {"with_record": "--records"},
        shell_only={"--all": "in Python, `iter` is it"},
    ),
    "count": Verb("list", "GET /v1/tasks/count"),
    "wait": Verb(
        "wait",
        "GET /v1/tasks/{service}/{task_id}, POST /v1/tasks/get",
        python_only={"progress": CALLED_BACK},
        shell_only={"--format": STDIN},
        not_over_http={"progress": ONE_ANSWER},
    ),
    "wait_group": Verb(
        "wait",
        "GET /v1/groups/{name}",
        {"name": "--group"},
        python_only={"progress": CALLED_BACK},
        not_over_http={"progress": ONE_ANSWER},
    ),
    "events": Verb("events", "GET /v1/events"),
    "cancel": Verb("cancel", "POST /v1/tasks/cancel", shell_only=CHOSEN, not_over_http=BY_KEY),
    "set_deadline": Verb(
        "deadline",
        "POST /v1/tasks/deadline",
        {"deadline": "--in"},
        shell_only=CHOSEN,
        not_over_http=BY_KEY,
    ),
    "forget": Verb("forget", "POST /v1/tasks/forget", shell_only=CHOSEN),
    "pause": Verb(
        "pause",
        "PUT /v1/pauses/{account}, PUT /v1/pauses/{account}/{service}",
        {"account": "--account", "seconds": "--for"},
        not_over_http=BY_KEY,
    ),
    "resume": Verb("resume", "DELETE /v1/pauses/{account}, DELETE /v1/pauses/{account}/{service}"),
    "pauses": Verb("status", "GET /v1/pauses"),
    "set_rate_ceiling": Verb(
        "rate-limit",
        "PUT /v1/rate-ceilings/{account}, DELETE /v1/rate-ceilings/{account}",
        shell_only={"--default": "in Python: `calls=None`"},
        not_over_http=BY_KEY,
    ),
    "rate_ceilings": Verb("status", "GET /v1/rate-ceilings", shell_only={"--watch": PRINTED}),
    "endpoints": Verb("endpoint list", "GET /v1/endpoints"),
    "endpoint": Verb("endpoint show", "GET /v1/endpoints/{which}"),
    "add_endpoint": Verb(
        "endpoint add",
        "POST /v1/endpoints",
        {"headers": "--header"},
        shell_only={"--consent": "the client has no HTTP to ask a receiver"},
    ),
    "update_endpoint": Verb(
        "endpoint update",
        "PATCH /v1/endpoints/{name}",
        {"headers": "--header", "remove_headers": "--remove-header"},
    ),
    "rotate_endpoint": Verb("endpoint rotate", "POST /v1/endpoints/{name}/rotate"),
    "remove_endpoint": Verb("endpoint remove", "DELETE /v1/endpoints/{name}"),
    "enable_endpoint": Verb("endpoint enable", "POST /v1/endpoints/{which}/enable"),
    "disable_endpoint": Verb("endpoint disable", "POST /v1/endpoints/{which}/disable"),
}
#: What HTTP alone can, and why no client has it; or which command is the same.
HTTP = {
    "GET /v1/dead-letters": "dead",
    "POST /v1/dead-letters/revive": "dead",
    "POST /v1/dead-letters/drop": "dead",
    "POST /v1/replays": "replay",
    "GET /v1/status": "status",
    "GET /metrics": "metrics",
    "GET /healthz": "alive",
    "GET /readyz": "alive",
}
#: How HTTP spells options of methods.
SPELT_IN_HTTP = {"timeout": {"wait"}, "task_id": {"ids"}, "ids": {"task_id"}}
#: Parameters that HTTP alone has.
ONLY_IN_HTTP = {
    "idempotency-key": "clients of other APIs send it",
    "last-event-id": "how a browser says `after`",
    "filter": "in Python it stands in place of the ids",
    "wait": "in Python, `wait` is a method",
    "service": "in a path",
}
#: What only a command does, and why no client has it.
_RECEIVERS = "of those who run receivers and workers; producers need none of it"
_MACHINE = "about processes of this machine"
SHELL = {
    "refused": _RECEIVERS,
    "dead": _RECEIVERS,
    "replay": _RECEIVERS,
    "secret": _RECEIVERS,
    "top": "what a person looks at; programs read `status --json`",
    "doctor": "what a person looks at; programs read `doctor --json`",
    "metrics": "read by Prometheus",
    "alive": _MACHINE,
    "up": _MACHINE,
    "serve": _MACHINE,
    "key": "who has a client needs no key",
    "emulate": _MACHINE,
    "demo": _MACHINE,
}
#: Options that any command may have.
ANYWHERE = {"--json": PRINTED, "--yes": ASKED}
#: What opens and closes a door.
HINGES = {"close"}


def methods(door: type) -> dict[str, object]:
    """The public methods of a client, also those that it inherits."""
    return {
        name: value
        for name, value in inspect.getmembers(door, callable)
        if not name.startswith("_") and name not in HINGES
    }


def parameters(method: object) -> list[inspect.Parameter]:
    assert callable(method)
    return list(inspect.signature(method).parameters.values())[1:]


def options(name: str) -> Iterator[str]:
    """What a verb is told in Python; a filter stands for its fields."""
    for parameter in parameters(getattr(Client, name)):
        if "Filter" in str(parameter.annotation):
            yield from (each.name for each in fields(Filter))
        if "Filter" not in str(parameter.annotation) or "Iterable" in str(parameter.annotation):
            yield parameter.name


def spellings(command: str) -> set[str]:
    """The options of a command, each by its longest name, and its arguments."""
    found: click.Command | None = cli
    for word in command.split():
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), word)
    assert found is not None
    return {max(each.opts, key=len) for each in found.params}


@pytest.mark.parametrize("name", sorted(methods(Client)))
def test_a_method_of_client_is_one_of_async_client_with_the_same_options(name: str) -> None:
    other = getattr(AsyncClient, name, None)
    assert other is not None, f"AsyncClient lacks {name}"
    assert parameters(other) == parameters(getattr(Client, name))


def test_the_clients_have_the_same_methods_and_the_table_has_them_all() -> None:
    assert methods(AsyncClient).keys() == methods(Client).keys() == VERBS.keys()


def test_a_command_does_what_a_client_can_or_says_why_no_client_can_do_it() -> None:
    commands = {verb.command.split()[0] for verb in VERBS.values()}
    assert commands | SHELL.keys() == set(cli.list_commands(click.Context(cli)))
    assert commands.isdisjoint(SHELL)


@pytest.mark.parametrize("name", VERBS)
def test_every_option_of_a_method_is_one_of_its_command(name: str) -> None:
    verb, has = VERBS[name], spellings(VERBS[name].command)
    told = [each for each in options(name) if each not in verb.python_only]
    lacking = {each for each in told if has.isdisjoint(_spelt(verb, each))}
    assert lacking == set(), f"`cavendish {verb.command}` lacks these of Client.{name}"
    assert {*verb.python_only, *verb.spelt} <= set(options(name))
    known = {word for each in verb.python_only for word in _spelt(verb, each)}
    assert has.isdisjoint(known), "the command has an option that the table says it lacks"


@pytest.mark.parametrize("command", sorted({verb.command for verb in VERBS.values()}))
def test_every_option_of_a_command_is_one_of_a_method(command: str) -> None:
    verbs = {name: verb for name, verb in VERBS.items() if verb.command == command}
    known = {
        word
        for name, verb in verbs.items()
        for each in options(name)
        for word in _spelt(verb, each)
    }
    only_here = {word for verb in verbs.values() for word in verb.shell_only}
    has = spellings(command)
    assert has - known - only_here - ANYWHERE.keys() == set(), f"no method of {[*verbs]} has these"
    assert only_here <= has - known, "a method has an option that the table says it lacks"


@cache
def operations_over_http() -> dict[str, set[str]]:
    """The options of each operation: its parameters, and the fields of its body."""
    app = create_app(Parts.of(Settings()))
    document = app.openapi()
    return {
        f"{method} {path}": {each["name"] for each in one.get("parameters", ())}
        | fields_of_body(document, one)
        for method, path, one in operations(document)
    }


def fields_of_body(document: dict[str, Any], operation: dict[str, Any]) -> set[str]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schemas, found = [body.get("schema", {})], set[str]()
    for schema in schemas:
        schemas += schema.get("anyOf", ())
        if name := schema.get("$ref", "").rpartition("/")[2]:
            schemas.append(document["components"]["schemas"][name])
        found |= schema.get("properties", {}).keys()
        if "filter" in schema.get("properties", {}):
            schemas.append(document["components"]["schemas"]["FilterBody"])
    return found


def test_every_verb_has_an_operation_over_http_and_every_operation_is_one_of_them() -> None:
    routes = {route for verb in VERBS.values() for route in verb.route.split(", ")}
    assert routes | HTTP.keys() == operations_over_http().keys()
    assert routes.isdisjoint(HTTP)
    assert set(HTTP.values()) <= set(cli.list_commands(click.Context(cli)))


@pytest.mark.parametrize("name", VERBS)
def test_every_option_of_a_method_is_one_of_its_operation_over_http(name: str) -> None:
    verb = VERBS[name]
    has = set.union(*(operations_over_http()[route] for route in verb.route.split(", ")))
    told = {each for each in options(name) if each not in verb.not_over_http}
    lacking = {each for each in told if has.isdisjoint({each} | SPELT_IN_HTTP.get(each, set()))}
    assert lacking == set(), f"{verb.route} lacks these of Client.{name}"
    assert has.isdisjoint(verb.not_over_http)


@pytest.mark.parametrize(
    "route", sorted({one for verb in VERBS.values() for one in verb.route.split(", ")})
)
def test_every_option_of_an_operation_over_http_is_one_of_a_method(route: str) -> None:
    names = [name for name, verb in VERBS.items() if route in verb.route.split(", ")]
    known = {each for name in names for each in options(name)}
    known = known.union(*(SPELT_IN_HTTP.get(each, set()) for each in known))
    assert operations_over_http()[route] - known - ONLY_IN_HTTP.keys() == set()


def _spelt(verb: Verb, name: str) -> set[str]:
    """How a command may call an option of a method: it is a word of its own, or an option."""
    return {verb.spelt[name]} if name in verb.spelt else {name, f"--{name.replace('_', '-')}"}
