"""Client, AsyncClient and the command line are three doors: what one can do, all three can.

`VERBS` is the table of every verb with every option. What a door lacks stands there with a reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

import click
import pytest

from cavendish import AsyncClient, Client, Filter
from cavendish_worker.cli import cli

#: Reasons for which a door lacks something.
CALLED_BACK = "a command prints its progress"
PRINTED = "only a command prints"
ASKED = "only a command asks a person"
STDIN = "only a command reads stdin"
CHOSEN = {"--all": "in Python: `Filter()`", "--format": STDIN}


@dataclass(frozen=True)
class Verb:
    """One verb: its command, and how an option is spelt there, unless `some_name` is --some-name.

    `python_only`: options that the command does not have; `shell_only`: those that no method has;
    each with the reason.
    """

    command: str
    spelt: Mapping[str, str] = field(default_factory=dict)
    python_only: Mapping[str, str] = field(default_factory=dict)
    shell_only: Mapping[str, str] = field(default_factory=dict)


VERBS = {
    "submit": Verb(
        "submit", {"metadata": "--meta"}, shell_only={"--format": STDIN, "--raw": STDIN}
    ),
    "get": Verb("show"),
    "get_many": Verb(
        "show",
        python_only={
            "ids": "`show` is about one id",
            "with_record": "`show` always shows the record",
        },
    ),
    "find": Verb("list"),
    "group": Verb("group"),
    "list": Verb(
        "list",
        {"with_record": "--records"},
        shell_only={"--format": PRINTED},
    ),
    "iter": Verb(
        "list", {"with_record": "--records"}, shell_only={"--all": "in Python, `iter` is it"}
    ),
    "count": Verb("list"),
    "wait": Verb("wait", python_only={"progress": CALLED_BACK}, shell_only={"--format": STDIN}),
    "wait_group": Verb("wait", {"name": "--group"}, python_only={"progress": CALLED_BACK}),
    "events": Verb("events"),
    "cancel": Verb("cancel", shell_only=CHOSEN),
    "set_deadline": Verb("deadline", {"deadline": "--in"}, shell_only=CHOSEN),
    "forget": Verb("forget", shell_only=CHOSEN),
    "pause": Verb("pause", {"account": "--account", "seconds": "--for"}),
    "resume": Verb("resume"),
    "pauses": Verb("status"),
    "set_rate_ceiling": Verb("rate-limit", shell_only={"--default": "in Python: `calls=None`"}),
    "rate_ceilings": Verb("status", shell_only={"--watch": PRINTED}),
    "endpoints": Verb("endpoint list"),
    "endpoint": Verb("endpoint show"),
    "add_endpoint": Verb(
        "endpoint add",
        {"headers": "--header"},
        shell_only={"--consent": "the client has no HTTP to ask a receiver"},
    ),
    "update_endpoint": Verb(
        "endpoint update", {"headers": "--header", "remove_headers": "--remove-header"}
    ),
    "rotate_endpoint": Verb("endpoint rotate"),
    "remove_endpoint": Verb("endpoint remove"),
    "enable_endpoint": Verb("endpoint enable"),
    "disable_endpoint": Verb("endpoint disable"),
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
def test_what_a_method_is_told_its_command_can_be_told(name: str) -> None:
    verb, has = VERBS[name], spellings(VERBS[name].command)
    told = [each for each in options(name) if each not in verb.python_only]
    lacking = {each for each in told if has.isdisjoint(_spelt(verb, each))}
    assert lacking == set(), f"`cavendish {verb.command}` lacks these of Client.{name}"
    assert {*verb.python_only, *verb.spelt} <= set(options(name))
    known = {word for each in verb.python_only for word in _spelt(verb, each)}
    assert has.isdisjoint(known), "the command has an option that the table says it lacks"


@pytest.mark.parametrize("command", sorted({verb.command for verb in VERBS.values()}))
def test_what_a_command_is_told_a_method_can_be_told(command: str) -> None:
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


def _spelt(verb: Verb, name: str) -> set[str]:
    """How a command may call an option of a method: it is a word of its own, or an option."""
    return {verb.spelt[name]} if name in verb.spelt else {name, f"--{name.replace('_', '-')}"}
