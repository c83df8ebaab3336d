"""The state of everything over HTTP: the numbers of `cavendish status`, and Prometheus metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response, Security
from fastapi.responses import PlainTextResponse

from cavendish.model import Lane
from cavendish.policy.producer_quota import ProducerQuota
from cavendish_worker.service.guarded_route import (
    BEARER,
    OF_ALL,
    GuardedRoute,
    Operating,
)
from cavendish_worker.service.json_answers import answer
from cavendish_worker.service.key_access import KeyAccess
from cavendish_worker.service.parts import Parts, Shared
from cavendish_worker.telemetry.metrics import answered, scraped, serving
from cavendish_worker.telemetry.snapshot import gather

router = APIRouter(tags=["status"], route_class=GuardedRoute, dependencies=[Security(BEARER)])


@router.get("/v1/status", summary="Get the state of everything", response_model=dict[str, Any])
async def status(access: Operating, parts: Shared) -> Response:
    """What `cavendish status --json` says; a limited key gets its lanes and accounts only."""
    said = await parts.read(gather, parts.store, parts.settings)
    return answer(_part(said, access) if access.key.limited else said)


@router.get(
    "/metrics", summary="Get metrics", response_class=PlainTextResponse, dependencies=[OF_ALL]
)
async def metrics(parts: Shared) -> Response:
    """The metrics of the store and of this process, in Prometheus' text format.

    The key must be for everything.
    """
    return PlainTextResponse(await parts.read(_metrics, parts))


def _metrics(parts: Parts) -> str:
    s = parts.settings
    quota = ProducerQuota(s.producer_ids, s.producer_bytes)
    of_store = scraped.registry_of(parts.store, s.batch_size, s.rate, quota)
    return serving.text(of_store) + serving.text(answered.REGISTRY)


def _part(said: dict[str, Any], access: KeyAccess) -> dict[str, Any]:
    """What a limited key sees of it: its lanes, and its accounts where it has all services."""
    lanes = [one for one in said["lanes"] if access.includes(Lane.parse(one["lane"]))]
    named = () if access.key.services else access.key.accounts
    accounts = {name: one for name, one in said["accounts"].items() if name in named}
    hidden: dict[str, Any] = {"producers": [], "pending_by_endpoint": {}}
    return {"now": said["now"], "lanes": [one | hidden for one in lanes], "accounts": accounts}
