"""The client of a producer: submit ids, read their tasks, wait for their ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self
from uuid import UUID

from cavendish.arguments import checked
from cavendish.controller import Controller
from cavendish.endpoints.endpoint_methods import EndpointMethods
from cavendish.environment.local_paths import store_url
from cavendish.environment.redis_url import with_wait
from cavendish.model import Event, Group, Submitted, Task, TrackedTask
from cavendish.operator_methods import OperatorMethods
from cavendish.read_methods import ReadMethods
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.submission import group_name, ids_of, listed, with_key
from cavendish.submitter import Submitter
from cavendish.undo import Undo
from cavendish.waiting.event_stream import EventStream
from cavendish.waiting.group_wait import GroupWait
from cavendish.waiting.waiters import Wait, Watch
from cavendish.waiting.waits import Waits


class Client(ReadMethods, OperatorMethods, EndpointMethods):
    """Talks to the store in Redis; no Celery and no running worker are needed.

    It may be shared between threads. `url` is the Redis of the store. Without it `settings` name
    the Redis, or else the environment: `CAVENDISH_REDIS_URL`, or the embedded server of
    `cavendish up`. Raises SettingsError if they cannot be used; connects at the first request.
    Every method raises StoreUnavailable if Redis does not answer.

        with Client() as client:
            client.submit(["id-1"], service="nano-banana", webhook="https://example.com/hook")
            done = client.wait(["id-1"], service="nano-banana", timeout=300)
    """

    @checked()
    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        self._settings = s = settings or Settings.load()
        where = with_wait(url, s.wait_replicas, s.wait_timeout) if url else store_url(s)
        self._store = Store(where, s.shards)
        self._submitter = Submitter(self._store, s)
        self._controller = Controller(self._store)
        self._undo = Undo(self._store, s)
        self._waits = Waits(self._store, s.shards)

    def submit(
        self,
        ids: Iterable[str | UUID | Task],
        *,
        service: str,
        account: str = "default",
        webhook: str | Iterable[str] | None = None,
        deadline: float | None = None,
        metadata: Mapping[str, object] | None = None,
        model: str | None = None,
        producer: str | None = None,
        restart: bool = False,
        traceparent: str | None = None,
        key: str | UUID | None = None,
        group: str | None = None,
        group_size: int | None = None,
    ) -> list[Submitted]:
        """Track `ids`; returns "new", "known" or "refused" for each, in their order, once stored.

        An id is a text, a UUID (its text), or a `Task` with metadata and key of its own; a wrong
        one is refused alone. A known id keeps all that it has; webhooks and group are added.
        Raises SubmissionError if anything else is wrong, and QuotaExceeded, which is one, if the
        producer has too much in the store (CAVENDISH_PRODUCER_IDS, _BYTES), and writes nothing.

        - `service`: the API that made the ids; `account`: the one whose token polls them;
        - `webhook`: a URL or the name of a registered endpoint, or up to eight of them;
        - `deadline`: seconds from now (1 s to 30 days, default `CAVENDISH_DEADLINE`);
        - `metadata`: a JSON object of at most 8 KiB, which each webhook contains. UUID and Decimal
          in it become their texts, dates and times ISO 8601, bytes base64;
        - `model`: the model that runs the task, if known; it improves the duration estimate;
        - `producer`: a label; calls are shared fairly between producers;
        - `restart`: track ended ids again, with the webhooks given now. An id with a delivery that
          is pending or in the dead letters stays "known", and the answer says why;
        - `traceparent`: a W3C trace context for each webhook, and for our own traces;
        - `key`: a name of your own for the one id, under which `find` finds it; `group`: a label
          for ids of one account, in one submit or several. Once `group_size` ids have ended (1 to
          10,000; one submit has to say it), the webhooks of all these get `group.completed`.
        """
        told = service, account, webhook, deadline, metadata, model, producer, restart, traceparent
        return self._submitter.submit(with_key(listed(ids), key), *told, group, group_size)

    @checked()
    def wait(
        self,
        ids: Iterable[str | UUID],
        *,
        service: str,
        account: str = "default",
        timeout: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, TrackedTask]:
        """Wait until all `ids` of a `service`, under an `account`, have ended.

        Returns them with their records, by id. After `timeout` seconds (None: no limit)
        WaitTimeout is raised, and the ids are still tracked. `progress(ended, all)` is called
        whenever more have ended. Raises SubmissionError for an id that is not tracked.

        All waits of a client share one thread, which reads the ends: a thousand of them cost Redis
        no more than one.
        """
        changed = threading.Event()
        with self._waiting(ids, service, account, changed.set) as wait:
            for seconds in wait.until_ended(timeout, progress):
                changed.wait(seconds)
                changed.clear()
        return wait.ended

    @checked()
    def wait_group(
        self,
        name: str,
        *,
        account: str = "default",
        timeout: float | None = None,
        progress: Callable[[Group], None] | None = None,
    ) -> Group:
        """Wait until the group `name` of an `account` is complete; returns it.

        After `timeout` seconds (None: no limit) WaitTimeout is raised. `progress(group)` is called
        at first, and then whenever more of its ids have joined or ended. Raises SubmissionError if
        the group is not kept.
        """
        wait, changed = GroupWait(name, account, timeout, progress), threading.Event()
        with self._watching(name, account, changed.set):
            while seconds := wait.next_read(self.group(name, account=account)):
                changed.wait(seconds)
                changed.clear()
        return wait.group

    @checked()
    def events(
        self,
        service: str | None = None,
        account: str | None = None,
        *,
        after: str | None = None,
        follow: bool = True,
    ) -> Iterator[Event]:
        """The ends of tracked tasks, ordered by time (to the millisecond).

        They are those of all services and accounts, unless a `service` or an `account` is named.
        With `follow` it then waits for new ones; without, it stops after the last one there is now.
        `after` says where to begin:

        - None: now, that is when `events` is called, not when the first event is requested;
        - "" or "0": with the oldest event that is still kept;
        - the `position` of an event: after that one, over all lanes, none missing and none twice.
          Use it with the same service and account that it came from.

        A reader that must not miss any event begins with "0" and stores the position of each event
        that it has handled. The streams are capped (CAVENDISH_EVENTS_KEPT for each lane):
        EventsMissed is raised, at once or later, if events after the reader's position were
        trimmed; its `position` continues with the oldest that is kept. (Rarely it is raised
        although only handled events were trimmed.) A stream expires a week after its last event, or
        CAVENDISH_RETENTION if that is longer, without EventsMissed. Raises SubmissionError for a
        malformed position, and StoreUnavailable, also while it follows. An iterator that has raised
        is exhausted: call `events` again with the last position.
        """
        stream = self._stream(service, account, after)
        return stream.following() if follow else stream.kept()

    def close(self) -> None:
        """Close the connections to Redis; whoever still waits gets ClientClosed."""
        self._waits.close()
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

    # --- what AsyncClient shares

    def _waiting(
        self, ids: Iterable[str | UUID], service: str, account: str, changed: Callable[[], None]
    ) -> AbstractContextManager[Wait]:
        return self._waits.wait(account, service, ids_of(ids), changed)

    def _watching(
        self, group: str, account: str, changed: Callable[[], None]
    ) -> AbstractContextManager[Watch]:
        return self._waits.watch([self._store.groups.lane(account, group_name(group))], changed)

    def _stream(self, service: str | None, account: str | None, after: str | None) -> EventStream:
        return EventStream(self._store, service, account, after)
