"""Ctrl-C: one sentence says how far a command came, and its exit code is that of the signal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

#: 128 and the number of SIGINT, as shells tell it.
EXIT_CODE = 130


class Interrupted(click.ClickException):
    """A command was stopped by Ctrl-C. The message says how far it came."""

    exit_code = EXIT_CODE

    def show(self, file: object = None) -> None:
        """On stderr, and nothing before it."""
        del file
        click.echo(self.message, err=True)


@contextmanager
def told_if_interrupted(so_far: Callable[[], str]) -> Iterator[None]:
    """Let Ctrl-C end the command with a sentence about what it has done so far."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(so_far()) from None
