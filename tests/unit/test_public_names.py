"""Every public name says what it is, what its parts mean, and in which units."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from collections.abc import Iterator

import click
import pytest

import cavendish
from cavendish_worker.cli import cli

NAMES = sorted(scheduler.__all__)


def said(thing: object) -> str:
    """The docstring that was written for this very thing."""
    return (
        vars(thing).get("__doc__") or ""
        if isinstance(thing, type)
        else getattr(thing, "__doc__", None) or ""
    )


def functions(name: str) -> Iterator[tuple[str, object]]:
    """Public methods and properties of a public class."""
    for each, value in vars(getattr(scheduler, name)).items():
        if not each.startswith("_") and (
            inspect.isfunction(value) or isinstance(value, property | classmethod)
        ):
            yield each, value


METHODS = [
    pytest.param(value, id=f"{name}.{each}") for name in NAMES for each, value in functions(name)
]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_class_says_what_it_is_and_what_each_of_its_parts_means(name: str) -> None:
    public = getattr(scheduler, name)
    text = said(public)
    assert text
    parts = (
        [field.name for field in dataclasses.fields(public)]
        if dataclasses.is_dataclass(public)
        else []
    )
    parts += [member.name for member in public] if issubclass(public, enum.Enum) else []
    if issubclass(public, scheduler.CavendishError) and "__init__" in vars(public):
        parts += re.findall(r"self\.(\w+) =", inspect.getsource(public.__init__))
    assert [part for part in parts if not re.search(rf"\b{part}\b", text)] == []
    assert (
        not any(part == "at" or part.endswith("_at") for part in parts)
        or "seconds since the Unix epoch" in text
    )


@pytest.mark.parametrize("function", METHODS)
def test_a_public_method_says_what_it_does_what_it_takes_and_which_of_it_is_in_seconds(
    function: object,
) -> None:
    text = said(function)
    assert text
    takes = (
        [] if isinstance(function, property) else list(inspect.signature(function).parameters)[1:]
    )  # type: ignore[arg-type]
    assert [name for name in takes if not re.search(rf"\b{name}\b", text)] == []
    assert not {"deadline", "timeout"} & set(takes) or "seconds" in text


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        yield " ".join([*path, name]), command


@pytest.mark.parametrize(("path", "command"), list(commands(cli)))
def test_a_command_says_what_it_does_shows_an_example_and_explains_its_options(
    path: str, command: click.Command
) -> None:
    assert command.help
    assert isinstance(command, click.Group) or f"cavendish {path}" in command.help
    assert [
        option.name
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ] == []
