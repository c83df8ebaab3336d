"""The routes of the gateway: `POST /{service}/tasks`, and every other POST or GET to a service.

They stand behind all other routes of the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import sha256

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from starlette.routing import Match
from starlette.types import Scope

from cavendish.service_names import SERVICE
from cavendish_worker.service.gateway import refusal
from cavendish_worker.service.gateway.body import pieces_of, read_body
from cavendish_worker.service.gateway.callers import Caller
from cavendish_worker.service.gateway.first_of import first_of
from cavendish_worker.service.gateway.gateway import Gateway
from cavendish_worker.service.gateway.lookup import Asker
from cavendish_worker.service.gateway.paid_submit import PaidSubmit, makes_task, read_submit
from cavendish_worker.service.gateway.passing_on import Streamed
from cavendish_worker.service.gateway.question import Retrieve, RetrieveBatch, read_question
from cavendish_worker.service.gateway.refusal import Refused, UncertainFate
from cavendish_worker.service.gateway.submitting import Bought, Given, Sent, header_pairs
from cavendish_worker.service.parts import Shared
from cavendish_worker.service.request_body import length_of
from cavendish_worker.telemetry.metrics import answered

#: Bytes and seconds of a question; and of a submit, which may hold pictures.
_QUESTION, _ASKED_WITHIN = 2**20, 30.0
_SUBMIT, _SUBMITTED_WITHIN = 64 * 2**20, 300.0
#: Bytes of a submit that are read on the event loop; more is read in a thread.
_AT_ONCE = 256 * 1024
#: First words of paths that are no services.
_OURS = frozenset("v1 docs callbacks".split())


class ServiceRoute(APIRoute):
    """A route that has nothing to say to other methods, and to what is no service: the path may be
    any, and «not found» is the answer then, not that another method would do.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As any route, but never in part."""
        match, found = super().matches(scope)
        service = found["path_params"]["service"] if match is Match.FULL else ""
        ours = service in _OURS or not SERVICE.fullmatch(service)
        return (Match.NONE, {}) if ours else (match, found)


router = APIRouter(include_in_schema=False, route_class=ServiceRoute)
Work = Callable[[Gateway, Caller, str, Request], Awaitable[Response]]


@router.post("/{service}/tasks")
async def tasks(service: str, request: Request, parts: Shared) -> Response:
    """What is known of ids, in the API's own words."""
    return await _answered(parts.gateway, service, request, _tasks)


@router.post("/{service}/{action:path}")
async def submits(service: str, action: str, request: Request, parts: Shared) -> Response:
    """A paid request, which the API gets."""
    return await _answered(parts.gateway, service, request, partial(_submits, action))


@router.get("/{service}/{action:path}")
async def looks(service: str, action: str, request: Request, parts: Shared) -> Response:
    """A free read of what the API has, such as a list of voices."""
    return await _answered(parts.gateway, service, request, partial(_looks, action))


async def _answered(
    gateway: Gateway | None, service: str, request: Request, work: Work
) -> Response:
    if gateway is None:
        raise HTTPException(404)
    try:
        caller = await gateway.callers.of(request.headers.get("authorization", ""), service)
        request.state.key_name = caller.producer
        return await work(gateway, caller, service, request)
    except Refused as refused:
        if refused.status == 401:
            answered.KEYS_REFUSED.add("gateway")
        return refusal.error(refused)


async def _tasks(gateway: Gateway, caller: Caller, service: str, request: Request) -> Response:
    caller.require("read")
    body = await read_body(request, _QUESTION, _ASKED_WITHIN)
    question = read_question(body) if gateway.serves(service) else None
    if isinstance(question, RetrieveBatch):
        batch = await gateway.lookup.retrieve_batch(caller, service, question.ids)
        return refusal.answer(200, batch)
    if isinstance(question, Retrieve):
        asker = Asker(caller, _client(caller, request), partial(_gone, request))
        found = await gateway.lookup.retrieve(asker, service, question.id)
        await gateway.callers.of(request.headers.get("authorization", ""), service)  # still?
        return refusal.answer(200, found)
    if question is None or question.changes:
        caller.require("submit")
    if caller.own:
        raise Refused(401, "token_mismatched", "This key sees only what it submitted, by its ids.")
    sent = _sent(caller, service, request, PaidSubmit(body))
    return _response(await gateway.passing_on.look(sent))


async def _looks(
    action: str, gateway: Gateway, caller: Caller, service: str, request: Request
) -> Response:
    caller.require("read")
    _check_path(action)
    if caller.own:
        raise Refused(401, "token_mismatched", "This key sees only what it submitted, by its ids.")
    sent = _sent(caller, service, request, PaidSubmit(b""))
    return _response(await gateway.passing_on.look(sent, "GET"))


def _check_path(action: str) -> None:
    if not action or any(part in ("", ".", "..") for part in action.split("/")):
        raise Refused(404, "no_api", "There is no such path.")


async def _submits(
    action: str, gateway: Gateway, caller: Caller, service: str, request: Request
) -> Response:
    caller.require("submit")
    _check_path(action)
    try:
        given = await _in_time(gateway, caller, service, f"{service}/{action}", request)
    except UncertainFate as fate:
        await gateway.note_uncertain(caller, service, fate.said)
        raise
    except Refused as refused:
        answered.SUBMITS.add(service, "unsent" if refused.status == 503 else "refused")
        raise
    answered.SUBMITS.add(service, _outcome(given))
    if isinstance(given, Bought):  # its body is not in memory while the caller is held
        given = await gateway.submitting.result(given, partial(_gone, request))
    return _response(given)


def _outcome(given: Given | Streamed | Bought) -> str:
    if isinstance(given, Bought) or (isinstance(given, Given) and given.task_id):
        return "tracked"
    return "refused" if given.status >= 400 else "passed"


async def _in_time(
    gateway: Gateway, caller: Caller, service: str, path: str, request: Request
) -> Given | Streamed | Bought:
    """What comes of a submit. If the service ends before that is known, its fate is uncertain: the
    server would answer 500, and the submit would be sent again.
    """
    sent = list[Given | Streamed | Bought]()

    async def send() -> None:
        sent.append(await _sent_on(gateway, caller, service, path, request))

    await first_of(send, gateway.last_moment)
    if not sent:
        raise UncertainFate("the service ended before an answer came")
    return sent[0]


async def _sent_on(
    gateway: Gateway, caller: Caller, service: str, path: str, request: Request
) -> Given | Streamed | Bought:
    kind, length = request.headers.get("content-type", ""), length_of(request)
    if not makes_task(path, kind) and length is not None and length <= _SUBMIT:
        coming = pieces_of(request, _SUBMIT, _SUBMITTED_WITHIN)
        return await gateway.passing_on.submit(_sent(caller, service, request, PaidSubmit(coming)))
    with gateway.room.taken(request, _SUBMIT):
        body = await read_body(request, _SUBMIT, _SUBMITTED_WITHIN)
        said = path, kind, body, gateway.callback_urls.url(caller.account, service)
        large = len(body) > _AT_ONCE
        submit = await asyncio.to_thread(read_submit, *said) if large else read_submit(*said)
        sent = _sent(caller, service, request, submit)
        if submit.tracked and gateway.serves(service):
            return await gateway.submitting.submit(sent)
        return await gateway.passing_on.submit(sent)


def _sent(caller: Caller, service: str, request: Request, submit: PaidSubmit) -> Sent:
    path, query = request.scope["raw_path"].decode("latin-1"), request.scope["query_string"]
    target = f"{path}?{query.decode('latin-1')}" if query else path
    return Sent(caller, service, target, header_pairs(request.scope["headers"]), submit)


def _response(given: Given | Streamed) -> Response:
    if isinstance(given, Streamed):
        return StreamingResponse(given.pieces, given.status, given.headers)
    return Response(given.body, given.status, given.headers)


def _client(caller: Caller, request: Request) -> str:
    """A client is an address and a caller: several programs behind one address share a pool of
    connections only if they have one token, too.
    """
    host = request.client.host if request.client else ""
    return f"{host} {sha256(caller.token.encode()).hexdigest()[:12]} {caller.producer}"


async def _gone(request: Request) -> None:
    """Ends when the caller has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
