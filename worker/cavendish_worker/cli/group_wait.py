"""Wait until a group is complete, for `wait --group`."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cavendish import Client, Group, State, WaitTimeout
from cavendish_worker.cli.group import show
from cavendish_worker.cli.interrupted import Interrupted
from cavendish_worker.cli.output import plain, print_json

#: Seconds between two lines of progress where no terminal shows a bar.
_LINE_EVERY = 15.0


def wait_for_group(name: str, account: str, timeout: float | None, *, as_json: bool) -> None:
    """Wait, print the group, and exit with 1 unless all its ids succeeded.

    Raises WaitTimeout; with `as_json` the group is printed before.
    """
    late: WaitTimeout | None = None
    with Client() as client:
        try:
            found = _wait(client, name, account, timeout)
        except WaitTimeout as error:
            there = client.group(name, account=account) if as_json else None
            if there is None:
                raise
            found, late = there, error
    print_json(found.to_json()) if as_json else show(found)
    if late:
        raise late
    if set(found.counts) != {State.SUCCEEDED}:
        sys.exit(1)


def _wait(client: Client, name: str, account: str, timeout: float | None) -> Group:
    """Wait behind a bar; without a terminal, print a line of progress now and then."""
    console = Console(stderr=True, highlight=False)
    columns = TextColumn("waiting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    last, said_at = "", time.monotonic()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        row = bar.add_task("", total=None)

        def progress(group: Group) -> None:
            nonlocal last, said_at
            last = plain(str(group))
            bar.update(row, completed=group.ended, total=group.size)
            if not console.is_terminal and time.monotonic() - said_at >= _LINE_EVERY:
                said_at = time.monotonic()
                console.print(last, markup=False)

        try:
            return client.wait_group(name, account=account, timeout=timeout, progress=progress)
        except KeyboardInterrupt:
            bar.stop()
            raise Interrupted(f"Stopped waiting; {last}.") from None
