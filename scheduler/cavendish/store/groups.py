"""Groups of ids: which ids joined one, how they ended, and its completion.

All of a group lies in one slot, in a lane of its account that has no other ids, and is kept as a
tracked task is: it is pending until as many ids have ended as it has, and then its webhooks are
deliveries like any other. Ids join before their records are written. The end of an id reaches its
group as a delivery does, whose endpoint is `webhook_endpoint.GROUP`: it is owed from the same step
on in which the end is written, and repeated until it is counted.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from cavendish.endpoints.webhook_endpoint import is_url, subscription_of
from cavendish.model import GROUPS, Group, Lane, State
from cavendish.store.connection import Connection
from cavendish.store.due_index import DueIndex, Place
from cavendish.store.keys import DELIVERIES, LANES, LaneKeys, delivery_of
from cavendish.submission import GROUP_SIZE, SubmitOptions

#: Seconds for which a group is kept at least that does not complete, after the last deadline of its
#: ids and after the last of them ended.
OPEN_FOR = 7 * 86400


class IdEnd(NamedTuple):
    """That an id has ended, as its group counts it."""

    group: str
    service: str
    id: str
    state: State


class Groups:
    """Every method raises StoreUnavailable. `retention`: seconds for which what ended is kept."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._redis, self._shards = connection, shards
        self._deliveries = DueIndex(connection, DELIVERIES)

    def lane(self, account: str, name: str) -> Lane:
        """The lane in which a group lies; its id there is its name."""
        return Lane.of(account, GROUPS, name, self._shards)

    def join(
        self, ids: Sequence[str], options: SubmitOptions, now: float, retention: float
    ) -> str | None:
        """Let the ids of a submit join its group, with the webhooks of the submit.

        Returns a sentence that says why none of them may; ids that joined before stay in it.
        """
        lane = self.lane(options.account, options.group)
        keys, name = LaneKeys(lane), options.group
        subscriptions = [subscription_of(one) for one in options.webhooks]
        names = [keys.inbox, keys.ended, keys.events, keys.dead, keys.common, keys.common_open]
        names += [keys.members(name), keys.task(name), keys.result(name)]
        names += [keys.delivery(delivery_of(one, name)) for one in subscriptions]
        args: list[Any] = [repr(now), name, options.group_size or "", GROUP_SIZE]
        args += [repr(round(now + options.deadline, 3)), *_kept_for(retention), len(subscriptions)]
        for one, subscription in zip(options.webhooks, subscriptions, strict=True):
            args += subscription, one if is_url(one) else ""
        batch = self._redis.batch()
        # The indices first: the group may be complete already, and then its webhooks are pending.
        self._deliveries.note_in(batch, [Place(lane.account, lane, now)], now)
        batch.command(LANES, "SADD", LANES, str(lane))
        batch.before_all_else()
        batch.queue("join_group", names, args + [_member(options.service, each) for each in ids])
        return _complaint(options, *batch.execute()[-1])

    def end(
        self, account: str, ends: Iterable[IdEnd], now: float, retention: float
    ) -> tuple[set[str], dict[str, Exception]]:
        """Count ids that ended, each once, however often it is told.

        Returns the groups that these completed, and by group why its ends could not be counted.
        Ends are counted for good on return: replicas have them, where the settings ask for that.
        """
        by_group: dict[str, list[IdEnd]] = {}
        for one in ends:
            by_group.setdefault(one.group, []).append(one)
        lanes = {name: self.lane(account, name) for name in by_group}
        places = [Place(account, lane, now) for lane in sorted(set(lanes.values()))]
        self._deliveries.note(places, now)
        runs = []
        for name, some in by_group.items():
            keys = LaneKeys(lanes[name])
            names = [keys.inbox, keys.ended, keys.events]
            names += [keys.members(name), keys.task(name), keys.result(name)]
            args: list[Any] = [repr(now), name, *_kept_for(retention)]
            for one in some:
                args += _member(one.service, one.id), one.state.value
            runs.append((names, args))
        answers = dict(zip(by_group, self._redis.scripts("count_ends", runs), strict=True))
        for place in places:
            self._redis.ensure(LaneKeys(place.lane).inbox)
        failed = {name: each for name, each in answers.items() if isinstance(each, Exception)}
        return {name for name, each in answers.items() if each == 1}, failed

    def keep(
        self, account: str, names: Iterable[str], deadline_at: float, now: float, retention: float
    ) -> None:
        """Keep groups for ids that are about to get another deadline."""
        runs = []
        for name in set(names):
            keys = LaneKeys(self.lane(account, name))
            args = [repr(now), repr(deadline_at), _kept_for(retention)[0]]
            runs.append(([keys.task(name), keys.members(name)], args))
        if runs:
            self._redis.scripts("keep_group", runs)

    def get(self, account: str, name: str) -> Group | None:
        """A group; None if it is not kept, or unreadable."""
        key = LaneKeys(self.lane(account, name)).task(name)
        pipe = self._redis.pipeline()
        pipe.hgetall(key)
        (fields,) = self._redis.answers(pipe)
        with suppress(ValueError, KeyError):
            return _group(account, name, fields) if isinstance(fields, dict) else None
        return None


def _group(account: str, name: str, fields: dict[str, str]) -> Group:
    counts = {each.value: int(fields.get(f"ended:{each.value}") or 0) for each in State}
    return Group(
        name,
        account,
        size=int(fields["size"]) if "size" in fields else None,
        joined=int(fields["joined"]),
        counts={state: number for state, number in counts.items() if number},
        first_submitted_at=float(fields["submitted_at"]),
        completed_at=float(fields["settled_at"]) if "settled_at" in fields else None,
    )


def _kept_for(retention: float) -> tuple[int, int]:
    """Seconds for which a group is kept that does not complete, and one that did."""
    return max(int(retention), OPEN_FOR), int(retention)


def _member(service: str, task_id: str) -> str:
    """How a group notes an id: shorter than most ids, and it tells nothing of it."""
    digest = hashlib.sha256(f"{service}\0{task_id}".encode()).digest()[:12]
    return urlsafe_b64encode(digest).decode()


def _complaint(options: SubmitOptions, word: str, number: int, most: int = 0) -> str | None:
    if word == "size":
        return f"The group {options.group!r} has the size {number}, not {options.group_size}."
    if word == "full":
        has = f"The group {options.group!r} would have {number} ids with this submit"
        return f"{has}, and it may have {most}."
    return None
