"""Manages webhook endpoints for every door: registers, changes and switches them, makes secrets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cavendish.endpoints import signing
from cavendish.endpoints.encryption import Encryption
from cavendish.endpoints.endpoint_options import EndpointOptions
from cavendish.endpoints.endpoint_view import EndpointView, not_registered, view_of, views
from cavendish.endpoints.webhook_endpoint import (
    FRESH_FOR,
    LONGEST_OVERLAP,
    Consent,
    Disabled,
    Endpoint,
    Key,
    NewSecret,
    name_complaint,
)
from cavendish.errors import EndpointError
from cavendish.model import OPERATIONS
from cavendish.policy.addresses import Network, webhook_complaint
from cavendish.policy.backoff import WEBHOOK_WINDOW
from cavendish.policy.circuit import Circuit, afresh
from cavendish.settings import Settings
from cavendish.store import Store

#: Asks an endpoint at a URL for its consent to so many calls a minute (None: any number); the
#: private addresses that may be dialled.
Ask = Callable[[str, float | None, tuple[Network, ...]], Consent]
_REFUSED = (
    "Refused: the workers have a CAVENDISH_SECRET_KEY and this process has none, so the store "
    "would hold this secret unencrypted. Set the key here, or allow that by --unencrypted."
)


class EndpointManager:
    """Every method raises StoreUnavailable, and EndpointError if it cannot do what it should.

    `ask`: asks endpoints for their consent; without it, none that gives consent is managed.
    """

    def __init__(self, store: Store, settings: Settings, ask: Ask | None = None) -> None:
        self._store, self._settings, self._ask = store, settings, ask

    @property
    def encrypts(self) -> bool:
        """True where there is a key to encrypt with."""
        return bool(self._settings.secret_key)

    def list(self) -> list[EndpointView]:
        """The endpoints that are registered, disabled, or have pending deliveries."""
        return views(self._store)

    def show(self, which: str) -> EndpointView:
        """One endpoint, by its name, its URL or the hash of it."""
        return view_of(self._store, which)

    def add(
        self,
        name: str,
        options: EndpointOptions,
        *,
        ed25519: bool,
        consent: bool,
        unencrypted: bool,
    ) -> tuple[Endpoint, NewSecret]:
        """Register an endpoint, and make its secret. The options have its URL."""
        if complaint := name_complaint(name):
            raise EndpointError(f"Refused: {complaint}.")
        now, allowed = self._store.fleet.now(), self._allowed()
        new = Endpoint(name, options.url or "", now, consent=consent)
        self._check(options, new, allowed)
        if not self._store.endpoints.missing([name]):
            raise _taken(name)
        encryption = self._encryption(unencrypted=unencrypted)
        if consent:
            new = self._consented(new, options.rate, allowed, "Nothing was registered.")
        told, keys = _new_keys(encryption, name, now, both=ed25519)
        added = options.applied(replace(new, keys=keys), encryption.encrypt)
        if not self._store.endpoints.add(added):
            raise _taken(name)
        # An earlier endpoint of this name may have left an open circuit, or may have been disabled.
        self._store.shared_state.change_circuit(name, lambda _: Circuit())
        self._store.endpoints.enable(name)
        return added, told

    def update(
        self, name: str, options: EndpointOptions, *, unencrypted: bool
    ) -> tuple[Endpoint, Endpoint]:
        """Change what is named of an endpoint; what it was, and what it is."""
        allowed, known = self._allowed(), self._store.endpoints.all().get(name)
        if known is None:
            raise not_registered(name)
        self._check(options, known, allowed)
        encryption = self._encryption(unencrypted=unencrypted or not options.headers)
        changed = options.applied(known, encryption.encrypt)
        if known.consent and options.of_consent:
            changed = self._consented(changed, changed.rate, allowed, "Nothing was changed.")

        def step(latest: Endpoint) -> Endpoint:
            if replace(latest, keys=known.keys) != known:
                raise EndpointError(
                    f"Somebody else has changed {name!r} just now. Try it again.", "taken"
                )
            return replace(changed, keys=latest.keys)

        if self._store.endpoints.change(name, step) is None:
            raise not_registered(name)
        if changed.url != known.url:  # what the old URL answered says nothing about the new one
            self._store.shared_state.change_circuit(name, lambda _: Circuit())
            self._make_due(name)
        return known, changed

    def rotate(self, name: str, overlap: float, *, unencrypted: bool) -> NewSecret:
        """Give an endpoint a new secret; for `overlap` seconds the old one signs, too."""
        if not 0 <= overlap <= LONGEST_OVERLAP:
            raise EndpointError(f"Refused: the overlap is 0 to {LONGEST_OVERLAP:.0f} seconds.")
        now = self._store.fleet.now()
        encryption = self._encryption(unencrypted=unencrypted)
        told, keys = _new_keys(encryption, name, now, both=self._signs_v1a(name, now))
        changed = self._store.endpoints.change(
            name, lambda known: known.rotated(keys, now, overlap)
        )
        if changed is None:
            raise not_registered(name)
        return replace(told, old_until=now + overlap)

    def remove(self, name: str) -> int:
        """Forget a registered endpoint; how many deliveries wait for it."""
        waiting = self.waiting(name)
        if not self._store.endpoints.remove(name):
            raise not_registered(name)
        return waiting

    def waiting(self, name: str) -> int:
        """How many deliveries wait for a registered endpoint."""
        if self._store.endpoints.missing([name]):
            raise not_registered(name)
        return view_of(self._store, name).waiting

    def enable(self, which: str) -> tuple[EndpointView, bool]:
        """Send to an endpoint again, at once; what was known of it, and whether it was disabled."""
        view = view_of(self._store, which)
        self._store.shared_state.change_circuit(view.name, afresh)
        was_disabled = self._store.endpoints.enable(view.name)
        self._make_due(view.name)
        return view, was_disabled

    def disable(self, which: str, reason: str) -> tuple[EndpointView, bool]:
        """Send nothing to an endpoint; what was known of it, and whether it was enabled."""
        view = view_of(self._store, which)
        disabled = Disabled(self._store.fleet.now(), reason, view.url)
        return view, self._store.endpoints.disable(view.name, disabled)

    def _allowed(self) -> tuple[Network, ...]:
        """Private addresses that may be dialled."""
        return self._store.fleet.allowed() + self._settings.webhook_allow

    def _check(
        self, options: EndpointOptions, known: Endpoint, allowed: tuple[Network, ...]
    ) -> None:
        """Raise EndpointError if an endpoint cannot be like this."""
        complaint = options.complaint(known)
        if not complaint and options.url is not None:
            complaint = webhook_complaint(options.url, allowed, self._settings.webhook_ports)
            if not complaint and "#" in options.url:
                complaint = "the webhook URL must not have a #fragment, which is never sent"
        longest = max(self._settings.retention, WEBHOOK_WINDOW)
        if not complaint and (options.retry_for or 0.0) > longest:
            complaint = f"webhooks are not tried for longer than CAVENDISH_RETENTION, {longest:g} s"
        if complaint:
            raise EndpointError(f"Refused: {complaint}.")

    def _consented(
        self, new: Endpoint, rate: float | None, allowed: tuple[Network, ...], nothing: str
    ) -> Endpoint:
        """The endpoint with the rate that it allows; `nothing` says what did not happen if not."""
        if self._ask is None:
            why = "must be asked for its consent: use `cavendish endpoint`"
            raise EndpointError(f"The endpoint {new.name!r} {why}. {nothing}")
        answer = self._ask(new.url, rate, allowed)
        if not answer.granted:
            raise EndpointError(f"{new.url} does not consent: {answer.complaint}. {nothing}")
        return replace(new, per_minute=answer.per_minute)

    def _encryption(self, *, unencrypted: bool) -> Encryption:
        """What encrypts.

        Raises EndpointError where living workers have a key and this environment has none.
        """
        encryption, now = Encryption(self._settings.secret_key), self._store.fleet.now()
        if encryption.encrypts or unencrypted:
            return encryption
        members = self._store.fleet.members(now)
        if any(member.encrypts and member.alive(now) for member in members):
            raise EndpointError(_REFUSED)
        return encryption

    def _signs_v1a(self, name: str, now: float) -> bool:
        known = self._store.endpoints.all().get(name)
        return any(key.public for key in known.living_keys(now)) if known else False

    def _make_due(self, name: str) -> None:
        """Let the deliveries that wait for an endpoint be due at once."""
        # Workers cache endpoints for a moment. A delivery worker that came earlier would still find
        # this one as it was, and leave it for a minute if it was disabled.
        at = self._store.fleet.now() + FRESH_FOR
        for lane in [*self._store.tasks.listed_lanes(), OPERATIONS]:
            self._store.deliveries.hasten(lane, name, at)
            self._store.deliveries.postpone(lane, {name: at})


def _taken(name: str) -> EndpointError:
    return EndpointError(f"An endpoint is registered as {name!r} already.", "taken")


def _new_keys(
    encryption: Encryption, name: str, now: float, *, both: bool
) -> tuple[NewSecret, tuple[Key, ...]]:
    """A new secret, and the same encrypted; with `both` also a key pair for v1a."""
    secret = signing.new_secret()
    keys = [Key(encryption.encrypt(name, secret), now)]
    if both:
        private = signing.new_signing_key()
        public = signing.public_key(private)
        keys.append(Key(encryption.encrypt(name, private), now, public=public))
    told = NewSecret(name, secret, keys[-1].public or None, encryption.encrypts)
    return told, tuple(keys)
