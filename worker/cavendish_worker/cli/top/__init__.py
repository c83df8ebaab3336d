"""top: the whole system on one screen, refreshed each second."""

from __future__ import annotations

import json
import sys
import threading
import time

import click
from rich.console import Console
from rich.live import Live

from cavendish.errors import StoreUnavailable
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.interrupted import told_if_interrupted
from cavendish_worker.cli.options import Number, json_option
from cavendish_worker.cli.top.keyboard import Keyboard, listening
from cavendish_worker.cli.top.polls import LEAST, MOST, Polls
from cavendish_worker.cli.top.screen import screen, wide_console
from cavendish_worker.cli.top.view import PAGES, View

#: Seconds after which the screen is drawn again while nothing happens.
_STALE = 1.0


@click.command("top", short_help="Show the whole system on one screen, live.")
@click.option(
    "--every",
    default=1.0,
    type=Number(LEAST, MOST),
    show_default=True,
    metavar="SECONDS",
    help="Seconds between two updates.",
)
@click.option(
    "--page",
    type=click.Choice(PAGES),
    default=PAGES[0],
    show_default=True,
    help="The page that is shown first.",
)
@click.option(
    "--once",
    is_flag=True,
    help="Print one screen and end; this is the default if stdout is no terminal.",
)
@json_option
def command(every: float, page: str, once: bool, as_json: bool) -> None:
    """Show the whole system on one screen, live.

    Pages: the overview with states, rate limits and delays; the lanes; the webhook endpoints; the
    fleet. Keys: left, right or tab for the pages; j, k or the arrows to scroll; p to pause; ? for
    help; q to end. --json prints one JSON object per line for each update, until Ctrl-C.

    \b
    cavendish top
    cavendish top --every 5 --page webhooks
    cavendish top --once
    cavendish top --json | jq .rates
    """
    polls = Polls(*open_store(), every)
    with told_if_interrupted(lambda: "Stopped."):
        if as_json:
            _print_json(polls, once=once)
        elif once or not sys.stdout.isatty():
            polls.poll()  # a rate needs two polls
            time.sleep(every)
            console = wide_console()
            console.print(screen(View(page, polls.poll()), console.width, None))
        else:
            _live(polls, View(page))


def _print_json(polls: Polls, *, once: bool) -> None:
    polls.poll()  # a rate needs two polls
    while True:
        time.sleep(polls.every)
        try:
            found = polls.poll()
        except StoreUnavailable as away:  # it comes back, and the reader waits for that
            if once:
                raise
            click.echo(str(away), err=True)
            continue
        del found["history"]
        click.echo(json.dumps(found))
        if once:
            return


def _live(polls: Polls, view: View) -> None:
    console = Console(highlight=False)
    with listening() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        target, arguments = _poll_for_ever, (polls, view, keyboard)
        threading.Thread(target=target, args=arguments, name="cavendish-top", daemon=True).start()
        while not view.ended:
            width, height = console.size
            live.update(screen(view, width, height), refresh=True)
            for key in keyboard.wait(_STALE):
                view.press(key)


def _poll_for_ever(polls: Polls, view: View, keyboard: Keyboard) -> None:
    """Poll in a thread of its own, so that keys are answered also while Redis is away."""
    while True:
        began = time.monotonic()
        if not view.paused:
            try:
                view.found, view.away = polls.poll(), ""
            except StoreUnavailable as away:
                view.away = str(away)
            except Exception as error:  # shown, because people would believe a screen that stands
                view.away = f"{type(error).__name__}: {error}"
            keyboard.ring()
        time.sleep(max(polls.every - (time.monotonic() - began), LEAST))
