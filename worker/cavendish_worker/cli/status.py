"""status: the first page of top, printed once or refreshed."""

from __future__ import annotations

import sys
import time

import click

from cavendish.errors import StoreUnavailable
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.interrupted import told_if_interrupted
from cavendish_worker.cli.options import Number, json_option
from cavendish_worker.cli.output import print_json
from cavendish_worker.cli.top import overview
from cavendish_worker.cli.top.polls import LEAST, MOST, Polls
from cavendish_worker.cli.top.screen import wide_console
from cavendish_worker.cli.top.view import View


@click.command("status", short_help="Show the first page of top once, or refresh it with --watch.")
@click.option(
    "--watch",
    type=Number(LEAST, MOST),
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="Refresh it, by default every 2 seconds, until Ctrl-C.",
)
@json_option
def command(as_json: bool, watch: float | None) -> None:
    """Show the first page of top, with all lanes and endpoints.

    It has counts by state, what is due and in flight, deliveries, dead letters, rate limits,
    pauses, failing endpoints, and which processes are alive. Calls per second and other rates need
    two readings of the store, so only --watch shows them.

    \b
    cavendish status
    cavendish status --watch 5
    cavendish status --json
    """
    polls = Polls(*open_store(), watch or 0.0)
    if watch is None:
        _show(polls, as_json=as_json)
        return
    with told_if_interrupted(lambda: "Stopped."):
        while True:
            if sys.stdout.isatty():
                click.clear()
            try:
                _show(polls, as_json=as_json)
            except StoreUnavailable as away:  # it comes back, and whoever watches waits for that
                click.echo(str(away), err=True)
            time.sleep(watch)


def _show(polls: Polls, *, as_json: bool) -> None:
    if as_json:
        print_json(polls.gather())
        return
    console, view = wide_console(), View(found=polls.poll())
    console.print(overview.draw(view, console.width, None))
