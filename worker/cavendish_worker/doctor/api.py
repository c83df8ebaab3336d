"""The remote API: one harmless call with each token of this environment, about a reserved id that
does not exist.

Such a call is free, says the API's documentation. It takes its turn in the rate limit like any
other call, and is never made while the account is paused.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial
from urllib.parse import urlsplit

from cavendish.clock import Clock
from cavendish.model import Answer, Answered, Lane, UpstreamError, UpstreamErrorKind
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.doctor.finding import Finding, ill, skipped, well
from cavendish_worker.doctor.network import at_once, complaint
from cavendish_worker.http.api_proxy import Route, route
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.polling.ask import NOT_SERVED, Asker
from cavendish_worker.polling.upstream import upstream_for
from cavendish_worker.telemetry.tracing import Polls

#: The id that official clients ask for to try out a token.
RESERVED_ID = "00000000-0000-0000-0000-000000000000"
#: Seconds to wait for a turn in the rate limit, and for the call.
TURN, CALL = 3.0, 10.0
#: The service that is asked where the store knows none.
DEFAULT_SERVICE = "nano-banana"


def findings(
    store: Store, settings: Settings, now: float, lanes: Sequence[Lane], *, offline: bool
) -> list[Finding]:
    """One call for each account that this environment has a token for."""
    tokens = settings.tokens()
    if offline:
        return [skipped("api", "--offline")]
    if not tokens:
        return [skipped("api", "this environment has no token; the workers have their own")]
    clock = Clock(now)
    return at_once(
        [partial(_examine, account, store, settings, clock, lanes) for account in sorted(tokens)]
    )


def _examine(
    account: str, store: Store, settings: Settings, clock: Clock, lanes: Sequence[Lane]
) -> Finding:
    controls, now = store.controls.known(), clock.now()
    own = [one for one in lanes if one.account == account] or [Lane(account, DEFAULT_SERVICE)]
    lane = min(own, key=lambda one: controls.pause_of(account, one.service, now) is not None)
    what = f"api, account {account}"
    if pause := controls.pause_of(account, lane.service, now):
        return skipped(what, pause.sentence)
    if store.shared_state.rate_limit(account).paused(now):
        return skipped(what, "the account is paused by the API")
    upstream, loop = upstream_for(settings, settings.tokens(), CALL), LoopThread()
    timeout = min(settings.call_timeout, CALL)
    parts = (store, upstream, loop, clock, lane, Polls())
    asker = Asker(*parts, settings.rate, timeout, clock.now() + TURN)
    try:
        if not asker.take_call():
            return skipped(what, "the workers use the whole rate limit")
        answer, sent_at = asker.send([RESERVED_ID])
    finally:
        loop.close(upstream.close())
    # A refused token is not reported: it is the token of this environment, not of the workers.
    if isinstance(answer, Answered):
        asker.report_answer(answer, sent_at)
    elif answer.why is UpstreamErrorKind.RATE:
        asker.report_pause(answer, sent_at)
    by = route(settings.api_url, settings.api_proxy)
    return _finding(what, answer, settings.api_url, by, lane.service)


def _finding(what: str, answer: Answer, url: str, by: Route, service: str) -> Finding:
    api = f"{url}, asked through the proxy {by.host} ({by.source})," if by.proxy else url
    if isinstance(answer, Answered):
        unused = f" ({by.source})" if by.source and not by.proxy else ""
        return well(what, f"{api} does not refuse the token{unused}")
    if answer.why is UpstreamErrorKind.ACCOUNT:
        page = "https://platform.acedata.cloud"
        advice = f"Check the token and the credit at {page}, and set a new CAVENDISH_API_TOKEN."
        return ill(what, f"the token is refused: {answer.detail}", advice)
    if answer.why is UpstreamErrorKind.RATE:
        found = f"{api} does not refuse the token, but answers 429: too many calls at the moment"
        return well(what, found, "Nothing: the rate limit adapts.")
    if not answer.detail.startswith("HTTP "):
        return _unreachable(what, answer, url, by)
    if answer.why is UpstreamErrorKind.NOT_SERVED:
        found = f"{url} does not serve {service}: {answer.detail}"
        return ill(what, found, f"{NOT_SERVED[0].upper()}{NOT_SERVED[1:]}.")
    if answer.why is UpstreamErrorKind.DOWN:
        advice = "Workers try again by themselves; check whether CAVENDISH_API_URL is right."
        return ill(what, f"the API fails: {answer.detail}", advice)
    return well(what, f"{api} answers: {answer.detail}")


def _unreachable(what: str, answer: UpstreamError, url: str, by: Route) -> Finding:
    """No readable answer came: is it the proxy, certificate, name, network or API?"""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if by.proxy and "proxy" in answer.detail.lower():
        found = f"{host} is asked through the proxy {by.host}, but: {answer.detail}"
        advice = f"Repair the proxy or correct {by.source}; CAVENDISH_API_PROXY=none uses no proxy."
        return ill(what, found, advice)
    if "SSL" in answer.detail or "ertificate" in answer.detail:
        found = f"TLS with {host} fails: {answer.detail}"
        advice = (
            "A proxy on the way intercepts TLS, or a root certificate is missing: "
            "set SSL_CERT_FILE to the right certificates."
        )
        return ill(what, found, advice)
    fault = None if by.proxy else complaint(host, port)
    if fault is None:
        through = f" through the proxy {by.host}" if by.proxy else ""
        found = f"{host}:{port} is reached{through}, but: {answer.detail}"
        return ill(what, found, "Check whether CAVENDISH_API_URL is right.")
    unused = f" {by.source}." if by.source else ""
    if fault[0] is socket.gaierror:
        advice = f"Repair DNS on this machine, or correct CAVENDISH_API_URL.{unused}"
        return ill(what, f"{host} is not found: {fault[1]}", advice)
    advice = f"Check the routes and the firewall of this machine.{unused}"
    return ill(what, f"{host}:{port} is not reached: {fault[1]}", advice)
