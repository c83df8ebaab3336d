"""Messages to `cavendish.submit`, as the broker holds them, sound or with something odd about them."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

Message = tuple[bytes, dict[str, Any] | None, Any, Any]
GOOD = json.dumps([[["x"]], {"service": "nano-banana"}, {}]).encode()


def message(
    body: bytes = GOOD, kind: Any = "application/json", charset: Any = "utf-8", **headers: Any
) -> Message:
    """A message of protocol 2, with headers of its own."""
    usual: dict[str, Any] = dict.fromkeys(("eta", "expires", "group", "root_id", "parent_id"))
    usual |= {
        "lang": "py",
        "argsrepr": "",
        "kwargsrepr": "",
        "retries": 0,
        "timelimit": [None, None],
        "origin": "a-stranger",
    }
    return (
        body,
        {**usual, "task": "cavendish.submit", "id": str(uuid.uuid4()), **headers},
        kind,
        charset,
    )


#: How Kombu lays a message into the list of the broker.
ENVELOPE: dict[str, Any] = {
    "body": base64.b64encode(GOOD).decode(),
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": message()[1],
    "properties": {
        "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": "cavendish.submit"},
        "delivery_tag": "a-stranger's",
    },
}


def envelope(tag: Any = "x", **odd: Any) -> bytes:
    """One with something odd about it."""
    properties = {**ENVELOPE["properties"], "delivery_tag": tag}
    return json.dumps({**ENVELOPE, "properties": properties, **odd}).encode()
