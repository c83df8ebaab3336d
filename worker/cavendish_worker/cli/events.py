"""events: what ended, for those who would rather read a stream than take webhooks."""

from __future__ import annotations

import os
import sys

import click

from cavendish import Client, Event
from cavendish_worker.cli.output import moment, one_line


@click.command(short_help="Print what ended, and with --follow what will.")
@click.option("--service", metavar="NAME", help="Only this service of the remote API.")
@click.option("--account", metavar="NAME", help="Only this account of the remote API.")
@click.option(
    "--after",
    metavar="POSITION",
    help="Begin behind the event that has this position; 0: with the oldest kept.",
)
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Go on with what ends from now on; without --after, with that alone.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object a line, with its position, instead of text.",
)
def events(
    service: str | None, account: str | None, after: str | None, decide: bool, as_json: bool
) -> None:  # noqa: FBT001 (click)
    """Print what ended: the events that are kept, and with --follow those to come, until Ctrl-C.

    Each lane keeps about CAVENDISH_EVENTS_KEPT events. A program that reads --json and keeps the
    last "position" goes on with it where it was, and misses and repeats nothing.

    \b
    cavendish events --service nano-banana
    cavendish events --follow --json | while read -r event; do …; done
    cavendish events --follow --json --after "$POSITION"
    """
    start = after if after is not None or decide else "0"
    try:
        with Client() as client:
            for event in client.events(service, account, after=start, decide=decide):
                click.echo(_line(event, as_json=as_json))  # which flushes
    except KeyboardInterrupt:
        pass  # the way to end it
    except BrokenPipeError:
        # The reader has what it wanted, as `head` has; what is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _line(event: Event, *, as_json: bool) -> str:
    if as_json:
        return one_line(event.to_json())
    return f"{moment(event.at)}  {event.state:<9}  {event.account}/{event.service}  {event.id}"


COMMANDS = (events,)
