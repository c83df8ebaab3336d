"""Open deliveries in the store: sorted into the queues of their endpoints, claimed, attempted.

A delivery then is closed, as delivered or as a dead letter, or waits for its next attempt. What
happens to closed ones is in `closed.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cavendish.endpoints.webhook_endpoint import endpoint_in, is_url, subscription_of
from cavendish.errors import StoreUnavailable
from cavendish.model import OPERATIONS, Lane
from cavendish.store.common_parts import CommonParts
from cavendish.store.connection import Connection
from cavendish.store.delivery_reader import DeliveryReader
from cavendish.store.due_index import DueIndex, Place
from cavendish.store.keys import DELIVERIES, LaneKeys

#: New deliveries that are sorted in one run.
SORTED_AT_ONCE = 1000
#: Deliveries that are read at once.
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is stored about one attempt: the delivery, what it met, and the delivery's whole log."""

    name: str
    outcome: str
    log: str = ""


@dataclass(frozen=True, slots=True)
class RetryAt(Attempt):
    """An attempt that is repeated at the time `at`; `charged` unless the fault was ours."""

    at: float = 0.0
    charged: bool = True


@dataclass(frozen=True, slots=True)
class Visits:
    """The endpoints worth a visit now, by lane, longest due first; and when the next one is due.

    `unreadable`: lanes whose keys are damaged, each with the error.
    """

    worth: dict[Lane, list[str]]
    next_at: float | None
    unreadable: dict[Lane, Exception]


class Deliveries:
    """One method per script, of the same name. Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection, common: CommonParts) -> None:
        self._redis, self._common = connection, common
        reader = DeliveryReader(connection, common)
        self.load, self.load_with_tasks = reader.load, reader.load_with_tasks
        self.outcomes = reader.outcomes
        #: By account the lanes with open deliveries, and when each is worth a visit.
        self.index = DueIndex(connection, DELIVERIES)

    def sort(self, lanes: Iterable[Lane], now: float) -> Visits:
        """Move new deliveries into the queues of their endpoints; which of these to visit now."""
        lanes = list(lanes)
        pipe = self._redis.pipeline()
        for lane in lanes:
            keys = LaneKeys(lane)
            pipe.zrange(keys.inbox, 0, SORTED_AT_ONCE - 1)
            pipe.zrangebyscore(keys.endpoint_index, "-inf", now)
            pipe.zrangebyscore(keys.endpoint_index, f"({now}", "+inf", 0, 1, withscores=True)
        rows = self._redis.answers(pipe)
        visits = Visits({}, None, {})
        later: list[float] = []
        for lane, *three in zip(lanes, rows[::3], rows[1::3], rows[2::3], strict=True):
            try:
                if endpoints := self._sorted(lane, three[0], three[1]):
                    visits.worth[lane] = endpoints
                later += [at for _, at in three[2]]
            except StoreUnavailable:
                raise
            except Exception as error:
                visits.unreadable[lane] = next(
                    (each for each in three if isinstance(each, Exception)), error
                )
        return replace(visits, next_at=min(later, default=None))

    def _sorted(self, lane: Lane, new: Sequence[str], due: Sequence[str]) -> list[str]:
        """Sort the new deliveries of a lane; its endpoints that are worth a visit now."""
        endpoints = [endpoint_in(delivery) for delivery in new]
        if new:
            keys = LaneKeys(lane)
            names = [keys.inbox, keys.endpoint_index, *map(keys.queue, endpoints)]
            args = [text for pair in zip(new, endpoints, strict=True) for text in pair]
            self._redis.script("sort", names, args)
        return list(dict.fromkeys([*due, *endpoints]))

    def claim_delivery(
        self,
        lane: Lane,
        now: float,
        until: float,
        token: str,
        at_most: int,
        rooms: Mapping[str, int],
    ) -> list[str]:
        """Lease due deliveries until `until`: of each endpoint as many as `rooms` allows."""
        if not rooms or at_most <= 0:
            return []
        keys = LaneKeys(lane)
        names = [keys.endpoint_index, keys.delivery_leases]
        for endpoint in rooms:
            names += [keys.queue(endpoint), keys.retries(endpoint)]
        args = [now, until, token, at_most, *(value for pair in rooms.items() for value in pair)]
        # Durable: nothing is announced that could still be lost with the primary.
        claimed: list[str] = self._redis.script("claim_delivery", names, args, durable=True)
        return claimed

    def postpone(self, lane: Lane, until: Mapping[str, float]) -> None:
        """Visit endpoints at these times again; earlier only if a new delivery comes."""
        if until:
            words = [word for endpoint, at in until.items() for word in (at, endpoint)]
            self._redis.write_when_full(LaneKeys(lane).endpoint_index, "ZADD", "XX", *words)

    def next_visits(self, lanes: Iterable[Lane]) -> list[float | Exception | None]:
        """When the next endpoint of each lane is worth a visit; None if nothing is pending.

        The error of a lane whose keys are damaged stands in its place.
        """
        pipe = self._redis.pipeline()
        for lane in lanes:
            # The inbox may hold more than `sort` takes at once.
            pipe.zrange(LaneKeys(lane).inbox, 0, 0, withscores=True)
            pipe.zrange(LaneKeys(lane).endpoint_index, 0, 0, withscores=True)
        rows = self._redis.answers(pipe)
        return [
            next((row for row in pair if isinstance(row, Exception)), None)
            or min((at for row in pair for _, at in row), default=None)
            for pair in zip(rows[::2], rows[1::2], strict=True)
        ]

    def delivered(
        self, lane: Lane, token: str, now: float, attempts: Sequence[Attempt], retention: float
    ) -> int:
        """Close deliveries that receivers took; how many still had this token.

        `retention`: seconds for which they are kept, and the tasks whose deliveries are all closed.
        """
        return self._close("delivered", lane, token, now, attempts, retention)

    def skip(
        self, lane: Lane, token: str, now: float, attempts: Sequence[Attempt], retention: float
    ) -> int:
        """Close deliveries that their endpoints did not choose; how many still had this token."""
        return self._close("skipped", lane, token, now, attempts, retention)

    def bury(
        self, lane: Lane, token: str, now: float, attempts: Sequence[Attempt], kept_for: float
    ) -> int:
        """Close deliveries as dead letters, kept for so many seconds; how many had this token."""
        return self._close("dead", lane, token, now, attempts, kept_for)

    def told(
        self, lane: Lane, token: str, now: float, names: Sequence[str], retention: float
    ) -> int:
        """Close deliveries whose groups counted them; how many still had this token."""
        attempts = [Attempt(name, "") for name in names]
        return self._close("told", lane, token, now, attempts, retention)

    def _close(
        self,
        state: str,
        lane: Lane,
        token: str,
        now: float,
        attempts: Sequence[Attempt],
        kept_for: float,
    ) -> int:
        keys = LaneKeys(lane)
        names = [keys.delivery_leases, keys.dead, keys.counts]
        names += [keys.common_open, keys.common_until]
        args: list[Any] = [state, now, token, int(kept_for)]
        for each in attempts:
            names += keys.of_delivery(each.name)
            names.append(keys.queue(endpoint_in(each.name)))
            args += [each.name, each.outcome, each.log]
        return int(self._redis.script("close", names, args))

    def later(self, lane: Lane, token: str, now: float, attempts: Sequence[RetryAt]) -> int:
        """Let deliveries wait for their next attempt; how many still had this token."""
        if not attempts:
            return 0
        # The index may hold the end of their leases, which can be later.
        self.index.note([Place(lane.account, lane, min(each.at for each in attempts))], now)
        keys = LaneKeys(lane)
        names, args = [keys.endpoint_index, keys.delivery_leases], list[Any]([token])
        for each in attempts:
            endpoint = endpoint_in(each.name)
            names += [keys.delivery(each.name), keys.queue(endpoint), keys.retries(endpoint)]
            args += [each.name, endpoint, each.at, int(each.charged), each.outcome, each.log]
        return int(self._redis.script("retry_later", names, args))

    def hasten(self, lane: Lane, endpoint: str, now: float) -> None:
        """Let the deliveries of an endpoint that wait for a retry be due now."""
        self.index.note([Place(lane.account, lane, now)], now)
        retries = LaneKeys(lane).retries(endpoint)
        with self._redis.errors():
            redis = self._redis.redis
            while names := redis.zrangebyscore(retries, f"({now}", "+inf", 0, PAGE):
                redis.zadd(retries, {str(name): now for name in names}, xx=True)

    def urls(self, places: Iterable[tuple[Lane, str]]) -> dict[str, str]:
        """The URL of each endpoint, from one of its deliveries, in three round trips.

        `places`: in which lane a delivery of an endpoint lies. Endpoints whose URL is not found are
        left out.
        """
        places = list(places)
        lanes = list(dict.fromkeys(lane for lane, _ in places))
        pipe = self._redis.pipeline()
        for lane in lanes:
            pipe.zrange(LaneKeys(lane).inbox, 0, SORTED_AT_ONCE - 1)
        for lane, endpoint in places:
            pipe.zrange(LaneKeys(lane).queue(endpoint), 0, 0)
            pipe.zrange(LaneKeys(lane).retries(endpoint), 0, 0)
        rows = self._redis.answers(pipe)
        origins = [*lanes, *(lane for lane, _ in places for _ in range(2))]
        names = {
            (lane, endpoint_in(name)): name
            for lane, row in zip(origins, rows, strict=True)
            if isinstance(row, list)
            for name in row
        }
        found = [(lane, endpoint) for lane, endpoint in places if (lane, endpoint) in names]
        pipe = self._redis.pipeline()
        for place in found:
            subscription, _, task_id = names[place].partition(":")
            pipe.hmget(LaneKeys(place[0]).task(task_id), f"to:{subscription}", "in")
        rows = self._redis.answers(pipe)
        urls = self._common.urls(
            [
                (lane, names[lane, endpoint].partition(":")[0], row)
                for (lane, endpoint), row in zip(found, rows, strict=True)
            ]
        )
        return {endpoint: url for (_, endpoint), url in zip(found, urls, strict=True) if url}

    def notify(self, task_id: str, webhook: str, alert: str, now: float) -> bool:
        """Make an operator alert, a JSON text, pending in the lane OPERATIONS.

        False if that id was used before.
        """
        self.index.note([Place(OPERATIONS.account, OPERATIONS, now)], now)
        keys = LaneKeys(OPERATIONS)
        names = [keys.inbox, keys.ended, keys.task(task_id), keys.result(task_id)]
        url = webhook if is_url(webhook) else ""
        args = [now, task_id, subscription_of(webhook), url, alert]
        return bool(self._redis.script("notify", names, args))
