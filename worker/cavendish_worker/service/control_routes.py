"""What operators set over HTTP: pauses of accounts and services, and rate ceilings of accounts."""

from __future__ import annotations

from fastapi import APIRouter, Response, Security
from pydantic import BaseModel, Field

from cavendish import Pause, RateCeiling
from cavendish_worker.service.guarded_route import BEARER, GuardedRoute, Operating
from cavendish_worker.service.json_answers import answer
from cavendish_worker.service.key_access import KeyAccess
from cavendish_worker.service.parts import Parts, Shared
from cavendish_worker.service.problem_details import Problem
from cavendish_worker.service.task_bodies import Body

router = APIRouter(
    prefix="/v1", tags=["controls"], route_class=GuardedRoute, dependencies=[Security(BEARER)]
)


class PauseBody(Body):
    """How long, and why; without a time the pause lasts until it is deleted."""

    seconds: float | None = Field(default=None, description="Length of the pause from now on.")
    until: float | None = Field(default=None, description="Unix time.")
    reason: str = ""


class CeilingBody(Body):
    """The most calls per second."""

    calls: float = Field(examples=[5.0])


class PauseItems(BaseModel):
    """The pauses that are in force."""

    items: list[Pause]


class CeilingItems(BaseModel):
    """The rate ceilings that are set."""

    items: list[RateCeiling]


@router.get("/pauses", summary="List pauses", response_model=PauseItems)
async def pauses(access: Operating, parts: Shared) -> Response:
    """All pauses by operators that are in force, by account and service."""
    key, found = access.key, await parts.client.pauses()
    mine = [
        one
        for one in found
        if (not key.accounts or one.account in key.accounts)
        and (not key.services or one.service in (None, *key.services))
    ]
    return answer({"items": mine})


@router.put("/pauses/{account}", summary="Pause an account", response_model=Pause)
async def pause_account(
    account: str, access: Operating, parts: Shared, body: PauseBody | None = None
) -> Response:
    """Stop the calls for its ids: they wait, and deadlines still pass."""
    access.whole_account(account)
    return await _pause(parts, access, account, None, body)


@router.put("/pauses/{account}/{service}", summary="Pause a service", response_model=Pause)
async def pause_service(
    account: str, service: str, access: Operating, parts: Shared, body: PauseBody | None = None
) -> Response:
    """Stop the calls for the ids of one service of an account."""
    access.place(service, account)
    return await _pause(parts, access, account, service, body)


@router.delete("/pauses/{account}", summary="Resume an account", response_model=Pause)
async def resume_account(account: str, access: Operating, parts: Shared) -> Response:
    """End the pause of an account; those of its services end one by one."""
    access.whole_account(account)
    return _resumed(await parts.client.resume(account))


@router.delete("/pauses/{account}/{service}", summary="Resume a service", response_model=Pause)
async def resume_service(account: str, service: str, access: Operating, parts: Shared) -> Response:
    """End the pause of one service of an account."""
    access.place(service, account)
    return _resumed(await parts.client.resume(account, service))


@router.get("/rate-ceilings", summary="List rate ceilings", response_model=CeilingItems)
async def rate_ceilings(access: Operating, parts: Shared) -> Response:
    """All ceilings that operators have set, by account."""
    accounts, found = access.key.accounts, await parts.client.rate_ceilings()
    return answer({"items": [one for one in found if not accounts or one.account in accounts]})


@router.put("/rate-ceilings/{account}", summary="Set a rate ceiling", response_model=RateCeiling)
async def set_rate_ceiling(
    account: str, body: CeilingBody, access: Operating, parts: Shared
) -> Response:
    """Let an account make at most so many calls per second, instead of CAVENDISH_RATE."""
    access.whole_account(account)
    return answer(await parts.client.set_rate_ceiling(account, body.calls, by=access.by))


@router.delete("/rate-ceilings/{account}", summary="Remove a rate ceiling", status_code=204)
async def remove_rate_ceiling(account: str, access: Operating, parts: Shared) -> Response:
    """CAVENDISH_RATE applies again."""
    access.whole_account(account)
    await parts.client.set_rate_ceiling(account, None, by=access.by)
    return Response(status_code=204)


async def _pause(
    parts: Parts, access: KeyAccess, account: str, service: str | None, body: PauseBody | None
) -> Response:
    told = body or PauseBody()
    said = {"seconds": told.seconds, "until": told.until}
    return answer(
        await parts.client.pause(account, service, **said, reason=told.reason, by=access.by)
    )


def _resumed(pause: Pause | None) -> Response:
    if pause is None:
        raise Problem(404, "It is not paused.")
    return answer(pause)
