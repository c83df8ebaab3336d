"""The numbers of everything as plain values: what `status`, `top` and our pages show."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from cavendish.model import OPERATIONS, Lane
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.lane_view import UNSORTED, LaneView
from cavendish_worker import doctor as doctors

#: The newest ends of each lane from which the delays are measured.
MEASURED = 200


@dataclass
class Memory:
    """What one who polls again and again remembers, so that the store is not asked for it twice."""

    places: dict[Lane, str] = field(default_factory=dict)
    delays: dict[Lane, deque[float]] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)

    def see(self, view: LaneView) -> None:
        """Add the ends that are new."""
        known = self.delays.setdefault(view.lane, deque(maxlen=MEASURED))
        known.extend(end.delay for end in reversed(view.ends) if end.delay is not None)
        if view.ends:
            self.places[view.lane] = view.ends[0].place


def gather(store: Store, settings: Settings, memory: Memory | None = None) -> dict[str, Any]:
    """Everything that `status` and `top` show, as plain values. Raises StoreUnavailable."""
    memory, now, lanes = memory or Memory(), store.fleet.now(), store.tasks.lanes()
    views = store.views([*lanes, OPERATIONS], now, memory.places, MEASURED)
    pending_deliveries = Counter[str]()
    for view in views:
        pending_deliveries.update(
            {name: count for name, count in view.pending_deliveries.items() if name != UNSORTED}
        )
        memory.see(view)
    webhooks = [
        _webhook(view, now) for view in doctors.endpoints(store, pending_deliveries, memory.urls)
    ]
    fleet = store.fleet.members(now)
    workers = [member for member in fleet if member.role == "worker" and member.alive(now)]
    waiting = {view.lane.account for view in views if view.pending}
    stranded = (
        waiting - {name for member in workers for name in member.accounts} if workers else set()
    )
    accounts = {
        name: _account(store, settings, name, now)
        for name in sorted({lane.account for lane in lanes})
    }
    delays = [delay for lane in lanes for delay in memory.delays[lane]]
    return {
        "now": now,
        "lanes": [
            _lane(view, memory.delays[view.lane], now) for view in views if view.lane != OPERATIONS
        ],
        "delay": _percentiles(delays),
        "accounts": {
            name: account | {"no_token": name in stranded} for name, account in accounts.items()
        },
        "endpoints": [
            one for one in webhooks if one["disabled_at"] is not None or one["circuit"] == "open"
        ],
        "webhooks": webhooks,
        "fleet": [asdict(member) | {"alive": member.alive(now)} for member in fleet],
    }


def _lane(view: LaneView, delays: Iterable[float], now: float) -> dict[str, Any]:
    service_health = view.service_health
    return {
        "lane": str(view.lane),
        "pending": view.pending,
        "due": view.due,
        "in_flight": view.in_flight,
        "pending_deliveries": sum(view.pending_deliveries.values()),
        "pending_by_endpoint": view.pending_deliveries,
        "dead": view.dead,
        "quarantined": view.quarantined,
        "counts": view.counts,
        "producers": view.producers,
        "delay": _percentiles(list(delays)),
        "batch_limit": service_health.batch_limit,
        "service": {
            "down_for": max(service_health.down_until - now, 0.0),
            "failures": service_health.failures,
            "reason": service_health.reason,
        },
    }


def _percentiles(delays: list[float]) -> dict[str, Any]:
    """Seconds from the finish at the API to the store, of the newest ends.

    None where there are none.
    """
    ranked = sorted(delays)
    cut = {
        f"p{share}": ranked[min(len(ranked) * share // 100, len(ranked) - 1)] if ranked else None
        for share in (50, 95, 99)
    }
    return {"of": len(ranked), **cut}


def _account(store: Store, settings: Settings, name: str, now: float) -> dict[str, Any]:
    rate_limit = store.shared_state.rate_limit(name)
    return {
        "rate": round(min(rate_limit.rate_at(now), settings.rate or rate_limit.rate_at(now)), 2),
        "ceiling": None if rate_limit.ceiling is None else round(rate_limit.ceiling, 2),
        "used": round(rate_limit.used(now), 2),
        "window": rate_limit.window or None,
        "paused_for": max(rate_limit.paused_until - now, 0.0),
        "pause_reason": rate_limit.pause_reason if rate_limit.paused(now) else "",
    }


def _webhook(view: doctors.EndpointView, now: float) -> dict[str, Any]:
    """An endpoint, and how it takes what it is sent."""
    return {
        "endpoint": view.name,
        "url": view.url,
        "registered": view.registered is not None,
        "waiting": view.waiting,
        "disabled_at": view.disabled.at if view.disabled else None,
        "reason": view.disabled.why if view.disabled else "",
        "circuit": view.circuit.state,
        "failures": view.circuit.failures,
        "open_for": max(view.circuit.open_until - now, 0.0),
        "allowance": int(view.circuit.allowance),
        "seconds": round(view.circuit.seconds, 3) if view.circuit.ok_at else None,
        "last_success": view.circuit.ok_at or None,
    }
