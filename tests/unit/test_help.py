"""The help of the whole command tree.

Each command has an example that parses, each option says what it does.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import cast

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from cavendish_worker.cli import cli
from cavendish_worker.cli.lazy_group import LazyGroup


def tree(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            yield from tree(found(command, name), (*path, name))


def found(group: click.Group, name: str) -> click.Command:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    return command


COMMANDS = dict(tree(cli))
LEAVES = {
    path: command for path, command in COMMANDS.items() if not isinstance(command, click.Group)
}


def spelt(path: tuple[str, ...]) -> str:
    return " ".join(("cavendish", *path))


def examples(command: click.Command) -> list[list[str]]:
    """The words of every call of ours in the example blocks, behind `cavendish`."""
    calls = []
    for block in re.findall(r"\x08\n(.*?)(?:\n\n|\Z)", command.help or "", re.DOTALL):
        for line in block.splitlines():
            call = re.search(r"(?:^|[\s(])cavendish (.*)", re.split(r"\s{3,}", line.strip())[0])
            if call:
                words = shlex.split(re.split(r"[|;>)]", call[1])[0])
                calls.append(words)
    return calls


@pytest.mark.parametrize("path", COMMANDS, ids=spelt)
def test_a_command_has_a_help_text_that_begins_with_a_sentence(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, [*path, "--help"], prog_name="cavendish")
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: {spelt(path)} ")
    first = (COMMANDS[path].help or "").strip().partition("\n")[0]
    assert re.match(r"[A-Z].*[.:]", first)


@pytest.mark.parametrize("path", LEAVES, ids=spelt)
def test_a_command_has_an_example_of_itself(path: tuple[str, ...]) -> None:
    assert any(tuple(words[: len(path)]) == path for words in examples(LEAVES[path]))


@pytest.mark.parametrize("path", COMMANDS, ids=spelt)
def test_each_example_parses(path: tuple[str, ...]) -> None:
    for example in examples(COMMANDS[path]):
        words, place = example, cast(click.Command, cli)
        context: click.Context | None = None
        while isinstance(place, click.Group):
            context = click.Context(place, parent=context)
            name, inner, words = place.resolve_command(context, words)
            assert inner is not None
            place = inner
        place.make_context(
            name, words, parent=context
        )  # raises where an option or an argument is wrong


@pytest.mark.parametrize("path", LEAVES, ids=spelt)
def test_each_option_says_what_it_does_in_a_sentence(path: tuple[str, ...]) -> None:
    options = [option for option in LEAVES[path].params if isinstance(option, click.Option)]
    assert [option.name for option in options if not re.match(r"\S.*\.$", option.help or "")] == []


@pytest.mark.parametrize(
    "path",
    [path for path in LEAVES if path not in {("up",), ("serve",), ("emulate",), ("demo",)}],
    ids=spelt,
)
def test_whatever_prints_can_print_json(path: tuple[str, ...]) -> None:
    assert "--json" in {word for option in LEAVES[path].params for word in option.opts}


def python(code: str, **environment: str) -> str:
    """What code prints in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    "path", [p for p in COMMANDS if isinstance(COMMANDS[p], LazyGroup)], ids=spelt
)
def test_the_table_of_a_group_has_each_command_with_its_own_help_and_each_file(
    path: tuple[str, ...],
) -> None:
    group = COMMANDS[path]
    assert isinstance(group, LazyGroup)
    own = {name: found(group, name) for name in group.lines}
    assert group.lines == {name: command.get_short_help_str(90) for name, command in own.items()}
    assert [*own] == [command.name for command in own.values()]
    folder = Path(str(import_module(group.package).__file__)).parent
    files = [*folder.glob("*.py"), *(inner.parent for inner in folder.glob("*/__init__.py"))]
    marks = [(file / "__init__.py" if file.is_dir() else file, file.stem) for file in files]
    commands = {
        stem.replace("_", "-")
        for file, stem in marks
        if stem != "__init__"
        and re.search(r"^(async )?def command\(", file.read_text(), re.MULTILINE)
    }
    assert set(own) == commands


FOREIGN = set(
    "celery httpx rich tornado flower structlog prometheus_client cryptography opentelemetry redis"
    " cavendish".split()
)


#: What a command must not load, by its words.
UNWANTED = {
    "--help": FOREIGN,
    "--version": FOREIGN,
    "endpoint --help": FOREIGN,
    "submit --help": {"celery", "httpx", "rich", "tornado", "flower", "structlog"},
    "list --help": {"celery", "httpx", "rich.console", "tornado", "flower", "structlog"},
}


@pytest.mark.parametrize("words", UNWANTED)
def test_a_command_loads_only_what_it_needs(words: str) -> None:
    code = (
        "import sys; from cavendish_worker.cli import cli\n"
        f"try: cli({words.split()!r})\nfinally: print('loaded', *sys.modules)"
    )
    loaded = set(python(code).rpartition("loaded ")[2].split())
    assert "cavendish_worker.cli" in loaded
    assert loaded & UNWANTED[words] == set()


def test_completing_a_command_imports_none() -> None:
    code = (
        "import sys; from click.shell_completion import ShellComplete\n"
        "from cavendish_worker.cli import cli\n"
        "complete = ShellComplete(cli, {}, 'cavendish', '_CAVENDISH_COMPLETE')\n"
        "print(*(each.value for each in complete.get_completions([], '')))\n"
        "print(*sys.modules)"
    )
    names, loaded = python(code).splitlines()
    assert names.split() == cli.list_commands(click.Context(cli))
    assert "cavendish" not in loaded.split()


def test_a_command_that_is_unknown_is_refused() -> None:
    done = CliRunner().invoke(cli, ["nope"], prog_name="cavendish")
    assert (done.exit_code, "No such command 'nope'" in done.output) == (2, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_help_says_how_to_get_the_completion_script_of_a_shell(shell: str) -> None:
    code = "import sys; sys.argv = ['cavendish']; from cavendish_worker.cli import main; main()"
    done = python(code, _CAVENDISH_COMPLETE=f"{shell}_source")
    assert f"_CAVENDISH_COMPLETE={shell}_complete" in done
    assert f"{shell}_source" in CliRunner().invoke(cli, ["--help"]).output


def test_commands_and_options_are_completed() -> None:
    completes = ShellComplete(cli, {}, "cavendish", "_CAVENDISH_COMPLETE")
    assert {"status", "stop"} & {item.value for item in completes.get_completions([], "sta")} == {
        "status"
    }
    assert [item.value for item in completes.get_completions(["top"], "--pa")] == ["--page"]
    assert [item.value for item in completes.get_completions(["list", "--state"], "su")] == [
        "succeeded"
    ]


def test_the_list_of_commands_has_each_of_them_once_in_its_section_on_a_line_of_its_own() -> None:
    said = CliRunner().invoke(cli, ["--help"], prog_name="cavendish", terminal_width=80).output
    told = re.findall(r"^  ([a-z-]+)  +\S", said.partition("--help")[2], re.MULTILINE)
    assert told == cli.list_commands(click.Context(cli))
    assert "Others:" not in said
    assert "..." not in said.partition("--help")[2]
