"""Closed deliveries in the store: the dead letters, and what is reopened to be sent again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cavendish.endpoints.webhook_endpoint import endpoint_in
from cavendish.model import Lane
from cavendish.operator_act import OperatorAct
from cavendish.store.connection import Connection
from cavendish.store.deliveries import PAGE, Deliveries
from cavendish.store.delivery_reader import Delivery
from cavendish.store.due_index import Place
from cavendish.store.keys import LaneKeys
from cavendish.stored_json import line_of


class Closed:
    """Deliveries that are delivered or dead. Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection, deliveries: Deliveries) -> None:
        self._redis, self._deliveries = connection, deliveries

    def dead(
        self, lane: Lane, at_most: int = PAGE, offset: int = 0, before: float = math.inf
    ) -> list[Delivery]:
        """The dead letters of a lane, the newest first; only those from before a time."""
        ranked = self.dead_names(lane, at_most, offset, before)
        names, times = [name for name, _ in ranked], [at for _, at in ranked]
        return self._deliveries.load(lane, names, times) if ranked else []

    def dead_names(
        self, lane: Lane, at_most: int = PAGE, offset: int = 0, before: float = math.inf
    ) -> list[tuple[str, float]]:
        """The same as names, each with when it became a dead letter; the deliveries are not read.

        It costs the same however many are passed over. A damaged key has none.
        """
        words = [repr(before), offset, at_most]
        (answer,) = self._redis.scripts("dead_before", [([LaneKeys(lane).dead], words)])
        flat = answer if isinstance(answer, list) else []
        return [(name, float(at)) for name, at in zip(flat[::2], flat[1::2], strict=True)]

    def count_dead(self, lane: Lane, since: float, before: float) -> int:
        """How many became dead letters at `since` or later, and before a time."""
        pipe = self._redis.pipeline()
        pipe.zcount(LaneKeys(lane).dead, since, f"({before}")
        (answer,) = self._redis.answers(pipe)
        return answer if isinstance(answer, int) else 0

    def died_at(self, lane: Lane, names: Sequence[str]) -> list[float | None]:
        """When each became a dead letter; None for what is none, or cannot be read."""
        pipe = self._redis.pipeline()
        for name in names:
            pipe.zscore(LaneKeys(lane).dead, name)
        answers = self._redis.answers(pipe)
        return [at if isinstance(at, float) else None for at in answers]

    def drop(self, lane: Lane, names: Sequence[str]) -> list[str]:
        """Delete dead letters; those that there were."""
        keys = LaneKeys(lane)
        pipe = self._redis.pipeline()
        for name in names:
            pipe.zrem(keys.dead, name)
        with self._redis.errors():
            were_dead = pipe.execute()
            dropped = [name for name, was in zip(names, were_dead, strict=True) if was]
            if dropped:
                self._redis.redis.delete(*map(keys.delivery, dropped))
        return dropped

    def forget_dead(self, lane: Lane, before: float) -> int:
        """Delete dead letters from before this time, whose records expired; how many there were."""
        with self._redis.errors():
            return int(self._redis.redis.zremrangebyscore(LaneKeys(lane).dead, "-inf", before))

    def reopen(
        self, lane: Lane, times: Mapping[str, float], *, dead: bool, act: OperatorAct | None = None
    ) -> list[str]:
        """Make closed deliveries pending again, each from its time on; which ones became pending.

        `dead`: only dead letters, else only delivered ones. `act`: what is noted of it in the
        records of their tasks.
        """
        if not times:
            return []
        first_at = min(times.values())
        self._deliveries.index.note([Place(lane.account, lane, first_at)], first_at)
        keys = LaneKeys(lane)
        names = [keys.endpoint_index, keys.dead, keys.common_open]
        args = ["dead" if dead else "delivered", line_of(act)]
        for name, at in times.items():
            endpoint = endpoint_in(name)
            names += [*keys.of_delivery(name), keys.retries(endpoint)]
            args += [name, endpoint, repr(at)]
        reopened = self._redis.script("reopen", names, args, durable=True)
        return [name for name, done in zip(times, reopened, strict=True) if done]

    def ended_since(
        self, lane: Lane, since: float, offset: int, at_most: int
    ) -> list[tuple[str, float, str]]:
        """Ids with webhooks that ended at `since` or later, in this order.

        Each with when it ended and its subscriptions, joined by spaces.
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
            rows = pipe.execute()
        return [(*pair, webhooks or "") for pair, webhooks in zip(pairs, rows, strict=True)]
