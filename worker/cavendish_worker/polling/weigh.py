"""Weighs what waits in a lane: is a batch of it worth a call, and if not, when is the next look."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from cavendish.errors import StoreUnavailable
from cavendish.model import Candidate, Lane
from cavendish.policy.fair_share import Bid, CallShares, fair_share
from cavendish.policy.next_poll import CALL_PRICE, call_price
from cavendish.policy.rate_limit import RateLimit
from cavendish.store.candidates import Waiting
from cavendish.store.due_index import Place
from cavendish.store.forecasts import Forecasts

#: Seconds until the next look at a lane whose batch gains worth, at least; and at a lane that
#: cannot be read.
GAIN, UNREADABLE = 0.04, 5.0


@dataclass(frozen=True, slots=True)
class Weighed:
    """The batch of one lane, with its bid if it is worth a call, and when to look again if not."""

    waiting: Waiting
    batch: list[Candidate]
    bid: Bid | None
    look_at: float

    @property
    def lane(self) -> Lane:
        return self.waiting.lane

    def places(self, at: float) -> Iterable[Place]:
        """The lane in the due index: of each producer that has pending ids in it."""
        for producer, first_at in self.waiting.first_at.items():
            yield Place(producer, self.lane, None if first_at is None else at)

    def rest(self) -> Waiting:
        """What waits in the lane behind this batch."""
        taken = {one.id for one in self.batch}
        left = [one for one in self.waiting.candidates if one.id not in taken]
        return replace(self.waiting, candidates=left)

    def after_claim(self, claimed: int, now: float, until: float) -> float:
        """When to look again after a claim until `until`; its turn is over where more waits."""
        if len(self.waiting.candidates) > claimed or claimed >= self.waiting.size:
            return now
        return min([until, *_ahead(self.waiting, now)])


@dataclass(frozen=True, slots=True)
class Scales:
    """Weighs the lanes of one account by its rate limit and by what its producers used of it.

    `workers`: how many make the calls.
    """

    forecasts: Forecasts
    limit: RateLimit
    shares: CallShares
    now: float
    workers: int = 1

    def charged(self, one: Weighed) -> Scales:
        """The same once the producers of a batch are charged for its call."""
        worths = one.bid.worths if one.bid else {}
        return replace(self, shares=self.shares.charged(worths, self.now, self.limit.recent))

    def weigh(self, waiting: Waiting, since: float) -> Weighed:
        """Weigh a lane whose turn began at `since`. Raises StoreUnavailable.

        One that cannot be weighed has an error then: it must not stop the others.
        """
        if waiting.error is None:
            try:
                return self._weigh(waiting, since)
            except StoreUnavailable:
                raise
            except Exception as error:
                waiting.error = error
        return Weighed(waiting, [], None, self.now + UNREADABLE)

    def _weigh(self, waiting: Waiting, since: float) -> Weighed:
        now = self.now
        if waiting.down_until > now:
            return Weighed(waiting, [], None, waiting.down_until)
        batch = fair_share(waiting.candidates, waiting.size, now)
        ahead = list(_ahead(waiting, now))
        if not batch:
            return Weighed(waiting, [], None, min(ahead, default=now + UNREADABLE))
        gathers_until = self._gathers_until(waiting, batch)
        worths = self._worths(waiting.lane, batch, gathering=gathers_until > now)
        value = sum(worth / self._price(name) for name, worth in worths.items())
        if value >= 1:
            return Weighed(waiting, batch, Bid(worths, since), now)
        ahead += [one.deadline_at for one in batch if one.deadline_at > now]
        ahead += [gathers_until] if gathers_until > now else []
        return Weighed(
            waiting, batch, None, min([self._worth_at(waiting.lane, batch, worths, value), *ahead])
        )

    def _gathers_until(self, waiting: Waiting, batch: list[Candidate]) -> float:
        """Until when the announced ids of a batch wait for others; 0: they do not."""
        announced = [one.wanted_at for one in batch if one.is_announced and one.due <= self.now]
        if len(announced) >= waiting.size:
            return 0.0
        callbacks = self.forecasts.callbacks(waiting.lane, self.now)
        return callbacks.gathers_until(announced, self.now)

    def _worths(
        self, lane: Lane, batch: list[Candidate], *, gathering: bool = False
    ) -> dict[str, float]:
        """What a call about a batch is worth to each producer; infinite for a last poll."""
        by_producer: dict[str, list[Candidate]] = defaultdict(list)
        for one in batch:
            by_producer[one.producer].append(one)
        worths = {}
        for name, some in by_producer.items():
            last_poll = any(one.due <= self.now and one.deadline_at <= self.now for one in some)
            worth = self.forecasts.worth(lane, some, self.now, gathering=gathering)
            worths[name] = math.inf if last_poll else worth
        return worths

    def _price(self, producer: str) -> float:
        used_share = self.shares.used_share(producer, self.limit, self.now)
        return call_price(used_share, self.limit.used(self.now) / self.workers)

    def _worth_at(
        self, lane: Lane, batch: list[Candidate], worths: dict[str, float], value: float
    ) -> float:
        """When a batch is worth a call, or earlier.

        The price falls when calls are used less; so the time doubles at most from one look to the
        next.
        """
        worth = sum(worths.values())
        price = CALL_PRICE if worth < CALL_PRICE else worth / value
        at = self.forecasts.worth_at(lane, batch, price / len(batch), self.now)
        elapsed = self.now - max(one.polled_at or one.submitted_at for one in batch)
        return max(min(at, self.now + elapsed), self.now + GAIN)


def _ahead(waiting: Waiting, now: float) -> Iterable[float]:
    return (at for at in waiting.first_at.values() if at is not None and at > now)
