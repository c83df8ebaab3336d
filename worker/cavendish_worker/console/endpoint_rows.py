"""What a list of endpoints shows of each: it is read only for those on one page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cavendish.endpoints.endpoint_view import names_in, views
from cavendish.endpoints.webhook_endpoint import name_complaint
from cavendish.store import Store
from cavendish.store.endpoint_queues import due_since
from cavendish.store.statistics import Statistics
from cavendish_worker.console.success_chart import SuccessChart, success_chart
from cavendish_worker.telemetry.snapshot import webhook
from cavendish_worker.wording.notes import endpoint_trouble


def ranked(statistics: Statistics, urls: dict[str, str]) -> list[str]:
    """All endpoints: first those in trouble, then those for which most waits, then by name."""
    trouble = {*statistics.disabled, *statistics.open_circuits}
    waiting = statistics.pending_by_endpoint
    return sorted(
        names_in(statistics, urls), key=lambda name: (name not in trouble, -waiting[name], name)
    )


def matching(
    names: Sequence[str], text: str, statistics: Statistics, urls: dict[str, str]
) -> Sequence[str]:
    """Those whose name or URL contains a text."""
    wanted, registered = text.casefold(), statistics.registered
    if not wanted:
        return names

    def url(name: str) -> str:
        return registered[name].url if name in registered else urls.get(name, "")

    return [name for name in names if wanted in name.casefold() or wanted in url(name).casefold()]


def unsettled(statistics: Statistics) -> list[str]:
    """Endpoints to which nothing is sent until somebody does something."""
    waiting, registered = statistics.pending_by_endpoint, statistics.registered
    missing = (name for name in waiting if name not in registered and name_complaint(name) is None)
    return [*dict.fromkeys([*statistics.disabled, *missing])]


def rows(
    store: Store, statistics: Statistics, urls: dict[str, str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Each endpoint as `top` has it, with its `trouble`, the `chart` of its last day, its last
    `error` and `error_at`, and `due_since`: when the first of what waits was due, None for nothing.

    Raises StoreUnavailable.
    """
    now = statistics.now
    seen = views(store, statistics, urls, names)
    charts = charts_of(store, names, now)
    queued = [(lane.lane, name) for lane in statistics.lanes for name in names if lane.queued[name]]
    firsts = due_since(store.connection, queued)
    found = []
    for view, chart in zip(seen, charts, strict=True):
        one = webhook(view, now)
        circuit = view.circuit
        of_now = {"trouble": endpoint_trouble(one), "due_since": firsts.get(view.name)}
        last = {"error": circuit.error, "error_at": circuit.error_at, "chart": chart}
        found.append(one | of_now | last)
    return found


def charts_of(store: Store, names: Sequence[str], now: float) -> list[SuccessChart]:
    """The last day of each endpoint. Raises StoreUnavailable."""
    return [success_chart(each) for each in store.attempt_counts.of(names, now)]
