"""Standard Webhooks v1, pure: what a receiver needs to know that an announcement is ours, whole and fresh."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from scheduler.settings import webhook_secret_key

TOLERANCE = 300


def new_secret() -> str:
    """A fresh `whsec_…` secret of 32 random bytes."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` over id, time (integer seconds since the epoch) and the exact bytes of the body."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    digest = hmac.new(webhook_secret_key(secret), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def headers(secret: str, webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a signed announcement."""
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secret, webhook_id, timestamp, body),
    }


def _integer(text: str) -> int:
    if not text.isdigit() or len(text) > 12:
        raise ValueError
    return int(text)


def verify(secret: str, received: dict[str, str], body: bytes, now: float) -> str | None:
    """Why an announcement is not to be trusted, or None if it is. `received` are its headers, in lower case."""
    try:
        webhook_id, timestamp = received["webhook-id"], _integer(received["webhook-timestamp"])
        given = received["webhook-signature"].split()
    except KeyError as error:
        return f"the header {error.args[0]} is missing"
    except ValueError:
        return "the webhook-timestamp is no integer"
    if abs(now - timestamp) > TOLERANCE:
        return "the webhook-timestamp is more than five minutes off"
    expected = sign(secret, webhook_id, timestamp, body)
    if not any(hmac.compare_digest(expected.encode(), one.encode()) for one in given):
        return "no signature fits"
    return None
