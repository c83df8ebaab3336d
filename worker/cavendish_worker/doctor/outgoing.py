"""Outgoing connections for webhooks: does the proxy accept them, or are the receivers found?"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from urllib.parse import urlsplit

from cavendish.environment.local_paths import without_password
from cavendish.settings import Settings
from cavendish_worker.doctor.finding import Finding, ill, skipped, well
from cavendish_worker.doctor.network import at_once, complaint, unresolved

#: Receivers whose names are resolved.
MOST = 5


def findings(settings: Settings, urls: Iterable[str], *, offline: bool) -> list[Finding]:
    """As seen from this machine and environment; for the workers it may differ."""
    if offline:
        return [skipped("egress", "--offline")]
    if settings.egress_proxy:
        return [_proxy(settings.egress_proxy)]
    hosts = sorted({urlsplit(url).hostname or "" for url in urls} - {""})[:MOST]
    if not hosts:
        return [skipped("egress", "no endpoint is registered, and no delivery waits")]
    faults = at_once([partial(unresolved, host) for host in hosts])
    lost = [(host, fault[1]) for host, fault in zip(hosts, faults, strict=True) if fault]
    if not lost:
        return [well("egress", f"the resolver finds {', '.join(hosts)}")]
    advice = (
        "If no name at all is found, repair DNS on the machines of the workers; "
        "otherwise the URL of the endpoint is wrong."
    )
    return [ill("egress", f"{host} is not found: {why}", advice) for host, why in lost]


def _proxy(url: str) -> Finding:
    parts, where = urlsplit(url), without_password(url)
    fault = complaint(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    if fault:
        advice = "Start it, or correct CAVENDISH_EGRESS_PROXY."
        return ill("egress", f"the proxy {where} is not reached: {fault[1]}", advice)
    return well("egress", f"the proxy {where} accepts connections")
