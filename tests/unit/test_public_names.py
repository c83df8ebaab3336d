"""Every public name says what it is, what its parts mean, and in which units."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, get_args, get_type_hints

import click
import pytest

import cavendish
from cavendish_worker.cli import cli

NAMES = sorted(cavendish.__all__)


def said(thing: object) -> str:
    """The docstring that was written for this very thing."""
    return (
        vars(thing).get("__doc__") or ""
        if isinstance(thing, type)
        else getattr(thing, "__doc__", None) or ""
    )


def functions(name: str) -> Iterator[tuple[str, object]]:
    """Public methods and properties of a public class, with those of our classes above it."""
    above = [each for each in getattr(cavendish, name).__mro__ if "cavendish" in each.__module__]
    for each, value in (pair for one in reversed(above) for pair in vars(one).items()):
        if not each.startswith("_") and (
            inspect.isfunction(value) or isinstance(value, property | classmethod)
        ):
            yield each, value.__func__ if isinstance(value, classmethod) else value


METHODS = [
    pytest.param(value, id=f"{name}.{each}") for name in NAMES for each, value in functions(name)
]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_class_says_what_it_is_and_what_each_of_its_parts_means(name: str) -> None:
    public = getattr(cavendish, name)
    text = said(public)
    assert text
    parts = (
        [field.name for field in dataclasses.fields(public)]
        if dataclasses.is_dataclass(public)
        else []
    )
    parts += [member.name for member in public] if issubclass(public, enum.Enum) else []
    if issubclass(public, cavendish.CavendishError) and "__init__" in vars(public):
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


def parts(hint: object) -> Iterator[object]:
    """The types that a type is made of."""
    yield hint
    for inner in get_args(hint):
        yield from parts(inner)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_takes_and_gives_public_types_only_and_nothing_is_any(name: str) -> None:
    public = getattr(cavendish, name)
    callables = [
        value.fget if isinstance(value, property) else value for _, value in functions(name)
    ]
    hints = [get_type_hints(each) for each in (public, public.__init__, *callables)]
    shown = [hint for each in hints for name, hint in each.items() if not name.startswith("_")]
    for part in (part for hint in shown for part in parts(hint)):
        assert part is not Any
        ours = str(getattr(part, "__module__", "")).startswith("cavendish")
        assert not ours or getattr(part, "__name__", "") in NAMES


def imported(code: str) -> set[str]:
    """The distributions' top packages that are loaded after some code."""
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_the_client_imports_nothing_of_the_worker_and_redis_only_at_first_use() -> None:
    assert not {"redis", "asyncio", "idna"} & imported("import cavendish")
    worker = "celery kombu httpx httpcore aiohttp tornado flower structlog click rich "
    worker += "prometheus_client cryptography cavendish_worker"
    ours = imported("from cavendish import *") - imported(
        "import redis"
    )  # which loads what it finds
    assert "cavendish" in ours
    assert not set(worker.split()) & ours


def test_a_name_that_the_client_does_not_have_is_an_attribute_error_and_all_others_are_there() -> (
    None
):
    assert {name: getattr(cavendish, name).__name__ for name in NAMES} == {
        name: name for name in NAMES
    }
    assert cavendish.__version__ == version("cavendish")
    with pytest.raises(AttributeError, match="Clint"):
        _ = cavendish.Clint  # type: ignore[attr-defined]


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
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
