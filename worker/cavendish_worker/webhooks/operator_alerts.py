"""Alerts the operator through a webhook of their own: CAVENDISH_OPERATIONS_WEBHOOK.

An alert is a delivery like any other. Each is stored once, however often its cause is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cavendish.model import Lane
from cavendish.policy.service_health import ServiceHealth
from cavendish.policy.visibility import REPORTED_FOR
from cavendish.store import Store
from cavendish.store.refused import RefusedSubmit
from cavendish.webhook_endpoint import Disabled, endpoint_of
from cavendish_worker.webhooks import payload

#: Seconds in which refused submits make at most one alert.
REFUSED_EVERY = 3600.0
#: Paused services that are told of, those that were paused first.
SERVICES = 20


def disabled(store: Store, operations: str, endpoint: str, why: Disabled, now: float) -> bool:
    """Store the alert that an endpoint was disabled as a pending delivery; true if it is new.

    However often this is called, there is one alert. Raises StoreUnavailable.
    """
    if not operations or endpoint == endpoint_of(operations):
        return False
    about = {"endpoint": endpoint, "url": why.url, "reason": why.why, "disabled_at": why.at}
    body = payload.operations_event("endpoint.disabled", about, why.at).decode()
    name = payload.event_id("endpoint.disabled", endpoint, repr(why.at))
    return store.deliveries.notify(name, operations, body, now)


def emptied(store: Store, operations: str, now: float) -> bool:
    """Store the alert that the store was emptied; true if it is new. Raises StoreUnavailable."""
    found = store.fleet.emptied() if operations else None
    if found is None or found.acknowledged:
        return False
    about = {"reason": found.reason, "began": found.began, "noticed_at": found.at}
    body = payload.operations_event("store.emptied", about, found.at).decode()
    name = payload.event_id("store.emptied", repr(found.at))
    return store.deliveries.notify(name, operations, body, now)


def blind(store: Store, operations: str, now: float) -> int:
    """Store an alert for each service of which the API knows no id under the token of an account.

    Returns how many are new: there is one for each time that a token is blind. Raises
    StoreUnavailable.
    """
    services = store.shared_state.blind.lanes(now - REPORTED_FOR) if operations else []
    new = 0
    for lane, found in zip(services, store.shared_state.visibilities(services), strict=True):
        if found.alarming and found.reported(now):
            about = {
                "account": lane.account,
                "service": lane.service,
                "reason": found.reason,
                "ids": found.absent,
                "blind_since": found.blind_since,
            }
            body = payload.operations_event("account.blind", about, found.blind_since).decode()
            names = (lane.account, lane.service, repr(found.blind_since))
            name = payload.event_id("account.blind", *names)
            new += store.deliveries.notify(name, operations, body, now)
    return new


def services_paused(store: Store, operations: str, now: float) -> int:
    """Store an alert for each service that the API does not serve; how many are new.

    The lanes of a service share one. Only the services that were paused first are told of, so that
    many wrong names make few alerts. Raises StoreUnavailable.
    """
    listed = store.shared_state.paused.lanes() if operations else []
    services = list(dict.fromkeys((lane.account, lane.service) for lane in listed))
    told = set(services[:SERVICES])
    lanes = [lane for lane in listed if (lane.account, lane.service) in told]
    first, served = dict[tuple[str, str], ServiceHealth](), list[Lane]()
    for lane, health in zip(lanes, store.shared_state.service_healths(lanes), strict=True):
        if health.paused_since:
            first.setdefault((lane.account, lane.service), health)
        else:  # the state expired, or a process died before it could say so in the index
            served.append(lane)
    store.shared_state.paused.remove(served)
    new = 0
    for (account, service), health in first.items():
        about = {
            "account": account,
            "service": service,
            "reason": health.reason,
            "paused_at": health.paused_since,
            "paused_services": len(services) - len(told) + len(first),
        }
        body = payload.operations_event("service.paused", about, health.paused_since).decode()
        name = payload.event_id("service.paused", account, service, repr(health.paused_since))
        new += store.deliveries.notify(name, operations, body, now)
    return new


def submits_refused(
    store: Store, operations: str, refused: Sequence[RefusedSubmit], now: float
) -> bool:
    """Store an alert that submits were refused, at most one an hour; true if it is new.

    `refused`: what lies there, the newest first. Raises StoreUnavailable.
    """
    if not operations or not refused:
        return False
    newest = refused[0]
    about = {
        "refused": len(refused),
        "ids": sum(one.ids for one in refused),
        "kinds": dict(Counter(one.kind for one in refused)),
        "newest": {
            name: getattr(newest, name)
            for name in ("id", "at", "kind", "reason", "sender", "producer", "service")
        },
    }
    body = payload.operations_event("submits.refused", about, newest.at).decode()
    name = payload.event_id("submits.refused", repr(newest.at // REFUSED_EVERY))
    return store.deliveries.notify(name, operations, body, now)
