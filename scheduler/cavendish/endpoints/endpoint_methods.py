"""What operators do with a client to webhook endpoints: register, change and switch them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cavendish.arguments import checked
from cavendish.endpoints.endpoint_manager import EndpointManager
from cavendish.endpoints.endpoint_options import RESETS, EndpointOptions
from cavendish.endpoints.webhook_endpoint import NewSecret, WebhookEndpoint
from cavendish.environment.local_paths import with_kept
from cavendish.errors import EndpointError
from cavendish.settings import Settings
from cavendish.store import Store


class EndpointMethods:
    """Methods of `Client`. They need the rights of `cavendish-shell` in deploy/redis-users.acl."""

    _store: Store
    _settings: Settings

    @property
    def _endpoints(self) -> EndpointManager:
        return EndpointManager(self._store, with_kept(self._settings))

    def endpoints(self) -> list[WebhookEndpoint]:
        """The webhook endpoints that are registered, disabled, or have pending deliveries."""
        return [view.public for view in self._endpoints.list()]

    @checked(EndpointError)
    def endpoint(self, which: str) -> WebhookEndpoint:
        """One endpoint; `which`: its name, its URL or the hash of it.

        Raises EndpointError for a name that is not known.
        """
        return self._endpoints.show(which).public

    @checked(EndpointError)
    def add_endpoint(
        self,
        name: str,
        url: str,
        *,
        events: str | Iterable[str] = (),
        headers: Mapping[str, str] | None = None,
        rate: float | None = None,
        retries: int | None = None,
        retry_for: float | None = None,
        ed25519: bool = False,
        unencrypted: bool = False,
    ) -> NewSecret:
        """Register the endpoint `name` for a `url`, and make the secret that signs its webhooks.

        - `events`: the kinds that it gets, such as "task.failed" or "task.*" (default: all);
        - `headers` that each webhook carries, encrypted in the store;
        - `rate`: the most webhooks a minute; `retries` after the first attempt, the last of them
          `retry_for` seconds after it (default: 9, over 75.6 hours);
        - `ed25519`: a key pair signs as well (v1a). `unencrypted`: store the secret unencrypted
          even if the workers have a CAVENDISH_SECRET_KEY and this process has none.

        Secrets are encrypted by the package cryptography (`cavendish[endpoints]`). Raises
        EndpointError for what cannot be; nothing is changed then. Only `cavendish endpoint add
        --consent` asks the receiver for its consent.
        """
        options = _options(
            url=url,
            events=events,
            headers=headers,
            rate=rate,
            retries=retries,
            retry_for=retry_for,
        )
        said = {"ed25519": ed25519, "consent": False, "unencrypted": unencrypted}
        return self._endpoints.add(name, options, **said)[1]

    @checked(EndpointError)
    def update_endpoint(
        self,
        name: str,
        *,
        url: str | None = None,
        events: str | Iterable[str] = (),
        headers: Mapping[str, str] | None = None,
        remove_headers: Iterable[str] = (),
        rate: float | None = None,
        retries: int | None = None,
        retry_for: float | None = None,
        reset: Iterable[str] = (),
        unencrypted: bool = False,
    ) -> WebhookEndpoint:
        """Change what is named of the endpoint `name`, which keeps its secret.

        `url`, `events` ("all" for all), `headers`, `rate` (a minute), `retries`, `retry_for`
        (seconds) and `unencrypted` as in `add_endpoint`; `remove_headers`: names of headers;
        `reset`: which of "events", "headers", "rate", "retries" take their default again. It counts
        for what is sent from then on. Raises EndpointError for what cannot be, and for a new `url`
        or `rate` of an endpoint that has consented: only `cavendish endpoint update` asks it anew.
        """
        options = _options(
            url=url,
            events=events,
            headers=headers,
            removed=remove_headers,
            rate=rate,
            retries=retries,
            retry_for=retry_for,
            reset=reset,
        )
        self._endpoints.update(name, options, unencrypted=unencrypted)
        return self.endpoint(name)

    @checked(EndpointError)
    def rotate_endpoint(
        self, name: str, *, overlap: float = 86400.0, unencrypted: bool = False
    ) -> NewSecret:
        """Give the endpoint `name` a new secret; for `overlap` seconds the old one signs, too.

        `unencrypted` as in `add_endpoint`. Raises EndpointError.
        """
        return self._endpoints.rotate(name, float(overlap), unencrypted=unencrypted)

    @checked(EndpointError)
    def remove_endpoint(self, name: str) -> int:
        """Forget the registered endpoint `name` and its secrets; how many deliveries wait for it.

        They become dead letters when they are due. Raises EndpointError if it is not registered.
        """
        return self._endpoints.remove(name)

    @checked(EndpointError)
    def enable_endpoint(self, which: str) -> bool:
        """Send to an endpoint again, at once; true if it was disabled.

        `which`: its name, URL or hash. Raises EndpointError for a name that is not known.
        """
        return self._endpoints.enable(which)[1]

    @checked(EndpointError)
    def disable_endpoint(self, which: str, *, reason: str = "by hand") -> bool:
        """Send nothing to an endpoint until it is enabled; true if it was enabled.

        `which`: its name, URL or hash; `reason` is shown wherever its state is. Raises
        EndpointError for a name that is not known.
        """
        return self._endpoints.disable(which, reason)[1]


def _options(
    *,
    url: str | None,
    events: str | Iterable[str],
    headers: Mapping[str, str] | None,
    removed: Iterable[str] = (),
    rate: float | None,
    retries: int | None,
    retry_for: float | None,
    reset: Iterable[str] = (),
) -> EndpointOptions:
    """The options that a caller means. Raises EndpointError for what is no text in them."""
    named = dict(headers or {})
    for text in (*named, *named.values()):
        _text(text, "headers")
    again = frozenset(_texts(reset, "reset"))
    if unknown := again - {*RESETS}:
        raise EndpointError(f"Refused: `reset` is of {', '.join(RESETS)}, not {min(unknown)!r}.")
    return EndpointOptions(
        url,
        _texts(events, "events"),
        named,
        _texts(removed, "remove_headers"),
        _float(rate),
        retries,
        _float(retry_for),
        again,
    )


def _texts(value: str | Iterable[str], name: str) -> tuple[str, ...]:
    """One text, with commas between its parts, or several."""
    parts = value.split(",") if isinstance(value, str) else [_text(each, name) for each in value]
    return tuple(filter(None, (part.strip() for part in parts)))


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        kind = type(value).__name__  # the value may be secret
        raise EndpointError(f"Refused: `{name}` takes texts, not {kind}.")
    return value


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)
