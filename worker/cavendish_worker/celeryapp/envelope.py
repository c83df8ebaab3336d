"""The envelope around a message in Redis: completed, or refused before anything is inflated.

Kombu assumes that it wrote every message itself; here anybody may have written it. The envelope
also counts at how many deaths of a worker its message was in hand.
"""

from __future__ import annotations

import base64
import codecs
import uuid
from typing import Any

from cavendish.store.quarantine import DEATHS
from cavendish.task_names import QUEUES, SUBMIT

#: The queue of messages that must not be lost.
KEPT = SUBMIT
#: The charsets of a body. Python would inflate a body whose charset is `zlib`, without a limit.
_CHARSETS = frozenset(("utf-8", "ascii", "iso8859-1", "utf-16", "utf-32", "utf-8-sig"))
_BYTES = frozenset(("binary", "ascii-8bit"))


def complete(envelope: Any, queue: str | None) -> str | None:
    """Fill in the optional parts of an envelope, in place; returns why it cannot be taken, if so.

    A message is given back to the queue that its envelope names, and dropped if that cannot be. So
    one of our queues always gets the queue that it came from, and a tag of its own, even if two
    were sent with one tag.
    """
    if not isinstance(envelope, dict):
        return "its envelope is no JSON object"
    if not envelope.get("content-type"):
        # Nothing else is accepted.
        envelope |= {"content-type": "application/json", "content-encoding": "utf-8"}
    properties = envelope.setdefault("properties", {})
    if not isinstance(properties, dict):
        return "its properties are no JSON object"
    if not isinstance(envelope.get("headers"), dict):
        envelope["headers"] = {}
    if complaint := compressed(envelope["headers"], envelope.get("content-encoding")):
        return complaint
    info = properties.get("delivery_info")
    given = [name for name in info if isinstance(info[name], str)] if isinstance(info, dict) else []
    if queue in QUEUES or not {"exchange", "routing_key"} <= set(given):
        properties["delivery_info"] = {"exchange": "", "routing_key": queue}
    if queue in QUEUES or not isinstance(properties.get("delivery_tag"), str):
        properties["delivery_tag"] = str(uuid.uuid4())
    if queue == KEPT:
        properties["priority"] = 0
    return _body_complaint(envelope.get("body"), properties.get("body_encoding"))


def compressed(headers: Any, charset: Any) -> str | None:
    """Why a message must be inflated before it can be read; None if it is plain text."""
    if isinstance(headers, dict) and headers.get("compression"):
        return "it is compressed, and compressed messages are not accepted"
    if charset is None or charset in _BYTES:
        return None
    try:
        known = isinstance(charset, str) and codecs.lookup(charset).name in _CHARSETS
    except (LookupError, ValueError):
        known = False
    return None if known else f"its content-encoding is not accepted: {str(charset)[:40]!r}"


def add_deaths(envelope: Any, deaths: int) -> Any:
    """The envelope with so many deaths more, in place; what is no envelope stays as it is."""
    if deaths and isinstance(envelope, dict):
        if not isinstance(envelope.get("headers"), dict):
            envelope["headers"] = {}
        envelope["headers"][DEATHS] = deaths_of(envelope) + deaths
    return envelope


def deaths_of(envelope: dict[str, Any]) -> int:
    """At how many deaths of a worker the message was in hand, by its headers."""
    said = envelope["headers"].get(DEATHS)
    return said if isinstance(said, int) and said > 0 else 0


def _body_complaint(body: Any, encoding: Any) -> str | None:
    if not isinstance(body, str):
        return "its body is no text"
    if encoding not in (None, "base64"):
        return "its body_encoding is neither base64 nor null"
    try:
        base64.b64decode(body if encoding else "")
    except ValueError:
        return "its body is no base64"
    return None
