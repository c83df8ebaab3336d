"""Whether the service is well: /healthz and /readyz, which need no key."""

from __future__ import annotations

from fastapi import APIRouter

from cavendish_worker.service.parts import Shared

router = APIRouter(tags=["health"])


@router.head("/healthz", include_in_schema=False)  # which monitors ask
@router.get("/healthz", summary="The process lives")
async def healthz() -> dict[str, str]:
    """Always 200: ending the process would not help while Redis is away."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="The process can work")
async def readyz(parts: Shared) -> dict[str, str]:
    """200 if Redis answers, else 503."""
    await parts.read(parts.store.fleet.now)
    return {"status": "ok"}
