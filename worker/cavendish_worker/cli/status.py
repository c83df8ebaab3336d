"""status: the numbers of everything, once or again and again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from shutil import get_terminal_size
from typing import Any

import click

from cavendish.errors import StoreUnavailable
from cavendish.model import State
from cavendish_worker.cli.arguments import Number, opened
from cavendish_worker.cli.output import as_json, moment, plain, print_json, table
from cavendish_worker.telemetry.statistics import Memory, gather

#: Seconds between two polls of somebody who watches, at most.
MOST = 3600.0
#: Columns of a terminal below which the lanes do not fit in a row each.
NARROW = 140


def watched(show: Callable[[], None], seconds: float | None) -> None:
    """Show once; or again and again, on a fresh screen where somebody polls, until Ctrl-C."""
    if seconds is None:
        show()
        return
    try:
        while True:
            if sys.stdout.isatty():
                click.clear()
            try:
                show()
            except StoreUnavailable as away:  # it comes back, and whoever watches wants to see that
                click.echo(str(away), err=True)
            time.sleep(seconds)
    except KeyboardInterrupt:
        pass  # the way to end it


@click.command(short_help="Show the numbers of everything, once or again and again.")
@click.option(
    "--watch",
    type=Number(0.1, MOST),
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="Show it again every so many seconds (2 where nothing is said), until Ctrl-C.",
)
@as_json
def status(as_json: bool, watch: float | None) -> None:
    """Show counts by state, what is due and in flight, deliveries, dead letters, rate limit, holds,
    troubled endpoints, and who lives.

    \b
    cavendish status
    cavendish status --watch 5
    cavendish status --json
    """
    (store, settings), memory = opened(), Memory()
    watched(lambda: _show(gather(store, settings, memory), as_json=as_json), watch)


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    _show_lanes(found["lanes"])
    click.echo()
    columns = ("account", "rate limit (calls/s)", "ceiling", "used", "pause")
    accounts = [
        (n, a["rate"], a["ceiling"] or "", a["used"], pause(a))
        for n, a in found["accounts"].items()
    ]
    table("Accounts", columns, accounts)
    for lane in found["lanes"]:
        if down := out_of_order(lane):
            click.echo(plain(down))
        if lane["batch_limit"]:
            click.echo(f"{lane['lane']} takes at most {lane['batch_limit']} ids a call.")
    if found["endpoints"]:
        click.echo()
        rows = [[e["endpoint"], standing(e), e["waiting"], e["url"]] for e in found["endpoints"]]
        table("Endpoints in trouble", ("endpoint", "state", "waiting", "url"), rows)
    click.echo()
    table(
        "Fleet",
        ("process", "last heard"),
        [
            (m["name"], f"{found['now'] - m['at']:.0f} s ago{'' if m['alive'] else ': gone'}")
            for m in found["fleet"]
        ],
    )


def _show_lanes(lanes: list[dict[str, Any]]) -> None:
    """A row for each lane; on a narrow terminal a column for each, or else no columns of zeros."""
    ends = [state.value for state in State if state.terminal]
    columns = [
        "lane",
        "pending",
        "due",
        "in flight",
        *ends,
        "pending_deliveries",
        "delivered",
        "dead",
        "quarantined",
        "calls",
        "429s",
        "delay p50",
    ]
    rows = []
    for lane in lanes:
        counts, median = lane["counts"], lane["delay"]["p50"]
        numbers = [
            lane["pending"],
            lane["due"],
            lane["in_flight"],
            *(counts.get(state, 0) for state in ends),
        ]
        numbers += [
            lane["pending_deliveries"],
            counts.get("delivered", 0),
            lane["dead"],
            lane["quarantined"],
            counts.get("calls", 0),
        ]
        rows.append(
            [
                lane["lane"],
                *numbers,
                counts.get("rate_refused", 0),
                "" if median is None else f"{median:.2f}",
            ]
        )
    if sys.stdout.isatty() and get_terminal_size().columns < NARROW and rows:
        if len(rows) <= 3:
            columns, *rows = [list(row) for row in zip(columns, *rows, strict=True)]
        else:
            kept = [
                place
                for place in range(len(columns))
                if any(row[place] not in (0, "") for row in rows)
            ]
            columns, *rows = [[row[place] for place in kept] for row in (columns, *rows)]
    table("Lanes", columns, rows)


def pause(account: dict[str, Any]) -> str:
    """Why an account is not asked, and for how long."""
    if account["no_token"]:  # its ids wait for a worker that has one, hold or not
        return "no token at any worker"
    return (
        f"{account['paused_for']:.0f} s more: {account['pause_reason']}"
        if account["paused_for"]
        else "none"
    )


def out_of_order(lane: dict[str, Any]) -> str:
    """Why a lane is not asked about, where its service fails; empty where it does not."""
    service = lane["service"]
    if not service["down_for"]:
        return ""
    return f"{lane['lane']} is out of order, asked again in {service['down_for']:.0f} s: {service['reason']}"


def standing(endpoint: dict[str, Any]) -> str:
    """What keeps an endpoint from being sent anything; empty where nothing does."""
    if endpoint["disabled_at"] is not None:
        return f"disabled since {moment(endpoint['disabled_at'])}: {endpoint['reason']}"
    if endpoint["circuit"] != "open":
        return ""
    rest = (
        f"left alone {endpoint['open_for']:.0f} s more"
        if endpoint["open_for"]
        else "about to be probed"
    )
    return f"circuit open, {rest}: {endpoint['failures']} failures in a row"


COMMANDS = (status,)
