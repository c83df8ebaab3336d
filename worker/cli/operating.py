"""status and doctor: what an operator asks."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from scheduler.errors import BookUnavailable
from scheduler.settings import Settings
from scheduler.store import Book
from scheduler.tracking import State
from scheduler.whereabouts import book_url
from worker import checkup
from worker.cli.output import as_json, moment, print_json, table


def gather(book: Book, settings: Settings) -> dict[str, Any]:
    """Everything that `status` shows, as plain values. Raises BookUnavailable."""
    now = book.fleet.now()
    lanes, accounts = [], {}
    for lane in book.tasks.lanes():
        view, condition = book.view(lane, now), book.learned.condition(lane)
        down = {"down_for": max(condition.down_until - now, 0.0), "failures": condition.failures, "reason": condition.reason}
        owed = {"owed": sum(view.owed.values()), "owed_by_endpoint": view.owed}
        lanes.append({**asdict(view), **owed, "lane": str(lane), "batch_limit": condition.batch_limit, "service": down})
        pace = book.learned.pace(lane.account)
        accounts[lane.account] = {
            "rate": round(min(pace.rate_at(now), settings.rate or pace.rate_at(now)), 2),
            "held_for": max(pace.hold_until - now, 0.0),
            "hold_reason": pace.hold_reason if pace.held(now) else "",
        }
    members = [asdict(member) | {"alive": member.alive(now)} for member in book.fleet.members(now)]
    troubled = [_trouble(view, now) for view in checkup.endpoints(book) if view.disabled or view.circuit.state == "open"]
    return {"now": now, "lanes": lanes, "accounts": accounts, "endpoints": troubled, "fleet": members}


def _trouble(view: checkup.EndpointView, now: float) -> dict[str, Any]:
    """An endpoint that is disabled, or left alone for a while."""
    return {
        "endpoint": view.name,
        "url": view.url,
        "waiting": view.waiting,
        "disabled_at": view.disabled.at if view.disabled else None,
        "reason": view.disabled.why if view.disabled else "",
        "circuit": view.circuit.state,
        "failures": view.circuit.failures,
        "open_for": max(view.circuit.open_until - now, 0.0),
    }


@click.command()
@as_json
def status(as_json: bool) -> None:  # noqa: FBT001 (click)
    """Show counts by state, what is due and in flight, debts, dead letters, pace, holds, troubled endpoints, and who lives.

    \b
    cavendish status
    cavendish status --json
    """
    settings = Settings.load()
    found = gather(Book(book_url(settings), settings.shards), settings)
    if as_json:
        print_json(found)
        return
    ends = [state.value for state in State if state.terminal]
    columns = ("lane", "pending", "due", "in flight", *ends, "owed", "paid", "dead", "set aside", "calls", "429s")
    rows = []
    for lane in found["lanes"]:
        counts = lane["counts"]
        numbers = [lane["pending"], lane["due"], lane["in_flight"], *(counts.get(state, 0) for state in ends)]
        numbers += [lane["owed"], counts.get("paid", 0), lane["dead"], lane["aside"], counts.get("calls", 0)]
        rows.append([lane["lane"], *numbers, counts.get("rate_refused", 0)])
    table("Lanes", columns, rows)
    click.echo()
    table("Accounts", ("account", "pace (calls/s)", "hold"), [(n, a["rate"], _hold(a)) for n, a in found["accounts"].items()])
    for lane in found["lanes"]:
        if lane["service"]["down_for"]:
            click.echo(
                f"{lane['lane']} is out of order, asked again in {lane['service']['down_for']:.0f} s: {lane['service']['reason']}"
            )
        if lane["batch_limit"]:
            click.echo(f"{lane['lane']} takes at most {lane['batch_limit']} ids a call.")
    if found["endpoints"]:
        click.echo()
        rows = [[e["endpoint"], _state(e), e["waiting"], e["url"]] for e in found["endpoints"]]
        table("Endpoints in trouble", ("endpoint", "state", "waiting", "url"), rows)
    click.echo()
    table(
        "Fleet",
        ("process", "last heard"),
        [(m["name"], f"{found['now'] - m['at']:.0f} s ago{'' if m['alive'] else ': gone'}") for m in found["fleet"]],
    )


def _hold(account: dict[str, Any]) -> str:
    return f"{account['held_for']:.0f} s more: {account['hold_reason']}" if account["held_for"] else "none"


def _state(endpoint: dict[str, Any]) -> str:
    if endpoint["disabled_at"] is not None:
        return f"disabled since {moment(endpoint['disabled_at'])}: {endpoint['reason']}"
    rest = f"left alone {endpoint['open_for']:.0f} s more" if endpoint["open_for"] else "about to be probed"
    return f"circuit open, {rest}: {endpoint['failures']} failures in a row"


@click.command()
@as_json
def doctor(as_json: bool) -> None:  # noqa: FBT001 (click)
    """Check what must be right for the work to go on, and say what to do about what is not.

    \b
    cavendish doctor
    """
    settings = Settings.load()
    findings = []
    try:
        findings = checkup.examine(Book(book_url(settings), settings.shards), settings)
    except BookUnavailable as error:
        advice = "Start it, or set CAVENDISH_REDIS_URL; `cavendish up` brings its own."
        findings = [checkup.Finding("redis", ok=False, found=str(error), advice=advice)]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}: {finding.found}")
            if finding.advice:
                click.echo(f"      {finding.advice}")
    if not all(finding.ok for finding in findings):
        sys.exit(1)


COMMANDS = (status, doctor)
