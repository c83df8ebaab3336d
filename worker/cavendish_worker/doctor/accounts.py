"""The accounts of the remote API: do the workers have their tokens, and may they ask?"""

from __future__ import annotations

from collections.abc import Sequence

from cavendish.model import Lane, UpstreamErrorKind
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.fleet import Member
from cavendish_worker.doctor.finding import Finding, ill, well


def findings(
    store: Store, settings: Settings, now: float, lanes: Sequence[Lane], workers: Sequence[Member]
) -> list[Finding]:
    """One finding for each account that has ids, and for the default one."""
    tokens = (
        {account for member in workers for account in member.accounts}
        if workers
        else set(settings.tokens())
    )
    accounts = sorted({lane.account for lane in lanes} | {"default"})
    return [_account(account, store, now, has_token=account in tokens) for account in accounts]


def _account(account: str, store: Store, now: float, *, has_token: bool) -> Finding:
    name = f"account {account}"
    if not has_token:
        where = "CAVENDISH_API_TOKEN" if account == "default" else "CAVENDISH_API_TOKENS_FILE"
        return ill(name, "has no token", f"Set {where} for the workers.")
    rate_limit = store.shared_state.rate_limit(account)
    if not rate_limit.held(now):
        return well(name, f"may ask {rate_limit.rate_at(now):.2f} times a second")
    found = f"held {rate_limit.paused_until - now:.0f} s more: {rate_limit.pause_reason}"
    if rate_limit.pause_kind == UpstreamErrorKind.ACCOUNT:
        return ill(name, found, "Check the token and the credit of the account.")
    return well(name, found, "Nothing: the API asked for it, and it ends by itself.")
