"""Pure: the URLs at which the API's callbacks come in. Nobody can guess one, and none is stored."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallbackUrls:
    """`root`: our public address; `keys`: secrets, the newest first, of which any opens a URL.

    Without a root or a key there are no URLs.
    """

    root: str
    keys: Sequence[str]

    @property
    def below(self) -> str:
        """What all URLs begin with; "" if there are none."""
        return f"{self.root.rstrip('/')}/callbacks/" if self.root and self.keys else ""

    def url(self, account: str, service: str) -> str:
        """The URL for tasks of a service, or ""."""
        if not self.below:
            return ""
        return f"{self.below}{account}/{service}/{_token(self.keys[0], account, service)}"

    def opens(self, account: str, service: str, token: str) -> bool:
        """True for the token of this URL, by any of the keys; all are compared."""
        given = token.encode(errors="replace")
        found = [
            hmac.compare_digest(_token(key, account, service).encode(), given) for key in self.keys
        ]
        return any(found)


def _token(key: str, account: str, service: str) -> str:
    said = f"cavendish/callback/{account}/{service}"
    return hmac.new(key.encode(), said.encode(), "sha256").hexdigest()[:40]
