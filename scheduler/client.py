"""The producer's door: hand ids over, look at them, wait for them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from scheduler.endpoints import is_url
from scheduler.errors import SubmissionError, WaitTimeout
from scheduler.forecast import Forecasts
from scheduler.law import first_age
from scheduler.redis_url import with_wait
from scheduler.settings import Settings
from scheduler.store import Book
from scheduler.store.events import KEPT, START, Reader, places_of
from scheduler.submission import check, id_complaint, shown
from scheduler.tracking import Event, Lane, State, Submitted, TrackedTask
from scheduler.whereabouts import book_url

#: Seconds after which a wait looks at all its ids, whatever the events say: they may have been trimmed.
_LOOK_AGAIN = 5.0
#: Entries of a lane that a wait takes at once.
_AT_ONCE = 1000
#: Seconds after which a reader of events looks for new lanes.
_LIST_AGAIN = 2.0


class Client:
    """Talks to the book in Redis; needs neither Celery nor a running worker. Safe to share between threads.

    `url` is the Redis of the book; without it `settings` say where it is, or the environment (`CAVENDISH_REDIS_URL`, else
    the embedded server of `cavendish up`). Raises SettingsError where they make no sense; connects at the first question.
    Every method raises BookUnavailable when Redis is away.

        with Client() as client:
            client.submit(["id-1", "id-2"], service="nano-banana", webhook="https://example.com/hook")
            done = client.wait(["id-1", "id-2"], service="nano-banana", timeout=300)
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load()
        s = self._settings
        self._book = Book(with_wait(url, s.wait_replicas, s.wait_timeout) if url else book_url(s), s.shards)
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
        traceparent: str | None = None,
    ) -> list[Submitted]:
        """Track ids of one service; returns, in their order, `new`, `known` or `refused` for each, once Redis has them.

        Idempotent: an id that is known keeps everything and gains the webhooks.
        - `service` is the API that made the `ids`, `account` whose token asks about them;
        - `webhook`: a URL or the name of a registered endpoint, or up to eight of them;
        - `deadline`: seconds from now (1 s to 30 days, default `CAVENDISH_DEADLINE`);
        - `metadata`: a JSON object of at most 8 KiB that comes back in the webhook;
        - `model`: a hint at how long it takes; `producer`: a label, between which calls are shared fairly;
        - `again`: track ids anew, with the webhooks given now, that have ended and paid all they owed; else the answer is
          `known` with the reason;
        - `traceparent` (W3C Trace Context) goes to the receiver with each webhook, and into our own traces where these are on.
        Raises SubmissionError if anything but single ids is at fault; then nothing was written.
        """
        wanted = _listed(ids)
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
            traceparent=traceparent,
            default_deadline=self._settings.deadline,
            allowed=self._settings.webhook_allow + self._book.fleet.allowed() if webhook else (),
            ports=self._settings.webhook_ports,
        )
        strangers = self._book.endpoints.missing(name for name in wishes.webhooks if not is_url(name))
        if strangers:
            name = strangers[0]
            raise SubmissionError(f"No endpoint is registered as {name!r}; `cavendish endpoint add {name} URL` does it.")
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

    def get(self, task_id: str, *, service: str, account: str = "default") -> TrackedTask | None:
        """One tracked task (`task_id` of a `service`, under an `account`) with its record, or None if it is unknown."""
        return self.get_many([task_id], service=service, account=account).get(task_id)

    def get_many(
        self, ids: Iterable[str], *, service: str, account: str = "default", with_record: bool = True
    ) -> dict[str, TrackedTask]:
        """Those of the `ids` of a `service`, under an `account`, that the book knows, by id. `with_record=False` leaves the
        upstream records out.
        """
        return self._book.tasks.get(account, service, _listed(ids), with_record=with_record)

    def wait(
        self,
        ids: Iterable[str],
        *,
        service: str,
        account: str = "default",
        timeout: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, TrackedTask]:
        """Wait until every one of the `ids` of a `service`, under an `account`, has ended; returns them with their records.

        `timeout` in seconds (None: for ever); when it is over WaitTimeout is raised, and the ids are still tracked.
        `progress(ended, all)` is called whenever more have ended. Raises SubmissionError for an id that is not tracked.
        """
        wanted = list(dict.fromkeys(_listed(ids)))
        until = math.inf if timeout is None else time.monotonic() + timeout
        # Before the first look: what ends in between is then heard of twice, rather than never.
        places = self._book.events.last({Lane.of(account, service, task_id, self._settings.shards) for task_id in wanted})
        look_at, open_ids, ended = wanted, dict.fromkeys(wanted), -1
        look_at_all = time.monotonic() + _LOOK_AGAIN
        while True:
            now = self.get_many(look_at, service=service, account=account, with_record=False)
            strangers = [task_id for task_id in look_at if task_id not in now]
            if strangers:
                raise SubmissionError(f"{strangers[0]!r} is not tracked for the service {service!r}; submit it first.")
            open_ids = {task_id: None for task_id in open_ids if task_id not in now or not now[task_id].state.terminal}
            if progress and len(wanted) - len(open_ids) != ended:
                ended = len(wanted) - len(open_ids)
                progress(ended, len(wanted))
            if not open_ids:
                return self.get_many(wanted, service=service, account=account)
            if time.monotonic() >= until:
                raise WaitTimeout(list(open_ids), timeout or 0.0)
            look_at = self._stirred(places, open_ids, min(until, look_at_all))
            if not look_at or time.monotonic() >= look_at_all:
                look_at, look_at_all = list(open_ids), time.monotonic() + _LOOK_AGAIN

    def _stirred(self, places: dict[Lane, str], open_ids: Container[str], until: float) -> list[str]:
        """Block until events tell of some of the open ids, and return these; none if the time is over first."""
        while (left := until - time.monotonic()) > 0:
            entries = self._book.events.read(places, _AT_ONCE, left)
            places.update((entry.lane, entry.place) for entry in entries)
            stirred = [entry.id for entry in entries if entry.id in open_ids]
            if stirred:
                return stirred
        return []

    def events(
        self, service: str | None = None, account: str | None = None, *, after: str | None = None, follow: bool = True
    ) -> Iterator[Event]:
        """What ended, in the order of time (to the millisecond), and then what ends from now on; of all services and accounts
        unless one is named.

        Without `follow` it ends with the last event that there is now. `after` says where to begin:
        - None: now, that is when `events` is called, not when the first event is asked for;
        - "" or "0": with the oldest event that is still kept;
        - the `position` of the last event that was handled: behind that one, over all lanes, with nothing missing and
          nothing twice. It goes with the same service and account that it came from.

        A reader that may miss nothing begins with "0" and keeps the position of each event that it has handled. The
        streams are capped (CAVENDISH_EVENTS_KEPT for each lane): EventsMissed is raised, at once or on the way, where
        events behind the place of the reader were trimmed away; its `position` goes on with what is kept. (Rarely it
        is raised although just the handled ones were trimmed.) Raises SubmissionError for a position that is none, and
        BookUnavailable, also while it follows: then begin again with the last position. After an error it is exhausted.
        """
        lanes = self._lanes(service, account)
        if after is None:
            places = self._book.events.last(lanes)
        elif after in ("", "0"):
            places = dict.fromkeys(lanes, KEPT)
        else:
            known = places_of(after)
            places = {lane: known.get(lane, START) for lane in lanes}
        reader = Reader(self._book.events, places)
        if follow:
            return self._following(reader, service, account)
        return self._kept(reader, self._book.events.last(lanes))

    def _following(self, reader: Reader, service: str | None, account: str | None) -> Iterator[Event]:
        while True:
            list_again = time.monotonic() + _LIST_AGAIN
            while (left := list_again - time.monotonic()) > 0:
                yield from reader.read(left)
            reader.add(dict.fromkeys(self._lanes(service, account), START))

    def _kept(self, reader: Reader, end: Mapping[Lane, str]) -> Iterator[Event]:
        while events := list(reader.read(until=end)):
            yield from events

    def _lanes(self, service: str | None, account: str | None) -> list[Lane]:
        return [lane for lane in self._book.tasks.lanes() if service in (None, lane.service) and account in (None, lane.account)]

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


def _listed(ids: Iterable[str]) -> list[str]:
    """The ids as a list; a single text is taken for a mistake, not for its letters."""
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise SubmissionError("The ids must be a list of strings.")
    return list(ids)
