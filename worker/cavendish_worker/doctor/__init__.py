"""What `doctor` examines, one file per subject.

Each finding says what was found, and what to do about it.
"""

from __future__ import annotations

import os
from functools import partial

from cavendish.endpoints.endpoint_view import views
from cavendish.errors import StoreFormatError
from cavendish.settings import PREFIX, Settings, described
from cavendish.store import Store
from cavendish_worker.doctor import (
    accounts,
    api,
    broker,
    http_service,
    messages,
    outgoing,
    processes,
    redis_server,
    stored,
)
from cavendish_worker.doctor.finding import Finding, ill
from cavendish_worker.doctor.network import at_once
from cavendish_worker.doctor.receivers import counted, secrets, trouble

__all__ = ["Finding", "counted", "examine"]


def examine(store: Store, settings: Settings, *, offline: bool = False) -> list[Finding]:
    """Examine everything, by the heartbeats of living workers, or else by this environment.

    `offline`: ask only Redis and the broker. Raises StoreUnavailable.
    """
    server = store.server()
    found = redis_server.findings(store.connection.where, server, settings)
    try:
        now = store.fleet.now()
    except StoreFormatError as foreign:  # nothing in this store can be trusted
        advice = "Run the version that the workers run, or use another database."
        return [*found, ill("store", str(foreign), advice)]
    lanes, statistics = store.tasks.lanes(), store.statistics()
    living = [member for member in statistics.members if member.alive(now)]
    workers = [member for member in living if member.role == "worker"]
    signs, encrypt = stored.keys(workers, settings)
    seen = views(store, statistics)
    of_broker, of_api, of_outgoing, of_messages = at_once(  # each may wait for its network
        (
            partial(broker.findings, settings, server, workers=bool(workers)),
            partial(api.findings, store, settings, now, lanes, offline=offline),
            partial(outgoing.findings, settings, [v.url for v in seen if v.url], offline=offline),
            partial(messages.findings, store, settings),
        )
    )
    return [
        *found,
        *stored.of_store(store, statistics),
        *of_broker,
        *processes.findings(living),
        *http_service.findings(store, living, now),
        *accounts.findings(store, settings, statistics, lanes, workers),
        *of_api,
        *_environment(signs=signs),
        *(finding for view in seen for finding in trouble(view)),
        *secrets(store, settings, now, encrypt=encrypt, elsewhere=bool(workers)),
        *of_outgoing,
        *of_messages,
        *stored.of_lanes(statistics, store),
    ]


def _environment(*, signs: bool) -> list[Finding]:
    return [stored.webhook_secret(signs=signs), *_misspelt()]


def _misspelt() -> list[Finding]:
    known = {name for name, *_ in described()}
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    advice = "deploy/env.example has every setting."
    return [ill("environment", f"{name} is no setting", advice) for name in unknown]
