"""Sends one signed POST.

The body is exactly the signed bytes. One wall-clock deadline covers name, connect, headers and
answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import httpx

from cavendish_worker.http import loop_lag
from cavendish_worker.http.egress import AddressRefused, NetworkAway, ProxyAway, ResolverAway
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.http.transport import read_first
from cavendish_worker.webhooks import signing
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind, classified, excerpt

#: Bytes of an answer that are read.
ANSWER_LIMIT = 64 * 1024
#: The share of a call's time from which on it is our fault that no answer was read.
OUR_SHARE = 1 / 3
_OURS = (ResolverAway, NetworkAway, ProxyAway)
_BAD_URL = (httpx.InvalidURL, httpx.UnsupportedProtocol)
_HEADERS = {
    "user-agent": "Cavendish",
    "accept": "*/*",
    "accept-encoding": "identity",
    "content-type": "application/json",
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a delivery goes, and the keys that sign it.

    `complaint`: why it cannot be sent; `gone`: it never can, else the fault is ours. `origin`: our
    name, sent with each call to an endpoint that gave its consent.
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
    """Send, and return the result; every error is a result too.

    `now`: seconds since the epoch; `timeout`: seconds. `trace`: the `traceparent` header, if any;
    it is not signed, since whoever forwards the webhook may change it.
    """
    began, request, stood = time.monotonic(), None, loop_lag.stood_still()
    try:
        async with shutdown_deadline.call(timeout):
            request = _signed(target, webhook_id, body, int(now), timeout, trace)
            result = await _exchange(transport, request)
    except TimeoutError:
        result = _timed_out(timeout, loop_lag.stood_still() - stood)
        if shutdown_deadline.passed():
            why = "not waited for: this worker shuts down"
            result = AttemptResult(ResultKind.NOT_SENT, why)
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError, OSError) as error:
        result = _failed(error)
    peer = request.extensions.get("server_addr") if request is not None else None
    address = str(peer[0]) if peer else result.address
    return replace(result, sent_at=now, seconds=time.monotonic() - began, address=address)


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
    # Directly to the transport: we want no cookies, redirects or credentials of a client, which
    # would cost a third of the time.
    response = await transport.handle_async_request(request)
    try:
        answer = await read_first(response, ANSWER_LIMIT)
    finally:
        await response.aclose()
    return replace(classified(response.status_code, response.headers), answer=excerpt(answer))


def _timed_out(timeout: float, stood: float) -> AttemptResult:
    """A call without an answer; `stood`: seconds of it in which this worker could not read one."""
    why = f"no answer within {timeout:g} s"
    if stood < OUR_SHARE * timeout:
        return AttemptResult(ResultKind.RETRY, why)
    return AttemptResult(
        ResultKind.OUR_FAULT, f"{why}, but this worker stood still for {stood:.1f} s of them"
    )


def _failed(error: Exception) -> AttemptResult:
    cause, outcome = error.__cause__, f"{type(error).__name__}: {error}"[:200].rstrip(": ")
    kind = ResultKind.RETRY
    if isinstance(cause, AddressRefused) or isinstance(error, _BAD_URL):
        kind = ResultKind.REJECTED
    elif isinstance(cause, _OURS):
        kind = ResultKind.OUR_FAULT
    notes = getattr(error, "__notes__", ())
    dialled = [note.removeprefix("Dialled ").rstrip(".") for note in notes]
    return AttemptResult(kind, outcome, address=", ".join(dialled))
