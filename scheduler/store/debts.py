"""Debts in the book: sorted into the queues of their endpoints, claimed, then paid, tried later, or buried; and reopened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.endpoints import endpoint_in, is_url, subscription_of
from scheduler.store.connection import Connection
from scheduler.store.keys import LaneKeys, debt_of, task_of
from scheduler.tracking import OPERATIONS, Lane, State

#: Fresh debts that are sorted in one run.
SORTED_AT_ONCE = 1000
#: Dead letters in the order of their death that are read at once.
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Debt:
    """An announcement owed to one endpoint. `outcome` is what the last try met, `log` one JSON text for each of them.

    `url` is empty for a registered endpoint, and where the record of what it announces is gone.
    """

    name: str
    lane: Lane
    url: str
    tries: int
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
class Try:
    """What is written down about one try of one debt: what it met, and the whole log of the debt since."""

    name: str
    outcome: str
    log: str = ""


@dataclass(frozen=True, slots=True)
class Later(Try):
    """A try that is repeated at a time; `charged` unless the fault was ours."""

    at: float = 0.0
    charged: bool = True


@dataclass(frozen=True, slots=True)
class Visits:
    """The endpoints worth a visit now, by lane, those due for longest first; and when the next one will be, if any."""

    worth: dict[Lane, list[str]]
    next_at: float | None


class Debts:
    """One method per script, same verb. Every method raises BookUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def sort(self, lanes: Iterable[Lane], now: float) -> Visits:
        """Move fresh debts into the queues of their endpoints, and see which of those are worth a visit."""
        lanes = list(lanes)
        pipe = self._redis.pipeline()
        for lane in lanes:
            pipe.zrange(LaneKeys(lane).owed, 0, SORTED_AT_ONCE - 1)
            pipe.zrangebyscore(LaneKeys(lane).owing, "-inf", now)
            pipe.zrangebyscore(LaneKeys(lane).owing, f"({now}", "+inf", 0, 1, withscores=True)
        with self._redis.errors():
            rows = pipe.execute()
        worth = {}
        for lane, fresh, due in zip(lanes, rows[::3], rows[1::3], strict=True):
            if fresh:
                keys = LaneKeys(lane)
                names = [keys.owed, keys.owing, *(keys.queue(endpoint_in(debt)) for debt in fresh)]
                self._redis.script("sort", names, [text for debt in fresh for text in (debt, endpoint_in(debt))])
            worth[lane] = list(dict.fromkeys([*due, *map(endpoint_in, fresh)]))
        next_at = min((at for row in rows[2::3] for _, at in row), default=None)
        return Visits({lane: endpoints for lane, endpoints in worth.items() if endpoints}, next_at)

    def claim_delivery(
        self, lane: Lane, now: float, until: float, token: str, at_most: int, rooms: Mapping[str, int]
    ) -> list[str]:
        """Take debts that are due, of each endpoint as many as it has room for; they are ours until `until`."""
        keys = LaneKeys(lane)
        names = [keys.owing, keys.debt_leases]
        for endpoint in rooms:
            names += [keys.queue(endpoint), keys.retries(endpoint)]
        args = [now, until, token, at_most, *(value for pair in rooms.items() for value in pair)]
        taken: list[str] = []
        if rooms and at_most > 0:  # durable: nothing is announced that could still be lost with the primary
            taken = self._redis.script("claim_delivery", names, args, durable=True)
        return taken

    def postpone(self, lane: Lane, until: Mapping[str, float]) -> None:
        """Visit endpoints again at these times, and not before, unless something fresh is owed to them."""
        if until:
            words = [word for endpoint, at in until.items() for word in (at, endpoint)]
            self._redis.anyway(LaneKeys(lane).owing, "ZADD", "XX", *words)

    def next_visit(self, lanes: Iterable[Lane]) -> float | None:
        """When the next endpoint of any lane is worth a visit; None if nothing is owed."""
        pipe = self._redis.pipeline()
        for lane in lanes:
            for place in (LaneKeys(lane).owed, LaneKeys(lane).owing):  # the inbox may hold more than one sorting takes
                pipe.zrange(place, 0, 0, withscores=True)
        with self._redis.errors():
            times = [at for row in pipe.execute() for _, at in row]
        return min(times, default=None)

    def load(self, lane: Lane, names: Sequence[str], scores: Iterable[float | None] = ()) -> list[Debt]:
        """Read debts in one round trip. What of them is gone or unreadable reads as never tried."""
        keys, pipe = LaneKeys(lane), self._redis.pipeline()
        for name in names:
            pipe.hgetall(keys.delivery(name))
            pipe.hmget(keys.task(task_of(name)), f"to:{name.partition(':')[0]}", "state", "closed")
        rows = self._redis.answers(pipe)
        times = [*scores] or [None] * len(names)
        return [_debt(name, lane, *row) for name, *row in zip(names, rows[::2], rows[1::2], times, strict=True)]

    def paid(self, lane: Lane, token: str, now: float, tries: Sequence[Try], retention: float) -> int:
        """Strike debts off. Returns how many were still ours."""
        keys = LaneKeys(lane)
        names = [keys.debt_leases, keys.counts, *_of_each(keys, [each.name for each in tries], "queue")]
        args = [value for each in tries for value in (each.name, each.outcome, each.log)]
        return int(self._redis.script("paid", names, [now, token, int(retention), *args]))

    def later(self, lane: Lane, token: str, tries: Sequence[Later]) -> int:
        """Put debts back until their next try. Returns how many were still ours."""
        keys = LaneKeys(lane)
        names, args = [keys.owing, keys.debt_leases], list[Any]([token])
        for each in tries:
            endpoint = endpoint_in(each.name)
            names += [keys.delivery(each.name), keys.queue(endpoint), keys.retries(endpoint)]
            args += [each.name, endpoint, each.at, int(each.charged), each.outcome, each.log]
        return int(self._redis.script("later", names, args))

    def bury(self, lane: Lane, token: str, now: float, tries: Sequence[Try], kept_for: float) -> int:
        """Lay debts into the dead letters, each with its reason. Returns how many were still ours."""
        keys = LaneKeys(lane)
        names = [keys.debt_leases, keys.dead, keys.counts, *_of_each(keys, [each.name for each in tries], "queue")]
        args = [value for each in tries for value in (each.name, each.outcome, each.log)]
        return int(self._redis.script("bury", names, [now, token, int(kept_for), *args]))

    def reopen(self, lane: Lane, times: Mapping[str, float], *, dead: bool) -> list[str]:
        """Owe again, from these times on, what is dead (or else: what was paid). Returns those that were reopened."""
        keys = LaneKeys(lane)
        names = [keys.owing, keys.dead, *_of_each(keys, list(times), "retries")]
        args = [value for name, at in times.items() for value in (name, endpoint_in(name), at)]
        done = self._redis.script("reopen", names, ["dead" if dead else "paid", *args], durable=True) if times else []
        return [name for name, reopened in zip(times, done, strict=True) if reopened]

    def reowe(self, lane: Lane, now: float, at_most: int) -> list[str]:
        """Compare the next `at_most` ended ids with what is owed, and owe what is missing. Returns that."""
        keys = LaneKeys(lane)
        with self._redis.errors():
            start = int(self._redis.redis.get(keys.swept) or 0)
            ids: list[str] = self._redis.redis.zrange(keys.ended, start, start + at_most - 1)  # type: ignore[assignment]
        rows = self._redis.script("unclosed", [keys.task(task_id) for task_id in ids], []) if ids else []
        forgotten = [task_id for task_id, row in zip(ids, rows, strict=True) if row is None]
        open_debts = [debt_of(one, task_id) for task_id, row in zip(ids, rows, strict=True) for one in (row or "").split()]
        missing: list[str] = []
        if open_debts:
            names, args = [keys.owed, keys.owing, keys.debt_leases], list[Any]([now])
            for debt in open_debts:
                names += [keys.task(task_of(debt)), keys.queue(endpoint_in(debt)), keys.retries(endpoint_in(debt))]
                args += [debt, endpoint_in(debt)]
            missing = self._redis.script("reowe", names, args)
        with self._redis.errors():
            if forgotten:
                self._redis.redis.zrem(keys.ended, *forgotten)
            on = start + len(ids) - len(forgotten) if len(ids) == at_most else 0
        if on != start:
            self._redis.anyway(keys.swept, "SET", on)
        return missing

    def to_sweep(self, lane: Lane) -> int:
        """How many ended ids lie before `reowe` comes to the end of a lane, and begins anew."""
        keys = LaneKeys(lane)
        with self._redis.errors():
            return self._redis.redis.zcard(keys.ended) - int(self._redis.redis.get(keys.swept) or 0)

    def notify(self, task_id: str, webhook: str, said: str, now: float) -> bool:
        """Owe a notice of our own, a JSON text, in the lane OPERATIONS. False if that id was used before."""
        keys, subscription = LaneKeys(OPERATIONS), subscription_of(webhook)
        names = [keys.owed, keys.ended, keys.task(task_id), keys.result(task_id)]
        return bool(self._redis.script("notify", names, [now, task_id, subscription, webhook if is_url(webhook) else "", said]))

    def ended_since(self, lane: Lane, since: float, offset: int, at_most: int) -> list[tuple[str, float, str]]:
        """Ids that ended at or after `since`, in that order, each with when it did and what it is subscribed to."""
        keys = LaneKeys(lane)
        with self._redis.errors():
            ranked = self._redis.redis.zrangebyscore(keys.ended, since, "+inf", offset, at_most, withscores=True)
            pairs: list[tuple[str, float]] = list(ranked)  # type: ignore[arg-type]
            pipe = self._redis.pipeline()
            for task_id, _ in pairs:
                pipe.hget(keys.task(task_id), "webhooks")
            rows = pipe.execute() if pairs else []
        return [(task_id, at, webhooks or "") for (task_id, at), webhooks in zip(pairs, rows, strict=True)]

    def hasten(self, lane: Lane, endpoint: str, now: float) -> None:
        """Let the debts of an endpoint that wait for a retry be due now."""
        keys = LaneKeys(lane)
        with self._redis.errors():
            while waiting := self._redis.redis.zrangebyscore(keys.retries(endpoint), f"({now}", "+inf", 0, PAGE):
                self._redis.redis.zadd(keys.retries(endpoint), {str(debt): now for debt in waiting}, xx=True)

    def examples(self, lane: Lane, endpoints: Iterable[str]) -> list[Debt]:
        """One open debt of each of these endpoints, where the lane has one."""
        keys, pipe, endpoints = LaneKeys(lane), self._redis.pipeline(), list(endpoints)
        pipe.zrange(keys.owed, 0, SORTED_AT_ONCE - 1)
        for endpoint in endpoints:
            pipe.zrange(keys.queue(endpoint), 0, 0)
            pipe.zrange(keys.retries(endpoint), 0, 0)
        with self._redis.errors():
            found = {endpoint_in(debt): debt for row in pipe.execute() for debt in row}
        return self.load(lane, [found[endpoint] for endpoint in endpoints if endpoint in found])

    def waiting(self, lane: Lane) -> dict[str, int]:
        """How many debts wait in the queues, by endpoint; those just owed count under their endpoint too."""
        keys = LaneKeys(lane)
        with self._redis.errors():
            inbox: list[str] = self._redis.redis.zrange(keys.owed, 0, -1)  # type: ignore[assignment]
            endpoints: list[str] = self._redis.redis.zrange(keys.owing, 0, -1)  # type: ignore[assignment]
            pipe = self._redis.pipeline()
            for endpoint in endpoints:
                pipe.zcard(keys.queue(endpoint))
                pipe.zcard(keys.retries(endpoint))
            rows = pipe.execute() if endpoints else []
        found = {name: queue + retries for name, queue, retries in zip(endpoints, rows[::2], rows[1::2], strict=True)}
        found = {name: number for name, number in found.items() if number}
        for debt in inbox:
            found[endpoint_in(debt)] = found.get(endpoint_in(debt), 0) + 1
        return found

    def dead(self, lane: Lane, at_most: int = PAGE, offset: int = 0) -> list[Debt]:
        """The dead letters of a lane, the newest first."""
        with self._redis.errors():
            ranked = self._redis.redis.zrevrange(LaneKeys(lane).dead, offset, offset + at_most - 1, withscores=True)
        pairs: list[tuple[str, float]] = list(ranked)  # type: ignore[arg-type]
        return self.load(lane, [name for name, _ in pairs], [at for _, at in pairs]) if pairs else []

    def drop(self, lane: Lane, names: Sequence[str]) -> int:
        """Forget dead letters for good. Returns how many there were."""
        keys = LaneKeys(lane)
        pipe = self._redis.pipeline()
        for name in names:
            pipe.zrem(keys.dead, name)
        with self._redis.errors():
            dropped = [name for name, was_dead in zip(names, pipe.execute(), strict=True) if was_dead]
            if dropped:
                self._redis.redis.delete(*map(keys.delivery, dropped))
        return len(dropped)

    def forget_dead(self, lane: Lane, before: float) -> int:
        """Forget dead letters that died before this time: their records are forgotten by then. Returns how many there were."""
        with self._redis.errors():
            return int(self._redis.redis.zremrangebyscore(LaneKeys(lane).dead, "-inf", before))


def _of_each(keys: LaneKeys, names: Sequence[str], place: str) -> list[str]:
    """Delivery, task, result and queue (or retries) of each debt, as the scripts want them."""
    found = []
    for name in names:
        endpoint, task_id = endpoint_in(name), task_of(name)
        last = keys.queue(endpoint) if place == "queue" else keys.retries(endpoint)
        found += [keys.delivery(name), keys.task(task_id), keys.result(task_id), last]
    return found


def _debt(name: str, lane: Lane, row: Any, about: Any, at: float | None) -> Debt:
    url, ended, closed = about if isinstance(about, list) else (None, None, None)
    # A paid delivery may be forgotten before its task, which knows that much.
    paid = name.partition(":")[0] in (closed or "").split()
    state = "paid" if paid else "waiting" if ended == State.PENDING else "owed"
    try:
        state, log = row.get("state") or state, row.get("log", "")
        return Debt(name, lane, url or "", int(row.get("tries") or 0), state, row.get("outcome", ""), at, log)
    except (AttributeError, ValueError):  # an error of Redis in place of the row, or a number that is none
        return Debt(name, lane, url or "", 0, state, "what was tried is unreadable", at)
