"""Whether the service is well: /healthz, /readyz and /metrics, which need no key."""

from __future__ import annotations

from fastapi import APIRouter

from cavendish_worker.service.parts import Shared

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The process lives")
async def healthz() -> dict[str, str]:
    """Always 200: ending the process would not help while Redis is away."""
    return {"status": "ok"}


@router.get("/readyz", summary="The process can work")
async def readyz(parts: Shared) -> dict[str, str]:
    """200 if Redis answers, else 503."""
    await parts.read(parts.store.fleet.now)
    return {"status": "ok"}
