"""The help of the whole command tree.

Each command has an example that parses, each option says what it does.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import cast

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from cavendish_worker.cli import cli


def tree(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from tree(inner, (*path, name))


COMMANDS = dict(tree(cli))
LEAVES = {
    path: command for path, command in COMMANDS.items() if not isinstance(command, click.Group)
}


def spelt(path: tuple[str, ...]) -> str:
    return " ".join(("cavendish", *path))


def examples(command: click.Command) -> list[list[str]]:
    """The words of every call of ours in the example blocks, behind `cavendish`."""
    found = []
    for block in re.findall(r"\x08\n(.*?)(?:\n\n|\Z)", command.help or "", re.DOTALL):
        for line in block.splitlines():
            call = re.search(r"(?:^|[\s(])cavendish (.*)", re.split(r"\s{3,}", line.strip())[0])
            if call:
                words = shlex.split(re.split(r"[|;>)]", call[1])[0])
                found.append(words)
    return found


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
            name, found, words = place.resolve_command(context, words)
            assert found is not None
            place = found
        place.make_context(
            name, words, parent=context
        )  # raises where an option or an argument is wrong


@pytest.mark.parametrize("path", LEAVES, ids=spelt)
def test_each_option_says_what_it_does_in_a_sentence(path: tuple[str, ...]) -> None:
    options = [option for option in LEAVES[path].params if isinstance(option, click.Option)]
    assert [option.name for option in options if not re.match(r"\S.*\.$", option.help or "")] == []


@pytest.mark.parametrize(
    "path",
    [path for path in LEAVES if path not in {("up",), ("emulate",), ("demo",), ("completion",)}],
    ids=spelt,
)
def test_whatever_prints_can_print_json(path: tuple[str, ...]) -> None:
    assert "--json" in {word for option in LEAVES[path].params for word in option.opts}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_a_shell_says_how_to_use_it(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0
    assert "_CAVENDISH_COMPLETE" in done.output
    assert "cavendish completion" in done.output.splitlines()[-1]


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
    assert sorted(told) == sorted(cli.commands)
    assert "Others:" not in said
    assert "..." not in said.partition("--help")[2]
