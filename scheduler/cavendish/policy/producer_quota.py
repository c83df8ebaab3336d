"""Pure: how much of the store a producer may take, and what its ids count for.

An id counts from its submit until its deadline; if it ends before, for as long as its record is
kept. What counts until when lies in hours, so a count that went wrong (a process died between two
writes) corrects itself when its hour has passed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

HOUR = 3600.0
#: Bytes that an id and each of its deliveries take in Redis, about.
ID_BYTES, DELIVERY_BYTES = 600, 500


@dataclass(frozen=True, slots=True)
class ProducerQuota:
    """The most ids and bytes that a producer may have in the store; 0: any number."""

    ids: int
    bytes: int

    @property
    def limited(self) -> bool:
        return bool(self.ids or self.bytes)


@dataclass(frozen=True, slots=True)
class Usage:
    """Ids and bytes that count to a producer."""

    ids: int
    bytes: int

    def share(self, quota: ProducerQuota) -> float:
        """The share of the quota that is used: of ids or of bytes, whichever is more."""
        pairs = (self.ids, quota.ids), (self.bytes, quota.bytes)
        return max(used / most if most else 0.0 for used, most in pairs)


@dataclass(frozen=True, slots=True)
class HourlyUsage:
    """Ids and bytes that count until `hour`, in hours since the epoch. They may be negative."""

    hour: int
    ids: int
    bytes: int


def hour_after(time: float) -> int:
    """The hour that begins after a time, in hours since the epoch."""
    return int(time // HOUR) + 1


def of_submit(
    ids: int, webhooks: int, common_bytes: int, deadline_at: float, kept_until: float
) -> list[HourlyUsage]:
    """What a submit counts for: its ids until their deadline, metadata and URLs until later."""
    each = ID_BYTES + webhooks * DELIVERY_BYTES
    usages = [HourlyUsage(hour_after(deadline_at), ids, ids * each)]
    return usages + [HourlyUsage(hour_after(kept_until), 0, common_bytes)] * bool(common_bytes)


def of_ends(ends: Iterable[tuple[float, int, int]], kept_until: float) -> list[HourlyUsage]:
    """What changes when ids end: each no longer counts until its deadline, but until `kept_until`.

    `ends`: the deadline of each, the number of its webhooks, and the bytes of its record.
    """
    usages = []
    for deadline_at, webhooks, record_bytes in ends:
        size = ID_BYTES + webhooks * DELIVERY_BYTES
        usages.append(HourlyUsage(hour_after(deadline_at), -1, -size))
        usages.append(of_end(webhooks, record_bytes, kept_until))
    return summed(usages)


def of_end(webhooks: int, record_bytes: int, kept_until: float) -> HourlyUsage:
    """What an id that ended counts for, until `kept_until`."""
    size = ID_BYTES + webhooks * DELIVERY_BYTES + record_bytes
    return HourlyUsage(hour_after(kept_until), 1, size)


def summed(usages: Iterable[HourlyUsage]) -> list[HourlyUsage]:
    """One for each hour; none where nothing changes."""
    hours: dict[int, HourlyUsage] = {}
    for one in usages:
        known = hours.get(one.hour, HourlyUsage(one.hour, 0, 0))
        hours[one.hour] = HourlyUsage(one.hour, known.ids + one.ids, known.bytes + one.bytes)
    return [one for one in hours.values() if one.ids or one.bytes]


def complaint(
    producer: str, quota: ProducerQuota, used: Usage, usages: Iterable[HourlyUsage]
) -> str | None:
    """The sentence that refuses a submit with these usages, or None if there is room for it."""
    usages = list(usages)
    for kind, setting, most, has, more in (
        ("ids", "CAVENDISH_PRODUCER_IDS", quota.ids, used.ids, sum(one.ids for one in usages)),
        (
            "bytes",
            "CAVENDISH_PRODUCER_BYTES",
            quota.bytes,
            used.bytes,
            sum(one.bytes for one in usages),
        ),
    ):
        if most and has + more > most and more > 0:
            who = f"The producer {producer!r}" if producer else "The producer without a name"
            return (
                f"{who} has {has:,} of {most:,} {kind} in the store ({setting}), too many for "
                f"{more:,} more: this submit was refused as a whole."
            )
    return None
