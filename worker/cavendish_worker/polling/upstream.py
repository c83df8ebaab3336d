"""The remote API: `retrieve_batch(ids)` and `retrieve(id)`, and whatever it answers as a value.

Nothing that the API sends raises: an answer that cannot be read is `UpstreamError(DOWN)`, and the
ids are asked again.
"""

from __future__ import annotations

import json
import math
import re
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.cookiejar import CookieJar
from typing import Any

import httpx

from cavendish.model import (
    DEEPEST,
    Answer,
    Answered,
    Lane,
    UpstreamError,
    UpstreamErrorKind,
    printable,
)
from cavendish_worker.http.shutdown_deadline import ShutdownDeadline
from cavendish_worker.http.transport import read_raw
from cavendish_worker.polling.upstream_errors import NOT_FOUND, error_code, quota, upstream_error
from cavendish_worker.telemetry.tracing import traces

_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[][{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a call may take (seconds, wall clock) and how large its answer may be (bytes)."""

    connect_timeout: float
    call_timeout: float
    answer_limit: int


class Upstream:
    """Asks about ids of a lane, with the token of its account."""

    def __init__(
        self, client: httpx.AsyncClient, api_url: str, tokens: Mapping[str, str], limits: Limits
    ) -> None:
        self._client, self._api_url, self._tokens = client, api_url, dict(tokens)
        client.cookies = _NoCookies()
        self._call_timeout, self._answer_limit = limits.call_timeout, limits.answer_limit
        self._timeout = httpx.Timeout(limits.call_timeout, connect=limits.connect_timeout)
        self._shutdown_deadline = ShutdownDeadline()
        self.stopping = threading.Event()

    @property
    def accounts(self) -> frozenset[str]:
        """The accounts that there are tokens for."""
        return frozenset(self._tokens)

    async def leave(self, within: float) -> None:
        """Wait for no answer longer than so many seconds from now on."""
        self._shutdown_deadline.leave(within)

    async def retrieve_batch(self, lane: Lane, ids: Sequence[str]) -> Answer:
        """Ask about many ids in one call. The items come back as they are: match them by id."""
        status, headers, body = await self._post(
            lane, {"action": "retrieve_batch", "ids": list(ids), "limit": len(ids)}
        )
        if isinstance(body, UpstreamError):
            return body
        if status == 200 and isinstance(body, Mapping) and isinstance(body.get("items"), list):
            items = [item for item in body["items"] if isinstance(item, Mapping)]
            return Answered(items, quota(headers))
        code, _ = error_code(body)
        if code in NOT_FOUND:
            return Answered((), quota(headers))
        if status == 200 and not code:
            return UpstreamError(
                UpstreamErrorKind.DOWN, "the answer to retrieve_batch has no list of items"
            )
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
        return upstream_error(status, headers, body)

    async def _post(
        self, lane: Lane, question: dict[str, Any]
    ) -> tuple[int, Mapping[str, str], Any]:
        """Status, headers and parsed body (None where it is no JSON).

        The body is a Refused if nothing came.
        """
        try:
            async with (
                self._shutdown_deadline.call(self._call_timeout),
                self._client.stream(
                    "POST",
                    f"{self._api_url}/{lane.service}/tasks",
                    json=question,
                    headers={
                        "authorization": f"Bearer {self._tokens.get(lane.account, '')}",
                        "accept": "application/json",
                    }
                    | traces().headers(),
                    timeout=self._timeout,
                ) as response,
            ):
                raw = await read_raw(response, self._answer_limit)
        except TimeoutError:
            return (
                0,
                {},
                UpstreamError(UpstreamErrorKind.DOWN, f"no answer within {self._call_timeout:g} s"),
            )
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError, OSError) as error:
            # httpx reads the Location of a redirect that is not followed, and an ill-formed one
            # raises many a ValueError.
            return (
                0,
                {},
                UpstreamError(
                    UpstreamErrorKind.DOWN, printable(f"{type(error).__name__}: {error}", 200)
                ),
            )
        if raw is not None:
            raw = _inflated(raw, response.headers.get("content-encoding", ""), self._answer_limit)
        if raw is None:
            return (
                0,
                {},
                UpstreamError(
                    UpstreamErrorKind.DOWN,
                    f"the answer is larger than {self._answer_limit} bytes or cannot be unpacked",
                ),
            )
        try:
            body = _parsed(raw)
        except ValueError:
            if response.status_code == 200:
                return (
                    200,
                    response.headers,
                    UpstreamError(
                        UpstreamErrorKind.DOWN, "the answer is no JSON, or an id in it is no text"
                    ),
                )
            body = None
        return response.status_code, response.headers, body


class _NoCookies(CookieJar):
    """Keeps none.

    Accounts must not share them, and one that no header can carry would break every later call.
    """

    def extract_cookies(self, response: object, request: object) -> None:
        """Pass them over."""


def _parsed(raw: bytes) -> Any:
    """The JSON of an answer, read leniently: one odd record must not cost the others theirs. Raises
    ValueError.

    Numbers beyond all bounds stay text, what is nested beyond all bounds is null, and bytes that
    are no text are replaced, but not in an id: it would look absent.
    """
    try:
        return _read(raw.decode(json.detect_encoding(raw), "surrogatepass"))
    except UnicodeDecodeError:
        body = _read(raw.decode(json.detect_encoding(raw), "replace"))
    items = body.get("items") if isinstance(body, Mapping) else None
    records = items if isinstance(items, list) else [body]
    if any(
        "\ufffd" in f"{record.get('id')}{record.get('task_id')}"
        for record in records
        if isinstance(record, Mapping)
    ):
        raise ValueError("An id is no text.")
    return body


def _read(text: str) -> Any:
    try:
        return _READER.decode(text)
    except RecursionError:
        return _READER.decode(_shallow(text))


def _shallow(text: str) -> str:
    """JSON with null in place of what is nested deeper than DEEPEST."""
    kept, depth, start = list[str](), 0, 0
    for found in _BRACKET.finditer(text):
        if found[0] in ("[", "{"):
            depth += 1
            if depth == DEEPEST + 1:
                kept += text[start : found.start()], "null"
        elif found[0] in ("]", "}"):
            if depth == DEEPEST + 1:
                start = found.end()
            depth -= 1
    return "".join(kept) + text[start:] if depth <= DEEPEST else ""


def _whole(text: str) -> int | str:
    """A number of more digits than Python turns into one stays the text that it was."""
    try:
        return int(text)
    except ValueError:
        return text


def _finite(text: str) -> float | str:
    """A number that no float can hold stays the text that it was."""
    number = float(text)
    return number if math.isfinite(number) else text


_READER = json.JSONDecoder(
    parse_float=_finite, parse_int=_whole, parse_constant=lambda _: None, strict=False
)


def _inflated(raw: bytes, encoding: str, limit: int) -> bytes | None:
    """The body without its content encoding (asked not to be used, but servers do), at most `limit`
    bytes.
    """
    if encoding.strip().lower() in ("", "identity"):
        return raw
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return None
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        body = unpacker.decompress(raw, limit + 1)
    except zlib.error:
        return None
    return body if len(body) <= limit and unpacker.eof else None
