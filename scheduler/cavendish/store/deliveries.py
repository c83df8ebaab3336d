"""Deliveries in the store.

Sorted into the queues of their endpoints, claimed, then delivered, tried later, or buried; and
reopened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cavendish.model import OPERATIONS, Lane, State
from cavendish.store.connection import Connection
from cavendish.store.keys import LaneKeys, delivery_of, task_of
from cavendish.webhook_endpoint import endpoint_in, is_url, subscription_of

#: Fresh deliveries that are sorted in one run.
SORTED_AT_ONCE = 1000
#: Dead dead letters in the order of their death that are read at once.
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Delivery:
    """An webhook pending to one endpoint. `outcome` is what the last try met, `log` one JSON text
    for each of them.

    `url` is empty for a registered endpoint, and where the record of what it announces is gone.
    """

    name: str
    lane: Lane
    url: str
    attempts: int
    state: str
    outcome: str = ""
    at: float | None = None
    log: str = ""

    @property
    def task_id(self) -> str:
        return task_of(self.name)

    @property
    def endpoint(self) -> str:
        return endpoint_in(self.name)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is written down about one try of one delivery.

    What it met, and the whole log of the delivery since.
    """

    name: str
    outcome: str
    log: str = ""


@dataclass(frozen=True, slots=True)
class RetryAt(Attempt):
    """A try that is repeated at a time; `charged` unless the fault was ours."""

    at: float = 0.0
    charged: bool = True


@dataclass(frozen=True, slots=True)
class Visits:
    """The endpoints worth a visit now, by lane, those due for longest first.

    And when the next one will be, if any.
    """

    worth: dict[Lane, list[str]]
    next_at: float | None


class Deliveries:
    """One method per script, same verb. Every method raises BookUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def sort(self, lanes: Iterable[Lane], now: float) -> Visits:
        """Move fresh deliveries into the queues of their endpoints, and see which of those are
        worth a visit.
        """
        lanes = list(lanes)
        pipe = self._redis.pipeline()
        for lane in lanes:
            pipe.zrange(LaneKeys(lane).pending_deliveries, 0, SORTED_AT_ONCE - 1)
            pipe.zrangebyscore(LaneKeys(lane).endpoint_index, "-inf", now)
            pipe.zrangebyscore(
                LaneKeys(lane).endpoint_index, f"({now}", "+inf", 0, 1, withscores=True
            )
        with self._redis.errors():
            rows = pipe.execute()
        worth = {}
        for lane, fresh, due in zip(lanes, rows[::3], rows[1::3], strict=True):
            if fresh:
                keys = LaneKeys(lane)
                names = [
                    keys.pending_deliveries,
                    keys.endpoint_index,
                    *(keys.queue(endpoint_in(delivery)) for delivery in fresh),
                ]
                self._redis.script(
                    "sort",
                    names,
                    [text for delivery in fresh for text in (delivery, endpoint_in(delivery))],
                )
            worth[lane] = list(dict.fromkeys([*due, *map(endpoint_in, fresh)]))
        next_at = min((at for row in rows[2::3] for _, at in row), default=None)
        return Visits({lane: endpoints for lane, endpoints in worth.items() if endpoints}, next_at)

    def claim_delivery(
        self,
        lane: Lane,
        now: float,
        until: float,
        token: str,
        at_most: int,
        rooms: Mapping[str, int],
    ) -> list[str]:
        """Take deliveries that are due, of each endpoint as many as it has room for.

        They are ours until `until`.
        """
        keys = LaneKeys(lane)
        names = [keys.endpoint_index, keys.delivery_leases]
        for endpoint in rooms:
            names += [keys.queue(endpoint), keys.retries(endpoint)]
        args = [now, until, token, at_most, *(value for pair in rooms.items() for value in pair)]
        taken: list[str] = []
        if (
            rooms and at_most > 0
        ):  # durable: nothing is announced that could still be lost with the primary
            taken = self._redis.script("claim_delivery", names, args, durable=True)
        return taken

    def postpone(self, lane: Lane, until: Mapping[str, float]) -> None:
        """Visit endpoints again at these times, and not before, unless something fresh is pending
        to them.
        """
        if until:
            words = [word for endpoint, at in until.items() for word in (at, endpoint)]
            self._redis.write_when_full(LaneKeys(lane).endpoint_index, "ZADD", "XX", *words)

    def next_visit(self, lanes: Iterable[Lane]) -> float | None:
        """When the next endpoint of any lane is worth a visit; None if nothing is pending."""
        pipe = self._redis.pipeline()
        for lane in lanes:
            for place in (
                LaneKeys(lane).pending_deliveries,
                LaneKeys(lane).endpoint_index,
            ):  # the inbox may hold more than one sorting takes
                pipe.zrange(place, 0, 0, withscores=True)
        with self._redis.errors():
            times = [at for row in pipe.execute() for _, at in row]
        return min(times, default=None)

    def load(
        self, lane: Lane, names: Sequence[str], scores: Iterable[float | None] = ()
    ) -> list[Delivery]:
        """Read deliveries in one round trip.

        What of them is gone or unreadable reads as never tried.
        """
        keys, pipe = LaneKeys(lane), self._redis.pipeline()
        for name in names:
            pipe.hgetall(keys.delivery(name))
            pipe.hmget(keys.task(task_of(name)), f"to:{name.partition(':')[0]}", "state", "closed")
        rows = self._redis.answers(pipe)
        times = [*scores] or [None] * len(names)
        return [
            _delivery(name, lane, *row)
            for name, *row in zip(names, rows[::2], rows[1::2], times, strict=True)
        ]

    def delivered(
        self, lane: Lane, token: str, now: float, attempts: Sequence[Attempt], retention: float
    ) -> int:
        """Strike deliveries off. Returns how many were still ours."""
        keys = LaneKeys(lane)
        names = [
            keys.delivery_leases,
            keys.counts,
            *_of_each(keys, [each.name for each in attempts], "queue"),
        ]
        args = [value for each in attempts for value in (each.name, each.outcome, each.log)]
        return int(self._redis.script("delivered", names, [now, token, int(retention), *args]))

    def later(self, lane: Lane, token: str, attempts: Sequence[RetryAt]) -> int:
        """Put deliveries back until their next try. Returns how many were still ours."""
        keys = LaneKeys(lane)
        names, args = [keys.endpoint_index, keys.delivery_leases], list[Any]([token])
        for each in attempts:
            endpoint = endpoint_in(each.name)
            names += [keys.delivery(each.name), keys.queue(endpoint), keys.retries(endpoint)]
            args += [each.name, endpoint, each.at, int(each.charged), each.outcome, each.log]
        return int(self._redis.script("retry_later", names, args))

    def bury(
        self, lane: Lane, token: str, now: float, attempts: Sequence[Attempt], kept_for: float
    ) -> int:
        """Lay deliveries into the dead letters, each with its reason.

        Returns how many were still ours.
        """
        keys = LaneKeys(lane)
        names = [
            keys.delivery_leases,
            keys.dead,
            keys.counts,
            *_of_each(keys, [each.name for each in attempts], "queue"),
        ]
        args = [value for each in attempts for value in (each.name, each.outcome, each.log)]
        return int(self._redis.script("bury", names, [now, token, int(kept_for), *args]))

    def reopen(self, lane: Lane, times: Mapping[str, float], *, dead: bool) -> list[str]:
        """Owe again, from these times on, what is dead (or else.

        What was delivered). Returns those that were reopened.
        """
        keys = LaneKeys(lane)
        names = [keys.endpoint_index, keys.dead, *_of_each(keys, list(times), "retries")]
        args = [value for name, at in times.items() for value in (name, endpoint_in(name), at)]
        done = (
            self._redis.script(
                "reopen", names, ["dead" if dead else "delivered", *args], durable=True
            )
            if times
            else []
        )
        return [name for name, reopened in zip(times, done, strict=True) if reopened]

    def reconcile(self, lane: Lane, now: float, at_most: int) -> list[str]:
        """Compare the next `at_most` ended ids with what is pending, and owe what is missing.

        Returns that.
        """
        keys = LaneKeys(lane)
        with self._redis.errors():
            start = int(self._redis.redis.get(keys.reconciled) or 0)
            ids: list[str] = self._redis.redis.zrange(keys.ended, start, start + at_most - 1)  # type: ignore[assignment]
        rows = (
            self._redis.script("unreconciled", [keys.task(task_id) for task_id in ids], [])
            if ids
            else []
        )
        forgotten = [task_id for task_id, row in zip(ids, rows, strict=True) if row is None]
        open_deliveries = [
            delivery_of(one, task_id)
            for task_id, row in zip(ids, rows, strict=True)
            for one in (row or "").split()
        ]
        missing: list[str] = []
        if open_deliveries:
            names, args = (
                [keys.pending_deliveries, keys.endpoint_index, keys.delivery_leases],
                list[Any]([now]),
            )
            for delivery in open_deliveries:
                names += [
                    keys.task(task_of(delivery)),
                    keys.queue(endpoint_in(delivery)),
                    keys.retries(endpoint_in(delivery)),
                ]
                args += [delivery, endpoint_in(delivery)]
            missing = self._redis.script("reconcile", names, args)
        with self._redis.errors():
            if forgotten:
                self._redis.redis.zrem(keys.ended, *forgotten)
            on = start + len(ids) - len(forgotten) if len(ids) == at_most else 0
        if on != start:
            self._redis.write_when_full(keys.reconciled, "SET", on)
        return missing

    def to_reconcile(self, lane: Lane) -> int:
        """How many ended ids lie before `reconcile` comes to the end of a lane, and begins anew."""
        keys = LaneKeys(lane)
        with self._redis.errors():
            return self._redis.redis.zcard(keys.ended) - int(
                self._redis.redis.get(keys.reconciled) or 0
            )

    def notify(self, task_id: str, webhook: str, said: str, now: float) -> bool:
        """Owe a notice of our own, a JSON text, in the lane OPERATIONS.

        False if that id was used before.
        """
        keys, subscription = LaneKeys(OPERATIONS), subscription_of(webhook)
        names = [keys.pending_deliveries, keys.ended, keys.task(task_id), keys.result(task_id)]
        return bool(
            self._redis.script(
                "notify",
                names,
                [now, task_id, subscription, webhook if is_url(webhook) else "", said],
            )
        )

    def ended_since(
        self, lane: Lane, since: float, offset: int, at_most: int
    ) -> list[tuple[str, float, str]]:
        """Ids that ended at or after `since`, in that order, each with when it did and what it is
        subscribed to.
        """
        keys = LaneKeys(lane)
        with self._redis.errors():
            ranked = self._redis.redis.zrangebyscore(
                keys.ended, since, "+inf", offset, at_most, withscores=True
            )
            pairs: list[tuple[str, float]] = list(ranked)  # type: ignore[arg-type]
            pipe = self._redis.pipeline()
            for task_id, _ in pairs:
                pipe.hget(keys.task(task_id), "webhooks")
            rows = pipe.execute() if pairs else []
        return [
            (task_id, at, webhooks or "")
            for (task_id, at), webhooks in zip(pairs, rows, strict=True)
        ]

    def hasten(self, lane: Lane, endpoint: str, now: float) -> None:
        """Let the deliveries of an endpoint that wait for a retry be due now."""
        keys = LaneKeys(lane)
        with self._redis.errors():
            while waiting := self._redis.redis.zrangebyscore(
                keys.retries(endpoint), f"({now}", "+inf", 0, PAGE
            ):
                self._redis.redis.zadd(
                    keys.retries(endpoint), {str(delivery): now for delivery in waiting}, xx=True
                )

    def examples(self, lane: Lane, endpoints: Iterable[str]) -> list[Delivery]:
        """One open delivery of each of these endpoints, where the lane has one."""
        keys, pipe, endpoints = LaneKeys(lane), self._redis.pipeline(), list(endpoints)
        pipe.zrange(keys.pending_deliveries, 0, SORTED_AT_ONCE - 1)
        for endpoint in endpoints:
            pipe.zrange(keys.queue(endpoint), 0, 0)
            pipe.zrange(keys.retries(endpoint), 0, 0)
        with self._redis.errors():
            found = {endpoint_in(delivery): delivery for row in pipe.execute() for delivery in row}
        return self.load(lane, [found[endpoint] for endpoint in endpoints if endpoint in found])

    def waiting(self, lane: Lane) -> dict[str, int]:
        """How many deliveries wait in the queues, by endpoint.

        Those just pending count under their endpoint too.
        """
        keys = LaneKeys(lane)
        with self._redis.errors():
            inbox: list[str] = self._redis.redis.zrange(keys.pending_deliveries, 0, -1)  # type: ignore[assignment]
            endpoints: list[str] = self._redis.redis.zrange(keys.endpoint_index, 0, -1)  # type: ignore[assignment]
            pipe = self._redis.pipeline()
            for endpoint in endpoints:
                pipe.zcard(keys.queue(endpoint))
                pipe.zcard(keys.retries(endpoint))
            rows = pipe.execute() if endpoints else []
        found = {
            name: queue + retries
            for name, queue, retries in zip(endpoints, rows[::2], rows[1::2], strict=True)
        }
        found = {name: number for name, number in found.items() if number}
        for delivery in inbox:
            found[endpoint_in(delivery)] = found.get(endpoint_in(delivery), 0) + 1
        return found

    def dead(self, lane: Lane, at_most: int = PAGE, offset: int = 0) -> list[Delivery]:
        """The dead letters of a lane, the newest first."""
        with self._redis.errors():
            ranked = self._redis.redis.zrevrange(
                LaneKeys(lane).dead, offset, offset + at_most - 1, withscores=True
            )
        pairs: list[tuple[str, float]] = list(ranked)  # type: ignore[arg-type]
        return (
            self.load(lane, [name for name, _ in pairs], [at for _, at in pairs]) if pairs else []
        )

    def drop(self, lane: Lane, names: Sequence[str]) -> int:
        """Forget dead letters for good. Returns how many there were."""
        keys = LaneKeys(lane)
        pipe = self._redis.pipeline()
        for name in names:
            pipe.zrem(keys.dead, name)
        with self._redis.errors():
            dropped = [
                name for name, was_dead in zip(names, pipe.execute(), strict=True) if was_dead
            ]
            if dropped:
                self._redis.redis.delete(*map(keys.delivery, dropped))
        return len(dropped)

    def forget_dead(self, lane: Lane, before: float) -> int:
        """Forget dead letters that died before this time.

        Their records are forgotten by then. Returns how many there were.
        """
        with self._redis.errors():
            return int(self._redis.redis.zremrangebyscore(LaneKeys(lane).dead, "-inf", before))


def _of_each(keys: LaneKeys, names: Sequence[str], place: str) -> list[str]:
    """Delivery, task, result and queue (or retries) of each delivery, as the scripts want them."""
    found = []
    for name in names:
        endpoint, task_id = endpoint_in(name), task_of(name)
        last = keys.queue(endpoint) if place == "queue" else keys.retries(endpoint)
        found += [keys.delivery(name), keys.task(task_id), keys.result(task_id), last]
    return found


def _delivery(name: str, lane: Lane, row: Any, about: Any, at: float | None) -> Delivery:
    url, ended, closed = about if isinstance(about, list) else (None, None, None)
    # A delivered delivery may be forgotten before its task, which knows that much.
    delivered = name.partition(":")[0] in (closed or "").split()
    state = (
        "delivered" if delivered else "waiting" if ended == State.PENDING else "pending_deliveries"
    )
    try:
        state, log = row.get("state") or state, row.get("log", "")
        return Delivery(
            name,
            lane,
            url or "",
            int(row.get("attempts") or 0),
            state,
            row.get("outcome", ""),
            at,
            log,
        )
    except (
        AttributeError,
        ValueError,
    ):  # an error of Redis in place of the row, or a number that is none
        return Delivery(name, lane, url or "", 0, state, "what was tried is unreadable", at)
