"""Asks an endpoint whether it accepts our webhooks: the abuse protection of CloudEvents' HTTP
webhooks.

An OPTIONS request names us (`WebHook-Request-Origin`). An endpoint that agrees answers with that
name, or `*`, in `WebHook-Allowed-Origin`; `WebHook-Allowed-Rate` is its limit of calls a minute.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

import httpx

from cavendish.endpoints.webhook_endpoint import Consent

_RATE = re.compile(r"[1-9][0-9]{0,8}")
_HEADERS = {"user-agent": "Cavendish", "accept": "*/*", "accept-encoding": "identity"}


async def ask(
    transport: httpx.AsyncBaseTransport, url: str, origin: str, rate: int | None, timeout: float
) -> Consent:
    """Ask one endpoint, within `timeout` seconds in all. Every error is an answer too.

    `rate`: calls a minute to ask for.
    """
    headers = _HEADERS | {"webhook-request-origin": origin}
    if rate:
        headers["webhook-request-rate"] = str(rate)
    limits = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
    try:
        async with asyncio.timeout(timeout):
            # Directly to the transport, which follows no redirect: another host cannot consent.
            request = httpx.Request("OPTIONS", url, headers=headers, extensions={"timeout": limits})
            response = await transport.handle_async_request(request)
            await response.aclose()
    except TimeoutError:
        return Consent(f"no answer within {timeout:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError, OSError) as error:
        return Consent(f"{type(error).__name__}: {error}"[:200].rstrip(": "))
    return classified(response.status_code, response.headers, origin)


def classified(status: int, headers: Mapping[str, str], origin: str) -> Consent:
    """Read the answer. A status alone is no consent: many servers answer OPTIONS with 200. Pure."""
    if not 200 <= status < 300:
        return Consent(f"it answered HTTP {status}")
    allowed = headers.get("webhook-allowed-origin", "").strip()
    if not allowed:
        return Consent(f"it answered HTTP {status} without WebHook-Allowed-Origin")
    if allowed != "*" and allowed.lower() != origin.lower():
        return Consent(f"it allows the origin {allowed[:100]!r}, and we are {origin!r}")
    rate = headers.get("webhook-allowed-rate", "*").strip()
    if rate != "*" and not _RATE.fullmatch(rate):
        said = f"its WebHook-Allowed-Rate {rate[:100]!r}"
        return Consent(f"{said} is neither a whole number a minute nor *")
    return Consent(per_minute=None if rate == "*" else float(rate))
