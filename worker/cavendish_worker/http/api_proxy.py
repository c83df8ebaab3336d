"""How the remote API is reached: directly, or by the proxy of a setting or the environment."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from cavendish.environment.env_parsers import NO_PROXY
from cavendish.policy.addresses import literal
from cavendish.settings import env_name
from cavendish_worker.http.dial import Backend
from cavendish_worker.http.egress import ProxiedBackend
from cavendish_worker.http.transport import PooledTransport


@dataclass(frozen=True, slots=True)
class Route:
    """`proxy`: URL of the proxy, empty if there is none.

    `source`: what named the proxy, or why what was named is not used.
    """

    proxy: str = ""
    source: str = ""

    @property
    def host(self) -> str:
        """Host and port of the proxy, without its login."""
        return urlsplit(self.proxy).netloc.rpartition("@")[2]


def route(api_url: str, setting: str) -> Route:
    """How the API is reached. Without the setting, the variables of the environment count.

    They are ignored for an API on this machine, for a host that `NO_PROXY` names, and if they name
    a proxy that speaks no HTTP (SOCKS).
    """
    if setting:
        return Route() if setting == NO_PROXY else Route(setting, env_name("api_proxy"))
    url, named = urlsplit(api_url), getproxies_environment()
    kind = next((kind for kind in (url.scheme, "all") if named.get(kind)), "")
    here = literal(url.hostname or "")
    bypassed = bool(proxy_bypass(url.netloc.rpartition("@")[2]))
    if not kind or bypassed or (here is not None and here.is_loopback):
        return Route()
    proxy, name = named[kind], f"{kind.upper()}_PROXY"
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if _speaks_http(proxy):
        return Route(proxy, name)
    return Route("", f"{name} names no HTTP proxy and is ignored")


def _speaks_http(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def transport(api_url: str, setting: str) -> PooledTransport:
    """For calls to the API. Its addresses are not checked: the operator named it."""
    proxy = route(api_url, setting).proxy
    return PooledTransport(ProxiedBackend(proxy, guarded=False) if proxy else Backend())
