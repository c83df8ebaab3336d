"""Sends one signed POST.

The body is exactly the signed bytes. One wall-clock deadline covers name, connect, headers and
answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import lru_cache

import httpx

from cavendish.endpoints import signing
from cavendish_worker.http import loop_lag
from cavendish_worker.http.egress import AddressRefused, NetworkAway, ProxyAway, ResolverAway
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.http.transport import Call, Place, PooledTransport, place_of
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind, classified, excerpt

#: Bytes of an answer that are read.
ANSWER_LIMIT = 64 * 1024
#: The share of a call's time from which on it is our fault that no answer was read.
OUR_SHARE = 1 / 3
_OURS = (ResolverAway, NetworkAway, ProxyAway)
_BAD_URL = (httpx.InvalidURL, httpx.UnsupportedProtocol)
_HEADERS = (
    b"user-agent: Cavendish\r\naccept: */*\r\naccept-encoding: identity\r\n"
    b"content-type: application/json\r\n"
)
#: URLs that are remembered as they were read.
_PLACES = 4096


@dataclass(frozen=True, slots=True)
class Target:
    """Where a delivery goes, and the keys that sign it.

    `complaint`: why it cannot be sent; `gone`: it never can, else the fault is ours. `origin`: our
    name, sent with each call to an endpoint that gave its consent. `headers`: the operator's own,
    each a name and a value, which may be secret.
    """

    url: str = ""
    keys: tuple[str, ...] = field(default=(), repr=False)
    origin: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    complaint: str = ""
    gone: bool = False


async def post(
    transport: PooledTransport,
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
    began, call, stood = time.monotonic(), None, loop_lag.stood_still()
    answer = ""
    try:
        async with shutdown_deadline.call(timeout):
            call = _signed(target, webhook_id, body, int(now), trace)
            said = await transport.exchange(call, ANSWER_LIMIT, timeout)
        result, answer = classified(said.status, said.headers), excerpt(said.body)
    except TimeoutError:
        result = _timed_out(timeout, loop_lag.stood_still() - stood)
        if shutdown_deadline.passed():
            why = "not waited for: this worker shuts down"
            result = AttemptResult(ResultKind.NOT_SENT, why)
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError, OSError) as error:
        result = _failed(error)
    address = str(call.peer[0]) if call is not None and call.peer else result.address
    seconds = time.monotonic() - began
    return replace(result, sent_at=now, seconds=seconds, address=address, answer=answer)


def _signed(target: Target, webhook_id: str, body: bytes, now: int, trace: str) -> Call:
    place = _place(target.url)
    headers = signing.headers(target.keys, webhook_id, now, body)
    if trace:
        headers["traceparent"] = trace
    if target.origin:
        headers["webhook-request-origin"] = target.origin
    first = b"Host: %b\r\nContent-Length: %d\r\n" % (place.host, len(body))
    both = (*headers.items(), *target.headers)
    own = "".join([f"{name}: {value}\r\n" for name, value in both]).encode("ascii")
    return Call(place, "POST", first + _HEADERS + own, body)


@lru_cache(_PLACES)
def _place(url: str) -> Place:
    return place_of(httpx.URL(url))


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
