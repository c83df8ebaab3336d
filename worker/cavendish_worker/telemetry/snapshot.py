"""All numbers as plain values: what `status`, `top` and our pages in Flower show."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from cavendish.endpoints.endpoint_view import EndpointView, views
from cavendish.model import Lane
from cavendish.policy.operator_controls import Controls, Pause
from cavendish.policy.rate_limit import RateLimit
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.statistics import LaneStatistics, Statistics

#: The newest ends of each lane from which the delays are measured.
MEASURED = 200


@dataclass
class Memory:
    """What a process that gathers again and again remembers, so that it is not read twice."""

    places: dict[Lane, str] = field(default_factory=dict)
    delays: dict[Lane, deque[float]] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)

    def add(self, lane: LaneStatistics) -> None:
        """Remember the new ends of a lane."""
        known = self.delays.setdefault(lane.lane, deque(maxlen=MEASURED))
        known.extend(end.delay for end in reversed(lane.ends) if end.delay is not None)
        if lane.ends:
            self.places[lane.lane] = lane.ends[0].place


def gather(store: Store, settings: Settings, memory: Memory | None = None) -> dict[str, Any]:
    """Everything that `status` and `top` show, as plain values. Raises StoreUnavailable.

    `unreadable_lanes` are left out of all other numbers.
    """
    memory = memory or Memory()
    statistics = read(store, memory)
    return said(store, settings, memory, statistics, views(store, statistics, memory.urls))


def read(store: Store, memory: Memory) -> Statistics:
    """The numbers that `said` turns into plain values. Raises StoreUnavailable."""
    return store.statistics(after=memory.places, ends=MEASURED)


def said(
    store: Store,
    settings: Settings,
    memory: Memory,
    statistics: Statistics,
    seen: Iterable[EndpointView],
) -> dict[str, Any]:
    """What `gather` returns, of these numbers and endpoints. Raises StoreUnavailable."""
    now, lanes, controls = statistics.now, statistics.tracked, statistics.controls
    for lane in lanes:
        memory.add(lane)
    webhooks = [webhook(view, now) for view in seen]
    return {
        "now": now,
        "lanes": [_lane(one, memory.delays[one.lane], controls, now) for one in lanes],
        "pauses": [asdict(pause) for pause in controls.in_force(now)],
        "rate_ceilings": [asdict(one) for _, one in sorted(controls.ceilings.items())],
        "emptied_at": statistics.emptied.at if statistics.emptied else None,
        "refused_submits": store.refused.count(),
        "unreadable_lanes": [str(lane) for lane in statistics.unreadable],
        "delay": _percentiles(delay for one in lanes for delay in memory.delays[one.lane]),
        "accounts": _accounts(statistics, settings.rate),
        "endpoints": [
            one for one in webhooks if one["disabled_at"] is not None or one["circuit"] == "open"
        ],
        "producers": {
            name: asdict(usage)
            | {"ids_most": settings.producer_ids, "bytes_most": settings.producer_bytes}
            for name, usage in store.producer_usage.used(now).items()
        },
        "webhooks": webhooks,
        "fleet": [asdict(one) | {"alive": one.alive(now)} for one in statistics.members],
    }


def _lane(
    lane: LaneStatistics, delays: Iterable[float], controls: Controls, now: float
) -> dict[str, Any]:
    health = lane.service_health
    return {
        "lane": str(lane.lane),
        "pending": lane.pending,
        "due": lane.due,
        "in_flight": lane.in_flight,
        "deliveries_pending": lane.deliveries_pending,
        "pending_by_endpoint": lane.pending_by_endpoint,
        "dead": lane.dead,
        "quarantined": lane.quarantined,
        "counts": dict(lane.counts),
        "producers": lane.producers,
        "delay": _percentiles(delays),
        "batch_limit": health.batch_limit,
        "service": {
            "down_for": max(health.down_until - now, 0.0),
            "failures": health.failures,
            "reason": health.reason,
            "paused_since": health.paused_since or None,
        },
        "operator_pause": _told(controls.pause_of(lane.lane.account, lane.lane.service, now)),
        "blind": lane.visibility.reason if lane.visibility.reported(now) else "",
    }


def _percentiles(delays: Iterable[float]) -> dict[str, Any]:
    """Seconds from the finish at the API to the store, of the `of` newest ends; None for none."""
    ranked = sorted(delays)
    cut = {
        f"p{share}": ranked[min(len(ranked) * share // 100, len(ranked) - 1)] if ranked else None
        for share in (50, 95, 99)
    }
    return {"of": len(ranked), **cut}


def _accounts(statistics: Statistics, most: float) -> dict[str, Any]:
    """Each account with ids; `most` is CAVENDISH_RATE."""
    now, controls = statistics.now, statistics.controls
    workers = [one for one in statistics.members if one.role == "worker" and one.alive(now)]
    have_token = {account for member in workers for account in member.accounts}
    pending = {one.lane.account for one in statistics.tracked if one.pending}
    need_token = pending if workers else set()
    return {
        name: _account(rate_limit, controls.ceiling_of(name, most), now)
        | {"no_token": name in need_token - have_token}
        | {"operator_pause": _told(controls.account_pause(name, now))}
        for name, rate_limit in statistics.rate_limits.items()
    }


def _account(rate_limit: RateLimit, most: float, now: float) -> dict[str, Any]:
    """Calls per second, and seconds; `most` is what operators allow, 0 for any number."""
    rate, ceiling = rate_limit.rate_at(now), rate_limit.ceiling
    return {
        "rate": round(min(rate, most or rate), 2),
        "ceiling": None if ceiling is None else round(ceiling, 2),
        "at_most": most or None,
        "used": round(rate_limit.used(now), 2),
        "window": rate_limit.window or None,
        "paused_for": max(rate_limit.paused_until - now, 0.0),
        "pause_reason": rate_limit.pause_reason if rate_limit.paused(now) else "",
    }


def _told(pause: Pause | None) -> str:
    return pause.told if pause else ""


def webhook(view: EndpointView, now: float) -> dict[str, Any]:
    """An endpoint, and how it takes its webhooks."""
    circuit, disabled = view.circuit, view.disabled
    return {
        "endpoint": view.name,
        "url": view.url,
        "registered": view.registered is not None,
        "waiting": view.waiting,
        "disabled_at": disabled.at if disabled else None,
        "reason": disabled.why if disabled else "",
        "circuit": circuit.state,
        "failures": circuit.failures,
        "open_for": max(circuit.open_until - now, 0.0),
        "allowance": int(circuit.allowance),
        "seconds": round(circuit.seconds, 3) if circuit.ok_at else None,
        "last_success": circuit.ok_at or None,
    }
