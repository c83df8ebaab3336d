"""Tasks over HTTP: submit, get, list, count; a get may wait for the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response, Security
from pydantic import Field

from cavendish import SubmissionError, Submitted, TrackedTask
from cavendish_worker.service.guarded_route import BEARER, GuardedRoute, Reading, Submitting
from cavendish_worker.service.held_requests import LONGEST
from cavendish_worker.service.json_answers import answer, task_answer, tasks_answer
from cavendish_worker.service.key_access import KeyAccess
from cavendish_worker.service.parts import Parts, Shared
from cavendish_worker.service.problem_details import Problem, no_key
from cavendish_worker.service.task_bodies import (
    Body,
    Count,
    CountQuery,
    FoundTasks,
    Ids,
    ListQuery,
    SubmitBody,
    SubmittedItems,
    TaskItem,
    TaskPage,
    Wanted,
)
from cavendish_worker.telemetry import tracing

router = APIRouter(
    prefix="/v1/tasks", tags=["tasks"], route_class=GuardedRoute, dependencies=[Security(BEARER)]
)

#: A parameter of a route that can hold its answer.
Wait = Annotated[
    float,
    Query(
        ge=0,
        le=LONGEST,
        description="Hold the answer until the end, but at most for this many seconds.",
    ),
]
#: What a submit is told of all of its ids, as the client takes it.
_TOLD = (
    "service account webhook deadline metadata model restart traceparent key group group_size"
).split()
_NOT_YOURS = "this key may not track the id: another producer tracks it"


class GetBody(Body):
    """Ids of one service."""

    ids: Ids
    service: str = Field(examples=["nano-banana"])
    account: str = "default"
    with_record: bool = True
    wait: float = Field(0.0, ge=0, le=LONGEST)


@router.post(
    "",
    summary="Submit ids",
    status_code=201,
    response_model=SubmittedItems,
    responses={200: {"model": SubmittedItems, "description": "Nothing is new."}},
)
async def submit(
    body: SubmitBody,
    access: Submitting,
    parts: Shared,
    idempotency_key: Annotated[
        str | None, Header(description="Not needed: a submit is idempotent by its ids.")
    ] = None,
    traceparent: Annotated[
        str | None, Header(description="W3C trace context, if the body has none.")
    ] = None,
) -> Response:
    """Track ids. A known id keeps all that it has; the webhooks and the group are added.

    201 if any is new, 200 if none is, 422 if all are refused; a wrong id is refused alone.
    """
    del idempotency_key
    access.place(body.service, body.account)
    if body.group is not None:
        access.group(body.group, body.account)
    producer = access.producer(body.producer) or access.key.name
    told: dict[str, Any] = {name: getattr(body, name) for name in _TOLD}
    tasks = body.tasks()
    names = [one if isinstance(one, str) else str(one.id) for one in tasks]
    others = await _of_others(names, body, access, parts)
    ours = [one for one, name in zip(tasks, names, strict=True) if name not in others]
    given = body.traceparent or tracing.sound(traceparent)
    with tracing.traces().submit(body.service, len(ours), given) as trace:
        told["traceparent"] = trace or None
        answers = iter(await parts.client.submit(ours, producer=producer, **told))
    items = [
        Submitted(name, "refused", reason=_NOT_YOURS) if name in others else next(answers)
        for name in names
    ]
    if items and all(one.refused for one in items):
        raise Problem(422, f"No id was accepted: {items[0].reason}.", kind="ids", items=items)
    return answer({"items": items}, 201 if any(one.outcome == "new" for one in items) else 200)


async def _of_others(
    names: list[str], body: SubmitBody, access: KeyAccess, parts: Parts
) -> set[str]:
    """The ids that a key must not join, since another producer tracks them."""
    if not access.key.own:
        return set()
    place: Any = {"service": body.service, "account": body.account}
    known = await parts.client.get_many(names, with_record=False, **place)
    return {task.id for task in known.values() if not access.sees(task)}


@router.get("", summary="List tasks", response_model=TaskPage)
async def list_tasks(
    query: Annotated[ListQuery, Query()], access: Reading, parts: Shared
) -> Response:
    """A page of the tasks that are tracked or kept, the newest submit first.

    A page may hold fewer tasks than `limit` and have a `next`.
    """
    page = await parts.client.list(
        narrowed(query, access),
        cursor=query.cursor,
        limit=query.limit,
        with_record=query.with_record,
    )
    return tasks_answer(page.items, next=page.next)


@router.get("/count", summary="Count tasks", response_model=Count)
async def count(query: Annotated[CountQuery, Query()], access: Reading, parts: Shared) -> Response:
    """How many tasks match. It reads each of them: about half a million per second."""
    return answer({"count": await parts.client.count(narrowed(query, access))})


@router.post("/get", summary="Get several tasks", response_model=FoundTasks)
async def get_several(body: GetBody, access: Reading, parts: Shared) -> Response:
    """The tasks among some ids. With `wait` the answer comes when all of them have ended."""
    access.place(body.service, body.account)
    place: Any = {"service": body.service, "account": body.account}
    found = await _found(parts, body, access, place)
    open_ids = [task.id for task in found.values() if not task.state.terminal]
    if open_ids and body.wait:
        await wait_for(parts, access, partial(parts.client.wait, open_ids, **place), body.wait)
        found = await _found(parts, body, access, place)
    missing = [each for each in dict.fromkeys(body.ids) if each not in found]
    return tasks_answer(found.values(), missing=missing)


async def _found(
    parts: Parts, body: GetBody, access: KeyAccess, place: dict[str, Any]
) -> dict[str, TrackedTask]:
    known = await parts.client.get_many(body.ids, with_record=body.with_record, **place)
    return {task.id: task for task in access.seen(known.values())}


@router.get("/{service}/{task_id:path}", summary="Get a task", response_model=TaskItem)
async def get(
    service: str,
    task_id: Annotated[
        str, Path(description="Percent-encoded; it may contain `/`. For `.` and `..` use POST.")
    ],
    access: Reading,
    parts: Shared,
    account: str = "default",
    wait: Wait = 0.0,
) -> Response:
    """One task, with the record of the remote API. With `wait` the answer comes at its end."""
    access.place(service, account)
    place: Any = {"service": service, "account": account}
    task = await parts.client.get(task_id, **place)
    if task and wait and access.sees(task) and not task.state.terminal:
        await wait_for(parts, access, partial(parts.client.wait, [task_id], **place), wait)
        task = await parts.client.get(task_id, **place)
    if task is None or not access.sees(task):
        raise Problem(404, f"The id is not tracked for the service {service!r}.")
    return task_answer(task)


async def wait_for(
    parts: Parts, access: KeyAccess, end: Callable[[], Awaitable[object]], seconds: float
) -> None:
    """Hold a request until an end has come, or the time for it is up; the caller looks again.

    A key that was revoked meanwhile learns of no end.
    """
    with suppress(SubmissionError):  # it was forgotten meanwhile
        await parts.held.until(end, seconds, access.key.name)
    if not await parts.keys.counts(access.key):
        raise no_key()


def narrowed(wanted: Wanted, access: KeyAccess) -> Any:
    """The filter of a search: what a key sees of all that match."""
    return wanted.filter(
        account=access.one_of("account", wanted.account),
        service=access.one_of("service", wanted.service),
        producer=access.producer(wanted.producer),
    )
