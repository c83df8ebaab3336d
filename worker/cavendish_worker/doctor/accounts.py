"""The accounts of the remote API: have the workers their tokens, may they call, do they see ids?"""

from __future__ import annotations

from collections.abc import Sequence

from cavendish.model import Lane, UpstreamErrorKind
from cavendish.policy.operator_controls import Pause
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.fleet import Member
from cavendish.store.statistics import Statistics
from cavendish_worker.doctor.finding import Finding, ill, well


def findings(
    store: Store,
    settings: Settings,
    statistics: Statistics,
    lanes: Sequence[Lane],
    workers: Sequence[Member],
) -> list[Finding]:
    """One finding for each account that has ids, and for the default account.

    One more for each service of which the API knows no id under the token of an account.
    """
    tokens = {account for member in workers for account in member.accounts}
    if not workers:
        tokens = set(settings.tokens())
    accounts = sorted({lane.account for lane in lanes} | {"default"})
    now, controls = statistics.now, statistics.controls
    return [
        *(
            _account(account, store, statistics, settings.rate, has_token=account in tokens)
            for account in accounts
        ),
        *map(_operator_pause, controls.in_force(now)),
        *(_token_fault(one) for one in workers if one.token_fault),
        *_blind(statistics),
    ]


def _token_fault(worker: Member) -> Finding:
    advice = (
        "Repair CAVENDISH_API_TOKENS_FILE; until then the worker uses the tokens it had before."
    )
    return ill(f"tokens of {worker.name}", worker.token_fault, advice)


def _operator_pause(pause: Pause) -> Finding:
    service = "" if pause.service is None else f" --service {pause.service}"
    advice = f"Nothing, if that is intended; else: cavendish resume --account {pause.account}"
    what = f"account {pause.account}" + (f", service {pause.service}" if service else "")
    return well(what, f"{pause.told}; its ids wait", advice + service)


def _account(
    account: str, store: Store, statistics: Statistics, setting: float, *, has_token: bool
) -> Finding:
    """`setting`: CAVENDISH_RATE, in calls per second."""
    name, now, controls = f"account {account}", statistics.now, statistics.controls
    if not has_token:
        where = "CAVENDISH_API_TOKEN" if account == "default" else "CAVENDISH_API_TOKENS_FILE"
        return ill(name, "has no token", f"Set {where} for the workers.")
    rate_limit = store.shared_state.rate_limit(account)
    if not rate_limit.paused(now):
        rate, most = rate_limit.rate_at(now), controls.ceiling_of(account, setting)
        said = f"; {controls.ceilings[account].told}" if account in controls.ceilings else ""
        return well(name, f"may make {min(rate, most or rate):.2f} calls/s{said}")
    rest = f"{rate_limit.paused_until - now:.0f} s"
    found = f"paused by the API for {rest}: {rate_limit.pause_reason}"
    if rate_limit.pause_kind == UpstreamErrorKind.ACCOUNT:
        return ill(name, found, "Check the token and the credit of the account.")
    return well(name, found, "Nothing: the API asked for the pause, and it ends by itself.")


def _blind(statistics: Statistics) -> list[Finding]:
    found = {
        (one.lane.account, one.lane.service): one.visibility
        for one in statistics.tracked
        if one.visibility.reported(statistics.now)
    }
    advice = (
        "The API hides the tasks of other owners, and does not check the token for every service: "
        "a wrong token, or that of another owner, has this effect. Compare the token with the one "
        "that made the ids. Its ids wait for their deadline, and none becomes unknown."
    )
    return [
        ill(f"account {account}, service {service}", visibility.reason, advice)
        for (account, service), visibility in sorted(found.items(), key=lambda item: item[0])
    ]
