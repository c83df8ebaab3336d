"""events: which ids have ended, as a stream for those who take no webhooks."""

from __future__ import annotations

import os
import sys

import click

from cavendish import Client, Event
from cavendish_worker.cli.interrupted import told_if_interrupted
from cavendish_worker.cli.options import account_option, service_option
from cavendish_worker.cli.output import json_line
from cavendish_worker.wording.times import moment


@click.command("events", short_help="Print which ids have ended; with --follow, also new ends.")
@service_option(help="Only events of this service of the remote API.")
@account_option(help="Only events of this account of the remote API.")
@click.option(
    "--after",
    metavar="POSITION",
    help="Begin after the event at this position; 0: with the oldest event that is kept.",
)
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Wait for new events; without --after, print new events only.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object per line, with its position."
)
def command(
    service: str | None, account: str | None, after: str | None, follow: bool, as_json: bool
) -> None:
    """Print the stored events; with --follow, also new ones, until Ctrl-C.

    There is an event for each id that has ended. Each lane keeps about CAVENDISH_EVENTS_KEPT of
    them. A program that reads --json and stores the last "position" can continue after it, without
    a missing or repeated event.

    \b
    cavendish events --service nano-banana
    cavendish events --follow --json | while read -r event; do …; done
    cavendish events --follow --json --after "$POSITION"
    """
    place = after if after is not None or follow else "0"
    try:
        with Client() as client, told_if_interrupted(lambda: _so_far(place)):
            for event in client.events(service, account, after=place, follow=follow):
                click.echo(json_line(event.to_json()) if as_json else _line(event))  # and flush
                place = event.position
    except BrokenPipeError:
        # The reader has ended, like `head`; what is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _so_far(place: str | None) -> str:
    """Where the next reader goes on; a reader that has had no event begins as this one did."""
    return f"Stopped; --after {place} goes on there." if place else "Stopped; no event had come."


def _line(event: Event) -> str:
    return f"{moment(event.at)}  {event.state:<9}  {event.account}/{event.service}  {event.id}"
