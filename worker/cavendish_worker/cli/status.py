"""status and doctor: what an operator asks."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from shutil import get_terminal_size
from typing import Any

import click

from cavendish.errors import StoreUnavailable
from cavendish.local_paths import store_url, with_kept
from cavendish.model import OPERATIONS, Lane, State
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.lane_view import UNSORTED, LaneView
from cavendish_worker import doctor
from cavendish_worker.cli.arguments import Number, opened
from cavendish_worker.cli.output import as_json, moment, plain, print_json, table

#: The newest ends of each lane from which the delays are measured.
MEASURED = 200
#: Seconds between two polls of somebody who watches, at most.
MOST = 3600.0
#: Columns of a terminal below which the lanes do not fit in a row each.
NARROW = 140


@dataclass
class Memory:
    """What one who polls again and again remembers, so that the store is not asked for it twice."""

    places: dict[Lane, str] = field(default_factory=dict)
    delays: dict[Lane, deque[float]] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)

    def see(self, view: LaneView) -> None:
        """Add the ends that are new."""
        known = self.delays.setdefault(view.lane, deque(maxlen=MEASURED))
        known.extend(end.delay for end in reversed(view.ends) if end.delay is not None)
        if view.ends:
            self.places[view.lane] = view.ends[0].place


def gather(store: Store, settings: Settings, memory: Memory | None = None) -> dict[str, Any]:
    """Everything that `status` and `top` show, as plain values. Raises BookUnavailable."""
    memory, now, lanes = memory or Memory(), store.fleet.now(), store.tasks.lanes()
    views = store.views([*lanes, OPERATIONS], now, memory.places, MEASURED)
    pending_deliveries = Counter[str]()
    for view in views:
        pending_deliveries.update(
            {name: count for name, count in view.pending_deliveries.items() if name != UNSORTED}
        )
        memory.see(view)
    webhooks = [
        _webhook(view, now) for view in doctor.endpoints(store, pending_deliveries, memory.urls)
    ]
    fleet = store.fleet.members(now)
    workers = [member for member in fleet if member.role == "worker" and member.alive(now)]
    waiting = {view.lane.account for view in views if view.pending}
    stranded = (
        waiting - {name for member in workers for name in member.accounts} if workers else set()
    )
    accounts = {
        name: _account(store, settings, name, now)
        for name in sorted({lane.account for lane in lanes})
    }
    delays = [delay for lane in lanes for delay in memory.delays[lane]]
    return {
        "now": now,
        "lanes": [
            _lane(view, memory.delays[view.lane], now) for view in views if view.lane != OPERATIONS
        ],
        "delay": _percentiles(delays),
        "accounts": {
            name: account | {"no_token": name in stranded} for name, account in accounts.items()
        },
        "endpoints": [
            one for one in webhooks if one["disabled_at"] is not None or one["circuit"] == "open"
        ],
        "webhooks": webhooks,
        "fleet": [asdict(member) | {"alive": member.alive(now)} for member in fleet],
    }


def _lane(view: LaneView, delays: Iterable[float], now: float) -> dict[str, Any]:
    service_health = view.service_health
    return {
        "lane": str(view.lane),
        "pending": view.pending,
        "due": view.due,
        "in_flight": view.in_flight,
        "pending_deliveries": sum(view.pending_deliveries.values()),
        "pending_by_endpoint": view.pending_deliveries,
        "dead": view.dead,
        "quarantined": view.quarantined,
        "counts": view.counts,
        "producers": view.producers,
        "delay": _percentiles(list(delays)),
        "batch_limit": service_health.batch_limit,
        "service": {
            "down_for": max(service_health.down_until - now, 0.0),
            "failures": service_health.failures,
            "reason": service_health.reason,
        },
    }


def _percentiles(delays: list[float]) -> dict[str, Any]:
    """Seconds from the finish at the API to the store, of the newest ends.

    None where there are none.
    """
    ranked = sorted(delays)
    cut = {
        f"p{share}": ranked[min(len(ranked) * share // 100, len(ranked) - 1)] if ranked else None
        for share in (50, 95, 99)
    }
    return {"of": len(ranked), **cut}


def _account(store: Store, settings: Settings, name: str, now: float) -> dict[str, Any]:
    rate_limit = store.shared_state.rate_limit(name)
    return {
        "rate": round(min(rate_limit.rate_at(now), settings.rate or rate_limit.rate_at(now)), 2),
        "ceiling": None if rate_limit.ceiling is None else round(rate_limit.ceiling, 2),
        "used": round(rate_limit.used(now), 2),
        "window": rate_limit.window or None,
        "paused_for": max(rate_limit.paused_until - now, 0.0),
        "pause_reason": rate_limit.pause_reason if rate_limit.held(now) else "",
    }


def _webhook(view: doctor.EndpointView, now: float) -> dict[str, Any]:
    """An endpoint, and how it takes what it is sent."""
    return {
        "endpoint": view.name,
        "url": view.url,
        "registered": view.registered is not None,
        "waiting": view.waiting,
        "disabled_at": view.disabled.at if view.disabled else None,
        "reason": view.disabled.why if view.disabled else "",
        "circuit": view.circuit.state,
        "failures": view.circuit.failures,
        "open_for": max(view.circuit.open_until - now, 0.0),
        "allowance": int(view.circuit.allowance),
        "seconds": round(view.circuit.seconds, 3) if view.circuit.ok_at else None,
        "last_success": view.circuit.ok_at or None,
    }


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
def status(as_json: bool, watch: float | None) -> None:  # noqa: FBT001 (click)
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
        f"{account['held_for']:.0f} s more: {account['pause_reason']}"
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


@click.command(short_help="Say what is wrong, and what to do about it.")
@click.option(
    "--offline",
    is_flag=True,
    help="Ask only Redis and the broker: neither the API, nor the resolver, nor a proxy.",
)
@as_json
def doctor(as_json: bool, offline: bool) -> None:  # noqa: FBT001 (click)
    """Check what must be right for the work to go on, and say what to do about what is not. Exit
    code 1 if anything fails.

    It asks Redis, the broker, and the API (one call that costs nothing, about an id that is
    nobody's); what living workers say of themselves is believed, and the rest is seen with the
    settings of this environment.

    \b
    cavendish doctor
    cavendish doctor --offline --json
    """
    settings = with_kept(Settings.load())
    try:
        findings = doctor.examine(
            Store(store_url(settings), settings.shards), settings, offline=offline
        )
    except StoreUnavailable as error:
        advice = "Start it, or mend CAVENDISH_REDIS_URL, user and password too; `cavendish up` brings its own."
        findings = [doctor.Finding("redis", ok=False, found=str(error), advice=advice)]
    failed = [finding for finding in findings if not finding.ok]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _print(finding)
        word = "thing is" if len(failed) == 1 else "things are"
        click.echo(
            f"\n{len(failed)} {word} wrong."
            if failed
            else f"\nAll is well: {len(findings)} checks."
        )
    if failed:
        sys.exit(1)


def _print(finding: doctor.Finding) -> None:
    mark, colour = ("ok  ", "green") if finding.ok else ("FAIL", "red")
    if finding.ok and finding.advice:
        mark, colour = "note", "cyan"
    if not finding.examined:
        mark, colour = "-   ", "bright_black"
    click.echo(
        f"{click.style(mark, fg=colour, bold=not finding.ok)}  {plain(f'{finding.what}: {finding.found}')}"
    )
    if finding.advice:
        click.echo(f"      {plain(finding.advice)}")


COMMANDS = (status, doctor)
