"""What `doctor` examines, a subject a file.

Each finding says what was found, and what to do about it.
"""

from __future__ import annotations

import os
from functools import partial

from cavendish.errors import StoreFormatError
from cavendish.model import Lane
from cavendish.settings import PREFIX, Settings, described
from cavendish.store import Store
from cavendish.store.fleet import FORMAT
from cavendish_worker.doctor import accounts, api, broker, egress, processes, redis_server
from cavendish_worker.doctor.finding import Finding, ill, well
from cavendish_worker.doctor.network import at_once
from cavendish_worker.doctor.receivers import EndpointView, counted, endpoints, secrets, trouble

__all__ = ["EndpointView", "Finding", "counted", "endpoints", "examine"]


def examine(store: Store, settings: Settings, *, offline: bool = False) -> list[Finding]:
    """Examine everything: what living workers say of themselves, else this environment. Raises
    BookUnavailable.

    `offline`: what lies beyond Redis and the broker is not asked.
    """
    server = store.server()
    found = redis_server.findings(store.connection.where, server, settings)
    try:
        now = store.fleet.now()
    except StoreFormatError as foreign:  # nothing in it can be believed
        return [
            *found,
            ill(
                "book",
                str(foreign),
                "Run the version that the workers run, or name another database.",
            ),
        ]
    lanes = store.tasks.lanes()
    living = [member for member in store.fleet.members(now) if member.alive(now)]
    workers = [member for member in living if member.role == "worker"]
    signs = any(member.signs for member in workers) if workers else bool(settings.webhook_secret)
    encrypt = all(member.encrypts for member in workers) if workers else bool(settings.secret_key)
    views, shared_state = endpoints(store), accounts.findings(store, settings, now, lanes, workers)
    outside = (
        partial(broker.findings, settings, server, workers=bool(workers)),
        partial(api.findings, store, settings, now, lanes, offline=offline),
        partial(
            egress.findings, settings, [view.url for view in views if view.url], offline=offline
        ),
    )
    brokers, calls, ways_out = at_once(outside)
    return [
        *found,
        _format(store),
        *brokers,
        *processes.findings(living),
        *shared_state,
        *calls,
        _secret(signs=signs),
        *_misspelt(),
        *(finding for view in views for finding in trouble(view)),
        *secrets(store, settings, now, encrypt=encrypt, elsewhere=bool(workers)),
        *ways_out,
        *(finding for lane in lanes for finding in _lane(lane, store, now)),
    ]


def _format(store: Store) -> Finding:
    held = store.fleet.format()
    return well(
        "book",
        f"has the format {held}"
        if held
        else f"is new: the first worker or beat gives it the format {FORMAT}",
    )


def _secret(*, signs: bool) -> Finding:
    if signs:
        return well("webhook secret", "is set")
    advice = (
        "Set CAVENDISH_WEBHOOK_SECRET for the workers; `cavendish up` makes one in its data folder."
    )
    return ill("webhook secret", "is not set; unsigned webhooks are never sent", advice)


def _misspelt() -> list[Finding]:
    known = {name for name, *_ in described()}
    strangers = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    return [
        ill("environment", f"{name} is no setting", "deploy/env.example has every setting.")
        for name in strangers
    ]


def _lane(lane: Lane, store: Store, now: float) -> list[Finding]:
    view, what, found = store.view(lane, now), f"lane {lane}", []
    if view.service_health.down_until > now:
        found.append(
            ill(
                what, f"the API fails: {view.service_health.reason}", "It is asked again by itself."
            )
        )
    if view.quarantined:
        task_id, why = next(iter(store.quarantined(lane).items()))
        advice = "Look at the record in Redis, mend or delete it, and submit the id again."
        found.append(
            ill(what, f"{view.quarantined} records quarantined, such as {task_id}: {why}", advice)
        )
    if view.dead:
        found.append(well(what, f"{view.dead} dead letters", "See `cavendish dead list`."))
    return found
