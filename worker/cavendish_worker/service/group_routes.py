"""Groups over HTTP: how many ids have joined and ended; a get may wait until it is complete."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Response, Security

from cavendish import Group
from cavendish_worker.service.guarded_route import BEARER, GuardedRoute, Reading
from cavendish_worker.service.json_answers import answer
from cavendish_worker.service.parts import Shared
from cavendish_worker.service.problem_details import Problem
from cavendish_worker.service.task_routes import Wait, wait_for

router = APIRouter(
    prefix="/v1/groups", tags=["groups"], route_class=GuardedRoute, dependencies=[Security(BEARER)]
)


@router.get("/{name:path}", summary="Get a group", response_model=Group)
async def group(
    name: str, access: Reading, parts: Shared, account: str = "default", wait: Wait = 0.0
) -> Response:
    """How far a group is. With `wait` the answer comes when it is complete."""
    access.group(name, account)
    found = await parts.client.group(name, account=account)
    if found and wait and found.completed_at is None:
        complete = partial(parts.client.wait_group, name, account=account)
        await wait_for(parts, access, complete, wait)
        found = await parts.client.group(name, account=account)
    if found is None:
        raise Problem(404, "The account has no such group.")
    return answer(found)
