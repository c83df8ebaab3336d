"""The producer's door: hand ids over, look at them, wait for them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from cavendish.errors import SubmissionError, WaitTimeout
from cavendish.local_paths import store_url
from cavendish.model import Event, Lane, State, Submitted, TrackedTask
from cavendish.policy.durations import first_age
from cavendish.redis_url import with_wait
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.events import KEPT, START, Reader, places_of
from cavendish.store.forecasts import Forecasts
from cavendish.submission import check, id_complaint, shown
from cavendish.webhook_endpoint import is_url

#: Seconds after which a wait polls at all its ids, whatever the events say: they may have been
#: trimmed.
_CHECK_AGAIN = 5.0
#: Entries of a lane that a wait takes at once.
_AT_ONCE = 1000
#: Seconds after which a reader of events polls for new lanes.
_LIST_AGAIN = 2.0


class Client:
    """Talks to the store in Redis; needs neither Celery nor a running worker. Safe to share between
    threads.

    `url` is the Redis of the store; without it `settings` say where it is, or the environment
    (`CAVENDISH_REDIS_URL`, else the embedded server of `cavendish up`). Raises SettingsError where
    they make no sense; connects at the first question. Every method raises BookUnavailable when
    Redis is away.

        with Client() as client:
            client.submit(["id-1", "id-2"], service="nano-banana",
            webhook="https://example.com/hook") done = client.wait(["id-1", "id-2"],
            service="nano-banana", timeout=300)
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        self._settings = settings or Settings.load()
        s = self._settings
        self._store = Store(
            with_wait(url, s.wait_replicas, s.wait_timeout) if url else store_url(s), s.shards
        )
        self._forecasts = Forecasts(self._store.shared_state)

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
        restart: bool = False,
        traceparent: str | None = None,
    ) -> list[Submitted]:
        """Track ids of one service; returns, in their order, `new`, `known` or `refused` for each,
        once Redis has them.

        Idempotent: an id that is known keeps everything and gains the webhooks.
        - `service` is the API that made the `ids`, `account` whose token asks about them;
        - `webhook`: a URL or the name of a registered endpoint, or up to eight of them;
        - `deadline`: seconds from now (1 s to 30 days, default `CAVENDISH_DEADLINE`);
        - `metadata`: a JSON object of at most 8 KiB that comes back in the webhook;
        - `model`: a hint at how long it takes; `producer`: a label, between which calls are shared
          fairly;
        - `restart`: track ids anew, with the webhooks given now, that have ended and delivered all
          they pending; else the answer is `known` with the reason;
        - `traceparent` (W3C Trace Context) goes to the receiver with each webhook, and into our own
          traces where these are on. Raises SubmissionError if anything but single ids is at fault;
          then nothing was written.
        """
        wanted = _listed(ids)
        if webhook is not None and not isinstance(webhook, str):
            webhook = list(webhook) if isinstance(webhook, Iterable) else webhook
        options = check(
            service=service,
            account=account,
            webhook=webhook,
            deadline=deadline,
            metadata=metadata,
            model=model,
            producer=producer,
            restart=restart,
            traceparent=traceparent,
            default_deadline=self._settings.deadline,
            allowed=self._settings.webhook_allow + self._store.fleet.allowed() if webhook else (),
            ports=self._settings.webhook_ports,
        )
        strangers = self._store.endpoints.missing(
            name for name in options.webhooks if not is_url(name)
        )
        if strangers:
            name = strangers[0]
            raise SubmissionError(
                f"No endpoint is registered as {name!r}; `cavendish endpoint add {name} URL` does it."
            )
        complaints = [id_complaint(task_id) for task_id in wanted]
        sound = list(
            dict.fromkeys(
                task_id
                for task_id, complaint in zip(wanted, complaints, strict=True)
                if not complaint
            )
        )
        now = self._store.fleet.now()
        forecast = self._forecasts.forecast(
            Lane(options.account, options.service), options.model, now
        )
        first_poll = now + min(first_age(forecast), options.deadline)
        answers = self._store.tasks.add(sound, options, now, first_poll) if sound else {}
        return [
            Submitted(shown(task_id).strip('"'), "refused", reason=complaint)
            if complaint
            else _explained(answers[task_id], restart=restart)
            for task_id, complaint in zip(wanted, complaints, strict=True)
        ]

    def get(self, task_id: str, *, service: str, account: str = "default") -> TrackedTask | None:
        """One tracked task (`task_id` of a `service`, under an `account`) with its record, or None
        if it is unknown.
        """
        return self.get_many([task_id], service=service, account=account).get(task_id)

    def get_many(
        self,
        ids: Iterable[str],
        *,
        service: str,
        account: str = "default",
        with_record: bool = True,
    ) -> dict[str, TrackedTask]:
        """Those of the `ids` of a `service`, under an `account`, that the store knows, by id.
        `with_record=False` leaves the upstream records out.
        """
        return self._store.tasks.get(account, service, _listed(ids), with_record=with_record)

    def wait(
        self,
        ids: Iterable[str],
        *,
        service: str,
        account: str = "default",
        timeout: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, TrackedTask]:
        """Wait until every one of the `ids` of a `service`, under an `account`, has ended; returns
        them with their records.

        `timeout` in seconds (None: for ever); when it is over WaitTimeout is raised, and the ids
        are still tracked. `progress(ended, all)` is called whenever more have ended. Raises
        SubmissionError for an id that is not tracked.
        """
        wanted = list(dict.fromkeys(_listed(ids)))
        until = math.inf if timeout is None else time.monotonic() + timeout
        # Before the first poll: what ends in between is then heard of twice, rather than never.
        places = self._store.events.last(
            {Lane.of(account, service, task_id, self._settings.shards) for task_id in wanted}
        )
        to_check, open_ids, ended = wanted, dict.fromkeys(wanted), -1
        check_all_at = time.monotonic() + _CHECK_AGAIN
        while True:
            now = self.get_many(to_check, service=service, account=account, with_record=False)
            strangers = [task_id for task_id in to_check if task_id not in now]
            if strangers:
                raise SubmissionError(
                    f"{strangers[0]!r} is not tracked for the service {service!r}; submit it first."
                )
            open_ids = {
                task_id: None
                for task_id in open_ids
                if task_id not in now or not now[task_id].state.terminal
            }
            if progress and len(wanted) - len(open_ids) != ended:
                ended = len(wanted) - len(open_ids)
                progress(ended, len(wanted))
            if not open_ids:
                return self.get_many(wanted, service=service, account=account)
            if time.monotonic() >= until:
                raise WaitTimeout(list(open_ids), timeout or 0.0)
            to_check = self._stirred(places, open_ids, min(until, check_all_at))
            if not to_check or time.monotonic() >= check_all_at:
                to_check, check_all_at = list(open_ids), time.monotonic() + _CHECK_AGAIN

    def _stirred(
        self, places: dict[Lane, str], open_ids: Container[str], until: float
    ) -> list[str]:
        """Block until events tell of some of the open ids, and return these.

        None if the time is over first.
        """
        while (left := until - time.monotonic()) > 0:
            entries = self._store.events.read(places, _AT_ONCE, left)
            places.update((entry.lane, entry.place) for entry in entries)
            stirred = [entry.id for entry in entries if entry.id in open_ids]
            if stirred:
                return stirred
        return []

    def events(
        self,
        service: str | None = None,
        account: str | None = None,
        *,
        after: str | None = None,
        decide: bool = True,
    ) -> Iterator[Event]:
        """What ended, in the order of time (to the millisecond), and then what ends from now on; of
        all services and accounts unless one is named.

        Without `decide` it ends with the last event that there is now. `after` says where to begin:
        - None: now, that is when `events` is called, not when the first event is asked for;
        - "" or "0": with the oldest event that is still kept;
        - the `position` of the last event that was handled: behind that one, over all lanes, with
          nothing missing and nothing twice. It goes with the same service and account that it came
          from.

        A reader that may miss nothing begins with "0" and keeps the position of each event that it
        has handled. The streams are capped (CAVENDISH_EVENTS_KEPT for each lane): EventsMissed is
        raised, at once or on the way, where events behind the place of the reader were trimmed
        away; its `position` goes on with what is kept. (Rarely it is raised although just the
        handled ones were trimmed.) Raises SubmissionError for a position that is none, and
        BookUnavailable, also while it follows: then begin again with the last position. After an
        error it is exhausted.
        """
        lanes = self._lanes(service, account)
        if after is None:
            places = self._store.events.last(lanes)
        elif after in ("", "0"):
            places = dict.fromkeys(lanes, KEPT)
        else:
            known = places_of(after)
            places = {lane: known.get(lane, START) for lane in lanes}
        reader = Reader(self._store.events, places)
        if decide:
            return self._following(reader, service, account)
        return self._kept(reader, self._store.events.last(lanes))

    def _following(
        self, reader: Reader, service: str | None, account: str | None
    ) -> Iterator[Event]:
        while True:
            list_again = time.monotonic() + _LIST_AGAIN
            while (left := list_again - time.monotonic()) > 0:
                yield from reader.read(left)
            reader.add(dict.fromkeys(self._lanes(service, account), START))

    def _kept(self, reader: Reader, end: Mapping[Lane, str]) -> Iterator[Event]:
        while events := list(reader.read(until=end)):
            yield from events

    def _lanes(self, service: str | None, account: str | None) -> list[Lane]:
        return [
            lane
            for lane in self._store.tasks.lanes()
            if service in (None, lane.service) and account in (None, lane.account)
        ]

    def close(self) -> None:
        """Close the connections to Redis."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _explained(answer: Submitted, *, restart: bool) -> Submitted:
    """Why an ended id was not tracked again, though that was asked for."""
    if restart and answer.outcome == "known" and answer.state is not State.PENDING:
        return replace(
            answer,
            reason="not tracked again: an webhook of its end is still pending, or lies in the dead letters",
        )
    return answer


def _listed(ids: Iterable[str]) -> list[str]:
    """The ids as a list; a single text is taken for a mistake, not for its dead letters."""
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise SubmissionError("The ids must be a list of strings.")
    return list(ids)
