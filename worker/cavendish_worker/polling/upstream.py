"""The remote API: `retrieve_batch(ids)` and `retrieve(id)`; whatever it answers is a value.

Nothing that the API sends raises an exception: an answer that cannot be read is
`UpstreamError(DOWN)`, and its ids are polled again.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from cavendish.model import Answer, Answered, Lane, UpstreamError, UpstreamErrorKind, printable
from cavendish.settings import Settings
from cavendish_worker.http import api_proxy
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.http.transport import read_raw
from cavendish_worker.polling.answer_json import inflate, read_answer
from cavendish_worker.polling.upstream_errors import NOT_FOUND, error_code, quota, upstream_error
from cavendish_worker.telemetry.tracing import traces

#: Bytes of JSON that are read on the event loop. More is read in a thread, so that other calls go
#: on meanwhile.
AT_ONCE = 256 * 1024


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How long a call may take (seconds, wall clock) and how large its answer may be (bytes)."""

    connect_timeout: float
    call_timeout: float
    answer_limit: int


class Upstream:
    """Asks about ids of a lane, with the token of its account; `tokens` may change."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        api_url: str,
        tokens: Mapping[str, str],
        limits: CallLimits,
    ) -> None:
        self._transport, self._api_url, self._tokens = transport, api_url, tokens
        self._call_timeout, self._answer_limit = limits.call_timeout, limits.answer_limit
        timeout = httpx.Timeout(limits.call_timeout, connect=limits.connect_timeout)
        self._extensions = {"timeout": timeout.as_dict()}
        self._shutdown_deadline = ShutdownDeadline()
        self.stopping = threading.Event()

    @property
    def accounts(self) -> frozenset[str]:
        """The accounts for which this process has a token now."""
        return frozenset(self._tokens)

    def fingerprint(self, lane: Lane) -> str:
        """A text that changes with the token of a lane; it does not tell the token."""
        return self._fingerprint(lane.account, f"cavendish/{lane.account}/{lane.service}")

    def token_fingerprint(self, account: str) -> str:
        """The same for an account as a whole."""
        return self._fingerprint(account, f"cavendish/{account}")

    def _fingerprint(self, account: str, name: str) -> str:
        token = self._tokens.get(account, "").encode(errors="surrogateescape")
        return hmac.new(token, name.encode(), "sha256").hexdigest()[:12]

    async def shut_down(self, within: float) -> None:
        """From now on, wait at most `within` seconds for answers."""
        self._shutdown_deadline.set(within)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def retrieve_batch(self, lane: Lane, ids: Sequence[str]) -> Answer:
        """Ask about many ids in one call. The items come in any order: match them by id."""
        question = {"action": "retrieve_batch", "ids": list(ids), "limit": len(ids)}
        status, headers, body = await self._post(lane, question)
        if isinstance(body, UpstreamError):
            return body
        if status == 200 and isinstance(body, Mapping) and isinstance(body.get("items"), list):
            items, count = body["items"], body.get("count")
            if not items and isinstance(count, int) and count > 0:
                # Services of the API answered so for ids that they knew.
                why = f"the answer to retrieve_batch says count {count:.0f}, and lists no items"
                return UpstreamError(UpstreamErrorKind.DOWN, why[:200])
            records = [item for item in items if isinstance(item, Mapping)]
            return Answered(records, quota(headers))
        code, _ = error_code(body)
        if code in NOT_FOUND:
            return Answered((), quota(headers))
        if status == 200 and not code:
            why = "the answer to retrieve_batch has no list of items"
            return UpstreamError(UpstreamErrorKind.DOWN, why)
        return upstream_error(status, headers, body)

    async def retrieve(self, lane: Lane, task_id: str) -> Answer:
        """Ask about one id. No items: the API does not know it."""
        status, headers, body = await self._post(lane, {"action": "retrieve", "id": task_id})
        if isinstance(body, UpstreamError):
            return body
        code, _ = error_code(body)
        if code in NOT_FOUND or (status == 200 and not body and body in (None, {})):
            return Answered((), quota(headers))
        if status == 200 and isinstance(body, Mapping):
            if "response" in body or body.get("id") or body.get("task_id"):
                ours = (body.get("id") or body.get("task_id") or task_id) == task_id
                return Answered((body,) if ours else (), quota(headers))
            if not code:
                return UpstreamError(UpstreamErrorKind.DOWN, "the answer to retrieve is no record")
        return upstream_error(status, headers, body, alone=True)

    async def _post(
        self, lane: Lane, question: dict[str, Any]
    ) -> tuple[int, Mapping[str, str], Any]:
        """Status, headers and parsed body (None where it is no JSON).

        The body is an UpstreamError if nothing readable came.
        """
        try:
            async with self._shutdown_deadline.call(self._call_timeout):
                request = self._request(lane, question)
                response = await self._transport.handle_async_request(request)
                try:
                    raw = await read_raw(response, self._answer_limit)
                finally:
                    await response.aclose()
        except TimeoutError:
            return _no_answer(f"no answer within {self._call_timeout:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError, OSError) as error:
            return _no_answer(printable(f"{type(error).__name__}: {error}", 200))
        return await self._read(response, raw)

    def _request(self, lane: Lane, question: dict[str, Any]) -> httpx.Request:
        """A call, without httpx's client: it keeps cookies, and costs more than all the rest."""
        headers = {
            "authorization": f"Bearer {self._tokens.get(lane.account, '')}",
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": "Cavendish",
        }
        return httpx.Request(
            "POST",
            f"{self._api_url}/{lane.service}/tasks",
            json=question,
            headers=headers | traces().headers(),
            extensions=self._extensions,
        )

    async def _read(
        self, response: httpx.Response, raw: bytes | None
    ) -> tuple[int, Mapping[str, str], Any]:
        status, headers, limit = response.status_code, response.headers, self._answer_limit
        encoding = headers.get("content-encoding", "")
        if raw is not None and encoding:
            raw = await asyncio.to_thread(inflate, raw, encoding, limit)
        if raw is None:
            return _no_answer(f"the answer is larger than {limit} bytes or cannot be unpacked")
        try:
            if len(raw) > AT_ONCE:
                return status, headers, await asyncio.to_thread(read_answer, raw)
            return status, headers, read_answer(raw)
        except ValueError:
            if status == 200:
                return _no_answer("the answer is no JSON, or an id in it is no text")
            return status, headers, None


def _no_answer(why: str) -> tuple[int, Mapping[str, str], UpstreamError]:
    return 0, {}, UpstreamError(UpstreamErrorKind.DOWN, why)


def upstream_for(
    settings: Settings, tokens: Mapping[str, str], longest_call: float = math.inf
) -> Upstream:
    """The remote API as the settings say, with calls of at most `longest_call` seconds."""
    timeout = min(settings.call_timeout, longest_call)
    limits = CallLimits(settings.connect_timeout, timeout, settings.answer_limit)
    through = api_proxy.transport(settings.api_url, settings.api_proxy)
    return Upstream(through, settings.api_url, tokens, limits)
