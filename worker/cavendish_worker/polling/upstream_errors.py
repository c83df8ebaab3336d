"""Pure: finds out why the remote API did not answer, from status, headers and error body.

403 alone can mean three things: the credit is used up, the account is disabled, or this one id is
refused. A code in the body counts more than the status.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from cavendish.model import Quota, UpstreamError, UpstreamErrorKind, printable
from cavendish.stored_json import too_deep

NOT_FOUND = frozenset({"not_found", "task_not_found"})

_BY_CODE = {
    UpstreamErrorKind.RATE: "too_many_requests rate_limited",
    UpstreamErrorKind.ACCOUNT: "no_token invalid_token token_expired token_mismatched unauthorized "
    "disabled used_up insufficient_balance",
    UpstreamErrorKind.FORBIDDEN: "forbidden content_moderation",
    UpstreamErrorKind.TOO_MANY: "request_too_large content_too_large too_many_ids",
    UpstreamErrorKind.NOT_SERVED: "no_api api_not_implemented",
    UpstreamErrorKind.DOWN: "api_error timeout upstream_error upstream_timeout busy",
}
_CODES = {code: kind for kind, codes in _BY_CODE.items() for code in codes.split()}
_BY_STATUS = {
    401: UpstreamErrorKind.ACCOUNT,
    402: UpstreamErrorKind.ACCOUNT,
    413: UpstreamErrorKind.TOO_MANY,
    429: UpstreamErrorKind.RATE,
    501: UpstreamErrorKind.NOT_SERVED,
}
# A batch that is cut without need costs some calls; one that must be cut and is not would never be
# answered. So when in doubt, cut.
_TOO_MANY = re.compile(
    r"too many|at most|exceed|max(imum)?\b|too (long|large)|limit|larger than", re.IGNORECASE
)
_NOT_THE_BATCH = re.compile(r"credit|balance|money|quota|rate", re.IGNORECASE)
# A 404 without a code of the API comes from a gateway that has no such route, unless it speaks of
# what was asked about.
_OF_THE_IDS = re.compile(r"\b(tasks?|jobs?|records?|ids?)\b", re.IGNORECASE)
_DETAIL_LENGTH = 200
_ITEM = re.compile(r"\b([rt])=(\d+)")
_EPOCH = 1e9


def error_code(body: Any) -> tuple[str, str]:
    """Code and message of an error body; empty texts where there are none."""
    if not isinstance(body, Mapping):
        return "", ""
    error = body.get("error")
    place = error if isinstance(error, Mapping) else body
    code, message = place.get("code"), place.get("message") or place.get("detail")
    if isinstance(error, str):
        code, message = (error, message) if error in _CODES or error in NOT_FOUND else (code, error)
    return _text(code, 80), _text(message, _DETAIL_LENGTH)


def _text(value: Any, length: int) -> str:
    """Any value as text: some frameworks report errors in lists and objects."""
    unusable = not value or (isinstance(value, dict | list) and too_deep(value))
    return "" if unusable else str(value)[:length]


def upstream_error(
    status: int, headers: Mapping[str, str], body: Any, *, alone: bool = False
) -> UpstreamError:
    """Read an answer that is an error. `body`: the parsed JSON, or None where there was none.

    `alone`: one id was asked about in the way of a single id, so a 404 without a code may mean this
    id; the service itself has just answered about the batch.
    """
    code, message = error_code(body)
    why = _CODES.get(code) or _BY_STATUS.get(status) or UpstreamErrorKind.DOWN
    if status == 404 and not code and not alone and not _OF_THE_IDS.search(message):
        why = UpstreamErrorKind.NOT_SERVED
    if status in (400, 422) and code in ("", "bad_request", "invalid_request"):
        why = UpstreamErrorKind.BAD if isinstance(body, Mapping) and (code or message) else why
    words = f"{code} {message}"
    if status == 400 and why is UpstreamErrorKind.BAD and _TOO_MANY.search(words):
        why = why if _NOT_THE_BATCH.search(words) else UpstreamErrorKind.TOO_MANY
    detail = " ".join(part for part in (f"HTTP {status}", code, message) if part)
    detail = printable(detail, _DETAIL_LENGTH)
    return UpstreamError(why, detail, retry_after(headers), quota(headers))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for, or None.

    A date in it is compared with the server's own `Date`.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        at, now = _moment(text), _moment(headers.get("date", "")) or datetime.now(UTC)
        if at is None:
            return None
        seconds = (at - now).total_seconds()
    return max(seconds, 0.0) if seconds == seconds and seconds < 1e9 else None  # noqa: PLR0124 (NaN)


def quota(headers: Mapping[str, str]) -> Quota | None:
    """What the RateLimit headers say, in any of their spellings; None if they are not usable."""
    fields = dict(_ITEM.findall(headers.get("ratelimit", "")))

    def number(item: str, name: str) -> float:
        plain, prefixed = headers.get(f"ratelimit-{name}"), headers.get(f"x-ratelimit-{name}")
        return float(fields.get(item) or plain or prefixed or "")

    try:
        left, seconds = number("r", "remaining"), number("t", "reset")
    except ValueError:
        return None
    if seconds > _EPOCH:  # some servers give the time instead of the seconds until it
        seconds -= (_moment(headers.get("date", "")) or datetime.now(UTC)).timestamp()
    return Quota(left, seconds) if 0 <= left < _EPOCH and 0 < seconds < 86400 else None


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
