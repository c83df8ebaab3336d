"""What `doctor` examines, one file per subject.

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
from cavendish_worker.doctor import accounts, api, broker, outgoing, processes, redis_server
from cavendish_worker.doctor.finding import Finding, ill, well
from cavendish_worker.doctor.network import at_once
from cavendish_worker.doctor.receivers import EndpointView, counted, endpoints, secrets, trouble

__all__ = ["EndpointView", "Finding", "counted", "endpoints", "examine"]


def examine(store: Store, settings: Settings, *, offline: bool = False) -> list[Finding]:
    """Examine everything, by the heartbeats of living workers where there are any.

    Where no worker lives, by this environment. `offline`: ask only Redis and the broker. Raises
    StoreUnavailable.
    """
    server = store.server()
    found = redis_server.findings(store.connection.where, server, settings)
    try:
        now = store.fleet.now()
    except StoreFormatError as foreign:  # nothing in this store can be trusted
        advice = "Run the version that the workers run, or use another database."
        return [*found, ill("store", str(foreign), advice)]
    lanes = store.tasks.lanes()
    living = [member for member in store.fleet.members(now) if member.alive(now)]
    workers = [member for member in living if member.role == "worker"]
    signs, encrypt = bool(settings.webhook_secret), bool(settings.secret_key)
    if workers:
        signs = any(member.signs for member in workers)
        encrypt = all(member.encrypts for member in workers)
    views, of_accounts = endpoints(store), accounts.findings(store, settings, now, lanes, workers)
    urls = [view.url for view in views if view.url]
    broker_check = partial(broker.findings, settings, server)
    api_check = partial(api.findings, store, settings, now, lanes, offline=offline)
    outgoing_check = partial(outgoing.findings, settings, urls, offline=offline)
    of_broker, of_api, of_outgoing = at_once((broker_check, api_check, outgoing_check))
    return [
        *found,
        _format(store),
        *of_broker,
        *processes.findings(living),
        *of_accounts,
        *of_api,
        _secret(signs=signs),
        *_misspelt(),
        *(finding for view in views for finding in trouble(view)),
        *secrets(store, settings, now, encrypt=encrypt, elsewhere=bool(workers)),
        *of_outgoing,
        *(finding for lane in lanes for finding in _lane(lane, store, now)),
    ]


def _format(store: Store) -> Finding:
    held = store.fleet.format()
    new = f"is new: the first worker or beat gives it the format {FORMAT}"
    return well("store", f"has the format {held}" if held else new)


def _secret(*, signs: bool) -> Finding:
    if signs:
        return well("webhook secret", "is set")
    advice = (
        "Set CAVENDISH_WEBHOOK_SECRET for the workers; `cavendish up` makes one in its data folder."
    )
    return ill("webhook secret", "is not set; unsigned webhooks are never sent", advice)


def _misspelt() -> list[Finding]:
    known = {name for name, *_ in described()}
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    advice = "deploy/env.example has every setting."
    return [ill("environment", f"{name} is no setting", advice) for name in unknown]


def _lane(lane: Lane, store: Store, now: float) -> list[Finding]:
    view, what, found = store.view(lane, now), f"lane {lane}", []
    if view.service_health.down_until > now:
        reason = f"the API fails: {view.service_health.reason}"
        found.append(ill(what, reason, "Workers ask it again by themselves."))
    if view.quarantined:
        task_id, why = next(iter(store.quarantined(lane).items()))
        advice = "Examine the record in Redis, repair or delete it, and submit the id again."
        said = f"{view.quarantined} records quarantined, such as {task_id}: {why}"
        found.append(ill(what, said, advice))
    if view.dead:
        found.append(well(what, f"{view.dead} dead letters", "See `cavendish dead list`."))
    return found
