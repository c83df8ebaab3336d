"""wait: until ids have ended, with an estimate of how long that will take."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from cavendish import Client, State, TrackedTask, WaitTimeout
from cavendish.errors import StoreUnavailable
from cavendish.model import Lane
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.estimate import Waited, in_words
from cavendish_worker.cli.group_wait import wait_for_group
from cavendish_worker.cli.id_lines import format_option, named_ids
from cavendish_worker.cli.interrupted import Interrupted
from cavendish_worker.cli.options import Number, account_option, json_option, service_option
from cavendish_worker.cli.output import counts, plain, print_json
from cavendish_worker.cli.tables import STATE_STYLES, table

#: Seconds between two polls while a person watches, and between two plain lines elsewhere.
_EVERY, _LINE_EVERY = 2.0, 15.0


class _Eta(ProgressColumn):
    """The time that is left; computed anew each second, also while nothing ends."""

    max_refresh = 1.0

    def __init__(self, waited: Waited) -> None:
        super().__init__()
        self._waited = waited

    def render(self, _task: Task) -> Text:
        return Text(in_words(self._waited.eta()), style="cyan")


@click.command("wait", short_help="Wait until all ids have ended.")
@click.argument("ids", nargs=-1, metavar="[ID...|-]")
@service_option()
@account_option(default="default", show_default=True)
@click.option("--group", metavar="NAME", help="Wait for all ids of this group instead.")
@click.option(
    "--timeout",
    type=Number(min=0),
    metavar="SECONDS",
    help="Maximum time to wait; the ids stay tracked.",
)
@format_option
@json_option
def command(
    ids: tuple[str, ...],
    service: str | None,
    account: str,
    group: str | None,
    timeout: float | None,
    form: str,
    as_json: bool,
) -> None:
    """Wait until all ids have ended, or all of a group.

    Exit code 0 only if all succeeded. With `-` the ids come from stdin, as for `submit`. At a
    terminal a bar shows how many have ended and an estimate of the time left, from the durations
    learned so far: its median and its 95th percentile.

    \b
    cavendish wait --service nano-banana --timeout 300 ID1 ID2
    cavendish wait --service nano-banana - < ids
    cavendish wait --group order-7
    """
    if bool(ids) == (group is not None):
        raise click.UsageError("Give ids, or - alone to read them from stdin, or --group.")
    if group is not None:
        wait_for_group(group, account, timeout, as_json=as_json)
    elif service is None:
        raise click.UsageError("Missing option '--service'.")
    else:
        _wait_for_ids(named_ids(ids, form), Lane(account, service), timeout, as_json=as_json)


def _wait_for_ids(wanted: list[str], lane: Lane, timeout: float | None, *, as_json: bool) -> None:
    """Wait, print the ids, and exit with 1 unless all succeeded. Raises WaitTimeout."""
    store, _ = open_store()
    waited = Waited(store, wanted, lane)
    console = Console(stderr=True, highlight=False)
    late: WaitTimeout | None = None
    with Client() as client:
        try:
            ended = _wait(client, waited, timeout, console)
        except WaitTimeout as error:
            if not as_json:
                raise
            ended = client.get_many(wanted, service=lane.service, account=lane.account)
            late = error
    if as_json:
        print_json([task.to_json() for task in ended.values()])
        if late:
            raise late
    elif console.is_terminal and sys.stdout.isatty():
        _show((task for task in ended.values() if task.id not in waited.ended), console)
        click.echo(counts(dict(Counter(task.state.value for task in ended.values()).most_common())))
    else:
        rows = [(task.id, task.state, task.reason) for task in ended.values()]
        table(("id", "state", "reason"), rows, cut="reason")
    if not all(task.state is State.SUCCEEDED for task in ended.values()):
        sys.exit(1)


def _wait(
    client: Client, waited: Waited, timeout: float | None, console: Console
) -> dict[str, TrackedTask]:
    """Wait behind a bar, while a thread tells what has ended. Raises WaitTimeout."""
    ids, over, done = waited.ids, threading.Event(), 0
    teller = threading.Thread(target=_tell, args=(waited, console, over), daemon=True)
    with _bar(console, waited) as bar:
        row = bar.add_task("", total=len(ids))

        def progress(ended: int, _all: int) -> None:
            nonlocal done
            done = ended
            bar.update(row, completed=ended)

        teller.start()
        try:
            where = waited.lane
            return client.wait(
                ids,
                service=where.service,
                account=where.account,
                timeout=timeout,
                progress=progress,
            )
        except KeyboardInterrupt:
            bar.stop()
            so_far = f"{done} of {len(ids)} have ended, the rest is still tracked"
            raise Interrupted(f"Stopped waiting; {so_far}.") from None
        finally:
            over.set()
            teller.join(timeout=1.0)


def _bar(console: Console, waited: Waited) -> Progress:
    columns = (
        TextColumn("waiting"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _Eta(waited),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _tell(waited: Waited, console: Console, over: threading.Event) -> None:
    """Print above the bar what ends; without a terminal, print a line of progress now and then."""
    said_at = time.monotonic()
    while True:
        with suppress(StoreUnavailable):  # the wait itself says that
            ended = waited.poll()
            if console.is_terminal:
                _show(ended, console)
            elif time.monotonic() - said_at >= _LINE_EVERY:
                said_at = time.monotonic()
                so_far = f"{len(waited.ended)} of {len(waited.ids)} have ended"
                console.print(f"{so_far}; {in_words(waited.eta())}")
        if over.wait(_EVERY):
            return


def _show(ended: Iterable[TrackedTask], console: Console) -> None:
    for task in ended:
        state = (f"{task.state.value:<9} ", STATE_STYLES[task.state.value])
        reason = (f"  {plain(task.reason)}" if task.reason else "", "dim")
        console.print(Text.assemble(state, plain(task.id), reason))
