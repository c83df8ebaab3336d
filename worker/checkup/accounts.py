"""The accounts of the remote API: do the workers have their tokens, and may they ask?"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.settings import Settings
from scheduler.store import Book
from scheduler.store.fleet import Member
from scheduler.tracking import Lane, Refusal
from worker.checkup.finding import Finding, ill, well


def findings(book: Book, settings: Settings, now: float, lanes: Sequence[Lane], workers: Sequence[Member]) -> list[Finding]:
    """One finding for each account that has ids, and for the default one."""
    tokens = {account for member in workers for account in member.accounts} if workers else set(settings.tokens())
    accounts = sorted({lane.account for lane in lanes} | {"default"})
    return [_account(account, book, now, has_token=account in tokens) for account in accounts]


def _account(account: str, book: Book, now: float, *, has_token: bool) -> Finding:
    name = f"account {account}"
    if not has_token:
        where = "CAVENDISH_API_TOKEN" if account == "default" else "CAVENDISH_API_TOKENS_FILE"
        return ill(name, "has no token", f"Set {where} for the workers.")
    pace = book.learned.pace(account)
    if not pace.held(now):
        return well(name, f"may ask {pace.rate_at(now):.2f} times a second")
    found = f"held {pace.hold_until - now:.0f} s more: {pace.hold_reason}"
    if pace.hold_kind == Refusal.ACCOUNT:
        return ill(name, found, "Check the token and the credit of the account.")
    return well(name, found, "Nothing: the API asked for it, and it ends by itself.")
