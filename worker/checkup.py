"""What `doctor` examines: each finding says what was found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.settings import Settings
from scheduler.store import Book
from scheduler.store.fleet import GONE_AFTER, Member
from scheduler.tracking import Lane


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined. `advice` is empty where nothing need be done."""

    what: str
    ok: bool
    found: str
    advice: str = ""


def alive(member: Member, now: float) -> bool:
    """True if a process was heard of lately."""
    return now - member.at < GONE_AFTER


def examine(book: Book, settings: Settings) -> list[Finding]:
    """Examine everything. Raises BookUnavailable if Redis is away."""
    now, lanes = book.fleet.now(), book.tasks.lanes()
    findings = [Finding("redis", True, f"answers at {book.connection.where}")]  # noqa: FBT003
    findings += [_process(role, book.fleet.members(now), now) for role in ("worker", "beat")]
    findings += [_account(account, book, settings, now) for account in sorted({lane.account for lane in lanes} | {"default"})]
    findings.append(_secret(settings))
    findings += [finding for lane in lanes for finding in _lane(lane, book, now)]
    return findings


def _process(role: str, members: list[Member], now: float) -> Finding:
    living = [member for member in members if member.role == role and alive(member, now)]
    advice = "" if living else f"Start one: celery -A worker.tasks {role}, or `cavendish up`."
    return Finding(role, bool(living), f"{len(living)} alive", advice)


def _account(account: str, book: Book, settings: Settings, now: float) -> Finding:
    name = f"account {account}"
    if account not in settings.tokens():
        where = "CAVENDISH_API_TOKEN" if account == "default" else "CAVENDISH_API_TOKENS_FILE"
        return Finding(name, ok=False, found="has no token here", advice=f"Set {where} for the workers.")
    pace = book.learned.pace(account)
    if pace.held(now):
        advice = (
            "Check the token and the credit of the account." if pace.hold_kind == "account" else "Nothing: it ends by itself."
        )
        return Finding(name, pace.hold_kind != "account", f"held {pace.hold_until - now:.0f} s more: {pace.hold_reason}", advice)
    return Finding(name, ok=True, found=f"may ask {pace.rate:.2f} times a second")


def _secret(settings: Settings) -> Finding:
    if settings.webhook_secret:
        return Finding("webhook secret", ok=True, found="is set")
    advice = "Set CAVENDISH_WEBHOOK_SECRET for the workers; `cavendish up` makes one in its data folder."
    return Finding("webhook secret", ok=False, found="is not set here; unsigned webhooks are never sent", advice=advice)


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
