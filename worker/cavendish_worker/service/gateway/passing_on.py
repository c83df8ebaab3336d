"""Passes requests on that make no task of ours, and their answers back, as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

from cavendish_worker.service.gateway.api_calls import (
    ApiAnswer,
    ApiCalls,
    NotSent,
    Uncertain,
    answered_headers,
    is_clear,
    pieces_of_answer,
    read_whole,
)
from cavendish_worker.service.gateway.call_turns import CallTurns
from cavendish_worker.service.gateway.refusal import Refused, UncertainFate
from cavendish_worker.service.gateway.submitting import (
    Given,
    Sent,
    refuse_unfit,
)
from cavendish_worker.service.request_log import BrokenOff
from cavendish_worker.telemetry.logs import logger

#: Kinds of answers that are passed back piece by piece: whoever reads these sends nothing again
#: when they break off.
_STREAMS = ("text/event-stream", "application/x-ndjson", "audio/", "video/", "image/")


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer that is still coming: `pieces` must be read to the end, or closed."""

    status: int
    headers: Mapping[str, str]
    pieces: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class PassingOn:
    """`limit`: bytes of an answer that is no stream."""

    api: ApiCalls
    turns: CallTurns
    limit: int

    async def look(self, sent: Sent, method: str = "POST") -> Given:
        """A question to the API, free of charge, which takes its turn in the rate limit.

        Raises Refused.
        """
        if not await self.turns.take(sent.caller.account):
            raise Refused(429, "too_many_requests", "The API has no call to spare now. Try again.")
        try:
            async with self._post(sent, method) as answer:
                body = await read_whole(answer, self.limit)
        except (NotSent, Uncertain) as error:
            raise Refused(503, "api_error", f"The API does not answer: {error}.") from None
        if body is None:
            raise Refused(424, "api_error", f"The answer has more than {self.limit} bytes.")
        refuse_unfit(answer.status_code, f"HTTP {answer.status_code}")
        return Given(answer.status_code, answered_headers(answer.headers), body)

    async def submit(self, sent: Sent) -> Given | Streamed:
        """A paid request that makes no task of ours. Raises Refused."""
        async with AsyncExitStack() as stack:
            try:
                answer = await stack.enter_async_context(self._post(sent))
                said = f"HTTP {answer.status_code}"
                if not is_clear(answer.status_code):
                    raise UncertainFate(said)
                refuse_unfit(answer.status_code, said)
                if answer.headers.get("content-type", "").startswith(_STREAMS):
                    pieces = _pieces(answer, stack.pop_all())
                    return Streamed(answer.status_code, answered_headers(answer.headers), pieces)
                body = await read_whole(answer, self.limit)
            except NotSent as error:
                raise Refused(503, "api_error", f"The API cannot be reached: {error}.") from None
            except Uncertain as error:
                raise UncertainFate(str(error)) from None
        if body is None:
            raise UncertainFate(f"an answer with more than {self.limit} bytes")
        return Given(answer.status_code, answered_headers(answer.headers), body)

    def _post(self, sent: Sent, method: str = "POST") -> AbstractAsyncContextManager[ApiAnswer]:
        said = sent.target, sent.caller.token, sent.headers, sent.submit.body
        return self.api.post(*said, method)


async def _pieces(answer: ApiAnswer, stack: AsyncExitStack) -> AsyncIterator[bytes]:
    async with stack:
        try:
            async for some in pieces_of_answer(answer):
                yield some
        except Uncertain as error:
            logger().warning("gateway.stream_broken", outcome=str(error))
            raise BrokenOff from None
