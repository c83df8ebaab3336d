"""The way to the remote API.

Directly, or through a proxy that a setting or the environment names.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from cavendish.env_parsers import NO_PROXY
from cavendish.policy.addresses import literal
from cavendish.settings import env_name
from cavendish_worker.http.backend import Backend
from cavendish_worker.http.egress import ProxiedBackend
from cavendish_worker.http.transport import PooledTransport


@dataclass(frozen=True, slots=True)
class Route:
    """`proxy`: the URL of the proxy, empty where there is none; `source`: what named it, or why one
    is not used.
    """

    proxy: str = ""
    source: str = ""

    @property
    def host(self) -> str:
        """The proxy's host and port, without a login."""
        return urlsplit(self.proxy).netloc.rpartition("@")[2]


def route(api_url: str, setting: str) -> Route:
    """How the API is asked. Without the setting, the variables that other programs obey count,
    `NO_PROXY` too.

    Those are passed over for an API on this machine itself, and where they name a proxy that speaks
    no HTTP (SOCKS).
    """
    if setting:
        return Route() if setting == NO_PROXY else Route(setting, env_name("api_proxy"))
    url, named = urlsplit(api_url), getproxies_environment()
    kind = next((kind for kind in (url.scheme, "all") if named.get(kind)), "")
    here = literal(url.hostname or "")
    if (
        not kind
        or (here is not None and here.is_loopback)
        or proxy_bypass(url.netloc.rpartition("@")[2])
    ):
        return Route()
    proxy, name = named[kind], f"{kind.upper()}_PROXY"
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        sound = (
            urlsplit(proxy).scheme in ("http", "https")
            and urlsplit(proxy).hostname
            and urlsplit(proxy).port != 0
        )
    except ValueError:
        sound = False
    return (
        Route(proxy, name) if sound else Route("", f"{name} names no HTTP proxy and is passed over")
    )


def transport(api_url: str, setting: str) -> PooledTransport:
    """For calls to the API. Its addresses are not checked: the operator named it."""
    proxy = route(api_url, setting).proxy
    return PooledTransport(ProxiedBackend(proxy, guarded=False) if proxy else Backend())
