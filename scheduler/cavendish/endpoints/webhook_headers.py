"""Pure: the headers that an operator adds to the webhooks of an endpoint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

#: Headers of an endpoint, characters of a name and of a value, and of all of them together.
MOST, LONGEST_NAME, LONGEST_VALUE, LARGEST = 10, 64, 2048, 8192
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
#: Those that a webhook has of its own, and those that say how HTTP frames or forwards it.
_OURS = frozenset("accept accept-encoding traceparent tracestate user-agent".split())
_OURS_BEFORE = ("webhook-", "ce-", "content-")
_FRAMING = frozenset(
    "connection expect host http2-settings keep-alive te trailer transfer-encoding upgrade".split()
)
_FRAMING_BEFORE = ("proxy-",)


def header_complaint(name: str, value: str) -> str | None:
    """Why webhooks cannot have this header, or None. The sentence shows no value."""
    low = name.lower()
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        letters = "letters, digits and !#$%&'*+-.^_`|~"
        return f"the name of a header is 1 to {LONGEST_NAME} {letters}: {name[:80]!r}"
    if low in _OURS or low.startswith(_OURS_BEFORE):
        return f"the header {name} is set by Cavendish itself"
    if low in _FRAMING or low.startswith(_FRAMING_BEFORE):
        return f"the header {name} belongs to HTTP itself"
    if not _VALUE.fullmatch(value) or len(value) > LONGEST_VALUE:
        what = f"1 to {LONGEST_VALUE} printable ASCII characters on one line"
        return f"the value of the header {name} must be {what}"
    return None


def headers_complaint(headers: Mapping[str, str], known: Iterable[str] = ()) -> str | None:
    """Why these headers cannot be added to an endpoint that has the `known` ones, or None."""
    if len(headers) > MOST:
        return f"an endpoint has at most {MOST} headers"
    for name, value in headers.items():
        if complaint := header_complaint(name, value):
            return complaint
    names = [name.lower() for name in headers]
    if twice := next((name for name in names if names.count(name) > 1), None):
        return f"the header {twice} is given twice"
    if len({*names, *(name.lower() for name in known)}) > MOST:
        return f"an endpoint has at most {MOST} headers"
    if sum(map(len, (*headers, *headers.values()))) > LARGEST:
        return f"the headers of an endpoint are larger than {LARGEST} bytes together"
    return None
