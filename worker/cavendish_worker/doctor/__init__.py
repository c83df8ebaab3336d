"""What `doctor` examines, one file per subject.

Each finding says what was found, and what to do about it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

from cavendish.endpoint_view import views
from cavendish.errors import StoreFormatError
from cavendish.model import Lane
from cavendish.settings import PREFIX, Settings, described
from cavendish.store import Store
from cavendish.store.fleet import FORMAT, Member
from cavendish.store.statistics import LaneStatistics, Statistics
from cavendish_worker.doctor import (
    accounts,
    api,
    broker,
    messages,
    outgoing,
    processes,
    redis_server,
)
from cavendish_worker.doctor.finding import Finding, ill, well
from cavendish_worker.doctor.network import at_once
from cavendish_worker.doctor.receivers import counted, secrets, trouble
from cavendish_worker.polling.ask import NOT_SERVED

__all__ = ["Finding", "complaints", "counted", "examine"]


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
    signs, encrypt = _keys(workers, settings)
    seen = views(store, statistics)
    urls = [view.url for view in seen if view.url]
    of_broker, of_api, of_outgoing, of_messages = at_once(  # each may wait for its network
        (
            partial(broker.findings, settings, server, workers=bool(workers)),
            partial(api.findings, store, settings, now, lanes, offline=offline),
            partial(outgoing.findings, settings, urls, offline=offline),
            partial(messages.findings, store, settings),
        )
    )
    return [
        *found,
        *_store(store, statistics),
        *of_broker,
        *processes.findings(living),
        *accounts.findings(store, settings, statistics, lanes, workers),
        *of_api,
        *_environment(signs=signs),
        *(finding for view in seen for finding in trouble(view)),
        *secrets(store, settings, now, encrypt=encrypt, elsewhere=bool(workers)),
        *of_outgoing,
        *of_messages,
        *_lanes(statistics, store),
    ]


def complaints(
    store: Store, settings: Settings, statistics: Statistics, known_urls: dict[str, str]
) -> list[Finding]:
    """What is wrong, as far as the store alone shows it; `known_urls` as for `views`.

    Raises StoreUnavailable.
    """
    living = [member for member in statistics.members if member.alive(statistics.now)]
    workers = [member for member in living if member.role == "worker"]
    lanes = [one.lane for one in statistics.tracked]
    signs, _ = _keys(workers, settings)
    found = [
        *_store(store, statistics),
        *processes.findings(living),
        *accounts.findings(store, settings, statistics, lanes, workers),
        *([_secret(signs=signs)] if workers else []),
        *(finding for view in views(store, statistics, known_urls) for finding in trouble(view)),
        *messages.refused(store),
        *_lanes(statistics, store),
    ]
    return [one for one in found if not one.ok]


def _keys(workers: Sequence[Member], settings: Settings) -> tuple[bool, bool]:
    """Whether anybody signs webhooks, and whether all encrypt secrets of endpoints."""
    if not workers:
        return bool(settings.webhook_secret), bool(settings.secret_key)
    return any(one.signs for one in workers), all(one.encrypts for one in workers)


def _store(store: Store, statistics: Statistics) -> list[Finding]:
    held = store.fleet.format()
    new = f"is new: the first worker or beat gives it the format {FORMAT}"
    of_format = well("store", f"has the format {held}" if held else new)
    if (emptied := statistics.emptied) is None:
        return [of_format]
    advice = (
        "All that was tracked before is lost. Find out who emptied it (FLUSHALL, a restart without "
        "persistence, an empty replica), submit the ids again, register the endpoints again; then: "
        "cavendish doctor --acknowledge. Without that it is reported for a week."
    )
    return [of_format, ill("store", emptied.reason, advice)]


def _environment(*, signs: bool) -> list[Finding]:
    return [_secret(signs=signs), *_misspelt()]


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


def _lanes(statistics: Statistics, store: Store) -> list[Finding]:
    found = [_unreadable(lane) for lane in statistics.unreadable]
    return found + [
        one for lane in statistics.tracked for one in _lane(lane, store, statistics.now)
    ]


def _unreadable(lane: Lane) -> Finding:
    advice = "Examine its keys in Redis (ARCHITECTURE.md lists them), and repair or delete them."
    return ill(f"lane {lane}", "has a key that cannot be read", advice)


def _lane(lane: LaneStatistics, store: Store, now: float) -> list[Finding]:
    what, found, health = f"lane {lane.lane}", [], lane.service_health
    if health.paused_since:
        said = f"the API does not serve {lane.lane.service}: {health.reason}; {lane.pending} wait"
        found.append(ill(what, said, f"{NOT_SERVED[0].upper()}{NOT_SERVED[1:]}."))
    elif health.down_until > now:
        reason = f"the API fails: {health.reason}"
        found.append(ill(what, reason, "Workers ask it again by themselves."))
    if lane.quarantined:
        task_id, why = next(iter(store.tasks.quarantined(lane.lane).items()))
        advice = "Examine the record in Redis, repair or delete it, and submit the id again."
        said = f"{lane.quarantined} records quarantined, such as {task_id}: {why}"
        found.append(ill(what, said, advice))
    if lane.dead:
        found.append(well(what, f"{lane.dead} dead letters", "See `cavendish dead list`."))
    return found
