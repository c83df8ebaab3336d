"""Text that monitors show, without what may be secret in its URLs."""

from __future__ import annotations

import re

_LENGTH = 160
#: A URL: up to its closing quotation mark if it has one, else up to a space. Only scheme and host
#: are shown.
_URL = re.compile(
    r"""(?P<quote>['"])?(?P<scheme>[a-z][a-z0-9+.-]{0,30}://)(?:[^\s/?#]*@)?"""
    r"""(?P<host>[^\s/'"?#@,]*)(?(quote)(?:(?!(?P=quote)).)*|[^\s'",]*)""",
    re.IGNORECASE | re.DOTALL,
)


def hosts_only(text: str) -> str:
    """The arguments of a message, shortened, and with only the scheme and host of each URL."""
    text = _URL.sub(lambda url: f"{url['quote'] or ''}{url['scheme'].lower()}{url['host']}/…", text)
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}…"
