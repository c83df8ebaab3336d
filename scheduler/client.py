"""The producer's door: hand ids over, look at them, wait for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from scheduler.addresses import Network, parse_networks
from scheduler.errors import SubmissionError, WaitTimeout
from scheduler.forecast import Forecasts
from scheduler.law import first_age
from scheduler.settings import Settings
from scheduler.store import Book
from scheduler.submission import check, id_complaint, shown
from scheduler.tracking import Lane, State, Submitted, TrackedTask
from scheduler.whereabouts import book_url

#: Seconds between two looks into the book while waiting.
_WAIT_STEP = 0.25


class Client:
    """Talks to the book in Redis; needs neither Celery nor a running worker. Safe to share between threads.

    `url` is the Redis of the book; without it the environment says (`CAVENDISH_REDIS_URL`, else the embedded
    server of `cavendish up`). Every method raises BookUnavailable when Redis is away.

        with Client() as client:
            client.submit(["id-1", "id-2"], service="nano-banana", webhook="https://example.com/hook")
            done = client.wait(["id-1", "id-2"], service="nano-banana", timeout=300)
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load()
        self._book = Book(url or book_url(self._settings), self._settings.shards)
        self._forecasts = Forecasts(self._book.learned)

    def submit(
        self,
        ids: Iterable[str],
        *,
        service: str,
        account: str = "default",
        webhook: str | Iterable[str] | None = None,
        deadline: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        model: str | None = None,
        producer: str | None = None,
        again: bool = False,
    ) -> list[Submitted]:
        """Track ids of one service; returns, in their order, `new`, `known` or `refused` for each, once Redis has them.

        Idempotent: an id that is known keeps everything and gains the webhooks. `deadline` in seconds from now
        (1 s to 30 days, default `CAVENDISH_DEADLINE`); `metadata` (a JSON object of at most 8 KiB) comes back in the
        webhook; `again` tracks an id anew, with the webhooks given now,
        after it ended and all that it owed was paid; else the answer is `known` with the reason.
        Raises SubmissionError if anything but single ids is at fault; then nothing was written.
        """
        if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
            raise SubmissionError("The ids must be a list of strings.")
        if webhook is not None and not isinstance(webhook, str):
            webhook = list(webhook) if isinstance(webhook, Iterable) else webhook
        wishes = check(
            service=service,
            account=account,
            webhook=webhook,
            deadline=deadline,
            metadata=metadata,
            model=model,
            producer=producer,
            again=again,
            default_deadline=self._settings.deadline,
            allowed=self._allowed() if webhook else (),
        )
        wanted = list(ids)
        complaints = [id_complaint(task_id) for task_id in wanted]
        sound = list(dict.fromkeys(task_id for task_id, complaint in zip(wanted, complaints, strict=True) if not complaint))
        now = self._book.fleet.now()
        outlook = self._forecasts.outlook(Lane(wishes.account, wishes.service), wishes.model, now)
        first_look = now + min(first_age(outlook), wishes.deadline)
        answers = self._book.tasks.add(sound, wishes, now, first_look) if sound else {}
        return [
            Submitted(shown(task_id).strip('"'), "refused", reason=complaint)
            if complaint
            else _explained(answers[task_id], again=again)
            for task_id, complaint in zip(wanted, complaints, strict=True)
        ]

    def _allowed(self) -> tuple[Network, ...]:
        """Private addresses that webhooks may name: as this environment says, and as the living workers say."""
        now = self._book.fleet.now()
        said = {text for member in self._book.fleet.members(now) if member.alive(now) for text in member.allow}
        return self._settings.webhook_allow + parse_networks(",".join(said))

    def get(self, task_id: str, *, service: str, account: str = "default") -> TrackedTask | None:
        """One tracked task with its upstream record, or None if the book does not know it."""
        return self.get_many([task_id], service=service, account=account).get(task_id)

    def get_many(
        self, ids: Iterable[str], *, service: str, account: str = "default", with_record: bool = True
    ) -> dict[str, TrackedTask]:
        """The tracked tasks that the book knows, by id. `with_record=False` leaves the upstream records out."""
        return self._book.tasks.get(account, service, list(ids), with_record=with_record)

    def wait(
        self,
        ids: Iterable[str],
        *,
        service: str,
        account: str = "default",
        timeout: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, TrackedTask]:
        """Wait until every id has ended; returns them with their records.

        `timeout` in seconds; when it is over WaitTimeout is raised, and the ids are still tracked.
        `progress(ended, all)` is called whenever more have ended. Raises SubmissionError for an id that is not tracked.
        """
        wanted = list(dict.fromkeys(ids))
        until = None if timeout is None else time.monotonic() + timeout
        open_ids, ended = list(wanted), -1
        while True:
            now = self.get_many(open_ids, service=service, account=account, with_record=False)
            strangers = [task_id for task_id in open_ids if task_id not in now]
            if strangers:
                raise SubmissionError(f"{strangers[0]!r} is not tracked for the service {service!r}; submit it first.")
            open_ids = [task_id for task_id in open_ids if not now[task_id].state.terminal]
            if progress and len(wanted) - len(open_ids) != ended:
                ended = len(wanted) - len(open_ids)
                progress(ended, len(wanted))
            if not open_ids:
                return self.get_many(wanted, service=service, account=account)
            if until is not None and time.monotonic() >= until:
                raise WaitTimeout(open_ids, timeout or 0.0)
            time.sleep(_WAIT_STEP if until is None else min(_WAIT_STEP, max(until - time.monotonic(), 0.0)))

    def close(self) -> None:
        """Close the connections to Redis."""
        self._book.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _explained(answer: Submitted, *, again: bool) -> Submitted:
    """Why an ended id was not tracked again, though that was asked for."""
    if again and answer.outcome == "known" and answer.state is not State.PENDING:
        return replace(answer, reason="not tracked again: an announcement of its end is still owed, or lies in the dead letters")
    return answer
