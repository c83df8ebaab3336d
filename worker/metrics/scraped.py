"""What the book says, as metrics: read anew at each scrape, so it is right however many processes there are.

Scrape it at one place, or each number is there several times; it is the same at each of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.errors import BookUnavailable
from scheduler.store import Book
from scheduler.store.census import Census, Counted
from scheduler.tracking import Refusal, State
from worker.metrics.families import OTHER

#: Labels in place of a name. No endpoint can be registered under them: names have no capitals.
NAMELESS, UNSORTED = "URL", "INBOX"
#: Services, each of one account, that are told apart: strangers name them.
MOST_SERVICES = 200
_LANE = ("account", "service")


def registry_of(book: Book, batch_size: int, ceiling: float = 0.0) -> CollectorRegistry:
    """A registry of the book alone. `batch_size` and `ceiling` (calls/s, 0 for none) are what the settings say."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(OfTheBook(book, batch_size, ceiling))
    return registry


class OfTheBook(Collector):
    """Reads the book whenever it is asked. While Redis is away, `cavendish_book_up` 0 is all that it says."""

    def __init__(self, book: Book, batch_size: int, ceiling: float) -> None:
        self._book, self._batch_size, self._ceiling = book, batch_size, ceiling

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        up = GaugeMetricFamily("cavendish_book_up", "1 if the Redis that holds the book answers, else 0.")
        try:
            census = self._book.census()
        except BookUnavailable:
            up.add_metric((), 0)
            yield up
            return
        up.add_metric((), 1)
        yield up
        services = _bounded(census.services)
        yield from _tasks(services, census)
        yield from _calls(services, census, self._batch_size)
        yield from _accounts(services, census, self._ceiling)
        yield from _laws(services)
        yield from _webhooks(services, census)
        yield from _endpoints(census)
        yield from _fleet(census)


def _gauge(name: str, about: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(f"cavendish_{name}", about, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def _counter(name: str, about: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = CounterMetricFamily(f"cavendish_{name}", about, labels=labels)
    for values, number in rows:
        if values[0] != OTHER:
            family.add_metric(values, number)
    return family


Services = dict[tuple[str, str], Counted]


def _bounded(services: Services) -> Services:
    """The services with the most pending ids; all others as one, without laws, and without counts: they come and go, and a
    counter that falls is taken for one that began anew, with all that it counts."""
    ranked = sorted(services.items(), key=lambda pair: (-pair[1].pending, pair[0]))
    found = dict(ranked[:MOST_SERVICES])
    for _, one in ranked[MOST_SERVICES:]:
        rest = found.setdefault((OTHER, OTHER), Counted())
        for name in ("pending", "due", "in_flight", "aside", "dead"):
            setattr(rest, name, getattr(rest, name) + getattr(one, name))
        rest.oldest_due = min((at for at in (rest.oldest_due, one.oldest_due) if at is not None), default=None)
        rest.down_until = max(rest.down_until, one.down_until)
    return found


def _tasks(services: Services, census: Census) -> Iterable[Metric]:
    ends = [state.value for state in State if state.terminal]
    rows = services.items()
    yield _gauge("tasks_pending", "Ids that have not ended.", _LANE, [(lane, one.pending) for lane, one in rows])
    yield _gauge("tasks_due", "Pending ids whose look is due.", _LANE, [(lane, one.due) for lane, one in rows])
    yield _gauge("tasks_in_flight", "Ids that are being asked about.", _LANE, [(lane, one.in_flight) for lane, one in rows])
    about = "Ids whose record cannot be read: set aside, and no longer asked about."
    yield _gauge("tasks_set_aside", about, _LANE, [(lane, one.aside) for lane, one in rows])
    late = [(lane, 0.0 if one.oldest_due is None else max(census.now - one.oldest_due, 0.0)) for lane, one in rows]
    yield _gauge("due_lag_seconds", "For how long the id has been due that is due for longest; 0 where none is.", _LANE, late)
    submitted = [(lane, one.counts["submitted"]) for lane, one in rows]
    yield _counter("tasks_submitted", "Ids that were taken in, since the book began.", _LANE, submitted)
    ended = [((*lane, state), one.counts[state]) for lane, one in rows for state in ends]
    yield _counter("tasks_ended", "Ids that ended, since the book began.", (*_LANE, "state"), ended)
    yield _gauge("lanes_unreadable", "Lanes that cannot be read and are not counted here.", (), [((), census.unreadable)])


def _calls(services: Services, census: Census, batch_size: int) -> Iterable[Metric]:
    rows = services.items()
    calls = [(lane, one.counts["calls"]) for lane, one in rows]
    yield _counter("book_calls", "Calls to the remote API that workers wrote down, since the book began.", _LANE, calls)
    refused = [(lane, one.counts["rate_refused"]) for lane, one in rows]
    yield _counter("book_calls_rate_refused", "Those of them that were answered with 429.", _LANE, refused)
    sizes = [(lane, min(batch_size, one.batch_limit or batch_size)) for lane, one in rows]
    yield _gauge("batch_size_ids", "Most ids in one call: as set, or the limit that was met.", _LANE, sizes)
    down = [(lane, max(one.down_until - census.now, 0.0)) for lane, one in rows]
    yield _gauge("service_down_seconds", "For how much longer a service that is out of order is not asked.", _LANE, down)


def _accounts(services: Services, census: Census, ceiling: float) -> Iterable[Metric]:
    """Those of the services that are told, and those that were ever asked for: these have tokens, so they are few."""
    told = {account for account, _ in services}
    now, paces = census.now, [(name, pace) for name, pace in census.paces.items() if name in told or pace.began]
    allowed = [((name,), min(pace.rate_at(now), ceiling or pace.rate_at(now))) for name, pace in paces]
    yield _gauge("pace_calls_per_second", "Calls per second that are allowed now, when not held.", ("account",), allowed)
    ceilings = {name: min(filter(None, (pace.ceiling, ceiling)), default=0.0) for name, pace in paces}
    known = [((name,), most) for name, most in ceilings.items() if most]
    about = "Calls per second that the API is believed to take, or CAVENDISH_RATE; absent until it has refused one."
    yield _gauge("pace_ceiling_calls_per_second", about, ("account",), known)
    held = [
        ((name, kind.value), max(pace.hold_until - now, 0.0) if pace.hold_kind == kind else 0.0)
        for name, pace in paces
        for kind in (Refusal.RATE, Refusal.ACCOUNT)
    ]
    about = "For how much longer nobody asks: rate after a 429, account where the credential is refused or used up."
    yield _gauge("hold_seconds", about, ("account", "kind"), held)


def _laws(services: Services) -> Iterable[Metric]:
    rows = [
        ((*lane, model, share), outlook.quantile(float(share)))
        for lane, one in services.items()
        for model, outlook in one.outlooks.items()
        for share in ("0.5", "0.95")
    ]
    about = "How long a share of the tasks is believed to take at most, by model; without a model: those of the whole service."
    yield _gauge("law_duration_seconds", about, (*_LANE, "model", "share"), rows)  # `quantile` is kept for summaries


def _webhooks(services: Services, census: Census) -> Iterable[Metric]:
    owed = [((name,), sum(census.owed[one] for one in _called(census, name))) for name in _names(census)]
    about = f"Debts that wait, by endpoint; {NAMELESS}: all without a name, {UNSORTED}: just owed and not sorted by endpoint yet."
    yield _gauge("webhooks_owed", about, ("endpoint",), [*owed, ((UNSORTED,), census.inbox)])
    since = 0.0 if census.owed_since is None else max(census.now - census.owed_since, 0.0)
    about = "For how long the debt has been due that is due for longest, of all that may be sent now; 0 where none is."
    yield _gauge("webhooks_oldest_owed_seconds", about, (), [((), since)])
    rows = services.items()
    yield _gauge("webhooks_dead", "Dead letters.", _LANE, [(lane, one.dead) for lane, one in rows])
    paid = [(lane, one.counts["paid"]) for lane, one in rows]
    yield _counter("webhooks_paid", "Webhooks that a receiver took, since the book began.", _LANE, paid)
    buried = [(lane, one.counts["buried"]) for lane, one in rows]
    yield _counter("webhooks_buried", "Webhooks that became dead letters, since the book began.", _LANE, buried)


def _endpoints(census: Census) -> Iterable[Metric]:
    for name, about, those in (
        ("endpoint_disabled", "1 if nothing is sent to the endpoint until it is enabled", census.disabled),
        ("endpoint_circuit_open", "1 if the endpoint is left alone or probed after failures", census.open),
    ):
        rows = [((each,), sum(one in those for one in _called(census, each))) for each in _names(census)]
        yield _gauge(name, f"{about}, else 0; {NAMELESS}: how many without a name.", ("endpoint",), rows)


def _names(census: Census) -> list[str]:
    return [*sorted(census.registered), NAMELESS]


def _called(census: Census, name: str) -> set[str]:
    """The endpoints that a label stands for."""
    return {name} if name != NAMELESS else ({*census.owed} | census.disabled | census.open) - census.registered


def _fleet(census: Census) -> Iterable[Metric]:
    living = [member for member in census.members if member.alive(census.now)]
    roles = [((role,), sum(member.role == role for member in living)) for role in ("worker", "beat")]
    yield _gauge("processes", "Processes that were heard of lately.", ("role",), roles)
    kinds = sorted({(member.role, member.version) for member in living})
    versions = [(kind, sum((member.role, member.version) == kind for member in living)) for kind in kinds]
    yield _gauge("process_versions", "The same by version: more than one during an update.", ("role", "version"), versions)
    last: dict[str, float] = {}
    for member in census.members:
        last[member.role] = max(last.get(member.role, 0.0), member.at)
    quiet = [((role,), max(census.now - at, 0.0)) for role, at in sorted(last.items())]
    yield _gauge("process_last_heard_seconds", "Since when no process of a role was heard of.", ("role",), quiet)
