"""The remote API: one harmless call with each token of this environment, about an id that is
nobody's.

Such a call is free by the API's documents. It takes its turn in the rate limit like any other and
is never made in a hold.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from functools import partial
from urllib.parse import urlsplit

import httpx

from cavendish.clock import Clock
from cavendish.model import Answer, Answered, Lane, UpstreamError, UpstreamErrorKind
from cavendish.policy.rate_limit import acquire, report_answer, report_error
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.doctor.finding import Finding, ill, skipped, well
from cavendish_worker.doctor.network import at_once, complaint
from cavendish_worker.http.transport import PooledTransport
from cavendish_worker.polling.upstream import Limits, Upstream

#: The id that official clients ask for to try a token out.
NOBODYS = "00000000-0000-0000-0000-000000000000"
#: Seconds to wait for a turn in the rate limit, and for the call.
TURN, CALL = 3.0, 10.0
#: The service that is asked for where the store knows none.
FIRST = "nano-banana"


def findings(
    store: Store, settings: Settings, now: float, lanes: Sequence[Lane], *, offline: bool
) -> list[Finding]:
    """Ask once for each account that this environment has a token for."""
    tokens = settings.tokens()
    if offline or not tokens:
        return [
            skipped(
                "api",
                "--offline"
                if offline
                else "this environment has no token; the workers' are their own",
            )
        ]
    clock = Clock(now)
    return at_once(
        [partial(_examine, account, store, settings, clock, lanes) for account in sorted(tokens)]
    )


def _examine(
    account: str, store: Store, settings: Settings, clock: Clock, lanes: Sequence[Lane]
) -> Finding:
    lane = next((lane for lane in lanes if lane.account == account), Lane(account, FIRST))
    what = f"api, account {account}"
    held = store.shared_state.rate_limit(account).held(clock.now())
    if held or not asyncio.run(_turn(store, lane, settings, clock)):
        return skipped(
            what, "the account is held" if held else "the workers use the whole rate limit"
        )
    sent_at = clock.now()
    answer = asyncio.run(_ask(settings, lane))
    _report(store, account, answer, sent_at, clock.now())
    return _finding(what, answer, settings.api_url)


async def _turn(store: Store, lane: Lane, settings: Settings, clock: Clock) -> bool:
    """Wait for a turn; false if none comes soon."""
    until = clock.now() + TURN
    while True:
        now = clock.now()
        wait = store.shared_state.change_rate_limit(
            lane.account, lambda rate_limit, now=now: acquire(rate_limit, now, settings.rate)
        )  # type: ignore[misc]
        if not wait:
            return True
        if now + wait > until:
            return False
        await asyncio.sleep(wait)


async def _ask(settings: Settings, lane: Lane) -> Answer:
    headers = {"user-agent": "Cavendish", "accept-encoding": "identity"}
    limits = Limits(
        settings.connect_timeout, min(settings.call_timeout, CALL), settings.answer_limit
    )
    async with httpx.AsyncClient(
        transport=PooledTransport(), trust_env=False, headers=headers
    ) as http:
        return await Upstream(http, settings.api_url, settings.tokens(), limits).retrieve_batch(
            lane, [NOBODYS]
        )


def _report(store: Store, account: str, answer: Answer, sent_at: float, now: float) -> None:
    """What the fleet learns from it.

    A refused token is our own, and says nothing about the workers'.
    """
    if isinstance(answer, Answered):
        store.shared_state.change_rate_limit(
            account,
            lambda rate_limit: (report_answer(rate_limit, sent_at, now, answer.quota), None),
        )
    elif answer.why is UpstreamErrorKind.RATE:
        said = (answer.why, answer.detail, answer.retry_after, sent_at, now, 0.0, answer.quota)
        store.shared_state.change_rate_limit(
            account, lambda rate_limit: (report_error(rate_limit, *said), None)
        )


def _finding(what: str, answer: Answer, url: str) -> Finding:
    if isinstance(answer, Answered):
        return well(what, f"{url} takes the token")
    if answer.why is UpstreamErrorKind.ACCOUNT:
        advice = "Check the token and the credit at https://platform.acedata.cloud, and set CAVENDISH_API_TOKEN anew."
        return ill(what, f"the token is refused: {answer.detail}", advice)
    if answer.why is UpstreamErrorKind.RATE:
        return well(
            what,
            f"{url} takes the token, and says that we ask too often just now",
            "Nothing: the rate limit adapts.",
        )
    if not answer.detail.startswith("HTTP "):
        return _unreachable(what, answer, url)
    if answer.why is UpstreamErrorKind.DOWN:
        return ill(
            what,
            f"the API fails: {answer.detail}",
            "It is asked again by itself; see whether CAVENDISH_API_URL is right.",
        )
    return well(what, f"{url} answers: {answer.detail}")


def _unreachable(what: str, answer: UpstreamError, url: str) -> Finding:
    """Nothing readable came: is it the name, the way, the certificate, or the server?"""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    proxied = next(
        (name for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY") if os.environ.get(name)), None
    )
    if "SSL" in answer.detail or "ertificate" in answer.detail:
        advice = "Something between breaks TLS open, or a root certificate is missing: set SSL_CERT_FILE to the right ones."
        return ill(what, f"TLS with {host} fails: {answer.detail}", advice)
    fault = complaint(host, port)
    if fault is None:
        return ill(
            what,
            f"{host}:{port} is reached, but: {answer.detail}",
            "See whether CAVENDISH_API_URL is right.",
        )
    quarantined = f" {proxied} is set, but the API is asked without a proxy." if proxied else ""
    if fault[0] is socket.gaierror:
        return ill(
            what,
            f"{host} is not found: {fault[1]}",
            f"Mend DNS on this machine, or CAVENDISH_API_URL.{quarantined}",
        )
    return ill(
        what,
        f"{host}:{port} is not reached: {fault[1]}",
        f"Open the way out: routes, firewall.{quarantined}",
    )
