"""Dead letters and replays over HTTP: what was given up or lost is delivered again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response, Security
from pydantic import BaseModel, Field

from cavendish.endpoints.endpoint_view import find_endpoint
from cavendish.store import Store
from cavendish_worker.service.guarded_route import BEARER, GuardedRoute, Operating
from cavendish_worker.service.json_answers import answer
from cavendish_worker.service.key_access import KeyAccess
from cavendish_worker.service.parts import Shared
from cavendish_worker.service.problem_details import Problem
from cavendish_worker.service.task_bodies import Body, Listed
from cavendish_worker.webhooks.dead_letters import DeadLetters, fields
from cavendish_worker.webhooks.reopening import MOST, chunks, reopen
from cavendish_worker.webhooks.replaying import replay

router = APIRouter(
    prefix="/v1", tags=["webhooks"], route_class=GuardedRoute, dependencies=[Security(BEARER)]
)


class DeadLetterQuery(BaseModel):
    """Which dead letters are listed."""

    endpoint: str | None = Field(None, description="Name, URL or hash.")
    since: float | None = Field(None, description="Unix time.")
    reason: str = Field("", description="Only those whose reason contains this.")
    limit: int = Field(50, ge=1, le=1000)


class DeadLettersBody(Body):
    """Which dead letters are meant: at least one of these, or `all`."""

    deliveries: Listed[str] = Field(
        [], max_length=MOST, description="Names of deliveries, or ids of tasks."
    )
    endpoint: str | None = None
    since: float | None = None
    reason: str = ""
    all: bool = False
    limit: int = Field(MOST, ge=1, le=MOST)


class ReviveBody(DeadLettersBody):
    """Which dead letters are delivered again, with all their attempts."""

    rate: float = Field(50.0, gt=0, description="Deliveries per second.")


class ReplayBody(Body):
    """Which delivered webhooks are sent again."""

    endpoint: str = Field(description="Name, URL or hash.", examples=["shop"])
    since: float = Field(description="Unix time of the end of their tasks.", ge=0)
    rate: float = Field(50.0, gt=0, description="Deliveries per second.")
    limit: int = Field(MOST, ge=1, le=MOST)


class DeadLetter(BaseModel):
    """A delivery that was given up."""

    name: str
    lane: str
    endpoint: str
    url: str
    attempts: int
    state: str
    outcome: str
    at: float | None


class DeadLetterItems(BaseModel):
    """Dead letters, the newest first."""

    items: list[DeadLetter]


class Revived(BaseModel):
    """The names of the deliveries that are pending again, and whether there are more."""

    items: list[str]
    more: bool


class Dropped(BaseModel):
    """How many were forgotten, and whether there are more."""

    dropped: int
    more: bool


class Replayed(BaseModel):
    """How many are sent again; `since`: where a next replay goes on, null if these are all."""

    endpoint: str
    replayed: int
    since: float | None


@router.get("/dead-letters", summary="List dead letters", response_model=DeadLetterItems)
async def dead_letters(
    query: Annotated[DeadLetterQuery, Query()], access: Operating, parts: Shared
) -> Response:
    """The newest first."""
    found = await parts.read(_wanted(query, access).find, parts.store, query.limit)
    return answer({"items": [fields(one) for one in found]})


@router.post("/dead-letters/revive", summary="Revive dead letters", response_model=Revived)
async def revive(body: ReviveBody, access: Operating, parts: Shared) -> Response:
    """Deliver them again, each with all its attempts."""
    wanted = _wanted(_chosen(body), access)

    def work() -> tuple[list[str], bool]:
        store = parts.store
        found = [(one.lane, one.name) for one in wanted.find(store, body.limit + 1)]
        chosen = found[: body.limit][::-1]
        names = reopen(store, chosen, store.fleet.now(), body.rate, dead=True, by=access.by)
        return names, len(found) > body.limit

    names, more = await parts.read(work)
    return answer({"items": names, "more": more})


@router.post("/dead-letters/drop", summary="Drop dead letters", response_model=Dropped)
async def drop(body: DeadLettersBody, access: Operating, parts: Shared) -> Response:
    """Forget them for good."""
    wanted = _wanted(_chosen(body), access)

    def work() -> tuple[int, bool]:
        found = [(one.lane, one.name) for one in wanted.find(parts.store, body.limit + 1)]
        by_lane = chunks(found[: body.limit])
        dropped = sum(len(parts.store.closed.drop(lane, names)) for lane, names in by_lane)
        return dropped, len(found) > body.limit

    dropped, more = await parts.read(work)
    return answer({"dropped": dropped, "more": more})


@router.post("/replays", summary="Replay webhooks", status_code=202, response_model=Replayed)
async def replays(body: ReplayBody, access: Operating, parts: Shared) -> Response:
    """Send delivered webhooks of an endpoint again, the oldest first, under their webhook-ids."""
    return answer(await parts.read(_replayed, parts.store, body, access), 202)


def _replayed(store: Store, body: ReplayBody, access: KeyAccess) -> dict[str, Any]:
    endpoint = find_endpoint(store, body.endpoint)
    lanes, by = access.includes, access.by
    done, cut = replay(store, endpoint, body.since, body.rate, body.limit, lanes, by=by)
    return {"endpoint": endpoint, "replayed": done, "since": cut}


def _chosen(body: DeadLettersBody) -> DeadLettersBody:
    """A body that names something: all dead letters are not meant by mistake."""
    named = body.deliveries or body.endpoint is not None or body.since is not None or body.reason
    if not (named or body.all):
        raise Problem(422, "Name dead letters, or give `all`, `endpoint`, `since` or `reason`.")
    return body


def _wanted(told: DeadLetterQuery | DeadLettersBody, access: KeyAccess) -> DeadLetters:
    since = float("-inf") if told.since is None else told.since
    names = told.deliveries if isinstance(told, DeadLettersBody) else ()
    return DeadLetters(told.endpoint, since, told.reason, names, access.includes)
