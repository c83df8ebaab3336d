"""Everything that is counted in the store, read in a few round trips whatever the number of lanes:
what a scrape asks for.

The shards of a lane are summed. Nothing here reads a record of a tracked task or of a delivery, so
a scrape costs the same with ten ids and with ten million. It grows with the lanes, and with the
endpoints that something is pending to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cavendish.model import OPERATIONS, Lane
from cavendish.policy.circuit import Circuit
from cavendish.policy.durations import DurationModel, Forecast, forecast
from cavendish.policy.rate_limit import RateLimit
from cavendish.policy.service_health import ServiceHealth
from cavendish.store import keys
from cavendish.store.connection import Connection
from cavendish.store.fleet import Member
from cavendish.store.keys import LaneKeys

#: Models of one service whose duration models are told: the latest that were taught.
MODELS = 20
#: Endpoints without a name whose circuits are looked at.
NAMELESS = 1000


@dataclass(slots=True)
class Counted:
    """One service of one account.

    `oldest_due`: since when the id is due that is due for longest; `counts` are totals.
    """

    pending: int = 0
    due: int = 0
    in_flight: int = 0
    quarantined: int = 0
    dead: int = 0
    oldest_due: float | None = None
    counts: Counter[str] = field(default_factory=Counter)
    down_until: float = 0.0
    batch_limit: int = 0
    forecasts: dict[str, Forecast] = field(default_factory=dict)


@dataclass(slots=True)
class Statistics:
    """The store at one moment. `inbox`: fresh deliveries that nobody has sorted by endpoint yet;
    `pending_deliveries`: the others, by endpoint.

    `pending_since`: since when the delivery is due that is due for longest, of all that may be sent
    now. `unreadable`: lanes left out.
    """

    now: float
    services: dict[tuple[str, str], Counted]
    rate_limits: dict[str, RateLimit]
    pending_deliveries: Counter[str]
    inbox: int
    pending_since: float | None
    registered: frozenset[str]
    disabled: frozenset[str]
    open: frozenset[str]
    members: list[Member]
    unreadable: int


class StatisticsReader:
    """Counts once. Every method raises BookUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._services: dict[tuple[str, str], Counted] = {}
        self._endpoint_index: dict[Lane, list[str]] = {}
        self._times: list[float] = []
        self._inbox = self._unreadable = 0

    def count(self, lanes: Sequence[Lane], members: list[Member], now: float) -> Statistics:
        """Look at these lanes, at their accounts, and at all endpoints."""
        for lane, answers in zip(lanes, self._answers(lanes, now), strict=True):
            self._add(lane, answers, now)
        self._add_operations()
        self._add_forecasts()
        accounts = sorted({account for account, _ in self._services})
        rate_limits = {
            name: RateLimit.from_json(_text(row[0]))
            for name, row in self._each(accounts, _ask_rate_limit)
        }
        pending_deliveries = self._pending_deliveries()
        registered, disabled = self._in_one(_ask_endpoints, [None])[0]
        names = [
            *registered,
            *(name for name, _ in pending_deliveries.most_common() if name not in registered),
        ][: len(registered) + NAMELESS]
        circuits = {
            name: Circuit.from_json(_text(row[0])) for name, row in self._each(names, _ask_circuit)
        }
        is_open = frozenset(name for name, circuit in circuits.items() if circuit.state == "open")
        return Statistics(
            now,
            self._services,
            rate_limits,
            pending_deliveries,
            self._inbox,
            min(self._times, default=None),
            frozenset(registered),
            frozenset(disabled),
            is_open,
            members,
            self._unreadable,
        )

    def _in_one(self, ask: Any, things: Iterable[Any]) -> list[list[Any]]:
        """Ask about many things in one round trip.

        `ask` puts commands into a pipeline; their answers come back by thing.
        """
        things, pipe, lengths = list(things), self._redis.pipeline(), []
        for thing in things:
            before = len(pipe)
            ask(pipe, thing)
            lengths.append(len(pipe) - before)
        answers = iter(self._redis.answers(pipe) if things else [])
        return [[next(answers) for _ in range(length)] for length in lengths]

    def _each(self, names: Sequence[str], ask: Any) -> Iterable[tuple[str, list[Any]]]:
        return zip(names, self._in_one(ask, names), strict=True)

    def _answers(self, lanes: Sequence[Lane], now: float) -> list[list[Any]]:
        producers = [
            row[0]
            for row in self._in_one(
                lambda pipe, lane: pipe.smembers(LaneKeys(lane).producers), lanes
            )
        ]
        known = {
            lane: names if isinstance(names, set) else set()
            for lane, names in zip(lanes, producers, strict=True)
        }
        return self._in_one(lambda pipe, lane: _ask_lane(pipe, lane, known[lane], now), lanes)

    def _add(self, lane: Lane, answers: list[Any], now: float) -> None:
        """A lane with an unreadable key is left out, so that the others are still counted."""
        if any(isinstance(answer, Exception) for answer in answers):
            self._unreadable += 1
            return
        endpoint_index, (pending, in_flight, quarantined, dead, counts, service_health, *dues) = (
            answers[:3],
            answers[3:],
        )
        try:
            totals = {name: int(number) for name, number in counts.items()}
        except ValueError:
            self._unreadable += 1
            return
        known = ServiceHealth.from_json(_text(service_health))
        self._add_pending(lane, endpoint_index)
        one = self._services.setdefault((lane.account, lane.service), Counted())
        one.pending += pending
        one.in_flight += in_flight
        one.quarantined += quarantined
        one.dead += dead
        one.due += sum(dues[::2])
        one.counts.update(totals)
        firsts = [at for row in dues[1::2] for _, at in row if at <= now]
        one.oldest_due = min(
            [*firsts, *([one.oldest_due] if one.oldest_due is not None else [])], default=None
        )
        one.down_until = max(one.down_until, known.down_until if known.failures else 0.0)
        one.batch_limit = min(filter(None, (one.batch_limit, known.batch_limit)), default=0)

    def _add_operations(self) -> None:
        """Notices of our own are pending in a lane that is not listed."""
        answers = self._in_one(_ask_pending, [OPERATIONS])[0]
        if not any(isinstance(answer, Exception) for answer in answers):
            self._add_pending(OPERATIONS, answers)

    def _add_pending(self, lane: Lane, answers: list[Any]) -> None:
        inbox, first, endpoint_index = answers
        self._inbox += inbox
        self._endpoint_index[lane] = [endpoint for endpoint, _ in endpoint_index]
        self._times += [at for _, at in [*first, *endpoint_index[:1]]]

    def _pending_deliveries(self) -> Counter[str]:
        """Deliveries in the queues, by endpoint, over all lanes."""
        places = [
            (lane, endpoint)
            for lane, endpoints in self._endpoint_index.items()
            for endpoint in endpoints
        ]
        found = Counter[str]()
        for (_, endpoint), sizes in zip(places, self._in_one(_ask_queues, places), strict=True):
            found[endpoint] += sum(size for size in sizes if isinstance(size, int))
        return +found

    def _add_forecasts(self) -> None:
        """All shards of a lane share their duration models, so these lie in the first."""
        places = [Lane(*place) for place in self._services]
        models = self._in_one(
            lambda pipe, lane: pipe.zrevrange(LaneKeys(lane).models, 0, MODELS - 1), places
        )
        for lane, names in zip(places, models, strict=True):
            duration_models = dict.fromkeys(
                ["", *(names[0] if isinstance(names[0], list) else [])], DurationModel()
            )
            duration_models |= {
                model: DurationModel.from_json(_text(row[0]))
                for model, row in self._each(list(duration_models), _ask_durations(lane))
            }
            self._services[lane.account, lane.service].forecasts = {
                model: forecast(durations, duration_models[""] if model else None)
                for model, durations in duration_models.items()
                if durations.seen
            }


def _ask_lane(pipe: Any, lane: Lane, producers: Iterable[str], now: float) -> None:
    of = LaneKeys(lane)
    _ask_pending(pipe, lane)
    pipe.zcard(of.deadlines)
    pipe.hlen(of.leases)
    pipe.hlen(of.quarantined)
    pipe.zcard(of.dead)
    pipe.hgetall(of.counts)
    pipe.hget(of.service_health, "value")
    for producer in producers:
        pipe.zcount(of.due(producer), "-inf", now)
        pipe.zrange(of.due(producer), 0, 0, withscores=True)


def _ask_pending(pipe: Any, lane: Lane) -> None:
    of = LaneKeys(lane)
    pipe.zcard(of.pending_deliveries)
    pipe.zrange(of.pending_deliveries, 0, 0, withscores=True)
    pipe.zrange(of.endpoint_index, 0, -1, withscores=True)


def _ask_queues(pipe: Any, place: tuple[Lane, str]) -> None:
    lane, endpoint = place
    pipe.zcard(LaneKeys(lane).queue(endpoint))
    pipe.zcard(LaneKeys(lane).retries(endpoint))


def _ask_endpoints(pipe: Any, _: None) -> None:
    pipe.hkeys(keys.ENDPOINTS)
    pipe.hkeys(keys.DISABLED)


def _ask_circuit(pipe: Any, endpoint: str) -> None:
    pipe.hget(keys.circuit(endpoint), "value")


def _ask_rate_limit(pipe: Any, account: str) -> None:
    pipe.hget(keys.rate_limit(account), "value")


def _ask_durations(lane: Lane) -> Any:
    return lambda pipe, model: pipe.hget(LaneKeys(lane).durations(model), "value")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
