"""Signs and verifies webhooks after Standard Webhooks, v1 and v1a.

The prefix of a key is its kind: `whsec_…` is a secret that both sides share (v1, HMAC-SHA256);
`whsk_…` is a private key of ours (v1a, ed25519), and `whpk_…` the public key for its receivers.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING

from cavendish.endpoints.encryption import NOT_INSTALLED
from cavendish.environment.env_parsers import webhook_secret_key
from cavendish.errors import EndpointError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

TOLERANCE = 300
#: Parsed keys that are kept, since to load a private key takes as long as to sign. They are in the
#: memory of this process in any case.
_KEPT_KEYS = 64
_INTEGER = re.compile(r"0|[1-9][0-9]{0,11}")


def new_secret() -> str:
    """A fresh `whsec_…` secret of 32 random bytes."""
    return "whsec_" + _text(secrets.token_bytes(32))


def new_signing_key() -> str:
    """A fresh `whsk_…` private key: the base64 of seed and public key, 64 bytes."""
    seed = secrets.token_bytes(32)
    public = _ed25519().Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return "whsk_" + _text(seed + public.public_bytes_raw())


def public_key(key: str) -> str:
    """The `whpk_…` public key of a `whsk_…` key: the one to give to receivers."""
    return "whpk_" + _text(_private(key).public_key().public_bytes_raw())


def signed_content(webhook_id: str, timestamp: int, body: bytes) -> bytes:
    """The bytes that are signed.

    ValueError for an id with a dot: `m1.1` at 2 and `m1` at `1.2` would give the same bytes.
    """
    if "." in webhook_id:
        raise ValueError("a webhook-id must hold no dot")
    return f"{webhook_id}.{timestamp}.".encode() + body


def sign(key: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """One signature over id, time (integer seconds since the epoch) and the exact bytes of the
    body.

    `v1,…` with a `whsec_…` key and `v1a,…` with a `whsk_…` key. Raises ValueError for any other,
    whose text shows no key.
    """
    content = signed_content(webhook_id, timestamp, body)
    if key.startswith("whsk_"):
        return "v1a," + _text(_private(key).sign(content))
    return _v1(key, content)


def headers(keys: Sequence[str], webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a signed webhook, with one signature for each key, in their order."""
    if not keys:
        raise ValueError("there is no key to sign with")
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(key, webhook_id, timestamp, body) for key in keys),
    }


def verify(
    keys: str | Sequence[str], received: Mapping[str, str], body: bytes, now: float
) -> str | None:
    """Why a webhook cannot be trusted, or None if it can.

    `received`: its headers, in lower case; `now`: seconds since the epoch. One signature that fits
    one of the keys is enough. Keys are `whsec_…` or `whpk_…`; ValueError for any other.
    """
    try:
        webhook_id, timestamp, signatures = (
            received[f"webhook-{name}"] for name in ("id", "timestamp", "signature")
        )
    except KeyError as error:
        return f"the header {error.args[0]} is missing"
    if "." in webhook_id:
        return "the webhook-id holds a dot"
    if not _INTEGER.fullmatch(timestamp):
        return "the webhook-timestamp is no integer"
    if abs(now - int(timestamp)) > TOLERANCE:
        return "the webhook-timestamp is more than five minutes off"
    content, given = signed_content(webhook_id, int(timestamp), body), signatures.split()
    fits = [_fits(key, content, given) for key in ([keys] if isinstance(keys, str) else keys)]
    return None if any(fits) else "no signature fits"


def _fits(key: str, content: bytes, given: Sequence[str]) -> bool:
    if key.startswith("whpk_"):
        public = _public(key)
        asymmetric = [one.removeprefix("v1a,") for one in given if one.startswith("v1a,")]
        return any(_fits_public(public, content, one) for one in asymmetric)
    expected = _v1(key, content).encode()
    return any(hmac.compare_digest(expected, one.encode()) for one in given)


def _fits_public(public: Ed25519PublicKey, content: bytes, signature: str) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    try:
        public.verify(base64.b64decode(signature, validate=True), content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _v1(secret: str, content: bytes) -> str:
    return "v1," + _text(hmac.digest(_secret(secret), content, "sha256"))


_secret = lru_cache(_KEPT_KEYS)(webhook_secret_key)


@lru_cache(_KEPT_KEYS)
def _private(key: str) -> Ed25519PrivateKey:
    raw = _bytes(key, "whsk_", 32, 64)
    private: Ed25519PrivateKey = _ed25519().Ed25519PrivateKey.from_private_bytes(raw[:32])
    if raw[32:] not in (b"", private.public_key().public_bytes_raw()):
        raise ValueError("the public half of the 'whsk_' key does not belong to its seed")
    return private


@lru_cache(_KEPT_KEYS)
def _public(key: str) -> Ed25519PublicKey:
    raw = _bytes(key, "whpk_", 32)
    public: Ed25519PublicKey = _ed25519().Ed25519PublicKey.from_public_bytes(raw)
    return public


def _ed25519() -> ModuleType:
    """The module of cryptography, which is an extra of the client."""
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
    except ImportError:
        raise EndpointError(NOT_INSTALLED) from None
    return ed25519


def _bytes(text: str, prefix: str, *lengths: int) -> bytes:
    try:
        raw = base64.b64decode(text.removeprefix(prefix), validate=True)
    except ValueError:
        raw = b""
    if not text.startswith(prefix) or len(raw) not in lengths:
        raise ValueError(
            f"must be '{prefix}' followed by the base64 of {' or '.join(map(str, lengths))} bytes"
        )
    return raw


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
