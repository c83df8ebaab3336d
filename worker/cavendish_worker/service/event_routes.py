"""Events over HTTP: the ends of tasks, as Server-Sent Events that go on where a client stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Security
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cavendish import Event, EventsMissed, StoreUnavailable
from cavendish.stored_json import compact
from cavendish_worker.service.guarded_route import BEARER, GuardedRoute, Reading
from cavendish_worker.service.held_requests import HeldRequests, cancelled
from cavendish_worker.service.key_access import KeyAccess
from cavendish_worker.service.parts import Parts, Shared
from cavendish_worker.service.problem_details import Problem, again_after

router = APIRouter(
    prefix="/v1/events", tags=["events"], route_class=GuardedRoute, dependencies=[Security(BEARER)]
)

#: Seconds after which a comment shows that the connection lives, and a client connects again.
ALIVE_EVERY, RETRY = 15.0, 1.0
#: Streams of one key at the same time.
STREAMS = 100
Place = tuple[str | None, str | None]
#: One event of a stream, in the words of OpenAPI; FastAPI writes those of its own streams alike.
_EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "description": "`ended` or `missed`."},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string", "description": "The position behind it."},
        "retry": {"type": "integer", "description": "Milliseconds before a client connects again."},
    },
}


@router.get(
    "",
    summary="Follow the ends of tasks",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"itemSchema": _EVENT}}}},
)
async def events(
    access: Reading,
    parts: Shared,
    service: str | None = None,
    account: str | None = None,
    after: Annotated[
        str | None,
        Query(description="Start after the event with this `id`; 0: with the oldest that is kept."),
    ] = None,
    *,
    follow: Annotated[bool, Query(description="Keep the stream open for new events.")] = True,
    last_event_id: Annotated[str | None, Header(description="It overrides `after`.")] = None,
) -> StreamingResponse:
    """A stream of Server-Sent Events: `event: ended`, with the end of a task as JSON.

    Their `id` is a position: a client that connects again with it as `Last-Event-ID`, as browsers
    do, misses and repeats nothing. `event: missed` says that events were trimmed before they were
    read; the stream goes on with the oldest that is kept.
    """
    place = access.one_of("service", service), access.one_of("account", account)
    start, who = last_event_id or after, f"events of {access.key.name}"
    await _refuse_malformed(parts, place, start)
    if not parts.held.has_room(who, STREAMS):
        raise Problem(429, "This key follows too many streams of events.", again_after(RETRY))
    lines = _lines(_Stream(parts, access, place, follow), start)
    return _Held(lines, parts.held, who)


class _Held(StreamingResponse):
    """A stream that counts to its client from its first moment: of those that come at once, too."""

    def __init__(self, lines: AsyncIterator[str], held: HeldRequests, who: str) -> None:
        headers = {"cache-control": "no-store"}
        super().__init__(lines, media_type="text/event-stream", headers=headers)
        self._counted = held.holding(who)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._counted:
            await super().__call__(scope, receive, send)


@dataclass(frozen=True, slots=True)
class _Stream:
    """What a client follows."""

    parts: Parts
    access: KeyAccess
    place: Place
    follow: bool

    async def allowed(self) -> bool:
        """False once the key was revoked, or has expired."""
        return await self.parts.keys.counts(self.access.key)

    async def shows(self, event: Event) -> bool:
        """True if the key sees the task that ended."""
        if not self.access.key.own:
            return True
        place: Any = {"service": event.service, "account": event.account}
        known = await self.parts.client.get_many([event.id], with_record=False, **place)
        return bool(self.access.seen(known.values()))


async def _refuse_malformed(parts: Parts, place: Place, start: str | None) -> None:
    """Raise what is wrong with a position, while the answer can still be an error."""
    if start is None:
        await parts.read(parts.store.fleet.now)
        return
    with suppress(EventsMissed):
        async with aclosing(parts.client.events(*place, after=start, follow=False)) as kept:
            async for _ in kept:
                break


async def _lines(stream: _Stream, start: str | None) -> AsyncIterator[str]:
    """The lines of a stream. It ends with the service, with its key, or when Redis is away: connect
    again.
    """
    yield f"retry: {RETRY * 1000:.0f}\n\n"
    parts, position = stream.parts, start
    with suppress(StoreUnavailable):
        while True:
            found = parts.client.events(*stream.place, after=position, follow=stream.follow)
            try:
                async with aclosing(found), aclosing(_heard(found, parts.held.ending)) as heard:
                    async for event in heard:
                        if not await stream.allowed():
                            return
                        if event is None:
                            yield ": alive\n\n"
                        elif await stream.shows(event):
                            yield _line("ended", event.position, event.to_json())
                return
            except EventsMissed as missed:
                position = missed.position
                yield _line("missed", position, {"position": position})


def _line(kind: str, position: str, data: dict[str, object]) -> str:
    return f"event: {kind}\nid: {position}\ndata: {compact(data)}\n\n"


async def _heard(
    found: AsyncGenerator[Event, None], ending: asyncio.Event
) -> AsyncGenerator[Event | None, None]:
    """The events as they come, and None whenever none came for a while, until the service ends."""
    stop, following = asyncio.ensure_future(ending.wait()), None
    try:
        while not ending.is_set():
            following = following or asyncio.ensure_future(anext(found))
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait({following, stop}, timeout=ALIVE_EVERY, return_when=first)
            if following.done():
                try:
                    event = following.result()
                except StopAsyncIteration:
                    return
                following = None
                yield event
            elif not stop.done():
                yield None
    finally:
        await cancelled(*filter(None, (stop, following)))
