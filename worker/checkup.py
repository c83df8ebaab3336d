"""What `doctor` examines: each finding says what was found, and what to do about it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from scheduler.settings import PREFIX, Settings, described
from scheduler.store import Book
from scheduler.store.fleet import Member
from scheduler.tracking import Lane


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined. `advice` is empty where nothing need be done."""

    what: str
    ok: bool
    found: str
    advice: str = ""


def examine(book: Book, settings: Settings) -> list[Finding]:
    """Examine everything: what living workers say of themselves, else this environment. Raises BookUnavailable."""
    now, lanes = book.fleet.now(), book.tasks.lanes()
    living = [member for member in book.fleet.members(now) if member.alive(now)]
    workers = [member for member in living if member.role == "worker"]
    tokens = {account for member in workers for account in member.accounts} if workers else set(settings.tokens())
    signs = any(member.signs for member in workers) if workers else bool(settings.webhook_secret)
    accounts = sorted({lane.account for lane in lanes} | {"default"})
    return [
        Finding("redis", ok=True, found=f"answers at {book.connection.where}"),
        *(_process(role, living) for role in ("worker", "beat")),
        *(_account(account, book, now, has_token=account in tokens) for account in accounts),
        _secret(signs=signs),
        *_misspelt(),
        *(finding for lane in lanes for finding in _lane(lane, book, now)),
    ]


def _process(role: str, living: list[Member]) -> Finding:
    count = sum(member.role == role for member in living)
    advice = "" if count else f"Start one: celery -A worker.tasks {role}, or `cavendish up`."
    return Finding(role, bool(count), f"{count} alive", advice)


def _account(account: str, book: Book, now: float, *, has_token: bool) -> Finding:
    name = f"account {account}"
    if not has_token:
        where = "CAVENDISH_API_TOKEN" if account == "default" else "CAVENDISH_API_TOKENS_FILE"
        return Finding(name, ok=False, found="has no token", advice=f"Set {where} for the workers.")
    pace = book.learned.pace(account)
    if pace.held(now):
        refused = pace.hold_kind == "account"
        advice = "Check the token and the credit of the account." if refused else "Nothing: it ends by itself."
        return Finding(name, not refused, f"held {pace.hold_until - now:.0f} s more: {pace.hold_reason}", advice)
    return Finding(name, ok=True, found=f"may ask {pace.rate_at(now):.2f} times a second")


def _secret(*, signs: bool) -> Finding:
    if signs:
        return Finding("webhook secret", ok=True, found="is set")
    advice = "Set CAVENDISH_WEBHOOK_SECRET for the workers; `cavendish up` makes one in its data folder."
    return Finding("webhook secret", ok=False, found="is not set; unsigned webhooks are never sent", advice=advice)


def _misspelt() -> list[Finding]:
    known = {name for name, *_ in described()}
    strangers = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    return [Finding("environment", ok=False, found=f"{name} is no setting", advice="See README, Settings.") for name in strangers]


def _lane(lane: Lane, book: Book, now: float) -> list[Finding]:
    view, condition, found = book.view(lane, now), book.learned.condition(lane), []
    if condition.down_until > now:
        found.append(
            Finding(f"lane {lane}", ok=False, found=f"the API fails: {condition.reason}", advice="It is asked again by itself.")
        )
    if view.aside:
        task_id, why = next(iter(book.aside(lane).items()))
        advice = "Look at the record in Redis, mend or delete it, and submit the id again."
        found.append(
            Finding(f"lane {lane}", ok=False, found=f"{view.aside} records set aside, such as {task_id}: {why}", advice=advice)
        )
    if view.dead:
        found.append(Finding(f"lane {lane}", ok=True, found=f"{view.dead} dead letters", advice="See `cavendish dead list`."))
    return found
