"""What each producer has in the store, counted over all lanes, and its quota."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress

from cavendish.errors import QuotaExceeded, StoreUnavailable
from cavendish.model import TrackedTask
from cavendish.policy.producer_quota import (
    HOUR,
    HourlyUsage,
    ProducerQuota,
    Usage,
    complaint,
    of_end,
    of_ends,
    of_submit,
    summed,
)
from cavendish.store import keys
from cavendish.store.connection import Batch, Connection
from cavendish.submission import SubmitOptions

#: Producers that are read at most: anybody may name any number of them.
MOST = 50


class ProducerUsage:
    """Counts ids and bytes to producers. Every method raises StoreUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def reserve(
        self,
        ids: int,
        options: SubmitOptions,
        quota: ProducerQuota,
        retention: float,
        now: float,
        known: Callable[[], int],
        own_bytes: int = 0,
    ) -> int | None:
        """Count a submit of so many ids before it is stored; returns how many ids were counted,
        None without a limit.

        `known()`: how many of them are stored already; it is asked if there is no room for all,
        since a submit may be repeated at any time. `retention`: seconds for which records are kept.
        `own_bytes`: those of the metadata that ids have of their own. Raises QuotaExceeded.
        """
        if not (quota.limited and ids):
            return None
        refused = self._reserve(ids, options, quota, retention, now, own_bytes)
        if refused and (there := known()):
            ids -= there
            if not ids:
                return 0
            refused = self._reserve(ids, options, quota, retention, now, own_bytes)
        if refused:
            raise QuotaExceeded(refused)
        return ids

    def submitted(
        self,
        counted: int | None,
        new: int,
        options: SubmitOptions,
        retention: float,
        now: float,
        own_bytes: int = 0,
    ) -> None:
        """Count as many ids of a submit as were new; without any, nothing that they share.

        `own_bytes`: those of the metadata of the other ids, which was not stored. Does nothing
        while Redis is away.
        """
        if counted is not None and (counted != new or (counted and own_bytes)):
            deadline_at = now + options.deadline
            size = own_bytes + (0 if new else _common_bytes(options))
            times = deadline_at, deadline_at + retention
            usages = of_submit(new - counted, len(options.webhooks), -size, *times)
            with suppress(StoreUnavailable):  # the submit is stored; the count corrects itself
                self.correct(options.producer, usages, now)

    def end_in(
        self, batch: Batch, tasks: Iterable[tuple[TrackedTask, str]], kept_until: float, now: float
    ) -> None:
        """Count in a batch of writes tasks that end in it, each with the text of its record, until
        their records are gone. Not in a cluster: another primary counts, which may be away.
        """
        if self._redis.clustered:
            return
        for producer, usages in _ends(tasks, kept_until).items():
            if usages:
                batch.queue("count_usage", *_counting(producer, usages, now, "", ""))

    def ended(
        self,
        tasks: Iterable[tuple[TrackedTask, str]],
        stale: Collection[str],
        kept_until: float,
        now: float,
    ) -> None:
        """Once that batch is written: take back what it counted of `stale` ids, which another
        process was faster with; in a cluster, count the others.

        Does nothing while Redis is away.
        """
        counted = not self._redis.clustered
        some = [each for each in tasks if (each[0].id in stale) == counted]
        sign = -1 if counted else 1
        with suppress(StoreUnavailable):  # the ends are stored; the count corrects itself
            for producer, usages in _ends(some, kept_until).items():
                rows = [HourlyUsage(one.hour, sign * one.ids, sign * one.bytes) for one in usages]
                self.correct(producer, rows, now)

    def restarted(self, tasks: Iterable[TrackedTask], retention: float, now: float) -> None:
        """Count tasks that had ended, and that are tracked anew, no more as those that ended.

        Does nothing while Redis is away.
        """
        less: dict[str, list[HourlyUsage]] = {}
        for task in tasks:
            size = len((task.record_json or "").encode(errors="surrogatepass"))
            end = of_end(len(task.webhooks), size, (task.settled_at or now) + retention)
            rows = less.setdefault(task.producer, [])
            rows.append(HourlyUsage(end.hour, -end.ids, -end.bytes))
        with suppress(StoreUnavailable):  # the submit is stored; the count corrects itself
            for producer, rows in less.items():
                self.correct(producer, rows, now)

    def _reserve(
        self,
        ids: int,
        options: SubmitOptions,
        quota: ProducerQuota,
        retention: float,
        now: float,
        own_bytes: int,
    ) -> str | None:
        deadline_at, hooks = now + options.deadline, len(options.webhooks)
        size = _common_bytes(options) + own_bytes
        usages = of_submit(ids, hooks, size, deadline_at, deadline_at + retention)
        limits = quota.ids, quota.bytes
        allowed, *had = self._count(options.producer, usages, now, *limits)
        return None if allowed else complaint(options.producer, quota, Usage(*had), usages)

    def correct(self, producer: str, usages: Iterable[HourlyUsage], now: float) -> None:
        """Change what counts of ids that were counted before; does nothing where nothing counts."""
        if usages := summed(usages):
            self._count(producer, usages, now, "", "")

    def used(self, now: float) -> dict[str, Usage]:
        """What counts now to each of the producers that count for longest, the most ids first."""
        hour = int(now // HOUR)
        pipe = self._redis.pipeline()
        pipe.zrevrangebyscore(keys.PRODUCERS, "+inf", f"({hour}", 0, MOST)
        (answer,) = self._redis.answers(pipe)
        found = answer if isinstance(answer, list) else []  # none in a damaged key
        pipe = self._redis.pipeline()
        for producer in found:
            pipe.hgetall(keys.usage(producer))
        rows = zip(found, self._redis.answers(pipe), strict=True)
        used = {name: _usage(row, hour) for name, row in rows if isinstance(row, dict)}
        return dict(sorted(used.items(), key=lambda pair: (-pair[1].ids, pair[0])))

    def _count(
        self, producer: str, usages: Sequence[HourlyUsage], now: float, ids: object, size: object
    ) -> tuple[bool, int, int]:
        words = _counting(producer, usages, now, ids, size)
        allowed, had_ids, had_bytes = self._redis.script("count_usage", *words)
        return bool(allowed), max(int(had_ids), 0), max(int(had_bytes), 0)


def _counting(
    producer: str, usages: Sequence[HourlyUsage], now: float, ids: object, size: object
) -> tuple[list[str], list[object]]:
    """The keys and arguments of `count_usage.lua`."""
    args: list[object] = [producer, int(now // HOUR), ids, size]
    args += [number for one in usages for number in (one.hour, one.ids, one.bytes)]
    return [keys.usage(producer), keys.PRODUCERS], args


def _ends(
    tasks: Iterable[tuple[TrackedTask, str]], kept_until: float
) -> dict[str, list[HourlyUsage]]:
    """What changes for each producer when tasks end, each with the text of its record."""
    ends: dict[str, list[tuple[float, int, int]]] = {}
    for task, record in tasks:
        size = len(record.encode(errors="surrogatepass"))
        ends.setdefault(task.producer, []).append((task.deadline_at, len(task.webhooks), size))
    return {producer: of_ends(rows, kept_until) for producer, rows in ends.items()}


def _common_bytes(options: SubmitOptions) -> int:
    texts = (options.metadata, *options.webhooks)
    return len("".join(texts).encode(errors="surrogatepass"))


def _usage(row: dict[str, str], hour: int) -> Usage:
    """The sum of the hours to come; what cannot be read counts nothing."""
    sums = {"ids": 0, "bytes": 0}
    for field, number in row.items():
        kind, _, until = field.partition(":")
        if kind in sums and until.isdigit() and int(until) > hour:
            sums[kind] += int(number) if number.lstrip("-").isdigit() else 0
    return Usage(max(sums["ids"], 0), max(sums["bytes"], 0))
