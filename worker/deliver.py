"""Pay what is owed: claim debts, sign, POST, and write down whether each is paid, tried later, or dead."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from scheduler import backoff
from scheduler.clock import Clock
from scheduler.errors import BookUnavailable
from scheduler.store import Book
from scheduler.store.debts import Debt
from scheduler.tracking import Lane, TrackedTask
from worker import announcement, signing
from worker.egress import AddressRefused
from worker.logs import logger
from worker.loop import LoopThread
from worker.refusals import retry_after
from worker.transport import read_raw

#: Debts claimed at once, and bytes of an answer that are read.
AT_ONCE, ANSWER_LIMIT = 100, 64 * 1024
#: Seconds until the next try when the fault is our own; no try is charged for it.
OWN_FAULT_WAIT = 30.0
#: Seconds that one sweep goes on as long as it finds something.
SWEEP_FOR = 10.0


@dataclass(frozen=True, slots=True)
class Knobs:
    """What a delivery needs of the settings."""

    secret: str
    timeout: float
    lease: float
    retention: float
    dead_retention: float


@dataclass(frozen=True, slots=True)
class Tried:
    """What one POST met: `ok` for 2xx, `gone` for what no further try can mend."""

    debt: Debt
    outcome: str
    ok: bool = False
    gone: bool = False
    retry_after: float | None = None


@dataclass(slots=True)
class Delivered:
    """What came of one run, in numbers."""

    paid: int = 0
    later: int = 0
    buried: int = 0

    @property
    def total(self) -> int:
        return self.paid + self.later + self.buried

    def __str__(self) -> str:
        return f"{self.paid} paid · {self.later} later · {self.buried} buried" if self.total else "nothing owed"


class Delivery:
    """Pays the debts of one lane. Raises BookUnavailable; then the leases run out and the debts are due again."""

    def __init__(self, book: Book, client: httpx.AsyncClient, loop: LoopThread, knobs: Knobs, clock: Clock, lane: Lane) -> None:
        self._book, self._client, self._loop, self._knobs = book, client, loop, knobs
        self._clock, self._lane = clock, lane
        self._token = secrets.token_hex(8)
        self._did = Delivered()
        self._log = logger().bind(lane=str(lane))

    def run(self, wished: Sequence[str] = ()) -> Delivered:
        """Pay the wished debts, or whatever is due."""
        now = self._clock.now()
        names = self._book.debts.claim(self._lane, now, now + self._knobs.lease, self._token, AT_ONCE, wished)
        if not names:
            return self._did
        debts = self._book.debts.load(self._lane, names)
        if not self._knobs.secret:
            self._log.error("webhook.unsigned", ids=len(names), outcome="CAVENDISH_WEBHOOK_SECRET is not set; the debts wait")
            self._put_off(debts, OWN_FAULT_WAIT, "no signing secret is set")
            return self._did
        ids = list(dict.fromkeys(debt.task_id for debt in debts))
        loaded = self._book.tasks.load(self._lane, ids, with_record=True)
        works: list[Coroutine[Any, Any, Tried]] = []
        for debt in debts:
            task = loaded.tasks.get(debt.task_id)
            works.append(self._post(debt, task) if task is not None and debt.url else _lost(debt))
        for tried in self._loop.as_completed(works):
            self._write_down(tried)
        return self._did

    async def _post(self, debt: Debt, task: TrackedTask) -> Tried:
        """One signed POST of exactly the signed bytes, within one wall-clock deadline."""
        body = announcement.body(task)
        headers = signing.headers(self._knobs.secret, announcement.webhook_id(task), int(self._clock.now()), body)
        try:
            async with (
                asyncio.timeout(self._knobs.timeout),
                self._client.stream(
                    "POST",
                    debt.url,
                    content=body,
                    headers={**headers, "content-type": "application/json"},
                    timeout=self._knobs.timeout,
                ) as response,
            ):
                await read_raw(response, ANSWER_LIMIT)
        except TimeoutError:
            return Tried(debt, f"no answer within {self._knobs.timeout:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError) as error:
            refused = isinstance(error.__cause__, AddressRefused)
            return Tried(debt, f"{type(error).__name__}: {error}"[:200], gone=refused)
        status = response.status_code
        return Tried(
            debt,
            f"HTTP {status}",
            ok=200 <= status < 300,
            gone=status == 410,
            retry_after=retry_after(response.headers),
        )

    def _write_down(self, tried: Sequence[Tried]) -> None:
        now = self._clock.now()
        paid = [(one.debt.name, one.outcome) for one in tried if one.ok]
        dead: list[tuple[str, str]] = []
        later: list[tuple[str, float, bool, str]] = []
        for one in tried:
            if one.ok:
                continue
            wait = None if one.gone else backoff.webhook(one.debt.tries + 1, one.retry_after, random.random())
            if wait is None:
                dead.append((one.debt.name, one.outcome if one.gone else f"{one.outcome}; all tries are used up"))
                self._log.error("webhook.buried", id=one.debt.task_id, tries=one.debt.tries + 1, outcome=dead[-1][1])
            else:
                later.append((one.debt.name, now + wait, True, one.outcome))
                self._log.warning(
                    "webhook.later", id=one.debt.task_id, tries=one.debt.tries + 1, seconds=round(wait), outcome=one.outcome
                )
        if paid:
            ours = self._book.debts.paid(self._lane, self._token, now, paid, self._knobs.retention)
            self._did.paid += ours
            self._log.info("webhook.paid", ids=ours)
        if later:
            self._did.later += self._book.debts.later(self._lane, self._token, later)
        if dead:
            self._did.buried += self._book.debts.bury(self._lane, self._token, now, dead, self._knobs.dead_retention)

    def _put_off(self, debts: Sequence[Debt], seconds: float, why: str) -> None:
        at = self._clock.now() + seconds
        self._did.later += self._book.debts.later(self._lane, self._token, [(debt.name, at, False, why) for debt in debts])


async def _lost(debt: Debt) -> Tried:
    return Tried(debt, "what it announces can no longer be read in the book", gone=True)


def sweep(book: Book, delivery: Callable[[Clock, Lane], Delivery]) -> Delivered:
    """Pay whatever is owed in any lane, for a while: the net under the messages that are sent for fresh debts."""
    clock, did = book.clock(), Delivered()
    until, busy = clock.now() + SWEEP_FOR, True
    while busy and clock.now() < until:
        busy = False
        for lane in book.tasks.lanes():
            try:
                each = delivery(clock, lane).run()
            except BookUnavailable:
                raise
            except Exception as error:  # one lane that cannot be read must not stop the others
                logger().error("lane.unreadable", lane=str(lane), outcome=f"{type(error).__name__}: {error}"[:200])
                continue
            busy = busy or each.total > 0
            did.paid, did.later, did.buried = did.paid + each.paid, did.later + each.later, did.buried + each.buried
    return did
