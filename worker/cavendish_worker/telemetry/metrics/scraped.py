"""The numbers of the store as metrics, read anew at each scrape.

They are the same in every process that serves them, so one place is enough to scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cavendish.errors import StoreUnavailable
from cavendish.model import State, UpstreamErrorKind
from cavendish.policy.circuit import Circuit
from cavendish.policy.producer_quota import ProducerQuota, Usage
from cavendish.store import Store
from cavendish.store.statistics import LaneStatistics, Statistics
from cavendish_worker.telemetry.metrics.families import OTHER

#: Labels in place of a name. No endpoint can be registered under them: names have no capitals.
NAMELESS, UNSORTED = "URL", "INBOX"
#: Services, each of one account, that have labels of their own: producers name them.
MOST_SERVICES = 200
#: No limit for any producer.
UNLIMITED = ProducerQuota(0, 0)
#: Producers that have labels of their own.
MOST_PRODUCERS = 20
#: Models of one service whose durations are shown: those that learned last.
MODELS = 20
_SERVICE = ("account", "service")
_ENDS = [state.value for state in State if state.terminal]

Labels = tuple[str, ...]
Rows = Iterable[tuple[Labels, float]]
#: The lanes of each (account, service).
Services = dict[tuple[str, str], list[LaneStatistics]]


def registry_of(
    store: Store,
    batch_size: int,
    ceiling: float = 0.0,
    quota: ProducerQuota = UNLIMITED,
) -> CollectorRegistry:
    """A registry of the store alone.

    `batch_size` (ids), `ceiling` (calls/s, 0 for none) and `quota` are what the settings say.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(OfTheStore(store, batch_size, ceiling, quota))
    return registry


class OfTheStore(Collector):
    """Reads the store at each scrape; while Redis is away it says only `cavendish_store_up` 0."""

    def __init__(self, store: Store, batch_size: int, ceiling: float, quota: ProducerQuota) -> None:
        self._store, self._batch_size, self._ceiling = store, batch_size, ceiling
        self._quota = quota

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        about = "1 if the Redis that holds the store answers, else 0."
        try:
            statistics = self._store.statistics(models=MODELS)
            circuits = self._store.shared_state.circuits(statistics.open_circuits)
            refused = self._store.refused.count()
            uncertain = self._store.uncertain.count(statistics.now)
            used = self._store.producer_usage.used(statistics.now) if self._quota.limited else {}
        except StoreUnavailable:
            yield _gauge("store_up", about, (), [((), 0)])
            return
        yield _gauge("store_up", about, (), [((), 1)])
        about = "1 if running processes found the store emptied within a week, until acknowledged."
        yield _gauge("store_emptied", about, (), [((), statistics.emptied is not None)])
        services = _bounded(statistics)
        yield from _tasks(services, statistics)
        yield from _calls(services, statistics.now, self._batch_size)
        yield from _accounts(services, statistics, self._ceiling)
        yield _paused(services, statistics)
        yield _forecast_durations(services, statistics)
        yield _quota_used(used, self._quota)
        yield from _webhooks(services, statistics)
        yield from _endpoints(statistics, circuits)
        yield from _fleet(statistics)
        about = "Refused submits that lie in the store: see `cavendish refused list`."
        yield _gauge("refused_submits", about, (), [((), refused)])
        about = "Paid submits of the last week whose outcome is uncertain, until acknowledged."
        yield _gauge("uncertain_submits", about, (), [((), uncertain)])


def _gauge(name: str, about: str, labels: Labels, rows: Rows) -> Metric:
    family = GaugeMetricFamily(f"cavendish_{name}", about, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def _counter(name: str, about: str, labels: Labels, rows: Rows) -> Metric:
    """A counter without OTHER: services join it and leave it, so its sum may fall, and Prometheus
    takes a counter that falls for one that began anew."""
    family = CounterMetricFamily(f"cavendish_{name}", about, labels=labels)
    for values, number in rows:
        if values[0] != OTHER:
            family.add_metric(values, number)
    return family


def _bounded(statistics: Statistics) -> Services:
    """The services with the most pending ids; all others together as OTHER."""
    services: Services = {}
    for lane in statistics.tracked:
        services.setdefault((lane.lane.account, lane.lane.service), []).append(lane)
    ranked = sorted(services, key=lambda name: (-sum(one.pending for one in services[name]), name))
    bounded = {name: services[name] for name in ranked[:MOST_SERVICES]}
    if others := ranked[MOST_SERVICES:]:
        bounded[OTHER, OTHER] = [lane for name in others for lane in services[name]]
    return bounded


def _sums(services: Services, number: Callable[[LaneStatistics], float]) -> Rows:
    """The sum over the lanes of each service."""
    return [(name, sum(map(number, lanes))) for name, lanes in services.items()]


def _totals(services: Services, count: str) -> Rows:
    return _sums(services, lambda lane: lane.counts[count])


def _since(now: float, times: Iterable[float | None]) -> float:
    """Seconds since the earliest of the times; 0 where there is none."""
    return max([0.0, *(now - at for at in times if at is not None)])


def _tasks(services: Services, statistics: Statistics) -> Iterable[Metric]:
    for name, about, number in (
        ("pending", "Ids that have not ended.", lambda lane: lane.pending),
        ("due", "Pending ids whose poll is due.", lambda lane: lane.due),
        ("in_flight", "Ids that are being polled.", lambda lane: lane.in_flight),
        (
            "quarantined",
            "Ids whose record cannot be read: they are polled no more.",
            lambda lane: lane.quarantined,
        ),
    ):
        yield _gauge(f"tasks_{name}", about, _SERVICE, _sums(services, number))
    yield _gauge(
        "due_lag_seconds",
        "Time for which the oldest due id has been due; 0 if none is due.",
        _SERVICE,
        [
            (name, _since(statistics.now, (one.due_since for one in lanes)))
            for name, lanes in services.items()
        ],
    )
    about = "Ids that were submitted, since their lanes began."
    yield _counter("tasks_submitted", about, _SERVICE, _totals(services, "submitted"))
    ended = [((*name, end), total) for end in _ENDS for name, total in _totals(services, end)]
    about = "Ids that ended, since their lanes began."
    yield _counter("tasks_ended", about, (*_SERVICE, "state"), ended)
    about = "Lanes that cannot be read and are not counted here."
    yield _gauge("lanes_unreadable", about, (), [((), len(statistics.unreadable))])


def _calls(services: Services, now: float, batch_size: int) -> Iterable[Metric]:
    about = "Calls to the remote API that workers counted, since their lanes began."
    yield _counter("fleet_calls", about, _SERVICE, _totals(services, "calls"))
    about = "Those of them that were answered with 429."
    yield _counter("fleet_calls_rate_refused", about, _SERVICE, _totals(services, "rate_refused"))
    sizes = [
        (name, min(one.service_health.batch_size(batch_size) for one in lanes))
        for name, lanes in services.items()
    ]
    about = "Maximum ids in one call: the setting, or a lower limit of the API."
    yield _gauge("batch_size_ids", about, _SERVICE, sizes)
    down = [(name, max(_down_for(one, now) for one in lanes)) for name, lanes in services.items()]
    about = "For how much longer a service that fails is not polled."
    yield _gauge("service_down_seconds", about, _SERVICE, down)
    absent = [
        (name, max(_blind_ids(one, now) for one in lanes)) for name, lanes in services.items()
    ]
    about = "Ids that the API does not know, if it knows none under this token; else 0."
    yield _gauge("service_blind_ids", about, _SERVICE, absent)
    paused = _sums(services, lambda lane: lane.service_health.paused_since > 0)
    about = "Lanes of a service that are paused, since the API does not serve it."
    yield _gauge("service_paused_lanes", about, _SERVICE, paused)


def _down_for(lane: LaneStatistics, now: float) -> float:
    health = lane.service_health
    return max(health.down_until - now, 0.0) if health.failures else 0.0


def _blind_ids(lane: LaneStatistics, now: float) -> int:
    return lane.visibility.absent if lane.visibility.reported(now) else 0


def _accounts(services: Services, statistics: Statistics, ceiling: float) -> Iterable[Metric]:
    """The accounts of the services that have labels, and those that were ever polled.

    These have tokens, so they are few.
    """
    shown, now, account = {account for account, _ in services}, statistics.now, ("account",)
    rate_limits = {
        name: rate_limit
        for name, rate_limit in statistics.rate_limits.items()
        if name in shown or rate_limit.began
    }
    rates = {name: rate_limit.rate_at(now) for name, rate_limit in rate_limits.items()}
    most = {name: statistics.controls.ceiling_of(name, ceiling) for name in rate_limits}
    yield _gauge(
        "rate_limit_calls_per_second",
        "Calls per second that are allowed now, when not paused.",
        account,
        [((name,), min(rate, most[name] or rate)) for name, rate in rates.items()],
    )
    known = {
        name: [one for one in (rate_limit.ceiling, most[name]) if one]
        for name, rate_limit in rate_limits.items()
    }
    yield _gauge(
        "rate_limit_ceiling_calls_per_second",
        "Calls per second that the API is believed to take, or what operators allow, if less; "
        "absent until the API has refused one.",
        account,
        [((name,), min(ceilings)) for name, ceilings in known.items() if ceilings],
    )
    pauses = [
        (
            (name, kind.value),
            max(one.paused_until - now, 0.0) if one.pause_kind == kind else 0.0,
        )
        for name, one in rate_limits.items()
        for kind in (UpstreamErrorKind.RATE, UpstreamErrorKind.ACCOUNT)
    ]
    about = "For how much longer nothing is polled: rate after a 429, account if it is refused."
    yield _gauge("pause_seconds", about, ("account", "kind"), pauses)


def _paused(services: Services, statistics: Statistics) -> Metric:
    """Who paused what; without a service: all of the account."""
    now = statistics.now
    rows = {
        (pause.account, pause.service or "", "operator"): 1
        for pause in statistics.controls.in_force(now)
    }
    rows |= {
        (name, "", "api"): 1
        for name, one in statistics.rate_limits.items()
        if one.pause_kind == UpstreamErrorKind.ACCOUNT
    }
    rows |= {
        (*name, "api"): 1
        for name, lanes in services.items()
        if any(lane.service_health.paused_since for lane in lanes)
    }
    about = (
        "1 for what is paused: by an operator, or by the API, which refuses the credential or does "
        "not serve the service; without a service: all of the account."
    )
    return _gauge("paused", about, (*_SERVICE, "by"), rows.items())


def _forecast_durations(services: Services, statistics: Statistics) -> Metric:
    rows = [
        ((*service, model, share), forecast.quantile(float(share)))
        for service in services
        for model, forecast in statistics.forecasts.get(service, {}).items()
        for share in ("0.5", "0.95")
    ]
    about = (
        "Time in which a share of the tasks finishes, as learned from polls, by model; "
        "without a model: of the whole service."
    )
    labels = (*_SERVICE, "model", "share")  # `quantile` is reserved for summaries
    return _gauge("forecast_duration_seconds", about, labels, rows)


def _quota_used(used: Mapping[str, Usage], quota: ProducerQuota) -> Metric:
    """The producers that use most of it: anybody may name any number of producers."""
    shares = {name: usage.share(quota) for name, usage in used.items()}
    ranked = sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_PRODUCERS]
    about = (
        "Share of the ids or bytes that the producer may have in the store, whichever is more, "
        f"of the {MOST_PRODUCERS} that use most; without a name: all submits without a producer."
    )
    return _gauge("producer_quota_used_ratio", about, ("producer",), _by_name(dict(ranked)))


def _webhooks(services: Services, statistics: Statistics) -> Iterable[Metric]:
    queued = dict.fromkeys([*sorted(statistics.registered), NAMELESS], 0)
    for lane in statistics.lanes:
        for endpoint, number in lane.queued.items():
            queued[endpoint if endpoint in statistics.registered else NAMELESS] += number
    queued[UNSORTED] = sum(lane.inbox for lane in statistics.lanes)
    about = (
        f"Deliveries that wait, by endpoint; {NAMELESS}: all without a name, "
        f"{UNSORTED}: new and not sorted by endpoint yet."
    )
    yield _gauge("webhooks_pending", about, ("endpoint",), _by_name(queued))
    since = _since(statistics.now, (lane.delivery_due_since for lane in statistics.lanes))
    about = "Time for which the oldest due delivery has been due; 0 if none is due."
    yield _gauge("webhooks_oldest_pending_seconds", about, (), [((), since)])
    dead = _sums(services, lambda lane: lane.dead)
    yield _gauge("webhooks_dead", "Dead letters.", _SERVICE, dead)
    about = "Webhooks that were delivered, since their lanes began."
    yield _counter("webhooks_delivered", about, _SERVICE, _totals(services, "delivered"))
    about = "Webhooks that were not sent, as their endpoints do not choose such, since then."
    yield _counter("webhooks_skipped", about, _SERVICE, _totals(services, "skipped"))
    about = "Webhooks that became dead letters, since their lanes began."
    yield _counter("webhooks_buried", about, _SERVICE, _totals(services, "buried"))


def _by_name(numbers: Mapping[str, float]) -> Rows:
    return [((name,), number) for name, number in numbers.items()]


def _endpoints(statistics: Statistics, circuits: Iterable[Circuit]) -> Iterable[Metric]:
    """`circuits`: of those that seem to be open, in their order."""
    known = zip(statistics.open_circuits, circuits, strict=True)
    is_open = [name for name, circuit in known if circuit.state == "open"]
    for name, about, those in (
        ("disabled", "1 if nothing is sent to it until it is enabled", statistics.disabled),
        ("circuit_open", "1 if it rests or is probed after failures", is_open),
    ):
        numbers = dict.fromkeys([*sorted(statistics.registered), NAMELESS], 0)
        for one in those:
            numbers[one if one in statistics.registered else NAMELESS] += 1
        said = f"{about}, else 0; {NAMELESS}: how many without a name."
        yield _gauge(f"endpoint_{name}", said, ("endpoint",), _by_name(numbers))


def _fleet(statistics: Statistics) -> Iterable[Metric]:
    living = [member for member in statistics.members if member.alive(statistics.now)]
    roles = [member.role for member in living]
    rows = _by_name({role: roles.count(role) for role in ("worker", "beat", "http")})
    yield _gauge("processes", "Processes with a recent heartbeat.", ("role",), rows)
    kinds = [(member.role, member.version) for member in living]
    versions = [(kind, kinds.count(kind)) for kind in sorted({*kinds})]
    about = "The same by version: more than one during an update."
    yield _gauge("process_versions", about, ("role", "version"), versions)
    last = {one.role: one.at for one in sorted(statistics.members, key=lambda one: one.at)}
    quiet = [((role,), max(statistics.now - last[role], 0.0)) for role in sorted(last)]
    about = "Seconds since the last heartbeat of any process of a role."
    yield _gauge("process_heartbeat_age_seconds", about, ("role",), quiet)
