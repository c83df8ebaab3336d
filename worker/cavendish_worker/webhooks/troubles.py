"""Finds the troubles that are reported to operators: accounts, services, workers, submits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from cavendish.model import Lane, UpstreamErrorKind
from cavendish.policy.episodes import Trouble
from cavendish.policy.service_health import ServiceHealth
from cavendish.policy.visibility import REPORTED_FOR
from cavendish.store import Store
from cavendish.store.trouble_index import TroubleIndex

#: Services, and workers, that are told of at once, those that were in trouble first.
MOST = 20
#: Seconds without an answer of the API after which a service is down, and after the last refused
#: submit until there are no more.
DOWN_AFTER, REFUSED_FOR = 60.0, 3600.0


def troubles(store: Store, accounts: Sequence[str], now: float) -> list[Trouble]:
    """What is wrong now. `accounts`: those of which anything is kept. Raises StoreUnavailable."""
    return [
        *_refused_accounts(store, accounts),
        *_pauses_by_operators(store, now),
        *_blind_accounts(store, now),
        *_paused_services(store),
        *_down_services(store, now),
        *_gone_workers(store, now),
        *_refused_submits(store, now),
    ]


def _refused_accounts(store: Store, accounts: Sequence[str]) -> Iterable[Trouble]:
    limits = store.shared_state.rate_limits(accounts)
    for account, limit in zip(accounts, limits, strict=True):
        if limit.pause_kind == UpstreamErrorKind.ACCOUNT:
            subject, since = {"account": account, "paused_by": "api"}, limit.pause_since
            details = {"by": "api", "paused_at": since}
            yield Trouble("account.paused", subject, since, limit.pause_reason, details)


def _pauses_by_operators(store: Store, now: float) -> Iterable[Trouble]:
    for pause in store.controls.read().in_force(now):
        subject = {"account": pause.account} | ({"service": pause.service} if pause.service else {})
        subject["paused_by"] = "operator"
        details = {"by": pause.by, "paused_at": pause.since, "until": pause.until}
        yield Trouble("account.paused", subject, pause.since, pause.reason, details)


def _blind_accounts(store: Store, now: float) -> Iterable[Trouble]:
    services = store.shared_state.blind.lanes(now - REPORTED_FOR)
    for lane, found in zip(services, store.shared_state.visibilities(services), strict=True):
        if found.alarming and found.reported(now):
            details = {"ids": found.absent, "blind_since": found.blind_since}
            since, reason = found.blind_since, found.reason
            yield Trouble("account.blind", _subject(lane), since, reason, details)


def _paused_services(store: Store) -> Iterable[Trouble]:
    found = _in_trouble(store, store.shared_state.paused, "paused_since")
    for lane, health in list(found.items())[:MOST]:
        since = health.paused_since
        details = {"paused_at": since, "paused_services": len(found)}
        yield Trouble("service.paused", _subject(lane), since, health.reason, details)


def _down_services(store: Store, now: float) -> Iterable[Trouble]:
    failing = _in_trouble(store, store.shared_state.failing, "failing_since")
    found = {
        lane: health
        for lane, health in failing.items()
        if now - health.failing_since >= DOWN_AFTER
        # One that is paused from its first failure on is told of as such.
        and not 0 < health.paused_since <= health.failing_since
    }
    for lane, health in list(found.items())[:MOST]:
        since = health.failing_since
        details = {"down_since": since, "down_services": len(found)}
        yield Trouble("service.down", _subject(lane), since, health.reason, details)


def _in_trouble(store: Store, index: TroubleIndex, since: str) -> dict[Lane, ServiceHealth]:
    """The health of the services that an index lists, those in trouble first first.

    The lanes of a service share one. What works again leaves the list.
    """
    lanes, found, well = index.lanes(), dict[Lane, ServiceHealth](), list[Lane]()
    for lane, health in zip(lanes, store.shared_state.service_healths(lanes), strict=True):
        if getattr(health, since):
            found.setdefault(Lane(lane.account, lane.service), health)
        else:  # the state expired, or a process died before it could say so in the index
            well.append(lane)
    index.remove(well)
    return found


def _gone_workers(store: Store, now: float) -> Iterable[Trouble]:
    gone = [one for one in store.fleet.members(now) if one.role == "worker" and not one.alive(now)]
    for member in sorted(gone, key=lambda one: one.at)[:MOST]:
        details = {"version": member.version, "last_heartbeat": member.at}
        why = "its heartbeats ended without a shutdown"
        yield Trouble("worker.gone", {"worker": member.name}, member.at, why, details)


def _refused_submits(store: Store, now: float) -> Iterable[Trouble]:
    refused = store.refused.list()
    if not refused or now - refused[0].at >= REFUSED_FOR:
        return
    newest = refused[0]
    names = ("id", "at", "kind", "reason", "sender", "producer", "service")
    details = {
        "refused": len(refused),
        "ids": sum(one.ids for one in refused),
        "kinds": dict(Counter(one.kind for one in refused)),
        "newest": {name: getattr(newest, name) for name in names},
    }
    yield Trouble("refused.submits", {}, newest.at, newest.reason, details)


def _subject(lane: Lane) -> dict[str, str]:
    return {"account": lane.account, "service": lane.service}
