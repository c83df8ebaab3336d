"""Which dead letters a command is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from cavendish.store import Store
from cavendish.store.delivery_reader import Delivery
from cavendish_worker.cli.options import endpoint_option, since_option
from cavendish_worker.cli.times import time_of
from cavendish_worker.webhooks.dead_letters import DeadLetters

F = TypeVar("F", bound=Callable[..., Any])

deliveries_argument = click.argument("deliveries", nargs=-1, metavar="[DELIVERY|ID]...")


def filters(command: F) -> F:
    """Add the options that select dead letters: the fields of Selection but `deliveries`."""
    reason = click.option("--reason", metavar="TEXT", help="Only those whose reason contains this.")
    return endpoint_option()(since_option()(reason(command)))


@dataclass(frozen=True, slots=True)
class Selection:
    """The dead letters that match every field that is given, as the command line spells them.

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
        since = float("-inf") if self.since is None else time_of(self.since, store.fleet.now())
        wanted = DeadLetters(self.endpoint, since, self.reason or "", self.deliveries)
        return wanted.find(store, limit)
