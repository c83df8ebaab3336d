"""list: which ids are tracked, with filters, a page at a time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import click

from cavendish.model import Lane, State, TrackedTask
from cavendish.store import Store
from cavendish.store.listing import Listed
from cavendish.webhook_endpoint import endpoint_in, endpoint_of
from cavendish_worker.cli.arguments import endpoint_names, meant, opened, since_option, time_of
from cavendish_worker.cli.output import as_json, moment, print_json, table

#: Records that are read at once, and at most for one answer.
CHUNK, MOST = 200, 100_000
_STATES = [state.value for state in State]


@dataclass(frozen=True, slots=True)
class Filter:
    """What is asked for.

    All that fits everything that was said. Times are of the end, or of the submit while pending.
    """

    states: frozenset[str]
    producer: str | None
    model: str | None
    endpoint: str | None
    since: float
    until: float

    def fits(self, task: TrackedTask) -> bool:
        at = task.settled_at if task.state.terminal else task.submitted_at
        named = self.producer in (None, task.producer) and self.model in (None, task.model)
        to = self.endpoint is None or any(
            endpoint_in(each) == self.endpoint for each in task.webhooks
        )
        return (
            task.state.value in self.states
            and named
            and to
            and self.since <= (at or 0.0) <= self.until
        )


@dataclass
class Search:
    """Reads on until enough was found, or too much was read."""

    store: Store
    wanted: Filter
    read: int = 0
    _told: set[tuple[str, str, str]] = field(default_factory=set)

    def all(self, lanes: Sequence[Lane]) -> Iterator[TrackedTask]:
        """What fits, each id once.

        One that was found pending may end before the ended ones are read.
        """
        for task in chain(self.pending(lanes), self.ended(lanes)):
            place = (task.account, task.service, task.id)
            if place not in self._told:
                self._told.add(place)
                yield task

    def pending(self, lanes: Iterable[Lane]) -> Iterator[TrackedTask]:
        """Those that have not ended, the next to be asked about first."""
        if State.PENDING not in self.wanted.states:
            return
        pages = [
            self._loaded(lane, self.store.listing.pending(lane, self.wanted.producer))
            for lane in lanes
        ]
        for _, task in heapq.merge(*pages, key=lambda pair: pair[0].at):
            if not task.state.terminal and self.wanted.fits(task):
                yield task

    def ended(self, lanes: Iterable[Lane]) -> Iterator[TrackedTask]:
        """Those that ended, the newest end first.

        An end that was followed by another one of the same id is not told.
        """
        if not self.wanted.states - {State.PENDING}:
            return
        pages = [
            self._loaded(lane, self.store.listing.ended(lane, self.wanted.until)) for lane in lanes
        ]
        for listed, task in heapq.merge(*pages, key=lambda pair: -pair[0].at):
            if listed.at < self.wanted.since:
                return
            if task.settled_at == listed.at and self.wanted.fits(task):
                yield task

    def _loaded(self, lane: Lane, listed: Iterator[Listed]) -> Iterator[tuple[Listed, TrackedTask]]:
        """The records, a chunk at a time; an id whose record is gone meanwhile is left out."""
        size = 20  # grows: most searches are for a few
        while self.read < MOST and (some := list(islice(listed, size))):
            size = min(size * 2, CHUNK)
            self.read += len(some)
            tasks = self.store.tasks.load(lane, [one.id for one in some]).tasks
            yield from ((one, tasks[one.id]) for one in some if one.id in tasks)


@click.command("list", short_help="List ids by state, time, producer, endpoint.")
@click.option("--service", metavar="NAME", help="Only of this service of the remote API.")
@click.option("--account", metavar="NAME", help="Only of this account of the remote API.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(_STATES),
    help="Only in this state; may be given several times.",
)
@click.option("--producer", metavar="NAME", help="Only of this producer.")
@click.option("--model", metavar="NAME", help="Only of this model.")
@click.option(
    "--endpoint",
    metavar="NAME|URL",
    shell_complete=endpoint_names,
    help="Only with a webhook to this endpoint.",
)
@since_option
@click.option("--until", metavar="TIME", help="Only up to this time; as --since is written.")
@click.option(
    "--limit",
    default=50,
    type=click.IntRange(1, MOST),
    show_default=True,
    metavar="N",
    help="At most so many.",
)
@as_json
def list_tasks(
    service: str | None,
    account: str | None,
    states: tuple[str, ...],
    since: str | None,
    until: str | None,
    endpoint: str | None,
    limit: int,
    as_json: bool,  # noqa: FBT001 (click)
    **names: Any,
) -> None:
    """List tracked ids: the pending ones, those first that are asked about first; then the ended
    ones, the newest first.

    --since and --until mean the time of the end, or of the submit while an id is pending. Ids that
    ended without a webhook are listed as long as the stream of events keeps them
    (CAVENDISH_EVENTS_KEPT of each lane); `show` finds them until CAVENDISH_RETENTION is over. The
    next page of ended ids: --until with the end of the last one.

    \b
    cavendish list
    cavendish list --service nano-banana --state failed --since 2h
    cavendish list --endpoint shop --limit 500 --json
    """
    store, _ = opened()
    now = store.fleet.now()
    wanted = Filter(
        frozenset(states or _STATES),
        names["producer"],
        names["model"],
        None if endpoint is None else endpoint_of(endpoint),
        float("-inf") if since is None else time_of(since, now),
        float("inf") if until is None else time_of(until, now, "--until"),
    )
    lanes = [
        lane
        for lane in store.tasks.lanes()
        if service in (None, lane.service) and account in (None, lane.account)
    ]
    search = Search(store, wanted)
    found = list(islice(search.all(lanes), limit + 1))
    if endpoint is not None and not found:
        meant(store, endpoint)  # says so where nothing is known of it
    if as_json:
        print_json([task.to_json() for task in found[:limit]])
    elif found:
        _show(found[:limit], now)
    else:
        click.echo("no such ids")
    if len(found) > limit:
        click.echo(f"There are more than {limit}: raise --limit, or narrow the search.", err=True)
    elif search.read >= MOST:
        click.echo(
            f"Stopped after {MOST:,} records: narrow the search, by --service or --since for instance.",
            err=True,
        )


def _show(tasks: Iterable[TrackedTask], now: float) -> None:
    rows = [
        (
            task.id,
            task.state,
            f"{task.account}/{task.service}",
            moment(task.submitted_at),
            moment(task.settled_at) or f"{now - task.submitted_at:.0f} s so far",
            task.polls,
            " ".join(filter(None, (task.model, task.producer))),
            task.reason,
        )
        for task in tasks
    ]
    table(
        "",
        ("id", "state", "lane", "submitted", "ended", "polls", "model, producer", "reason"),
        rows,
    )


COMMANDS = (list_tasks,)
