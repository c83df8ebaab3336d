"""The command line.

One file per group of commands. Errors are one plain sentence on stderr, and a code that is not 0.
"""

from __future__ import annotations

import codecs
import io
import sys
from importlib.metadata import version

import click

from cavendish.errors import CavendishError, SettingsError
from cavendish_worker.cli import (
    alive,
    completion,
    dead_letters,
    demo,
    endpoints,
    listing,
    metrics,
    operating,
    running,
    secret,
    stream,
    top,
    tracking,
    waiting,
)
from cavendish_worker.cli.output import in_other_letters

#: The rooms by what somebody wants to do.
SECTIONS = {
    "Track ids": (tracking, waiting, listing, stream),
    "Watch": (top, operating, metrics, alive),
    "Webhooks": (endpoints, dead_letters, secret),
    "Run and try": (running, demo, completion),
}


class Sections(click.Group):
    """Lists its commands by section."""

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of `--help`."""
        for title, rooms in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (command.name or "", command.get_short_help_str(90))
                        for room in rooms
                        for command in room.COMMANDS
                    ]
                )


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("cavendish"), prog_name="cavendish")
def cli() -> None:
    """Tracks remote AI image and video tasks: hand ids over, get signed webhooks.

    \b
    cavendish up --emulate                      the whole stack on this machine, with a pretend API
    cavendish submit --service nano-banana ID   track an id
    cavendish top                               everything at once, live
    cavendish doctor                            what is wrong, and what to do about it
    """


for rooms in SECTIONS.values():
    for room in rooms:
        for command in room.COMMANDS:
            cli.add_command(command)


def main() -> None:
    """The console script."""
    codecs.register_error("cavendish", in_other_letters)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="cavendish")
    try:
        cli(prog_name="cavendish")
    except SettingsError as error:
        click.echo("\n".join(error.complaints), err=True)
        sys.exit(2)
    except CavendishError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone: say nothing more
        sys.exit(1)
