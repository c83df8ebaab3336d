"""Sends paid submits on to the API, and tracks their tasks before their callers have an answer.

A caller never gets an answer after which its client would send a submit again that the API may have
taken: a connection that broke, a 5xx. Such a task is searched by its trace id, where that is
possible; else the caller is told that its fate is uncertain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from cavendish import AsyncClient
from cavendish.errors import ClientClosed, StoreUnavailable, SubmissionError
from cavendish.model import State, TrackedTask, printable
from cavendish.stored_json import compact, parse
from cavendish_worker.polling.upstream_errors import error_code
from cavendish_worker.service.gateway.api_calls import (
    ApiCalls,
    NotSent,
    Uncertain,
    answered_headers,
    is_clear,
    read_whole,
)
from cavendish_worker.service.gateway.call_turns import CallTurns
from cavendish_worker.service.gateway.callers import Caller
from cavendish_worker.service.gateway.canonical import canonical
from cavendish_worker.service.gateway.first_of import first_of
from cavendish_worker.service.gateway.paid_submit import PaidSubmit, task_id_of
from cavendish_worker.service.gateway.refusal import FINAL, Refused, UncertainFate
from cavendish_worker.telemetry import tracing
from cavendish_worker.telemetry.logs import logger

#: Seconds between two attempts to store an id, and how many there are.
_STORE_AGAIN, _STORED_WITHIN = 0.5, 40
#: Seconds before each search for a task of uncertain fate.
_SEARCHES = (1.0, 3.0, 8.0)
#: An id that exists nowhere: asking for it shows whether the store answers.
_NOBODY = "00000000-0000-0000-0000-000000000000"
#: How the end of a task that failed is told to a caller that was held for it; else FINAL.
_STATUSES = {"forbidden": 403, "content_moderation": 403, "bad_request": 400}


@dataclass(frozen=True, slots=True)
class Given:
    """What a caller gets: a status, headers, and a body; `task_id`: of the task that it made."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    task_id: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request on its way to the API: whose it is, and where it goes."""

    caller: Caller
    service: str
    target: str
    headers: tuple[tuple[str, str], ...]
    submit: PaidSubmit


@dataclass(frozen=True, slots=True)
class Bought:
    """A task was made for a caller who wants its result; `acknowledged` names its id."""

    caller: Caller
    service: str
    task_id: str
    acknowledged: Given


@dataclass(frozen=True, slots=True)
class Submitting:
    """Submits tasks. `ending` is set when the service ends; `limit`: bytes of an answer;
    `callbacks`: as for `canonical`.
    """

    api: ApiCalls
    client: AsyncClient
    turns: CallTurns
    ending: asyncio.Event
    limit: int
    callbacks: str

    async def submit(self, sent: Sent) -> Given | Bought:
        """Send a submit that makes a task, once. Raises Refused."""
        given = tracing.sound(dict(sent.headers).get("traceparent"))
        with tracing.traces().submit(sent.service, 1, given) as trace:
            return await self._submit(sent, trace)

    async def _submit(self, sent: Sent, trace: str) -> Given | Bought:
        await self._check_store(sent)
        try:
            given, said = await self._send(sent)
        except NotSent as error:
            raise Refused(503, "api_error", f"The API cannot be reached: {error}.") from None
        except Uncertain as error:
            given, said = None, str(error)
        task_id = task_id_of(_parsed(given.body)) if given else ""
        if given and is_clear(given.status) and (given.status >= 300 or not task_id):
            return given
        if not task_id and not (task_id := await self._search(sent)):
            raise UncertainFate(said)
        if given is None or given.status >= 300:
            given = _acknowledged(task_id, sent.submit.trace_id)
        await self._track(sent, task_id, trace)
        given = replace(given, task_id=task_id)
        return Bought(sent.caller, sent.service, task_id, given) if sent.submit.held else given

    async def result(self, bought: Bought, gone: Callable[[], Awaitable[object]]) -> Given:
        """Hold the caller until the task has ended. If the service ends first, or the caller has
        `gone`, the answer is the id, by which its client goes on asking.
        """
        ended: dict[str, TrackedTask] = {}
        task_id, service, account = bought.task_id, bought.service, bought.caller.account

        async def end() -> None:
            while task_id not in ended:
                with suppress(StoreUnavailable):
                    ended.update(
                        await self.client.wait([task_id], service=service, account=account)
                    )
                    return
                await asyncio.sleep(_STORE_AGAIN)

        with suppress(SubmissionError, ClientClosed):
            await first_of(end, self.ending.wait, gone)
        return _ended(ended[task_id], self.callbacks) if task_id in ended else bought.acknowledged

    async def _check_store(self, sent: Sent) -> None:
        """Nothing is bought whose id could not be kept."""
        try:
            await self.client.get(_NOBODY, service=sent.service, account=sent.caller.account)
        except (StoreUnavailable, ClientClosed):
            why = "The store is away; nothing was sent to the API. Try again."
            raise Refused(503, "api_error", why) from None

    async def _send(self, sent: Sent) -> tuple[Given | None, str]:
        """The answer, and what it says; None if it says nothing of the fate of the submit."""
        headers = [(name, value) for name, value in sent.headers if name != "accept"]
        headers.append(("accept", "application/json"))
        where = sent.target, sent.caller.token
        async with self.api.post(*where, headers, sent.submit.body) as answer:
            body = await read_whole(answer, self.limit)
        said = f"HTTP {answer.status_code}"
        if body is None:
            return None, f"{said}, with more than {self.limit} bytes"
        code, message = error_code(_parsed(body))
        said = " ".join(part for part in (said, code, message) if part)
        if is_clear(answer.status_code):
            refuse_unfit(answer.status_code, said)
        return Given(answer.status_code, answered_headers(answer.headers), body), said

    async def _track(self, sent: Sent, task_id: str, trace: str) -> None:
        """Let the store track the task. While Redis is away the caller waits; at last it gets the
        id all the same, and its first question about it lets it be tracked.
        """
        service, account = sent.service, sent.caller.account
        for _ in range(_STORED_WITHIN):
            try:
                await self.client.submit(
                    [task_id],
                    service=service,
                    account=account,
                    model=sent.submit.model,
                    producer=sent.caller.producer,
                    traceparent=trace or None,
                )
            except (StoreUnavailable, ClientClosed):
                await asyncio.sleep(_STORE_AGAIN)
            except SubmissionError as error:
                why = str(error)
                break
            else:
                return
        else:
            why = "the store is away"
        logger().error("gateway.untracked", id=task_id, service=service, outcome=why)

    async def _search(self, sent: Sent) -> str:
        """The id of the task that a submit of uncertain fate made, or ""."""
        if not sent.submit.trace_id:
            return ""
        asked = compact({"action": "retrieve", "trace_id": sent.submit.trace_id}).encode()
        headers = [("content-type", "application/json"), ("accept", "application/json")]
        where = f"/{sent.service}/tasks", sent.caller.token
        for seconds in _SEARCHES:
            await asyncio.sleep(seconds)
            if not await self.turns.take(sent.caller.account):
                continue
            with suppress(NotSent, Uncertain):
                async with self.api.post(*where, headers, asked) as answer:
                    body = await read_whole(answer, self.limit)
                found = _parsed(body or b"") if answer.status_code == 200 else None
                if isinstance(found, Mapping) and (task_id := task_id_of({"id": found.get("id")})):
                    return task_id
        return ""


def refuse_unfit(status: int, said: str) -> None:
    """Raise Refused for what no client may see: a 402 makes some pay, a redirect breaks others."""
    if status == 402:
        raise Refused(403, "used_up", f"The API demands payment: {printable(said, 300)}.")
    if 300 <= status < 400:
        why = f"The API redirects ({printable(said, 300)}): check CAVENDISH_API_URL."
        raise Refused(FINAL, "api_error", why)


def _parsed(body: bytes) -> Any:
    try:
        return parse(body.decode())
    except ValueError:
        return None


def _acknowledged(task_id: str, trace_id: str) -> Given:
    told = {"success": True, "task_id": task_id} | ({"trace_id": trace_id} if trace_id else {})
    return _json(200, told)


def _ended(task: TrackedTask, callbacks: str) -> Given:
    """The answer that a synchronous submit would have got."""
    record = canonical(task, callbacks)
    response: Any = record["response"]
    if task.state is State.SUCCEEDED:
        return _json(200, {"task_id": task.id} | response)
    error = response["error"]
    told = {"error": error, "task_id": task.id, "trace_id": response.get("trace_id", "")}
    return _json(_STATUSES.get(error["code"], FINAL), told)


def _json(status: int, told: Mapping[str, object]) -> Given:
    return Given(status, {"content-type": "application/json"}, compact(told).encode())


def header_pairs(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """The headers of a request as ASGI has them, as texts."""
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
