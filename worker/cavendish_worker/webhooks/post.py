"""One signed POST.

Exactly the signed bytes, within one wall-clock deadline over name, connect, headers and answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import httpx

from cavendish_worker.http.egress import AddressRefused, NetworkAway, ProxyAway, ResolverAway
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.http.transport import read_first
from cavendish_worker.webhooks import signing
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind, classified, excerpt

#: Bytes of an answer that are read.
ANSWER_LIMIT = 64 * 1024
_OURS = (ResolverAway, NetworkAway, ProxyAway)
_HEADERS = {
    "user-agent": "Cavendish",
    "accept": "*/*",
    "accept-encoding": "identity",
    "content-type": "application/json",
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a delivery goes, and the keys that sign it; or why it cannot go: `gone` for good, else
    by a fault of ours.

    `origin`: who we are, said with each call to an endpoint that gave its consent.
    """

    url: str = ""
    keys: tuple[str, ...] = ()
    origin: str = ""
    complaint: str = ""
    gone: bool = False


async def post(
    transport: httpx.AsyncBaseTransport,
    target: Target,
    webhook_id: str,
    body: bytes,
    now: float,
    timeout: float,
    shutdown_deadline: ShutdownDeadline,
    trace: str = "",
) -> AttemptResult:
    """Send, and say what came of it; every error is an answer too. `now` is the moment of sending,
    seconds since the epoch.

    `trace` is the `traceparent` that goes along, if any; it is not signed, since who passes the
    webhook on may change it.
    """
    began, request = time.monotonic(), None
    try:
        async with shutdown_deadline.call(timeout):
            request = _signed(target, webhook_id, body, int(now), timeout, trace)
            result = await _exchange(transport, request)
    except TimeoutError:
        left = AttemptResult(ResultKind.UNSENT, "not waited for: this worker ends")
        result = (
            left
            if shutdown_deadline.cut()
            else AttemptResult(ResultKind.LATER, f"no answer within {timeout:g} s")
        )
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError, OSError) as error:
        result = _failed(error)
    peer = request.extensions.get("server_addr") if request is not None else None
    return replace(
        result,
        sent_at=now,
        seconds=time.monotonic() - began,
        address=str(peer[0]) if peer else result.address,
    )


def _signed(
    target: Target, webhook_id: str, body: bytes, now: int, timeout: float, trace: str
) -> httpx.Request:
    headers = _HEADERS | signing.headers(target.keys, webhook_id, now, body)
    if trace:
        headers["traceparent"] = trace
    if target.origin:
        headers["webhook-request-origin"] = target.origin
    limits = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
    return httpx.Request(
        "POST", target.url, headers=headers, content=body, extensions={"timeout": limits}
    )


async def _exchange(transport: httpx.AsyncBaseTransport, request: httpx.Request) -> AttemptResult:
    # Straight to the transport: cookies, redirects and credentials of a client have no place here,
    # and cost a third.
    response = await transport.handle_async_request(request)
    try:
        answer = await read_first(response, ANSWER_LIMIT)
    finally:
        await response.aclose()
    return replace(classified(response.status_code, response.headers), answer=excerpt(answer))


def _failed(error: Exception) -> AttemptResult:
    cause, outcome = error.__cause__, f"{type(error).__name__}: {error}"[:200].rstrip(": ")
    refused = isinstance(cause, AddressRefused) or isinstance(
        error, httpx.InvalidURL | httpx.UnsupportedProtocol
    )
    kind = (
        ResultKind.REFUSED
        if refused
        else ResultKind.OURS
        if isinstance(cause, _OURS)
        else ResultKind.LATER
    )
    dialled = [
        note.removeprefix("Dialled ").rstrip(".") for note in getattr(cause, "__notes__", ())
    ]
    return AttemptResult(kind, outcome, address=", ".join(dialled))
