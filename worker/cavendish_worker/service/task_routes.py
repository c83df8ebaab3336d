"""Tasks over HTTP: submit, get, wait."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response, Security
from fastapi.responses import JSONResponse

from cavendish_worker.service.guarded_route import BEARER, GuardedRoute, Reading, Submitting
from cavendish_worker.service.held_requests import LONGEST
from cavendish_worker.service.parts import Shared
from cavendish_worker.service.problem_details import Problem
from cavendish_worker.service.task_bodies import SubmitBody, task_json

router = APIRouter(
    prefix="/v1/tasks", tags=["tasks"], route_class=GuardedRoute, dependencies=[Security(BEARER)]
)

Wait = Annotated[
    float,
    Query(ge=0, le=LONGEST, description="Hold the answer for so many seconds, or until the end."),
]


@router.post("", summary="Submit ids", status_code=201)
async def submit(body: SubmitBody, access: Submitting, parts: Shared) -> Response:
    """Track ids: 201 if any is new, else 200. It is idempotent: a known id stays as it is."""
    access.place(body.service, body.account)
    options: dict[str, Any] = body.model_dump(exclude={"tasks", "producer"})
    producer = access.producer(body.producer)
    answers = await parts.client.submit(body.ids(), producer=producer, **options)
    items = [
        {"id": one.id, "outcome": one.outcome, "state": one.state, "reason": one.reason}
        for one in answers
    ]
    new = any(one.outcome == "new" for one in answers)
    return JSONResponse({"items": items}, 201 if new else 200)


@router.get("/{service}/{id:path}", summary="Get a task")
async def get(
    service: str,
    task_id: Annotated[str, Path(alias="id")],
    access: Reading,
    parts: Shared,
    account: str = "default",
    wait: Wait = 0.0,
) -> Response:
    """One task, with the record of the remote API. With `wait` the answer comes at the end."""
    access.place(service, account)
    place: Any = {"service": service, "account": account}
    task = await parts.client.get(task_id, **place)
    if task is None or not access.sees(task):
        raise Problem(404, f"{task_id!r} is not tracked for the service {service!r}.")
    if wait and not task.state.terminal:
        end = parts.client.wait([task_id], timeout=wait, **place)
        if await parts.held.until(end, wait, access.key.name):
            task = await parts.client.get(task_id, **place) or task
    return Response(task_json(task), media_type="application/json")
