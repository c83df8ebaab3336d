"""top.

The whole system on one screen, refreshed each second; pages for lanes, webhooks and the fleet.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from cavendish.errors import StoreUnavailable
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.cli.arguments import Number, opened
from cavendish_worker.cli.output import as_json
from cavendish_worker.cli.status import MOST, Memory, gather
from cavendish_worker.cli.top.keyboard import Keyboard, listening
from cavendish_worker.cli.top.pages import PAGES, View, screen
from cavendish_worker.cli.top.rates import Rates

#: Seconds that a screen may be old while nothing happens; and the least between two polls.
_STALE, _LEAST = 1.0, 0.1


@dataclass
class Polls:
    """Polls at the store again and again, in a thread of its own.

    Keys are answered also while Redis is away.
    """

    store: Store
    settings: Settings
    every: float
    _memory: Memory = field(default_factory=Memory)
    _rates: Rates = field(default_factory=Rates)

    def poll(self) -> dict[str, Any]:
        """What there is to show now. Raises BookUnavailable."""
        began = time.monotonic()
        found = gather(self.store, self.settings, self._memory)
        rates = self._rates.see(found)
        for lane in found["lanes"]:
            lane["rates"] = rates[lane["lane"]]
        history = {
            name: [round(rate, 2) for rate in values]
            for name, values in self._rates.history.items()
        }
        return found | {
            "rates": rates[""],
            "history": history,
            "took": round(time.monotonic() - began, 4),
        }

    def go_on(self, view: View, keyboard: Keyboard) -> None:
        """Look for ever, and ring for each poll; a paused view gets nothing new."""
        while True:
            began = time.monotonic()
            if not view.paused:
                try:
                    view.found, view.away = self.poll(), ""
                except StoreUnavailable as away:
                    view.away = str(away)
                except (
                    Exception
                ) as error:  # whatever it is: a screen that stands still would be believed
                    view.away = f"{type(error).__name__}: {error}"
                keyboard.ring()
            time.sleep(max(self.every - (time.monotonic() - began), _LEAST))


@click.command(short_help="Watch everything at once, live.")
@click.option(
    "--every",
    default=1.0,
    type=Number(_LEAST, MOST),
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option(
    "--page",
    type=click.Choice(PAGES),
    default=PAGES[0],
    show_default=True,
    help="The page to begin with.",
)
@click.option(
    "--once",
    is_flag=True,
    help="Print one screen and end, as is done wherever nobody polls at a terminal.",
)
@as_json
def top(every: float, page: str, once: bool, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Watch everything at once: states, due, in flight, rate limit and ceiling, holds, delays,
    webhooks by endpoint, the fleet.

    Keys: left, right or tab for the pages; j, k or the arrows to scroll; p to pause; ? for help; q
    to end. With --json it prints one JSON object a line for each poll, until Ctrl-C.

    \b
    cavendish top
    cavendish top --every 5 --page webhooks
    cavendish top --once
    cavendish top --json | jq .rates
    """
    store, settings = opened()
    polls = Polls(store, settings, every)
    try:
        if as_json:
            _print_json(polls, once=once)
        elif once or not sys.stdout.isatty():
            _print_one(polls, page)
        else:
            _live(polls, View(page))
    except KeyboardInterrupt:
        pass  # a way to end it


def _print_json(polls: Polls, *, once: bool) -> None:
    polls.poll()  # rates want two
    while True:
        time.sleep(polls.every)
        try:
            said = polls.poll()
        except (
            StoreUnavailable
        ) as away:  # it comes back, and whoever reads on wants what comes then
            if once:
                raise
            click.echo(str(away), err=True)
            continue
        del said["history"]
        click.echo(json.dumps(said))
        if once:
            return


def _print_one(polls: Polls, page: str) -> None:
    polls.poll()
    time.sleep(polls.every)
    console = Console(
        highlight=False, width=None if sys.stdout.isatty() else 200
    )  # room for URLs and reasons
    console.print(screen(View(page, polls.poll()), console.width, None))


def _live(polls: Polls, view: View) -> None:
    console = Console(highlight=False)
    with listening() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        threading.Thread(
            target=polls.go_on, args=(view, keyboard), name="cavendish-looks", daemon=True
        ).start()
        while not view.ended:
            width, height = console.size
            live.update(screen(view, width, height), refresh=True)
            for key in keyboard.wait(_STALE):
                view.press(key)


COMMANDS = (top,)
