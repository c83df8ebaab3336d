"""Pure: the services of the remote API that share its contract for tasks, and names like theirs.

A name that the API does not serve would be polled in vain until its deadline, so it is refused at
submit. Services with another contract (minimax, maestro, digital-human, captcha) and retired ones
(sora) are not in the table. Source: the API's guides and OpenAPI files, as of 2026-11.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

#: Each service, and what it makes.
KNOWN = {
    "nano-banana": "images",
    "dreamina": "videos",
    "fish": "speech",
    "flux": "images",
    "gemini": "videos",
    "grok": "videos",
    "hailuo": "videos",
    "happyhorse": "videos",
    "headshots": "images",
    "kickart": "videos",
    "kling": "videos",
    "luma": "videos",
    "midjourney": "images",
    "openai": "images",
    "pika": "videos",
    "pixverse": "videos",
    "producer": "music",
    "publisher": "posts",
    "qrart": "images",
    "qwen-image": "images",
    "seedance": "videos",
    "seedream": "images",
    "suno": "music",
    "veo": "videos",
    "wan": "videos",
    "webextrator": "pages",
}
#: How any service may be spelt.
SERVICE = re.compile(r"[a-z0-9-]{1,40}")
#: The word that allows any service.
ANY = "*"
#: How alike two names must be (0 to 1) for one to be proposed in place of the other.
_ALIKE = 0.6


def is_allowed(service: str, others: Collection[str] = ()) -> bool:
    """True if a submit may name this service. `others`: services that the settings allow too."""
    return service in KNOWN or service in others or ANY in others


def proposal(service: object, others: Collection[str] = ()) -> str:
    """A question that names the service which is spelt most alike; empty if there is none."""
    if not isinstance(service, str):
        return ""
    spelt = service[:100].strip().lower().replace("_", "-").replace(" ", "-")
    names = [*KNOWN, *(name for name in others if name != ANY)]
    nearest = difflib.get_close_matches(spelt, names, 1, _ALIKE)
    return f" Did you mean {nearest[0]}?" if nearest else ""
