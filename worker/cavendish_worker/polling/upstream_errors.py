"""Pure: why did the remote API not answer? Reads status, headers and the envelopes of its errors.

403 alone is three different things: the credit is used up, the account is disabled, or this one id
is refused. A code in the body is believed before the status.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from cavendish.model import Quota, UpstreamError, UpstreamErrorKind, printable, too_deep

NOT_FOUND = frozenset({"not_found", "task_not_found"})

_BY_CODE = {
    UpstreamErrorKind.RATE: ("too_many_requests", "rate_limited"),
    UpstreamErrorKind.ACCOUNT: (
        "no_token",
        "invalid_token",
        "token_expired",
        "token_mismatched",
        "unauthorized",
        "disabled",
        "used_up",
        "insufficient_balance",
    ),
    UpstreamErrorKind.FORBIDDEN: ("forbidden", "content_moderation"),
    UpstreamErrorKind.TOO_MANY: ("request_too_large", "content_too_large", "too_many_ids"),
    UpstreamErrorKind.DOWN: (
        "api_error",
        "timeout",
        "upstream_error",
        "upstream_timeout",
        "busy",
        "no_api",
        "api_not_implemented",
    ),
}
_CODES = {code: upstream_error for upstream_error, codes in _BY_CODE.items() for code in codes}
_BY_STATUS = {
    401: UpstreamErrorKind.ACCOUNT,
    402: UpstreamErrorKind.ACCOUNT,
    413: UpstreamErrorKind.TOO_MANY,
    429: UpstreamErrorKind.RATE,
}
# A batch halved without need costs some calls; one that is never halved would never be answered.
# So: when in doubt, halve.
_TOO_MANY = re.compile(
    r"too many|at most|exceed|max(imum)?\b|too (long|large)|limit|larger than", re.IGNORECASE
)
_NOT_THE_BATCH = re.compile(r"credit|balance|money|quota|rate", re.IGNORECASE)
_DETAIL_LENGTH = 200
_ITEM = re.compile(r"\b([rt])=(\d+)")
_EPOCH = 1e9


def error_code(body: Any) -> tuple[str, str]:
    """Code and message of an error envelope, empty where there are none."""
    if not isinstance(body, Mapping):
        return "", ""
    error = body.get("error")
    place = error if isinstance(error, Mapping) else body
    code, message = place.get("code"), place.get("message") or place.get("detail")
    if isinstance(error, str):
        code, message = (error, message) if error in _CODES or error in NOT_FOUND else (code, error)
    return _said(code, 80), _said(message, _DETAIL_LENGTH)


def _said(value: Any, length: int) -> str:
    """As text, also where it is none: some frameworks say what is wrong in lists and objects."""
    return (
        ""
        if not value or (isinstance(value, dict | list) and too_deep(value))
        else str(value)[:length]
    )


def upstream_error(status: int, headers: Mapping[str, str], body: Any) -> UpstreamError:
    """Read a refusing answer. `body` is the parsed JSON, or None where there was none."""
    code, message = error_code(body)
    why = _CODES.get(code) or _BY_STATUS.get(status) or UpstreamErrorKind.DOWN
    if status in (400, 422) and code in ("", "bad_request", "invalid_request"):
        why = UpstreamErrorKind.BAD if isinstance(body, Mapping) and (code or message) else why
    said = f"{code} {message}"
    if (
        status == 400
        and why is UpstreamErrorKind.BAD
        and _TOO_MANY.search(said)
        and not _NOT_THE_BATCH.search(said)
    ):
        why = UpstreamErrorKind.TOO_MANY
    detail = f"HTTP {status}" + "".join(f" {part}" for part in (code, message) if part)
    return UpstreamError(
        why, printable(detail, _DETAIL_LENGTH), retry_after(headers), quota(headers)
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds asked for by `Retry-After`, as a number or a date (read against the server's own
    `Date`), or None.
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
    """What the RateLimit headers say, in any of their spellings, or None where they say nothing
    usable.
    """
    fields = dict(_ITEM.findall(headers.get("ratelimit", "")))
    remaining = (
        fields.get("r")
        or headers.get("ratelimit-remaining")
        or headers.get("x-ratelimit-remaining")
    )
    reset = fields.get("t") or headers.get("ratelimit-reset") or headers.get("x-ratelimit-reset")
    try:
        left, seconds = float(remaining or ""), float(reset or "")
    except ValueError:
        return None
    if seconds > _EPOCH:  # some give the moment instead of the seconds until it
        seconds -= (_moment(headers.get("date", "")) or datetime.now(UTC)).timestamp()
    return Quota(left, seconds) if 0 <= left < _EPOCH and 0 < seconds < 86400 else None


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
