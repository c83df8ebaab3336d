"""Changes of tasks over HTTP: cancel, another deadline, forget; by ids or by a filter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Response, Security
from pydantic import Field

from cavendish import Changed, Filter
from cavendish_worker.service.guarded_route import BEARER, GuardedRoute, Submitting
from cavendish_worker.service.json_answers import answer
from cavendish_worker.service.key_access import KeyAccess
from cavendish_worker.service.parts import Parts, Shared
from cavendish_worker.service.problem_details import Problem
from cavendish_worker.service.task_bodies import Body, ChangedItems, FilterBody, Ids
from cavendish_worker.service.task_routes import narrowed

router = APIRouter(
    prefix="/v1/tasks", tags=["tasks"], route_class=GuardedRoute, dependencies=[Security(BEARER)]
)


class Chosen(Body):
    """Ids of a service, or a filter."""

    ids: Ids | None = None
    service: str | None = Field(
        None, description="The service of the ids.", examples=["nano-banana"]
    )
    account: str | None = Field(None, description="The account of the ids; default: `default`.")
    filter: FilterBody | None = None


class CancelBody(Chosen):
    """What to cancel."""

    silent: bool = Field(default=False, description="Send no webhooks.")
    reason: str = ""


class DeadlineBody(Chosen):
    """What gets another deadline."""

    deadline: float = Field(description="The new deadline, in seconds from now: 1 to 2592000.")


@dataclass(frozen=True, slots=True)
class _Choice:
    """The tasks that a client is to change, where the ids are, and those that the key has not."""

    tasks: list[str] | Filter
    place: dict[str, Any] = field(default_factory=dict)
    hidden: tuple[Changed, ...] = ()

    def answer(self, changed: list[Changed]) -> Response:
        """What became of all of them: an id that the key does not see is one that is not there."""
        return answer({"items": [*changed, *self.hidden]})


@router.post("/cancel", summary="Cancel tasks", response_model=ChangedItems)
async def cancel(body: CancelBody, access: Submitting, parts: Shared) -> Response:
    """End pending tasks as cancelled, and stop polling them. Ended tasks stay as they are."""
    chosen, by = await _choice(body, access, parts), access.by
    said: Any = {"silent": body.silent, "reason": body.reason, "by": by}
    return chosen.answer(await parts.client.cancel(chosen.tasks, **chosen.place, **said))


@router.post("/deadline", summary="Give tasks another deadline", response_model=ChangedItems)
async def set_deadline(body: DeadlineBody, access: Submitting, parts: Shared) -> Response:
    """Pending tasks expire soon after the new deadline. Ended tasks stay as they are."""
    chosen, said = await _choice(body, access, parts), {"by": access.by}
    changed = await parts.client.set_deadline(chosen.tasks, body.deadline, **chosen.place, **said)
    return chosen.answer(changed)


@router.post("/forget", summary="Forget tasks", response_model=ChangedItems)
async def forget(body: Chosen, access: Submitting, parts: Shared) -> Response:
    """Erase all data of tasks: records, results, metadata, deliveries, events."""
    chosen = await _choice(body, access, parts)
    return chosen.answer(await parts.client.forget(chosen.tasks, **chosen.place))


async def _choice(body: Chosen, access: KeyAccess, parts: Parts) -> _Choice:
    """What a body chooses, as far as the key sees it."""
    if (body.ids is None) == (body.filter is None):
        raise Problem(422, "Give either `ids` with their `service`, or a `filter`.")
    if body.filter is not None:
        if body.service is not None or body.account is not None:
            raise Problem(422, "Service and account of a filter belong into the filter.")
        return _Choice(narrowed(body.filter, access))
    ids, account = list(body.ids or ()), body.account or "default"
    if body.service is None:
        raise Problem(422, "Name the `service` of the ids.")
    access.place(body.service, account)
    place: Any = {"service": body.service, "account": account}
    hidden = set[str]()
    if access.key.own:
        known = await parts.client.get_many(ids, with_record=False, **place)
        hidden = {task.id for task in known.values() if not access.sees(task)}
    unknown = [Changed(each, body.service, account, "unknown") for each in ids if each in hidden]
    return _Choice([each for each in ids if each not in hidden], place, tuple(unknown))
