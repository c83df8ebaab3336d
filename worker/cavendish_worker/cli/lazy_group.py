"""Groups of commands that import a command only when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem


class LazyGroup(click.Group):
    """A group with a table of its commands.

    The command NAME-OF-IT is `command` in the module `package.name_of_it`. Help and completion are
    written from the table, so that they import no command.
    """

    def __init__(
        self,
        *args: Any,
        package: str = "",
        sections: Mapping[str, Mapping[str, str]] | None = None,
        **options: Any,
    ) -> None:
        """`sections`: title -> name of a command -> its short help."""
        super().__init__(*args, **options)
        self.package, self.sections = package, sections or {}
        self.lines = {name: line for part in self.sections.values() for name, line in part.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        del ctx
        return [*self.lines]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None for a name that the table does not have."""
        del ctx
        if cmd_name not in self.lines:
            return None
        found: click.Command = import_module(f"{self.package}.{cmd_name.replace('-', '_')}").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of `--help`."""
        del ctx
        for title, lines in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([*lines.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands, and the group's own options."""
        lines = self.lines.items()
        found = [
            CompletionItem(name, help=line) for name, line in lines if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)
