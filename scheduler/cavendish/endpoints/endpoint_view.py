"""Webhook endpoints as operators see them, and how one is found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cavendish.endpoints.endpoint_options import shown
from cavendish.endpoints.webhook_endpoint import (
    Disabled,
    Endpoint,
    Key,
    WebhookEndpoint,
    endpoint_of,
    is_url,
    name_complaint,
)
from cavendish.errors import EndpointError
from cavendish.policy.circuit import Circuit
from cavendish.store import Store
from cavendish.store.statistics import Statistics

_HASH = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class EndpointView:
    """A webhook endpoint that is registered, disabled, or has pending deliveries.

    - `name` and `url` of it; the name of one that is known by its URL is a hash, and the URL is
      empty where it is not found;
    - `registered`: what is registered, and `disabled`: why and since when; None where it is not;
    - `circuit`: how well it takes its webhooks; `waiting`: how many deliveries wait for it.
    """

    name: str
    url: str
    registered: Endpoint | None
    disabled: Disabled | None
    circuit: Circuit
    waiting: int

    @property
    def named(self) -> bool:
        """True where it is known by a name, registered or not, and not by its URL."""
        return name_complaint(self.name) is None

    @property
    def public(self) -> WebhookEndpoint:
        """The part of it that callers of the client get."""
        endpoint = self.registered or Endpoint(self.name, self.url, 0.0)
        options = shown(endpoint)
        return WebhookEndpoint(
            name=self.name,
            registered=self.registered is not None,
            enabled=self.disabled is None,
            reason=self.disabled.why if self.disabled else "",
            waiting=self.waiting,
            consent=endpoint.consent,
            **options | {name: tuple(options[name]) for name in ("events", "headers")},
        )

    def to_json(self, now: float) -> dict[str, Any]:
        """A plain dictionary, as `--json` prints it at the Unix time `now`; no secrets in it."""
        endpoint, disabled = self.registered, self.disabled
        keys = endpoint.living_keys(now) if endpoint else ()
        return {
            "name": self.name,
            "url": self.url,
            "registered": endpoint is not None,
            "enabled": disabled is None,
            "disabled_at": disabled.at if disabled else None,
            "reason": disabled.why if disabled else "",
            "circuit": self.circuit.state,
            "failures": self.circuit.failures,
            "open_until": self.circuit.open_until or None,
            "waiting": self.waiting,
            "signatures": sorted({_kind(key) for key in keys})
            if endpoint
            else []
            if self.named
            else ["v1"],
            "overlapping": sum(key.until is not None for key in keys),
            "last_success": self.circuit.ok_at or None,
            "created_at": endpoint.created_at if endpoint else None,
            "consent": bool(endpoint and endpoint.consent),
            **shown(endpoint or Endpoint(self.name, self.url, 0.0)),
            "keys": [
                {
                    "kind": _kind(k),
                    "made_at": k.made_at,
                    "until": k.until,
                    "public_key": k.public or None,
                }
                for k in keys
            ],
        }


def _kind(key: Key) -> str:
    return "v1a" if key.public else "v1"


def names_in(statistics: Statistics, known_urls: Iterable[str] = ()) -> list[str]:
    """The names of all endpoints with something to show, the registered ones first."""
    registered, disabled = statistics.registered, statistics.disabled
    others = {*disabled, *statistics.pending_by_endpoint, *known_urls} - {*registered}
    return [*registered, *sorted(others)]


def views(
    store: Store,
    statistics: Statistics | None = None,
    known_urls: dict[str, str] | None = None,
    names: Sequence[str] | None = None,
) -> list[EndpointView]:
    """All webhook endpoints with something to show, the registered ones first, or these only.

    `statistics`: where the caller has read them already. `known_urls`: the URLs of endpoints
    without a name that an earlier call found; this call adds to it. Raises StoreUnavailable.
    """
    known = {} if known_urls is None else known_urls
    found = statistics or store.statistics()
    registered, disabled = found.registered, found.disabled
    waiting = found.pending_by_endpoint
    names = names_in(found, known) if names is None else names
    circuits = store.shared_state.circuits(names)
    urls = {name: why.url for name, why in disabled.items() if why.url}
    urls |= {name: endpoint.url for name, endpoint in registered.items()}
    unknown = {name for name in names if name_complaint(name)} - {*urls, *known}
    known |= store.deliveries.urls(
        (lane.lane, name) for lane in found.lanes for name in unknown & {*lane.queued, *lane.new}
    )
    urls = known | urls
    return [
        EndpointView(
            name,
            urls.get(name, ""),
            registered.get(name),
            disabled.get(name),
            circuit,
            waiting[name],
        )
        for name, circuit in zip(names, circuits, strict=True)
    ]


def view_of(
    store: Store,
    text: str,
    statistics: Statistics | None = None,
    known_urls: dict[str, str] | None = None,
) -> EndpointView:
    """What is known of an endpoint; one of which nothing is known works, and nothing waits for it.

    The others are as for `views`. Raises EndpointError for a name that is not known, and
    StoreUnavailable.
    """
    name = find_endpoint(store, text)
    (view,) = views(store, statistics, known_urls, [name])
    return view if view.url or not is_url(text) else replace(view, url=text)


def find_endpoint(store: Store, text: str) -> str:
    """The endpoint that a name, a URL or a hash stands for.

    Raises EndpointError for a name that is neither registered nor disabled.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise EndpointError(f"{text!r} is neither a name nor a URL.", "missing") from None
    if is_url(text) or _HASH.fullmatch(text) or not store.endpoints.missing([text]):
        return endpoint_of(text)
    if text not in store.endpoints.disabled():
        raise not_registered(text)
    return text


def not_registered(name: str) -> EndpointError:
    """The error for a name under which no endpoint is registered."""
    said = f"No endpoint is registered as {name!r}; see `cavendish endpoint list`."
    return EndpointError(said, "missing")
