"""Examines the store alone: its format, its lanes, and the faults that it shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cavendish.endpoints.endpoint_view import EndpointView
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.fleet import FORMAT, Member
from cavendish.store.statistics import LaneStatistics, Statistics
from cavendish_worker.doctor import accounts, http_service, messages, processes
from cavendish_worker.doctor.finding import Finding, ill, well
from cavendish_worker.doctor.receivers import trouble
from cavendish_worker.polling.ask import NOT_SERVED


def complaints(
    store: Store, settings: Settings, statistics: Statistics, seen: Iterable[EndpointView]
) -> list[Finding]:
    """What is wrong, as far as the store alone shows it, of these numbers and endpoints.

    Raises StoreUnavailable.
    """
    living = [member for member in statistics.members if member.alive(statistics.now)]
    workers = [member for member in living if member.role == "worker"]
    lanes = [one.lane for one in statistics.tracked]
    signs, _ = keys(workers, settings)
    found = [
        *of_store(store, statistics),
        *processes.findings(living),
        *http_service.findings(store, living, statistics.now),
        *accounts.findings(store, settings, statistics, lanes, workers),
        *([webhook_secret(signs=signs)] if workers else []),
        *(finding for view in seen for finding in trouble(view)),
        *messages.refused(store),
        *of_lanes(statistics, store),
    ]
    return [one for one in found if not one.ok]


def keys(workers: Sequence[Member], settings: Settings) -> tuple[bool, bool]:
    """Whether anybody signs webhooks, and whether all encrypt secrets of endpoints."""
    if not workers:
        return bool(settings.webhook_secret), bool(settings.secret_key)
    return any(one.signs for one in workers), all(one.encrypts for one in workers)


def of_store(store: Store, statistics: Statistics) -> list[Finding]:
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


def webhook_secret(*, signs: bool) -> Finding:
    if signs:
        return well("webhook secret", "is set")
    advice = (
        "Set CAVENDISH_WEBHOOK_SECRET for the workers; `cavendish up` makes one in its data folder."
    )
    return ill("webhook secret", "is not set; unsigned webhooks are never sent", advice)


def of_lanes(statistics: Statistics, store: Store) -> list[Finding]:
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
        found.append(ill(what, reason, "Workers try again by themselves."))
    if lane.quarantined:
        task_id, why = next(iter(store.tasks.quarantined(lane.lane).items()))
        advice = "Examine the record in Redis, repair or delete it, and submit the id again."
        said = f"{lane.quarantined} records quarantined, such as {task_id}: {why}"
        found.append(ill(what, said, advice))
    if lane.dead:
        found.append(well(what, f"{lane.dead} dead letters", "See `cavendish dead list`."))
    return found
