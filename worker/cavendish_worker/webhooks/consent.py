"""Asks an endpoint whether it wants what we send: the handshake against abuse of CloudEvents' HTTP
webhooks.

An OPTIONS request names us (`WebHook-Request-Origin`); who agrees answers with that name, or `*`,
in `WebHook-Allowed-Origin`, and says in `WebHook-Allowed-Rate` how many calls a minute it takes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

_RATE = re.compile(r"[1-9][0-9]{0,8}")
_HEADERS = {"user-agent": "Cavendish", "accept": "*/*", "accept-encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Consent:
    """What an endpoint answered.

    `complaint`: why that is no consent; `per_minute`: the calls that it takes, None for any.
    """

    complaint: str = ""
    per_minute: float | None = None

    @property
    def granted(self) -> bool:
        return not self.complaint


async def ask(
    transport: httpx.AsyncBaseTransport, url: str, origin: str, rate: int | None, timeout: float
) -> Consent:
    """Ask one endpoint, within one wall-clock deadline.

    Every error is an answer too. `rate`: calls a minute to ask for.
    """
    headers = (
        _HEADERS
        | {"webhook-request-origin": origin}
        | ({"webhook-request-rate": str(rate)} if rate else {})
    )
    limits = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
    try:
        async with asyncio.timeout(timeout):
            # Straight to the transport, which knows no redirects: consent by another is none.
            request = httpx.Request("OPTIONS", url, headers=headers, extensions={"timeout": limits})
            response = await transport.handle_async_request(request)
            await response.aclose()
    except TimeoutError:
        return Consent(f"no answer within {timeout:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError, OSError) as error:
        return Consent(f"{type(error).__name__}: {error}"[:200].rstrip(": "))
    return classified(response.status_code, response.headers, origin)


def classified(status: int, headers: Mapping[str, str], origin: str) -> Consent:
    """Pure.

    Read the answer to the handshake. A status alone is no consent: many servers answer OPTIONS with
    200.
    """
    if not 200 <= status < 300:
        return Consent(f"it answered HTTP {status}")
    allowed = headers.get("webhook-allowed-origin", "").strip()
    if not allowed:
        return Consent(f"it answered HTTP {status} without WebHook-Allowed-Origin")
    if allowed != "*" and allowed.lower() != origin.lower():
        return Consent(f"it allows the origin {allowed[:100]!r}, and we are {origin!r}")
    rate = headers.get("webhook-allowed-rate", "*").strip()
    if rate != "*" and not _RATE.fullmatch(rate):
        return Consent(
            f"its WebHook-Allowed-Rate {rate[:100]!r} is neither a whole number a minute nor *"
        )
    return Consent(per_minute=None if rate == "*" else float(rate))
