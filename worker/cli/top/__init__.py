"""top: the whole system on one screen, refreshed each second; pages for lanes, webhooks and the fleet."""

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

from scheduler.errors import BookUnavailable
from scheduler.settings import Settings
from scheduler.store import Book
from worker.cli.choosing import Number, opened
from worker.cli.operating import MOST, Memory, gather
from worker.cli.output import as_json
from worker.cli.top.keyboard import Keyboard, listening
from worker.cli.top.pages import PAGES, View, screen
from worker.cli.top.rates import Rates

#: Seconds that a screen may be old while nothing happens; and the least between two looks.
_STALE, _LEAST = 1.0, 0.1


@dataclass
class Looks:
    """Looks at the book again and again, in a thread of its own: keys are answered also while Redis is away."""

    book: Book
    settings: Settings
    every: float
    _memory: Memory = field(default_factory=Memory)
    _rates: Rates = field(default_factory=Rates)

    def look(self) -> dict[str, Any]:
        """What there is to show now. Raises BookUnavailable."""
        began = time.monotonic()
        found = gather(self.book, self.settings, self._memory)
        rates = self._rates.see(found)
        for lane in found["lanes"]:
            lane["rates"] = rates[lane["lane"]]
        history = {name: [round(rate, 2) for rate in values] for name, values in self._rates.history.items()}
        return found | {"rates": rates[""], "history": history, "took": round(time.monotonic() - began, 4)}

    def go_on(self, view: View, keyboard: Keyboard) -> None:
        """Look for ever, and ring for each look; a paused view gets nothing new."""
        while True:
            began = time.monotonic()
            if not view.paused:
                try:
                    view.found, view.away = self.look(), ""
                except BookUnavailable as away:
                    view.away = str(away)
                except Exception as error:  # whatever it is: a screen that stands still would be believed
                    view.away = f"{type(error).__name__}: {error}"
                keyboard.ring()
            time.sleep(max(self.every - (time.monotonic() - began), _LEAST))


@click.command(short_help="Watch everything at once, live.")
@click.option("--every", default=1.0, type=Number(_LEAST, MOST), show_default=True, metavar="SECONDS", help="How often to look.")
@click.option("--page", type=click.Choice(PAGES), default=PAGES[0], show_default=True, help="The page to begin with.")
@click.option("--once", is_flag=True, help="Print one screen and end, as is done wherever nobody looks at a terminal.")
@as_json
def top(every: float, page: str, once: bool, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Watch everything at once: states, due, in flight, pace and ceiling, holds, delays, webhooks by endpoint, the fleet.

    Keys: left, right or tab for the pages; j, k or the arrows to scroll; p to pause; ? for help; q to end. With --json it
    prints one JSON object a line for each look, until Ctrl-C.

    \b
    cavendish top
    cavendish top --every 5 --page webhooks
    cavendish top --once
    cavendish top --json | jq .rates
    """
    book, settings = opened()
    looks = Looks(book, settings, every)
    try:
        if as_json:
            _print_json(looks, once=once)
        elif once or not sys.stdout.isatty():
            _print_one(looks, page)
        else:
            _live(looks, View(page))
    except KeyboardInterrupt:
        pass  # a way to end it


def _print_json(looks: Looks, *, once: bool) -> None:
    looks.look()  # rates want two
    while True:
        time.sleep(looks.every)
        try:
            said = looks.look()
        except BookUnavailable as away:  # it comes back, and whoever reads on wants what comes then
            if once:
                raise
            click.echo(str(away), err=True)
            continue
        del said["history"]
        click.echo(json.dumps(said))
        if once:
            return


def _print_one(looks: Looks, page: str) -> None:
    looks.look()
    time.sleep(looks.every)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)  # room for URLs and reasons
    console.print(screen(View(page, looks.look()), console.width, None))


def _live(looks: Looks, view: View) -> None:
    console = Console(highlight=False)
    with listening() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        threading.Thread(target=looks.go_on, args=(view, keyboard), name="cavendish-looks", daemon=True).start()
        while not view.ended:
            width, height = console.size
            live.update(screen(view, width, height), refresh=True)
            for key in keyboard.wait(_STALE):
                view.press(key)


COMMANDS = (top,)
