"""The command line: one file per group of commands. Errors are one plain sentence on stderr, and a code that is not 0."""

from __future__ import annotations

import sys
from importlib.metadata import version

import click

from scheduler.errors import CavendishError, SettingsError
from worker.cli import completion, demo, endpoints, letters, listing, operating, running, stream, top, tracking, waiting


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("cavendish"), prog_name="cavendish")
def cli() -> None:
    """Tracks remote AI image and video tasks: hand ids over, get signed webhooks.

    \b
    cavendish up --emulate                      the whole stack on this machine, with a pretend API
    cavendish submit --service nano-banana ID   track an id
    cavendish status                            how it goes
    """


for room in (tracking, waiting, listing, stream, operating, top, endpoints, letters, running, demo, completion):
    for command in room.COMMANDS:
        cli.add_command(command)


def main() -> None:
    """The console script."""
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
