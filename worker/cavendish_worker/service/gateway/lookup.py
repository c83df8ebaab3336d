"""Answers questions about ids from the store. An id that nobody had submitted is tracked from now.

While Redis is away, or the service ends, every id that may exist is told as pending: any other
answer would end the wait of a client, which asks again by itself.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from cavendish import AsyncClient
from cavendish.errors import ClientClosed, StoreUnavailable, SubmissionError, WaitTimeout
from cavendish.model import TrackedTask
from cavendish_worker.service.callback_hints import CallbackHints, Heard
from cavendish_worker.service.gateway.callers import Adoptions, Caller
from cavendish_worker.service.gateway.canonical import canonical, pending
from cavendish_worker.service.gateway.question import adoptable, may_exist
from cavendish_worker.service.held_requests import HeldRequests

#: Seconds for which a retrieve waits, and how many of one client may do so at once: the vendor's
#: SDK has 100 connections, and what it cannot ask meanwhile would wait behind them.
HOLD, MOST_HELD = 20.0, 60
#: Seconds for which a client that was told "pending" does not ask, and of which nothing should end
#: unheard; so in the last ones of a hold its id is looked at so often: whoever is told just after a
#: poll misses the fewest ends.
PAUSE, LOOK = 3.0, 0.5
_AWAY = (StoreUnavailable, ClientClosed)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: the caller, from which `client` (an address and a caller).

    `gone()` ends once nobody waits for the answer any more.
    """

    caller: Caller
    client: str
    gone: Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the store knows of ids. `callbacks`: as for `canonical`.

    `hints`: an id that is tracked from its first question may have ended long ago, so it is polled
    at once.
    """

    client: AsyncClient
    held: HeldRequests
    hints: CallbackHints
    callbacks: str = ""
    adoptions: Adoptions = field(default_factory=Adoptions)

    async def retrieve(self, asker: Asker, service: str, task_id: str) -> dict[str, object]:
        """The record of an id, as soon as it has ended or the wait is over; {}: there is none."""
        if not may_exist(task_id):
            return {}
        account = asker.caller.account
        try:
            task = await self.client.get(task_id, service=service, account=account)
            if task is not None and not _sees(asker.caller, task):
                return {}
            if task is None and not await self._adopt(asker.caller, service, [task_id]):
                return {}
            if task is None or not task.state.terminal:
                task = await self._end(asker, service, task_id)
        except _AWAY:
            task = None
        return canonical(task, self.callbacks) if task else pending(task_id)

    async def retrieve_batch(
        self, caller: Caller, service: str, ids: Iterable[str]
    ) -> dict[str, object]:
        """The records of ids, in the order asked for, without those of which there is none."""
        some = [each for each in ids if may_exist(each)]
        found: dict[str, TrackedTask] = {}
        try:
            known = await self.client.get_many(some, service=service, account=caller.account)
            found = {each: task for each, task in known.items() if _sees(caller, task)}
            unknown = [each for each in some if each not in known]
            adopted = await self._adopt(caller, service, unknown)
        except _AWAY:
            adopted = {each for each in some if each not in found}
        items = [
            canonical(found[each], self.callbacks) if each in found else pending(each)
            for each in some
            if each in found or each in adopted
        ]
        return {"items": items, "count": len(items)}

    async def _end(self, asker: Asker, service: str, task_id: str) -> TrackedTask | None:
        """Wait for the end of an id. None: it has not come yet."""
        ended: dict[str, TrackedTask] = {}

        async def end() -> None:
            with suppress(SubmissionError):  # it was forgotten meanwhile
                ended.update(await self._end_or_poll(asker.caller.account, service, task_id))

        await self.held.until(end, HOLD, asker.client, MOST_HELD, asker.gone)
        return ended.get(task_id)

    async def _end_or_poll(
        self, account: str, service: str, task_id: str
    ) -> dict[str, TrackedTask]:
        """Wait for the end of an id, or near the end of the hold for a poll that finds it pending:
        then {}.
        """
        seconds, seen = max(HOLD - PAUSE, 0.0), list[float | None]()
        while True:
            try:
                return await self.client.wait(
                    [task_id], service=service, account=account, timeout=seconds
                )
            except WaitTimeout:
                task = await self.client.get(task_id, service=service, account=account)
                seen.append(task.polled_at if task else None)
                if seen[-1] != seen[0]:
                    return {}
                seconds = LOOK

    async def _adopt(self, caller: Caller, service: str, ids: list[str]) -> set[str]:
        """Track ids that nobody had submitted; which of them are tracked now."""
        some = [each for each in ids if adoptable(each)]
        some = some[: self.adoptions.take(caller.producer, len(some), time.monotonic())]
        if not some:
            return set()
        try:
            await self.client.submit(
                some, service=service, account=caller.account, producer=caller.producer
            )
        except SubmissionError:  # the producer has no room
            return set()
        for task_id in some:
            self.hints.hear(Heard(caller.account, service, task_id))
        return set(some)


def _sees(caller: Caller, task: TrackedTask) -> bool:
    return not caller.own or task.producer == caller.producer
