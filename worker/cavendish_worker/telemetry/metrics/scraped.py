"""What the store says, as metrics: read anew at each scrape, so it is right however many processes
there are.

Scrape it at one place, or each number is there several times; it is the same at each of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cavendish.errors import StoreUnavailable
from cavendish.model import State, UpstreamErrorKind
from cavendish.store import Store
from cavendish.store.statistics import Counted, Statistics
from cavendish_worker.telemetry.metrics.families import OTHER

#: Labels in place of a name. No endpoint can be registered under them: names have no capitals.
NAMELESS, UNSORTED = "URL", "INBOX"
#: Services, each of one account, that are told apart: strangers name them.
MOST_SERVICES = 200
_LANE = ("account", "service")


def registry_of(store: Store, batch_size: int, ceiling: float = 0.0) -> CollectorRegistry:
    """A registry of the store alone.

    `batch_size` and `ceiling` (calls/s, 0 for none) are what the settings say.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(OfTheStore(store, batch_size, ceiling))
    return registry


class OfTheStore(Collector):
    """Reads the store whenever it is asked.

    While Redis is away, `cavendish_store_up` 0 is all that it says.
    """

    def __init__(self, store: Store, batch_size: int, ceiling: float) -> None:
        self._store, self._batch_size, self._ceiling = store, batch_size, ceiling

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        up = GaugeMetricFamily(
            "cavendish_store_up", "1 if the Redis that holds the store answers, else 0."
        )
        try:
            statistics = self._store.statistics()
        except StoreUnavailable:
            up.add_metric((), 0)
            yield up
            return
        up.add_metric((), 1)
        yield up
        services = _bounded(statistics.services)
        yield from _tasks(services, statistics)
        yield from _calls(services, statistics, self._batch_size)
        yield from _accounts(services, statistics, self._ceiling)
        yield from _duration_models(services)
        yield from _webhooks(services, statistics)
        yield from _endpoints(statistics)
        yield from _fleet(statistics)


def _gauge(
    name: str, about: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float]]
) -> Metric:
    family = GaugeMetricFamily(f"cavendish_{name}", about, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def _counter(
    name: str, about: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float]]
) -> Metric:
    family = CounterMetricFamily(f"cavendish_{name}", about, labels=labels)
    for values, number in rows:
        if values[0] != OTHER:
            family.add_metric(values, number)
    return family


Services = dict[tuple[str, str], Counted]


def _bounded(services: Services) -> Services:
    """The services with the most pending ids; all others as one, without duration models, and
    without counts: they come and go, and a counter that falls is taken for one that began anew,
    with all that it counts."""
    ranked = sorted(services.items(), key=lambda pair: (-pair[1].pending, pair[0]))
    found = dict(ranked[:MOST_SERVICES])
    for _, one in ranked[MOST_SERVICES:]:
        rest = found.setdefault((OTHER, OTHER), Counted())
        for name in ("pending", "due", "in_flight", "quarantined", "dead"):
            setattr(rest, name, getattr(rest, name) + getattr(one, name))
        rest.oldest_due = min(
            (at for at in (rest.oldest_due, one.oldest_due) if at is not None), default=None
        )
        rest.down_until = max(rest.down_until, one.down_until)
    return found


def _tasks(services: Services, statistics: Statistics) -> Iterable[Metric]:
    ends = [state.value for state in State if state.terminal]
    rows = services.items()
    yield _gauge(
        "tasks_pending",
        "Ids that have not ended.",
        _LANE,
        [(lane, one.pending) for lane, one in rows],
    )
    yield _gauge(
        "tasks_due",
        "Pending ids whose look is due.",
        _LANE,
        [(lane, one.due) for lane, one in rows],
    )
    yield _gauge(
        "tasks_in_flight",
        "Ids that are being asked about.",
        _LANE,
        [(lane, one.in_flight) for lane, one in rows],
    )
    about = "Ids whose record cannot be read: quarantined, and no longer asked about."
    yield _gauge("tasks_quarantined", about, _LANE, [(lane, one.quarantined) for lane, one in rows])
    late = [
        (lane, 0.0 if one.oldest_due is None else max(statistics.now - one.oldest_due, 0.0))
        for lane, one in rows
    ]
    yield _gauge(
        "due_lag_seconds",
        "For how long the id has been due that is due for longest; 0 where none is.",
        _LANE,
        late,
    )
    submitted = [(lane, one.counts["submitted"]) for lane, one in rows]
    yield _counter(
        "tasks_submitted", "Ids that were taken in, since the store began.", _LANE, submitted
    )
    ended = [((*lane, state), one.counts[state]) for lane, one in rows for state in ends]
    yield _counter(
        "tasks_ended", "Ids that ended, since the store began.", (*_LANE, "state"), ended
    )
    yield _gauge(
        "lanes_unreadable",
        "Lanes that cannot be read and are not counted here.",
        (),
        [((), statistics.unreadable)],
    )


def _calls(services: Services, statistics: Statistics, batch_size: int) -> Iterable[Metric]:
    rows = services.items()
    calls = [(lane, one.counts["calls"]) for lane, one in rows]
    yield _counter(
        "fleet_calls",
        "Calls to the remote API that workers wrote down, since the store began.",
        _LANE,
        calls,
    )
    refused = [(lane, one.counts["rate_refused"]) for lane, one in rows]
    yield _counter(
        "fleet_calls_rate_refused", "Those of them that were answered with 429.", _LANE, refused
    )
    sizes = [(lane, min(batch_size, one.batch_limit or batch_size)) for lane, one in rows]
    yield _gauge(
        "batch_size_ids", "Most ids in one call: as set, or the limit that was met.", _LANE, sizes
    )
    down = [(lane, max(one.down_until - statistics.now, 0.0)) for lane, one in rows]
    yield _gauge(
        "service_down_seconds",
        "For how much longer a service that is out of order is not asked.",
        _LANE,
        down,
    )


def _accounts(services: Services, statistics: Statistics, ceiling: float) -> Iterable[Metric]:
    """Those of the services that are told, and those that were ever asked for.

    These have tokens, so they are few.
    """
    told = {account for account, _ in services}
    now, rate_limits = (
        statistics.now,
        [
            (name, rate_limit)
            for name, rate_limit in statistics.rate_limits.items()
            if name in told or rate_limit.began
        ],
    )
    allowed = [
        ((name,), min(rate_limit.rate_at(now), ceiling or rate_limit.rate_at(now)))
        for name, rate_limit in rate_limits
    ]
    yield _gauge(
        "rate_limit_calls_per_second",
        "Calls per second that are allowed now, when not held.",
        ("account",),
        allowed,
    )
    ceilings = {
        name: min(filter(None, (rate_limit.ceiling, ceiling)), default=0.0)
        for name, rate_limit in rate_limits
    }
    known = [((name,), most) for name, most in ceilings.items() if most]
    about = "Calls per second that the API is believed to take, or CAVENDISH_RATE; absent until it has refused one."
    yield _gauge("rate_limit_ceiling_calls_per_second", about, ("account",), known)
    held = [
        (
            (name, kind.value),
            max(rate_limit.paused_until - now, 0.0) if rate_limit.pause_kind == kind else 0.0,
        )
        for name, rate_limit in rate_limits
        for kind in (UpstreamErrorKind.RATE, UpstreamErrorKind.ACCOUNT)
    ]
    about = "For how much longer nobody asks: rate after a 429, account where the credential is refused or used up."
    yield _gauge("pause_seconds", about, ("account", "kind"), held)


def _duration_models(services: Services) -> Iterable[Metric]:
    rows = [
        ((*lane, model, share), forecast.quantile(float(share)))
        for lane, one in services.items()
        for model, forecast in one.forecasts.items()
        for share in ("0.5", "0.95")
    ]
    about = "How long a share of the tasks is believed to take at most, by model; without a model: those of the whole service."
    yield _gauge(
        "forecast_duration_seconds", about, (*_LANE, "model", "share"), rows
    )  # `quantile` is kept for summaries


def _webhooks(services: Services, statistics: Statistics) -> Iterable[Metric]:
    pending_deliveries = [
        ((name,), sum(statistics.pending_deliveries[one] for one in _called(statistics, name)))
        for name in _names(statistics)
    ]
    about = f"Deliveries that wait, by endpoint; {NAMELESS}: all without a name, {UNSORTED}: just pending and not sorted by endpoint yet."
    yield _gauge(
        "webhooks_pending",
        about,
        ("endpoint",),
        [*pending_deliveries, ((UNSORTED,), statistics.inbox)],
    )
    since = (
        0.0
        if statistics.pending_since is None
        else max(statistics.now - statistics.pending_since, 0.0)
    )
    about = "For how long the delivery has been due that is due for longest, of all that may be sent now; 0 where none is."
    yield _gauge("webhooks_oldest_pending_seconds", about, (), [((), since)])
    rows = services.items()
    yield _gauge(
        "webhooks_dead", "Dead dead letters.", _LANE, [(lane, one.dead) for lane, one in rows]
    )
    delivered = [(lane, one.counts["delivered"]) for lane, one in rows]
    yield _counter(
        "webhooks_delivered",
        "Webhooks that a receiver took, since the store began.",
        _LANE,
        delivered,
    )
    buried = [(lane, one.counts["buried"]) for lane, one in rows]
    yield _counter(
        "webhooks_buried",
        "Webhooks that became dead letters, since the store began.",
        _LANE,
        buried,
    )


def _endpoints(statistics: Statistics) -> Iterable[Metric]:
    for name, about, those in (
        (
            "endpoint_disabled",
            "1 if nothing is sent to the endpoint until it is enabled",
            statistics.disabled,
        ),
        (
            "endpoint_circuit_open",
            "1 if the endpoint is left alone or probed after failures",
            statistics.open,
        ),
    ):
        rows = [
            ((each,), sum(one in those for one in _called(statistics, each)))
            for each in _names(statistics)
        ]
        yield _gauge(
            name, f"{about}, else 0; {NAMELESS}: how many without a name.", ("endpoint",), rows
        )


def _names(statistics: Statistics) -> list[str]:
    return [*sorted(statistics.registered), NAMELESS]


def _called(statistics: Statistics, name: str) -> set[str]:
    """The endpoints that a label stands for."""
    return (
        {name}
        if name != NAMELESS
        else ({*statistics.pending_deliveries} | statistics.disabled | statistics.open)
        - statistics.registered
    )


def _fleet(statistics: Statistics) -> Iterable[Metric]:
    living = [member for member in statistics.members if member.alive(statistics.now)]
    roles = [
        ((role,), sum(member.role == role for member in living)) for role in ("worker", "beat")
    ]
    yield _gauge("processes", "Processes that were heard of lately.", ("role",), roles)
    kinds = sorted({(member.role, member.version) for member in living})
    versions = [
        (kind, sum((member.role, member.version) == kind for member in living)) for kind in kinds
    ]
    yield _gauge(
        "process_versions",
        "The same by version: more than one during an update.",
        ("role", "version"),
        versions,
    )
    last: dict[str, float] = {}
    for member in statistics.members:
        last[member.role] = max(last.get(member.role, 0.0), member.at)
    quiet = [((role,), max(statistics.now - at, 0.0)) for role, at in sorted(last.items())]
    yield _gauge(
        "process_last_heard_seconds",
        "Since when no process of a role was heard of.",
        ("role",),
        quiet,
    )
