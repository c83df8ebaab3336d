"""Which dead letters a command is about."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, TypeVar

import click

from cavendish.endpoint_view import find_endpoint
from cavendish.model import OPERATIONS, Lane
from cavendish.store import Store
from cavendish.store.deliveries import PAGE, Delivery
from cavendish.webhook_endpoint import endpoint_of
from cavendish_worker.cli.options import endpoint_option, since_option
from cavendish_worker.cli.times import time_of

F = TypeVar("F", bound=Callable[..., Any])

deliveries_argument = click.argument("deliveries", nargs=-1, metavar="[DELIVERY|ID]...")


def filters(command: F) -> F:
    """Add the options that select dead letters: the fields of Selection but `deliveries`."""
    reason = click.option("--reason", metavar="TEXT", help="Only those whose reason contains this.")
    return endpoint_option()(since_option()(reason(command)))


@dataclass(frozen=True, slots=True)
class Selection:
    """The dead letters that match every field that is given.

    `deliveries`: names of deliveries, or ids that they announce.
    """

    endpoint: str | None
    since: str | None
    reason: str | None
    deliveries: Sequence[str] = ()

    def require(self, *, everything: bool) -> None:
        """Raise UsageError if nothing selects, unless all dead letters are meant."""
        given = self.endpoint is not None or self.since is not None
        if not (everything or given or self.reason or self.deliveries):
            words = "Name dead letters, or give --all, --endpoint, --since or --reason."
            raise click.UsageError(words)

    def find(self, store: Store, limit: int | None) -> list[Delivery]:
        """The newest of them. Raises EndpointError for an endpoint that is not known at all."""
        chosen = [*islice(self._matching(store), limit)]
        if self.endpoint is not None and not chosen:
            find_endpoint(store, self.endpoint)
        return chosen

    def _matching(self, store: Store) -> Iterator[Delivery]:
        """Those that match, of all lanes, the newest first."""
        since = float("-inf") if self.since is None else time_of(self.since, store.fleet.now())
        endpoint = None if self.endpoint is None else endpoint_of(self.endpoint)
        wanted, reason = {*self.deliveries}, (self.reason or "").casefold()
        pages = [_dead(store, lane) for lane in [*store.tasks.listed_lanes(), OPERATIONS]]
        for delivery in heapq.merge(*pages, key=lambda delivery: -(delivery.at or 0.0)):
            if (delivery.at or 0.0) < since:
                return
            named = not wanted or bool(wanted & {delivery.name, delivery.task_id})
            said = reason in delivery.outcome.casefold()
            if named and said and endpoint in (None, delivery.endpoint):
                yield delivery


def _dead(store: Store, lane: Lane) -> Iterator[Delivery]:
    """All dead letters of a lane, page by page, each once: a new one shifts the next page."""
    offset, seen = 0, set[str]()
    while page := store.closed.dead(lane, PAGE, offset):
        yield from (delivery for delivery in page if delivery.name not in seen)
        seen.update(delivery.name for delivery in page)
        offset += len(page)


def fields(delivery: Delivery) -> dict[str, Any]:
    """A dead letter as plain values, without its log."""
    said = asdict(delivery) | {"lane": str(delivery.lane), "endpoint": delivery.endpoint}
    del said["log"]
    return said
