"""The callers of the gateway: with the token of an account, or with a key of the service."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256

from cavendish.errors import StoreUnavailable
from cavendish.policy.access import ApiKey
from cavendish_worker.polling.api_tokens import ApiTokens
from cavendish_worker.service.gateway.refusal import Refused
from cavendish_worker.service.key_ring import KeyRing

#: Ids of nobody's submit that a producer may let us track in an hour.
MOST_ADOPTED, HOUR = 1000, 3600.0
#: Seconds after which the file of tokens is looked at again.
_LOOK_AGAIN = 2.0
#: Seconds for which a key goes on opening the gateway while the store, which knows the keys, is
#: away; and how many are remembered.
_REMEMBERED, _MOST = 600.0, 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request this is: the `account` whose ids it may see, its `token` at the API, and the
    `producer` to whom its ids count.

    `services`: those that it may name, or none for all; `may`: the rights of its key; `own`: it
    sees only what its producer submitted.
    """

    account: str
    token: str = field(repr=False)
    producer: str = "gateway"
    services: tuple[str, ...] = ()
    may: tuple[str, ...] = ("submit", "read")
    own: bool = False

    def require(self, right: str) -> None:
        """Refuse what its key may not do. Raises Refused."""
        if right not in self.may:
            raise Refused(403, "disabled", f"This key may not {right}.")


class Callers:
    """Recognises callers. Use it in one event loop."""

    def __init__(self, tokens: ApiTokens, keys: KeyRing) -> None:
        self._tokens, self._keys = tokens, keys
        self._looked_at = time.monotonic()
        self._remembered: OrderedDict[bytes, tuple[float, ApiKey]] = OrderedDict()

    async def of(self, authorization: str, service: str) -> Caller:
        """Who calls, by the header of the request. Raises Refused."""
        scheme, _, secret = authorization.partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise Refused(401, "no_token", "Send the header `Authorization: Bearer TOKEN`.")
        caller = self._by_token(secret) or await self._by_key(secret)
        if caller is None:
            raise Refused(401, "invalid_token", "No account here has this token.")
        if caller.services and service not in caller.services:
            raise Refused(401, "token_mismatched", f"This key is not for {service}.")
        return caller

    def _by_token(self, secret: str) -> Caller | None:
        """All tokens are compared, each in constant time."""
        if time.monotonic() - self._looked_at > _LOOK_AGAIN:
            self._tokens.refresh()
            self._looked_at = time.monotonic()
        given, found = secret.encode(errors="replace"), None
        for account, token in self._tokens.items():
            same = secrets.compare_digest(token.encode(errors="replace"), given)
            if same and found is None:
                found = Caller(account, token)
        return found

    async def _by_key(self, secret: str) -> Caller | None:
        """A key stands for one account: the only one that it is for, or `default`."""
        key = await self._key(secret)
        if key is None:
            return None
        account = key.accounts[0] if len(key.accounts) == 1 else "default"
        if key.accounts and account not in key.accounts:
            why = "This key is for several accounts; here it must be for one, or for `default` too."
            raise Refused(401, "token_mismatched", why)
        token = self._tokens.get(account)
        if token is None:
            raise Refused(401, "token_mismatched", f"The account {account} has no token here.")
        return Caller(account, token, key.name, key.services, key.may, key.own)

    async def _key(self, secret: str) -> ApiKey | None:
        name = sha256(secret.encode(errors="replace")).digest()
        try:
            key = await self._keys.find(secret)
        except StoreUnavailable:
            until, key = self._remembered.get(name, (0.0, None))
            if key is None or time.monotonic() > until or key.expired(time.time()):
                why = "The store does not answer, so no key can be checked. Try again."
                raise Refused(503, "api_error", why) from None
            return key
        self._remembered.pop(name, None)
        if key is not None:
            self._remembered[name] = time.monotonic() + _REMEMBERED, key
            if len(self._remembered) > _MOST:
                self._remembered.popitem(last=False)
        return key


class Adoptions:
    """How many ids each producer may still let us track that nobody had submitted."""

    def __init__(self, most: int = MOST_ADOPTED) -> None:
        self._most, self._hour, self._used = most, -1.0, dict[str, int]()

    def take(self, producer: str, wanted: int, now: float) -> int:
        """How many of so many ids may be adopted; they are counted until the hour is over."""
        hour = now // HOUR
        if hour != self._hour:
            self._hour, self._used = hour, {}
        used = self._used.get(producer, 0)
        allowed = min(wanted, self._most - used)
        self._used[producer] = used + allowed
        return allowed
