"""A webhook receiver that verifies each signature, and keeps a ledger of what came."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from cavendish.endpoints.signing import verify
from cavendish.environment.env_parsers import secrets_of


@dataclass(slots=True)
class Ledger:
    """What came, by webhook-id.

    `ids`: by remote id, the webhook-ids of its webhooks.
    """

    verified: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    ids: dict[str, set[str]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)


class Receiver:
    """Answers POSTs under `/receiver`, and GET `/receiver/ledger` with the ledger.

    `failing` is a share of 0..1.
    """

    def __init__(
        self,
        secret: str,
        *,
        failing: float = 0.0,
        seed: int = 1,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._secret, self._failing, self._now = secret, failing, now
        self._chance = random.Random(seed)
        self.ledger = Ledger()

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        if request.method == "GET":
            return httpx.Response(200, json=self._shown())
        body = await request.aread()
        complaint = verify(secrets_of(self._secret), dict(request.headers), body, self._now())
        if complaint:
            self.ledger.refused.append(complaint)
            return httpx.Response(401, json={"error": complaint})
        if self._chance.random() < self._failing:
            return httpx.Response(503, json={"error": "not today"})
        event, name = json.loads(body), request.headers["webhook-id"]
        self.ledger.verified[name] += 1
        if event["type"].startswith("task."):
            data = event["data"]
            self.ledger.ids.setdefault(data["id"], set()).add(name)
            self.ledger.states[data["id"]] = data["state"]
        return httpx.Response(204)

    def _shown(self) -> dict[str, object]:
        ledger = self.ledger
        return {
            "announced": len(ledger.ids),
            "verified": len(ledger.verified),
            "repeats": sum(ledger.verified.values()) - len(ledger.verified),
            "under_two_ids": sum(len(names) > 1 for names in ledger.ids.values()),
            "refused": ledger.refused[:20],
            "states": ledger.states,
        }
