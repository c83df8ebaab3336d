"""One round of the dispatch: ask the rate limit of an account, claim the ids that are most worth a
poll, and send them as batches.

Each account has an index of its lanes by the time at which they are worth a look, for each
producer. A round reads the first lanes of the producers that were charged the fewest calls, so its
cost does not grow with the number of lanes, and a producer with many lanes has no more than one
share of the calls.

A batch is sent when a poll of its ids is worth the price of a call. The price is low while calls
are plentiful, and rises with the used share of the rate limit: near the limit, a batch waits until
it holds more ids. Where many calls are allowed, a round makes several batches, also of one lane.
"""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from cavendish.model import Lane
from cavendish.policy.fair_share import CallShares, next_call
from cavendish.policy.operator_controls import LOOK_AGAIN, Controls
from cavendish.policy.rate_limit import RateLimit, acquire, take
from cavendish.policy.service_health import probing
from cavendish.store import Store
from cavendish.store.candidates import Waiting
from cavendish.store.due_index import Place
from cavendish.store.forecasts import Forecasts
from cavendish_worker.polling.backlog import Backlog
from cavendish_worker.polling.weigh import Scales, Weighed
from cavendish_worker.telemetry.logs import report_unreadable
from cavendish_worker.telemetry.metrics import recorded

#: Producers, and lanes of all of them, that one round looks at: those that were charged the least.
_PRODUCERS, _LANES = 8, 16
#: Batches that one round sends at most; and batches that may wait for each worker: what waits for
#: long is chosen too early.
_BATCHES, _WAITING = 16, 6
#: Seconds until the next round if the workers are behind; and for which a round weighs by the rate
#: limit that it knows: the calls themselves are taken from what is there.
_BUSY, _KNOWN_FOR = 0.05, 0.2
#: Ids whose deadlines a round drops at most in a lane in which nothing is pending any more.
_DROPPED = 500


@dataclass(frozen=True, slots=True)
class RoundConfig:
    """The settings of a round: ids, seconds, and calls per second (0: no ceiling).

    `rate` counts for accounts for which no operator has set another ceiling.
    """

    batch_size: int
    lease: float
    rate: float


class Claimed(NamedTuple):
    """A batch of which these `ids` were leased under `token`, `until` a time."""

    lane: Lane
    ids: list[str]
    token: str
    until: float


#: Sends claimed batches to the workers. If it raises, none counts as sent.
Send = Callable[[Sequence[Claimed]], None]


@dataclass(slots=True)
class Dispatched:
    """What one tick sent."""

    batches: int = 0
    ids: int = 0

    def __str__(self) -> str:
        """What Flower shows."""
        return f"{self.batches} batches · {self.ids} ids" if self.batches else "nothing due"


@dataclass(slots=True)
class Rounds:
    """Makes rounds, in one thread at a time.

    `backlog`: the batches that no worker has begun with; `workers`: how many there are; `shares`:
    by account, what each producer used of its calls.
    """

    store: Store
    forecasts: Forecasts
    config: RoundConfig
    backlog: Backlog = field(default_factory=Backlog)
    workers: int = 1
    shares: dict[str, CallShares] = field(default_factory=dict)
    _charges: deque[tuple[str, str]] = field(default_factory=deque)

    def charge(self, account: str, producer: str) -> None:
        """Charge a producer for a call that a retrieve made. Other threads may call this."""
        self._charges.append((account, producer))

    def run(self, account: str, now: float, send: Send, did: Dispatched) -> float:
        """Send the batches of an account that the next calls belong to.

        Only the lanes are read that are worth a look. Returns the seconds until the next round.
        """
        controls, index = self.store.controls.known(), self.store.tasks.due(account)
        if pause := controls.account_pause(account, now):
            return pause.left(now)
        groups = index.groups()
        if not groups or groups[0][1] > now:
            return groups[0][1] - now if groups else math.inf
        limit = self.store.shared_state.rate_limit(account, known_for=_KNOWN_FOR)
        ceiling = controls.ceiling_of(account, self.config.rate)
        calls = take(limit, now, _BATCHES, ceiling)[1]
        if not calls:
            return acquire(limit, now, ceiling)[1]
        calls = self.backlog.room(calls, _WAITING * self.workers, now)
        if not calls:
            return _BUSY
        shares = self._shares_of(account, limit, now)
        some = _first_served([name for name, at in groups if at <= now], shares)
        places, put_off = _split(index.due(some, now, _LANES // len(some)), controls, now)
        scales = Scales(self.forecasts, limit, shares, now, max(self.workers, 1))
        weighed = self._weigh(places, scales, calls)
        looks = {place[:2]: place for place in [*put_off, *_looks(places, weighed)]}
        chosen = _choose(weighed, scales, calls)
        before = did.batches
        try:
            chosen = chosen[: self._take_calls(account, now, len(chosen), ceiling)]
            for one in chosen:
                scales = scales.charged(one)
            self.shares[account] = scales.shares
            for one, sent in self._send(chosen, now, send, did):
                after = one.after_claim(sent, now, now + self.config.lease)
                looks |= {place[:2]: place for place in one.places(after)}
        finally:
            next_at = index.looked_at(list(looks.values()), now)
        if did.batches > before:
            return 0.0
        return math.inf if next_at is None else max(next_at - now, 0.0)

    def _shares_of(self, account: str, limit: RateLimit, now: float) -> CallShares:
        for _ in range(len(self._charges)):
            charged, producer = self._charges.popleft()
            shares = self.shares.get(charged, CallShares())
            self.shares[charged] = shares.charged({producer: 1.0}, now, limit.recent)
        return self.shares.get(account, CallShares()).faded(now, limit.recent)

    def _weigh(self, places: Sequence[Place], scales: Scales, calls: int) -> list[Weighed]:
        """Weigh the lanes of these places; a lane that cannot be read is logged.

        `calls`: how many batches may be made of them.
        """
        since: dict[Lane, float] = {}
        for place in places:
            since.setdefault(place.lane, scales.now if place.at is None else place.at)
        size = self.config.batch_size
        found = self.store.tasks.waiting(list(since), scales.now, size, calls)
        weighed = [scales.weigh(waiting, since[lane]) for lane, waiting in found.items()]
        for one in weighed:
            if one.waiting.error is not None:
                report_unreadable(one.lane, one.waiting.error)
        self._drop_deadlines([one.waiting for one in weighed if one.waiting.ended], scales.now)
        return weighed

    def _drop_deadlines(self, ended: Sequence[Waiting], now: float) -> None:
        """Nothing is pending any more in these lanes; a reconcile run drops the rest."""
        gone = [
            Place(one.lane.account, one.lane, None)
            for one in ended
            if self.store.deadlines.drop_ended(one.lane, _DROPPED)
        ]
        if gone:
            self.store.deadlines.index.looked_at(gone, now)

    def _take_calls(self, account: str, now: float, wanted: int, ceiling: float) -> int:
        """Take up to so many calls; returns how many may be sent."""
        if not wanted:
            return 0
        return self.store.shared_state.change_rate_limit(
            account, lambda known: take(known, now, wanted, ceiling)
        )

    def _send(
        self, chosen: Sequence[Weighed], now: float, send: Send, did: Dispatched
    ) -> list[tuple[Weighed, int]]:
        """Claim batches and send them; each with how many of its ids could still be claimed."""
        until = now + self.config.lease
        batches = [(one.lane, secrets.token_hex(8), one.batch) for one in chosen]
        claims = self.store.tasks.claim_all(until, batches) if batches else []
        sent, claimed = list[tuple[Weighed, int]](), list[tuple[Weighed, Claimed]]()
        for one, (lane, token, _), ids in zip(chosen, batches, claims, strict=True):
            if isinstance(ids, Exception):
                report_unreadable(lane, ids)
            elif ids:
                claimed.append((one, Claimed(lane, ids, token, until)))
                continue
            sent.append((one, 0))
        try:
            if claimed:
                send([each for _, each in claimed])
        except Exception:  # the broker is away: do not let the ids wait until the leases run out
            for one, each in claimed:
                some = [candidate for candidate in one.batch if candidate.id in each.ids]
                self.store.tasks.release(each.lane, each.token, some, now)
            raise
        for one, each in claimed:
            sent.append((one, len(each.ids)))
            self._count(one, frozenset(each.ids), now, did)
        return sent

    def _count(self, one: Weighed, ids: Set[str], now: float, did: Dispatched) -> None:
        """Count a batch that was sent; if its service fails, all others wait for its answer."""
        self.backlog.sent()
        did.batches += 1
        did.ids += len(ids)
        wanted_at = [each.wanted_at for each in one.batch if each.id in ids]
        recorded.claimed(one.lane.service, wanted_at, now)
        if one.waiting.failing:
            self.store.shared_state.change_service_health(
                one.lane, lambda known: (probing(known, now), None)
            )


def _choose(weighed: Iterable[Weighed], scales: Scales, calls: int) -> list[Weighed]:
    """The batches that so many calls belong to, in their order; several may be of one lane."""
    bids = {one.lane: (one, one.bid) for one in weighed if one.bid}
    chosen: list[Weighed] = []
    while bids and len(chosen) < calls:
        some = list(bids.values())
        one, bid = some[next_call([bid for _, bid in some], scales.shares, scales.now)]
        chosen.append(one)
        scales = scales.charged(one)
        rest = one.rest()
        del bids[one.lane]
        if rest.candidates and not rest.failing and len(chosen) < calls:
            again = scales.weigh(rest, bid.since)
            if again.bid:
                bids[one.lane] = again, again.bid
    return chosen


def _first_served(producers: Iterable[str], shares: CallShares) -> list[str]:
    """The producers that were charged the fewest calls."""
    return sorted(producers, key=lambda name: shares.used.get(name, 0.0))[:_PRODUCERS]


def _split(
    places: Sequence[Place], controls: Controls, now: float
) -> tuple[list[Place], list[Place]]:
    """The places that may be asked about, and those of paused services with their next look."""
    pauses = [controls.pause_of(place.lane.account, place.lane.service, now) for place in places]
    pairs = list(zip(places, pauses, strict=True))
    put_off = [
        place._replace(at=now + min(pause.left(now), LOOK_AGAIN)) for place, pause in pairs if pause
    ]
    return [place for place, pause in pairs if pause is None], put_off


def _looks(places: Iterable[Place], weighed: Iterable[Weighed]) -> Iterator[Place]:
    """When the next look is for the places that were looked at.

    A lane that is worth a call keeps its turn; a place that its lane does not know is empty.
    """
    by_lane = {one.lane: one for one in weighed}
    for place in places:
        one = by_lane[place.lane]
        if one.waiting.error is not None:
            yield place._replace(at=one.look_at)
        elif one.waiting.first_at.get(place.group) is None:
            yield place._replace(at=None)
    for one in by_lane.values():
        if one.bid is None:
            yield from one.places(one.look_at)
