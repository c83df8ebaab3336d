"""Reads every number that `status`, `top`, `doctor`, the metrics and Flower show.

All lanes are read in three round trips, whatever their number. No record of a task or of a delivery
is read, so the cost is the same with ten ids and with ten million; it grows with the lanes, and
with the endpoints that deliveries are pending for. How well each endpoint takes its webhooks is not
read: see `endpoint_view.py`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cavendish.endpoints.webhook_endpoint import Disabled, Endpoint, endpoint_in, is_of_group
from cavendish.model import Lane
from cavendish.policy.durations import DurationModel
from cavendish.policy.next_poll import Forecast, forecast
from cavendish.policy.operator_controls import Controls
from cavendish.policy.rate_limit import RateLimit
from cavendish.policy.service_health import ServiceHealth
from cavendish.policy.visibility import Visibility
from cavendish.store import keys
from cavendish.store.connection import Connection
from cavendish.store.controls import controls_in
from cavendish.store.endpoint_registry import Endpoints
from cavendish.store.fleet import Emptied, Member
from cavendish.store.keys import LaneKeys

#: New deliveries of a lane that are counted by endpoint; the rest is counted under UNSORTED.
INBOX_READ = 1000
UNSORTED = "(not sorted yet)"


class End(NamedTuple):
    """The end of one id: its place in the stream, when it was stored, and seconds since its finish.

    `delay` is None where the finish is not known.
    """

    place: str
    at: float
    delay: float | None


#: Answers of Redis, by a subject (a lane, or a kind of state) and a name.
Answers = dict[Any, dict[Any, Any]]
#: Forecasts by (account, service) and model.
Forecasts = dict[tuple[str, str], dict[str, Forecast]]


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """The numbers of one lane.

    `pending`, `due` and `in_flight` (leased) count ids, `counts` are totals since the lane began.
    Of deliveries, those to groups are left out, which go to no receiver.
    `queued` are the deliveries in the queues, by endpoint; `inbox` those that are not sorted yet,
    and `new` the first of them, by endpoint. `due_since` is when the longest due id was due, and
    `delivery_due_since` the same for deliveries; None where none is. `ends` are the newest ends,
    newest first; `producers` those with pending ids.
    """

    lane: Lane
    pending: int
    due: int
    in_flight: int
    quarantined: int
    dead: int
    queued: Counter[str]
    inbox: int
    new: Counter[str]
    counts: Counter[str]
    service_health: ServiceHealth
    visibility: Visibility
    producers: tuple[str, ...]
    ends: tuple[End, ...]
    due_since: float | None
    delivery_due_since: float | None

    @property
    def deliveries_pending(self) -> int:
        """All open deliveries."""
        return self.queued.total() + self.inbox

    @property
    def pending_by_endpoint(self) -> dict[str, int]:
        """All open deliveries by endpoint; UNSORTED for those of a long inbox."""
        unsorted = Counter({UNSORTED: self.inbox - self.new.total()})
        return dict(+(self.queued + self.new + unsorted))


@dataclass(frozen=True, slots=True)
class Statistics:
    """The whole store at the time `now`.

    `rate_limits` by account, `forecasts` by service and model where asked for, `open_circuits`:
    endpoints that seem to be left alone after failures; each circuit decides. `emptied`: that
    the store was emptied lately, and nobody has acknowledged it; `controls`: what operators set.
    Lanes that cannot be read are in `unreadable` and nowhere else.
    """

    now: float
    lanes: tuple[LaneStatistics, ...]
    unreadable: tuple[Lane, ...]
    rate_limits: dict[str, RateLimit]
    forecasts: Forecasts
    registered: dict[str, Endpoint]
    disabled: dict[str, Disabled]
    open_circuits: tuple[str, ...]
    members: list[Member]
    emptied: Emptied | None
    controls: Controls

    @property
    def tracked(self) -> list[LaneStatistics]:
        """The lanes of tracked tasks: all but those of groups and of the operator alerts."""
        return [one for one in self.lanes if one.lane.has_ids]

    @property
    def pending_by_endpoint(self) -> Counter[str]:
        """Open deliveries of all lanes by endpoint, without those of a long inbox."""
        found = Counter[str]()
        for one in self.lanes:
            found.update(one.queued + one.new)
        return found


class _RoundTrip:
    """Commands that are sent together; each answer is found by a subject and a name.

    A command that fails is answered by its error.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis, self._pipe = connection, connection.pipeline()
        self._places: list[tuple[Any, Any]] = []

    def ask(self, subject: Any, name: Any, command: str, *args: Any, **options: Any) -> None:
        getattr(self._pipe, command)(*args, **options)
        self._places.append((subject, name))

    def answer(self, found: Answers) -> None:
        for (subject, name), answer in zip(
            self._places, self._redis.answers(self._pipe), strict=True
        ):
            found[subject][name] = answer


class StatisticsReader:
    """Reads once. `ends`: newest ends of each lane, behind its place in `after` if there is one.

    `models`: models of each service whose durations are read, those that learned last.
    """

    def __init__(
        self,
        connection: Connection,
        after: Mapping[Lane, str] | None = None,
        *,
        ends: int = 0,
        models: int = 0,
    ) -> None:
        self._redis, self._after, self._ends = connection, after or {}, ends
        self._models = models
        self._found: Answers = defaultdict(dict)

    def read(self, lanes: Sequence[Lane], members: list[Member], now: float) -> Statistics:
        """Everything about these lanes, their accounts, and all endpoints.

        Raises StoreUnavailable.
        """
        found = self._found
        registered, disabled = Endpoints(self._redis).all_and_disabled()
        self._ask_first(lanes).answer(found)
        emptied = Emptied.from_json(found["store"]["emptied"])
        self._ask_second(lanes, now).answer(found)
        self._ask_third(lanes).answer(found)
        readable = {
            lane: numbers
            for lane in lanes
            if not any(isinstance(answer, Exception) for answer in found[lane].values())
            and (numbers := _lane_statistics(lane, found[lane], now))
        }
        return Statistics(
            now,
            tuple(readable.values()),
            tuple(lane for lane in lanes if lane not in readable),
            {name: RateLimit.from_json(text) for name, text in found["rate limit"].items()},
            _forecasts(found["durations"]),
            registered,
            disabled,
            tuple(_listed(found["store"]["open circuits"])),
            members,
            None if emptied is None or emptied.acknowledged else emptied,
            controls_in(found["store"]["controls"]),
        )

    def _ask_first(self, lanes: Sequence[Lane]) -> _RoundTrip:
        trip = _RoundTrip(self._redis)
        trip.ask("store", "emptied", "get", keys.EMPTIED)
        trip.ask("store", "controls", "hgetall", keys.CONTROLS)
        trip.ask("store", "open circuits", "zrange", keys.OPEN_CIRCUITS, 0, -1)
        for lane in lanes:
            of = LaneKeys(lane)
            trip.ask(lane, "producers", "smembers", of.producers)
            trip.ask(lane, "in flight", "hlen", of.leases)
            trip.ask(lane, "quarantined", "hlen", of.quarantined)
            trip.ask(lane, "dead", "zcard", of.dead)
            trip.ask(lane, "counts", "hgetall", of.counts)
            trip.ask(lane, "health", "hget", of.service_health, "value")
            trip.ask(lane, "visibility", "hget", keys.visibility(lane), "value")
        tracked = [lane for lane in lanes if lane.has_ids]
        for account in sorted({lane.account for lane in tracked}):
            trip.ask("rate limit", account, "hget", keys.rate_limit(account), "value")
        # All shards of a lane share their duration models.
        for service in dict.fromkeys(Lane(lane.account, lane.service) for lane in tracked):
            if self._models:
                newest = LaneKeys(service).models
                trip.ask("models", service, "zrevrange", newest, 0, self._models - 1)
        return trip

    def _ask_second(self, lanes: Sequence[Lane], now: float) -> _RoundTrip:
        trip = _RoundTrip(self._redis)
        for lane in lanes:
            of = LaneKeys(lane)
            # Before the inbox, so that an id that ends meanwhile is counted twice, not missed.
            for producer in _listed(self._found[lane]["producers"]):
                due = of.due(producer)
                trip.ask(lane, ("pending", producer), "zcard", due)
                trip.ask(lane, ("due", producer), "zcount", due, "-inf", now)
                trip.ask(lane, ("due since", producer), "zrange", due, 0, 0, withscores=True)
            trip.ask(lane, "inbox", "zcard", of.inbox)
            trip.ask(lane, "new", "zrange", of.inbox, 0, INBOX_READ - 1, withscores=True)
            trip.ask(lane, "index", "zrange", of.endpoint_index, 0, -1, withscores=True)
            if self._ends:
                oldest = f"({self._after[lane]}" if lane in self._after else "-"
                trip.ask(lane, "ends", "xrevrange", of.events, "+", oldest, self._ends)
        return trip

    def _ask_third(self, lanes: Sequence[Lane]) -> _RoundTrip:
        trip = _RoundTrip(self._redis)
        for lane in lanes:
            of = LaneKeys(lane)
            for endpoint, _ in _receivers(self._found[lane]["index"]):
                trip.ask(lane, ("queue", endpoint), "zcard", of.queue(endpoint))
                trip.ask(lane, ("retries", endpoint), "zcard", of.retries(endpoint))
        for service, models in self._found["models"].items():
            for model in dict.fromkeys(["", *_listed(models)]):
                place = (service.account, service.service, model)
                durations = LaneKeys(service).durations(model)
                trip.ask("durations", place, "hget", durations, "value")
        return trip


def _listed(answer: Any) -> Iterable[Any]:
    """The members in an answer; none in an error."""
    return answer if isinstance(answer, list | set) else ()


def _receivers(answer: Any) -> list[tuple[str, float]]:
    """The endpoints or deliveries in an answer, without those of groups."""
    return [(name, at) for name, at in _listed(answer) if not is_of_group(name)]


def _lane_statistics(lane: Lane, found: Mapping[Any, Any], now: float) -> LaneStatistics | None:
    """The numbers of a lane; None if one of its keys is unreadable."""
    producers, index, new = found["producers"], _receivers(found["index"]), _receivers(found["new"])
    firsts = [row for producer in producers for row in found["due since", producer]]
    try:
        counts = Counter({name: int(total) for name, total in found["counts"].items()})
    except ValueError:
        return None
    return LaneStatistics(
        lane,
        pending=sum(found["pending", producer] for producer in producers),
        due=sum(found["due", producer] for producer in producers),
        in_flight=found["in flight"],
        quarantined=found["quarantined"],
        dead=found["dead"],
        queued=+Counter({each: found["queue", each] + found["retries", each] for each, _ in index}),
        inbox=max(found["inbox"] - len(found["new"]), 0) + len(new),
        new=Counter(endpoint_in(name) for name, _ in new),
        counts=counts,
        service_health=ServiceHealth.from_json(found["health"]),
        visibility=Visibility.from_json(found["visibility"]),
        producers=tuple(sorted(producers)),
        ends=tuple(_end(*row) for row in found.get("ends", ())),
        due_since=min((at for _, at in firsts if at <= now), default=None),
        delivery_due_since=min((at for _, at in [*new[:1], *index[:1]]), default=None),
    )


def _end(place: str, fields: Mapping[str, str] | None) -> End:
    entry = fields or {}
    return End(place, _number(entry.get("at")) or 0.0, _number(entry.get("delay")))


def _number(text: str | None) -> float | None:
    """None for a text that is no finite number: entries of an older version have no delay."""
    try:
        return number if math.isfinite(number := float(text or "")) else None
    except ValueError:
        return None


def _forecasts(durations: Mapping[tuple[str, str, str], Any]) -> Forecasts:
    """Forecasts by service and model from the stored duration models, "" for the whole service.

    A model that has seen no finish is left out.
    """
    models = {name: DurationModel.from_json(text) for name, text in durations.items()}
    found: Forecasts = {}
    for (account, service, model), known in models.items():
        of_service = found.setdefault((account, service), {})
        if known.seen:
            whole = models[account, service, ""] if model else None
            of_service[model] = forecast(known, whole)
    return found
