"""dead, replay: webhooks that no receiver took, and those that one took and wants again."""

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

from cavendish.errors import SubmissionError
from cavendish.model import OPERATIONS, Lane
from cavendish.store import Store
from cavendish.store.deliveries import PAGE, Delivery
from cavendish.store.keys import delivery_of
from cavendish.webhook_endpoint import endpoint_in, endpoint_of
from cavendish_worker.cli.arguments import (
    endpoint_names,
    meant,
    opened,
    rate_option,
    since_option,
    sure,
    time_of,
    yes_option,
)
from cavendish_worker.cli.output import as_json, moment, print_json, table

#: Most deliveries that one run has pending again, and how many of them, or drops, at once.
MOST, CHUNK = 10_000, 500
F = TypeVar("F", bound=Callable[..., Any])
#: When an id ended, its lane, and the delivery.
Ended = tuple[float, Lane, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters: all that fit everything that was said."""

    endpoint: str | None
    since: str | None
    reason: str | None
    deliveries: Sequence[str] = ()

    @property
    def narrow(self) -> bool:
        """True if anything was said that is more than "all"."""
        return (
            self.endpoint is not None
            or self.since is not None
            or bool(self.reason or self.deliveries)
        )

    def among(self, store: Store) -> Iterator[Delivery]:
        """Those of the dead letters, of all lanes, the newest first."""
        since = time_of(self.since, store.fleet.now()) if self.since is not None else float("-inf")
        endpoint = endpoint_of(self.endpoint) if self.endpoint is not None else None
        pages = [_dead(store, lane) for lane in [*store.tasks.lanes(), OPERATIONS]]
        for delivery in heapq.merge(*pages, key=lambda delivery: -(delivery.at or 0.0)):
            if (delivery.at or 0.0) < since:
                return
            named = (
                not self.deliveries
                or delivery.name in self.deliveries
                or delivery.task_id in self.deliveries
            )
            reason = self.reason is None or self.reason.casefold() in delivery.outcome.casefold()
            if named and reason and endpoint in (None, delivery.endpoint):
                yield delivery

    def found(self, store: Store, limit: int | None) -> list[Delivery]:
        """The newest of them.

        Raises EndpointError where there are none, and nothing is known of the endpoint either.
        """
        chosen = list(islice(self.among(store), limit))
        if self.endpoint is not None and not chosen:
            meant(store, self.endpoint)
        return chosen


def _dead(store: Store, lane: Lane) -> Iterator[Delivery]:
    """All dead letters of a lane, page by page.

    One that a fresh one moves onto the next page is told once.
    """
    offset, told = 0, set[str]()
    while page := store.deliveries.dead(lane, PAGE, offset):
        yield from (delivery for delivery in page if delivery.name not in told)
        told.update(delivery.name for delivery in page)
        offset += len(page)


def _filters(command: F) -> F:
    """The options that say which dead letters."""
    for option in (
        click.option("--reason", metavar="TEXT", help="Only those whose reason holds this."),
        since_option,
        click.option(
            "--endpoint",
            metavar="NAME|URL",
            shell_complete=endpoint_names,
            help="Only those to this endpoint.",
        ),
    ):
        command = option(command)
    return command


def _said(delivery: Delivery) -> dict[str, Any]:
    said = asdict(delivery) | {"lane": str(delivery.lane), "endpoint": delivery.endpoint}
    del said["log"]
    return said


def told(log: str) -> list[dict[str, Any]]:
    """The delivery log of a delivery, a try each; a line that nobody can read is left out."""
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
    """The dead letters: webhooks that no receiver took, each with its reason."""


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
    store, _ = opened()
    deliveries = Wanted(**filters).found(store, limit)
    if as_json:
        print_json([_said(delivery) for delivery in deliveries])
    elif deliveries:
        rows = [
            (
                delivery.name,
                str(delivery.lane),
                moment(delivery.at),
                delivery.attempts,
                delivery.outcome,
                delivery.url,
            )
            for delivery in deliveries
        ]
        table("", ("letter", "lane", "died", "attempts", "reason", "url"), rows)
    else:
        click.echo("no dead letters")


@dead.command("show")
@click.argument("debt", metavar="LETTER|ID")
@_filters
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The newest so many.")
@as_json
def show_dead(delivery: str, limit: int | None, as_json: bool, **filters: Any) -> None:  # noqa: FBT001 (click)
    """Show dead letters with all their attempts, by the name of one or by the id that they
    announce.

    \b
    cavendish dead show 1c4dd0f1-6b0e-4b6f-9f36-0a9e1f3c7a10
    """
    store, _ = opened()
    found = Wanted(**filters, deliveries=[delivery]).found(store, limit)
    if not found:
        raise SubmissionError(f"No dead letter is called {delivery!r}, nor announces such an id.")
    if as_json:
        print_json([_said(one) | {"log": told(one.log)} for one in found])
        return
    for one in found:
        table(
            "",
            ("", ""),
            [(name, str(value)) for name, value in (_said(one) | {"at": moment(one.at)}).items()],
        )
        show_log(told(one.log))


def show_log(attempts: Sequence[dict[str, Any]]) -> None:
    """A table of the attempts of a delivery log, for people."""
    if attempts:
        rows = [
            (moment(e.get("at")), e.get("seconds"), e.get("outcome"), e.get("address", ""))
            for e in attempts
        ]
        answers = [str(e.get("answer", ""))[:100] for e in attempts]
        table(
            "",
            ("try", "seconds", "outcome", "address", "answer"),
            [(*r, a) for r, a in zip(rows, answers, strict=True)],
        )


@dead.command()
@click.argument("debts", nargs=-1, metavar="[LETTER|ID]...")
@click.option("--all", "everything", is_flag=True, help="Revive all of them.")
@_filters
@click.option(
    "--limit",
    default=MOST,
    type=click.IntRange(1, MOST),
    show_default=True,
    metavar="N",
    help="The newest so many.",
)
@rate_option
@as_json
def revive(
    deliveries: tuple[str, ...],
    everything: bool,
    limit: int,
    rate: float,
    as_json: bool,
    **filters: Any,
) -> None:  # noqa: FBT001 (click)
    """Bring dead letters back among the pending, with all their attempts, by name, by the id that
    they announce, or by options.

    \b
    cavendish dead revive --all
    cavendish dead revive --endpoint shop --since 2d --rate 10
    """
    wanted = Wanted(**filters, deliveries=deliveries)
    if not wanted.narrow and not everything:
        raise click.UsageError("Name dead letters, or give --all, --endpoint, --since or --reason.")
    store, _ = opened()
    found = [(delivery.lane, delivery.name) for delivery in wanted.found(store, limit + 1)]
    chosen = found[:limit]
    revived = reopen(store, chosen[::-1], store.fleet.now(), rate, dead=True)
    if as_json:
        print_json(revived)
    else:
        click.echo(f"{len(revived)} revived" + _over(len(revived), rate))
    if len(revived) < len(chosen):
        click.echo(
            f"{len(chosen) - len(revived)} were not: what they announce is forgotten, or others were faster.",
            err=True,
        )
    if len(found) > limit:
        click.echo(f"There are more: one run revives at most {limit}. Run it again.", err=True)
    if not revived and deliveries:
        sys.exit(1)


@dead.command()
@click.argument("debts", nargs=-1, metavar="[LETTER|ID]...")
@click.option("--all", "everything", is_flag=True, help="Drop all of them.")
@_filters
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The newest so many.")
@yes_option
@as_json
def drop(
    deliveries: tuple[str, ...],
    everything: bool,  # noqa: FBT001 (click)
    limit: int | None,
    yes: bool,  # noqa: FBT001 (click)
    as_json: bool,  # noqa: FBT001 (click)
    **filters: Any,
) -> None:
    """Forget dead letters for good, so that `submit --restart` may track their ids anew.

    \b
    cavendish dead drop 1c4dd0f1-6b0e-4b6f-9f36-0a9e1f3c7a10
    cavendish dead drop --endpoint shop --yes
    """
    wanted = Wanted(**filters, deliveries=deliveries)
    if not wanted.narrow and not everything:
        raise click.UsageError("Name dead letters, or give --all, --endpoint, --since or --reason.")
    store, _ = opened()
    chosen = [(delivery.lane, delivery.name) for delivery in wanted.found(store, limit)]
    if chosen:
        sure(f"Forget {len(chosen)} dead letters for good?", yes=yes)
    dropped = sum(store.deliveries.drop(lane, names) for lane, names in _chunks(chosen))
    if as_json:
        print_json({"dropped": dropped})
    else:
        click.echo(f"{dropped} dropped")
    if not dropped and deliveries:
        sys.exit(1)


def _chunks(deliveries: Iterable[tuple[Lane, str]]) -> Iterator[tuple[Lane, list[str]]]:
    by_lane = defaultdict[Lane, list[str]](list)
    for lane, name in deliveries:
        by_lane[lane].append(name)
    for lane, names in by_lane.items():
        for start in range(0, len(names), CHUNK):
            yield lane, names[start : start + CHUNK]


def reopen(
    store: Store, deliveries: Sequence[tuple[Lane, str]], start: float, rate: float, *, dead: bool
) -> list[str]:
    """Owe closed deliveries again, `rate` a second from `start` on, in their order.

    Returns those that were reopened.
    """
    times = {delivery: start + place / rate for place, delivery in enumerate(deliveries)}
    done: list[str] = []
    for lane, names in _chunks(deliveries):
        done += store.deliveries.reopen(
            lane, {name: times[lane, name] for name in names}, dead=dead
        )
    return done


def _over(count: int, rate: float) -> str:
    return f", spread over {count / rate:.0f} s" if count / rate > 1 else ""


# --- what was delivered


@click.command(short_help="Announce again what a receiver took and lost.")
@click.option(
    "--endpoint",
    "which",
    required=True,
    metavar="NAME|URL|HASH",
    shell_complete=endpoint_names,
    help="Whose webhooks to send again.",
)
@click.option(
    "--since",
    required=True,
    metavar="TIME",
    help="Of ids that ended so long back (2h, 3d), or since a time.",
)
@rate_option
@click.option(
    "--limit",
    default=MOST,
    type=click.IntRange(1, MOST),
    show_default=True,
    metavar="N",
    help="About how many.",
)
@as_json
def replay(which: str, since: str, rate: float, limit: int, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Announce again what a receiver took and lost, under the same webhook-ids, the oldest first.

    It goes as far back as ended ids are kept (CAVENDISH_RETENTION). What ended within one second is
    never cut by --limit.

    \b
    cavendish replay --endpoint shop --since 3h
    """
    store, _ = opened()
    endpoint, now = meant(store, which), store.fleet.now()
    start = time_of(since, now)
    lanes = [*store.tasks.lanes(), OPERATIONS]
    ended = heapq.merge(*(_ended(store, lane, start, endpoint) for lane in lanes))
    replayed, cut = _replay(store, ended, now, rate, limit)
    go_on = (
        None if cut is None else datetime.fromtimestamp(cut, UTC).isoformat().replace("+00:00", "Z")
    )
    if as_json:
        print_json({"endpoint": endpoint, "replayed": replayed, "since": go_on})
    else:
        click.echo(f"{replayed} are announced again" + _over(replayed, rate))
    if go_on:
        click.echo(f"There are more: go on with --since {go_on}", err=True)


def _replay(
    store: Store, ended: Iterable[Ended], now: float, rate: float, limit: int
) -> tuple[int, int | None]:
    """Returns how many were reopened, and the second in which the limit cut the rest off."""
    done, second, batch = 0, None, list[tuple[Lane, str]]()
    for at, lane, name in ended:
        fresh = int(at) != second
        if len(batch) >= CHUNK or (fresh and done + len(batch) >= limit):
            done += len(reopen(store, batch, now + done / rate, rate, dead=False))
            batch = []
        if fresh and done >= limit:
            return done, int(at)
        second = int(at)
        batch.append((lane, name))
    return done + len(reopen(store, batch, now + done / rate, rate, dead=False)), None


def _ended(store: Store, lane: Lane, since: float, endpoint: str) -> Iterator[Ended]:
    """What an endpoint was pending for the ids of a lane that ended since then, in that order.

    The next page begins at the time of the last, behind those of that very time: the reconcile run
    may remove some meanwhile.
    """
    at, there = since, 0
    while page := store.deliveries.ended_since(lane, at, there, PAGE):
        for task_id, ended, webhooks in page:
            at, there = ended, (there if ended == at else 0) + 1
            for subscription in webhooks.split():
                if endpoint_in(subscription) == endpoint:
                    yield ended, lane, delivery_of(subscription, task_id)


COMMANDS = (dead, replay)
