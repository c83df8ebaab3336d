"""dead, replay: announcements that no receiver took, and those that one took and wants again."""

from __future__ import annotations

import heapq
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import click

from scheduler.endpoints import endpoint_in, endpoint_of
from scheduler.errors import SubmissionError
from scheduler.store import Book
from scheduler.store.debts import PAGE, Debt
from scheduler.store.keys import debt_of
from scheduler.tracking import OPERATIONS, Lane
from worker.cli.choosing import endpoint_names, meant, opened, rate_option, since_option, sure, time_of, yes_option
from worker.cli.output import as_json, moment, print_json, table

#: Most debts that one run owes again, and how many of them, or drops, at once.
MOST, CHUNK = 10_000, 500
F = TypeVar("F", bound=Callable[..., Any])
#: When an id ended, its lane, and the debt.
Ended = tuple[float, Lane, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters: all that fit everything that was said."""

    endpoint: str | None
    since: str | None
    reason: str | None
    debts: Sequence[str] = ()

    @property
    def narrow(self) -> bool:
        """True if anything was said that is more than "all"."""
        return self.endpoint is not None or self.since is not None or bool(self.reason or self.debts)

    def among(self, book: Book) -> Iterator[Debt]:
        """Those of the dead letters, of all lanes, the newest first."""
        since = time_of(self.since, book.fleet.now()) if self.since is not None else float("-inf")
        endpoint = endpoint_of(self.endpoint) if self.endpoint is not None else None
        pages = [_dead(book, lane) for lane in [*book.tasks.lanes(), OPERATIONS]]
        for debt in heapq.merge(*pages, key=lambda debt: -(debt.at or 0.0)):
            if (debt.at or 0.0) < since:
                return
            named = not self.debts or debt.name in self.debts or debt.task_id in self.debts
            reason = self.reason is None or self.reason.casefold() in debt.outcome.casefold()
            if named and reason and endpoint in (None, debt.endpoint):
                yield debt

    def found(self, book: Book, limit: int | None) -> list[Debt]:
        """The newest of them. Raises EndpointError where there are none, and nothing is known of the endpoint either."""
        chosen = list(islice(self.among(book), limit))
        if self.endpoint is not None and not chosen:
            meant(book, self.endpoint)
        return chosen


def _dead(book: Book, lane: Lane) -> Iterator[Debt]:
    """All dead letters of a lane, page by page; one that a fresh one moves onto the next page is told once."""
    offset, told = 0, set[str]()
    while page := book.debts.dead(lane, PAGE, offset):
        yield from (debt for debt in page if debt.name not in told)
        told.update(debt.name for debt in page)
        offset += len(page)


def _filters(command: F) -> F:
    """The options that say which dead letters."""
    for option in (
        click.option("--reason", metavar="TEXT", help="Only those whose reason holds this."),
        since_option,
        click.option("--endpoint", metavar="NAME|URL", shell_complete=endpoint_names, help="Only those to this endpoint."),
    ):
        command = option(command)
    return command


def _said(debt: Debt) -> dict[str, Any]:
    said = asdict(debt) | {"lane": str(debt.lane), "endpoint": debt.endpoint}
    del said["log"]
    return said


def told(log: str) -> list[dict[str, Any]]:
    """The delivery log of a debt, a try each; a line that nobody can read is left out."""
    found = []
    for line in log.splitlines():
        try:
            read = json.loads(line)
        except ValueError:
            continue
        found += [read] if isinstance(read, dict) else []
    return found


@click.group(short_help="List, revive or drop webhooks that no receiver took.")
def dead() -> None:
    """The dead letters: announcements that no receiver took, each with its reason."""


@dead.command("list")
@_filters
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The newest so many.")
@as_json
def list_dead(limit: int | None, as_json: bool, **filters: Any) -> None:  # noqa: FBT001 (click)
    """List the dead letters, the newest first.

    \b
    cavendish dead list
    cavendish dead list --endpoint shop --since 3d --reason "HTTP 5"
    """
    book, _ = opened()
    debts = Wanted(**filters).found(book, limit)
    if as_json:
        print_json([_said(debt) for debt in debts])
    elif debts:
        rows = [(debt.name, str(debt.lane), moment(debt.at), debt.tries, debt.outcome, debt.url) for debt in debts]
        table("", ("letter", "lane", "died", "tries", "reason", "url"), rows)
    else:
        click.echo("no dead letters")


@dead.command("show")
@click.argument("debt", metavar="LETTER|ID")
@_filters
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The newest so many.")
@as_json
def show_dead(debt: str, limit: int | None, as_json: bool, **filters: Any) -> None:  # noqa: FBT001 (click)
    """Show dead letters with all their tries, by the name of one or by the id that they announce.

    \b
    cavendish dead show 1c4dd0f1-6b0e-4b6f-9f36-0a9e1f3c7a10
    """
    book, _ = opened()
    found = Wanted(**filters, debts=[debt]).found(book, limit)
    if not found:
        raise SubmissionError(f"No dead letter is called {debt!r}, nor announces such an id.")
    if as_json:
        print_json([_said(one) | {"log": told(one.log)} for one in found])
        return
    for one in found:
        table("", ("", ""), [(name, str(value)) for name, value in (_said(one) | {"at": moment(one.at)}).items()])
        show_log(told(one.log))


def show_log(tries: Sequence[dict[str, Any]]) -> None:
    """A table of the tries of a delivery log, for people."""
    if tries:
        rows = [(moment(e.get("at")), e.get("seconds"), e.get("outcome"), e.get("address", "")) for e in tries]
        answers = [str(e.get("answer", ""))[:100] for e in tries]
        table("", ("try", "seconds", "outcome", "address", "answer"), [(*r, a) for r, a in zip(rows, answers, strict=True)])


@dead.command()
@click.argument("debts", nargs=-1, metavar="[LETTER|ID]...")
@click.option("--all", "everything", is_flag=True, help="Revive all of them.")
@_filters
@click.option("--limit", default=MOST, type=click.IntRange(1, MOST), show_default=True, metavar="N", help="The newest so many.")
@rate_option
@as_json
def revive(debts: tuple[str, ...], everything: bool, limit: int, rate: float, as_json: bool, **filters: Any) -> None:  # noqa: FBT001 (click)
    """Bring dead letters back among the owed, with all their tries, by name, by the id that they announce, or by options.

    \b
    cavendish dead revive --all
    cavendish dead revive --endpoint shop --since 2d --rate 10
    """
    wanted = Wanted(**filters, debts=debts)
    if not wanted.narrow and not everything:
        raise click.UsageError("Name dead letters, or give --all, --endpoint, --since or --reason.")
    book, _ = opened()
    found = [(debt.lane, debt.name) for debt in wanted.found(book, limit + 1)]
    chosen = found[:limit]
    revived = reopen(book, chosen[::-1], book.fleet.now(), rate, dead=True)
    if as_json:
        print_json(revived)
    else:
        click.echo(f"{len(revived)} revived" + _over(len(revived), rate))
    if len(revived) < len(chosen):
        click.echo(f"{len(chosen) - len(revived)} were not: what they announce is forgotten, or others were faster.", err=True)
    if len(found) > limit:
        click.echo(f"There are more: one run revives at most {limit}. Run it again.", err=True)
    if not revived and debts:
        sys.exit(1)


@dead.command()
@click.argument("debts", nargs=-1, metavar="[LETTER|ID]...")
@click.option("--all", "everything", is_flag=True, help="Drop all of them.")
@_filters
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The newest so many.")
@yes_option
@as_json
def drop(
    debts: tuple[str, ...],
    everything: bool,  # noqa: FBT001 (click)
    limit: int | None,
    yes: bool,  # noqa: FBT001 (click)
    as_json: bool,  # noqa: FBT001 (click)
    **filters: Any,
) -> None:
    """Forget dead letters for good, so that `submit --again` may track their ids anew.

    \b
    cavendish dead drop 1c4dd0f1-6b0e-4b6f-9f36-0a9e1f3c7a10
    cavendish dead drop --endpoint shop --yes
    """
    wanted = Wanted(**filters, debts=debts)
    if not wanted.narrow and not everything:
        raise click.UsageError("Name dead letters, or give --all, --endpoint, --since or --reason.")
    book, _ = opened()
    chosen = [(debt.lane, debt.name) for debt in wanted.found(book, limit)]
    if chosen:
        sure(f"Forget {len(chosen)} dead letters for good?", yes=yes)
    dropped = sum(book.debts.drop(lane, names) for lane, names in _chunks(chosen))
    if as_json:
        print_json({"dropped": dropped})
    else:
        click.echo(f"{dropped} dropped")
    if not dropped and debts:
        sys.exit(1)


def _chunks(debts: Iterable[tuple[Lane, str]]) -> Iterator[tuple[Lane, list[str]]]:
    by_lane = defaultdict[Lane, list[str]](list)
    for lane, name in debts:
        by_lane[lane].append(name)
    for lane, names in by_lane.items():
        for start in range(0, len(names), CHUNK):
            yield lane, names[start : start + CHUNK]


def reopen(book: Book, debts: Sequence[tuple[Lane, str]], start: float, rate: float, *, dead: bool) -> list[str]:
    """Owe closed debts again, `rate` a second from `start` on, in their order. Returns those that were reopened."""
    times = {debt: start + place / rate for place, debt in enumerate(debts)}
    done: list[str] = []
    for lane, names in _chunks(debts):
        done += book.debts.reopen(lane, {name: times[lane, name] for name in names}, dead=dead)
    return done


def _over(count: int, rate: float) -> str:
    return f", spread over {count / rate:.0f} s" if count / rate > 1 else ""


# --- what was paid


@click.command(short_help="Announce again what a receiver took and lost.")
@click.option(
    "--endpoint",
    "which",
    required=True,
    metavar="NAME|URL|HASH",
    shell_complete=endpoint_names,
    help="Whose announcements to send again.",
)
@click.option("--since", required=True, metavar="TIME", help="Of ids that ended so long back (2h, 3d), or since a time.")
@rate_option
@click.option("--limit", default=MOST, type=click.IntRange(1, MOST), show_default=True, metavar="N", help="About how many.")
@as_json
def replay(which: str, since: str, rate: float, limit: int, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Announce again what a receiver took and lost, under the same webhook-ids, the oldest first.

    It goes as far back as ended ids are kept (CAVENDISH_RETENTION). What ended within one second is never cut by --limit.

    \b
    cavendish replay --endpoint shop --since 3h
    """
    book, _ = opened()
    endpoint, now = meant(book, which), book.fleet.now()
    start = time_of(since, now)
    lanes = [*book.tasks.lanes(), OPERATIONS]
    ended = heapq.merge(*(_ended(book, lane, start, endpoint) for lane in lanes))
    replayed, cut = _replay(book, ended, now, rate, limit)
    go_on = None if cut is None else datetime.fromtimestamp(cut, UTC).isoformat().replace("+00:00", "Z")
    if as_json:
        print_json({"endpoint": endpoint, "replayed": replayed, "since": go_on})
    else:
        click.echo(f"{replayed} are announced again" + _over(replayed, rate))
    if go_on:
        click.echo(f"There are more: go on with --since {go_on}", err=True)


def _replay(book: Book, ended: Iterable[Ended], now: float, rate: float, limit: int) -> tuple[int, int | None]:
    """Returns how many were reopened, and the second in which the limit cut the rest off."""
    done, second, batch = 0, None, list[tuple[Lane, str]]()
    for at, lane, name in ended:
        fresh = int(at) != second
        if len(batch) >= CHUNK or (fresh and done + len(batch) >= limit):
            done += len(reopen(book, batch, now + done / rate, rate, dead=False))
            batch = []
        if fresh and done >= limit:
            return done, int(at)
        second = int(at)
        batch.append((lane, name))
    return done + len(reopen(book, batch, now + done / rate, rate, dead=False)), None


def _ended(book: Book, lane: Lane, since: float, endpoint: str) -> Iterator[Ended]:
    """What an endpoint was owed for the ids of a lane that ended since then, in that order.

    The next page begins at the time of the last, behind those of that very time: the sweep may remove some meanwhile.
    """
    at, there = since, 0
    while page := book.debts.ended_since(lane, at, there, PAGE):
        for task_id, ended, webhooks in page:
            at, there = ended, (there if ended == at else 0) + 1
            for subscription in webhooks.split():
                if endpoint_in(subscription) == endpoint:
                    yield ended, lane, debt_of(subscription, task_id)


COMMANDS = (dead, replay)
