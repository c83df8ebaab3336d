"""The client of a producer that runs an event loop: `Client`, with `await`."""

from __future__ import annotations

import asyncio
import builtins
import os
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial, update_wrapper
from itertools import islice
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

from cavendish.arguments import checked
from cavendish.client import Client
from cavendish.errors import ClientClosed
from cavendish.joined_reads import Found, JoinedReads, Place
from cavendish.model import Event, Group, TrackedTask
from cavendish.settings import Settings
from cavendish.submission import text_of
from cavendish.waiting.event_stream import LIST_AGAIN, EventStream
from cavendish.waiting.group_wait import GroupWait

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
#: Threads that run calls.
_THREADS = 8
#: Events or tasks that one call brings.
_AT_ONCE = 500


def _awaited(
    method: Callable[Concatenate[Client, P], R],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[object, None, R]]:
    """A method of Client to be awaited: the same name, options and docstring."""

    async def call(self: AsyncClient, /, *args: P.args, **options: P.kwargs) -> R:
        return await self._run(method, self._client, *args, **options)

    update_wrapper(call, method)
    return call


def _iterated(
    method: Callable[Concatenate[Client, P], Iterator[T]],
) -> Callable[Concatenate[AsyncClient, P], AsyncGenerator[T, None]]:
    """A method of Client for `async for`: the same name, options and docstring."""

    def call(self: AsyncClient, /, *args: P.args, **options: P.kwargs) -> AsyncGenerator[T, None]:
        return self._each(self._begin(method, self._client, *args, **options))

    update_wrapper(call, method)
    return call


class AsyncClient:
    """`Client` for asyncio: the same methods with the same options, to be awaited.

    It may be shared between tasks and event loops, and used after a fork. Calls run in at most 8
    threads; all waits and all iterators of events share one more, so a thousand `wait` at once cost
    no thread each. A task that awaits may be cancelled; a `submit` that is cancelled may have been
    written or not: submit again, which is idempotent. After `close` every method raises
    ClientClosed.

    `url` and `settings` are those of Client; it connects at the first request.

        async with AsyncClient() as client:
            await client.submit(["id-1"], service="nano-banana")
            done = await client.wait(["id-1"], service="nano-banana", timeout=300)
    """

    @checked()
    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        self._client = Client(url, settings=settings)
        self._closed = False
        self._start()

    submit = _awaited(Client.submit)
    get_many = _awaited(Client.get_many)
    find = _awaited(Client.find)
    group = _awaited(Client.group)
    list = _awaited(Client.list)
    iter = _iterated(Client.iter)
    count = _awaited(Client.count)
    cancel = _awaited(Client.cancel)
    set_deadline = _awaited(Client.set_deadline)
    forget = _awaited(Client.forget)
    pause = _awaited(Client.pause)
    resume = _awaited(Client.resume)
    pauses = _awaited(Client.pauses)
    set_rate_ceiling = _awaited(Client.set_rate_ceiling)
    rate_ceilings = _awaited(Client.rate_ceilings)
    endpoints = _awaited(Client.endpoints)
    endpoint = _awaited(Client.endpoint)
    add_endpoint = _awaited(Client.add_endpoint)
    update_endpoint = _awaited(Client.update_endpoint)
    rotate_endpoint = _awaited(Client.rotate_endpoint)
    remove_endpoint = _awaited(Client.remove_endpoint)
    enable_endpoint = _awaited(Client.enable_endpoint)
    disable_endpoint = _awaited(Client.disable_endpoint)

    @checked()
    async def get(
        self, task_id: str | UUID, *, service: str, account: str = "default"
    ) -> TrackedTask | None:
        """One tracked task (`task_id` of a `service`, under an `account`): as `Client.get`.

        Those that are asked for at about the same time cost a round trip together.
        """
        self._check()
        return await self._reads.get((account, service), text_of(task_id))

    @checked()
    async def wait(
        self,
        ids: Iterable[str | UUID],
        *,
        service: str,
        account: str = "default",
        timeout: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, TrackedTask]:
        """Wait until all `ids` of a `service`, under an `account`, have ended: as `Client.wait`.

        `timeout` is in seconds. `progress(ended, all)` is called in the event loop. It holds no
        thread while it waits.
        """
        self._check()
        changed = asyncio.Event()
        with self._client._waiting(ids, service, account, self._setter(changed)) as wait:
            for seconds in wait.until_ended(timeout, progress):
                await _change(changed, seconds)
        return wait.ended

    @checked()
    async def wait_group(
        self,
        name: str,
        *,
        account: str = "default",
        timeout: float | None = None,
        progress: Callable[[Group], None] | None = None,
    ) -> Group:
        """Wait until the group `name` of an `account` is complete: as `Client.wait_group`.

        `timeout` is in seconds. `progress(group)` is called in the event loop.
        """
        self._check()
        wait, changed = GroupWait(name, account, timeout, progress), asyncio.Event()
        with self._client._watching(name, account, self._setter(changed)):
            while seconds := wait.next_read(await self.group(name, account=account)):
                await _change(changed, seconds)
        return wait.group

    @checked()
    def events(
        self,
        service: str | None = None,
        account: str | None = None,
        *,
        after: str | None = None,
        follow: bool = True,
    ) -> AsyncGenerator[Event, None]:
        """The ends of tracked tasks, ordered by time: as `Client.events`, for `async for`.

        `service`, `account`, `after` and `follow` are explained there; what is wrong with them is
        raised when the first event is requested. It reads a few hundred events ahead, and goes on
        when these are taken. It holds no thread while it waits for new ones. `aclose` ends it.
        """
        if follow:
            return self._following(self._begin(self._client._stream, service, account, after))
        events = partial(self._client.events, service, account, after=after, follow=False)
        return self._each(self._begin(events))

    async def close(self) -> None:
        """Close the connections to Redis. Waits get ClientClosed; other calls are completed."""
        self._closed = True
        await asyncio.to_thread(self._close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _close(self) -> None:
        self._client._waits.close()
        self._threads.shutdown()
        self._client.close()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cavendish")
        self._reads = JoinedReads(self._threads, self._read)
        #: Events of each loop that are about to be set in it.
        self._to_set = WeakKeyDictionary[asyncio.AbstractEventLoop, deque[asyncio.Event]]()
        self._setting = threading.Lock()

    def _check(self) -> None:
        """Raise ClientClosed after `close`; begin anew in a forked process, where no thread is."""
        if self._closed:
            raise ClientClosed("This AsyncClient was closed; make another one.")
        if self._pid != os.getpid():
            self._start()

    def _read(self, place: Place, ids: builtins.list[str]) -> Found:
        account, service = place
        return self._client.get_many(ids, service=service, account=account)

    def _setter(self, event: asyncio.Event) -> Callable[[], None]:
        """Sets an event of the running loop from another thread.

        The loop is woken once for all that are set at the same time.
        """
        loop = asyncio.get_running_loop()
        events = self._to_set.setdefault(loop, deque())

        def tell() -> None:
            with self._setting:
                events.append(event)
                first = len(events) == 1
            if first:
                with suppress(RuntimeError):  # the loop was closed while somebody waited in it
                    loop.call_soon_threadsafe(_set_all, events)

        return tell

    def _begin(self, work: Callable[P, R], *args: P.args, **options: P.kwargs) -> Future[R]:
        """Do what takes a round trip or a few, in one of the threads."""
        self._check()
        return self._threads.submit(work, *args, **options)

    async def _run(self, work: Callable[P, R], *args: P.args, **options: P.kwargs) -> R:
        """The same, and wait until it is done."""
        return await asyncio.wrap_future(self._begin(work, *args, **options))

    async def _each(self, begun: Future[Iterator[T]]) -> AsyncGenerator[T, None]:
        items = await asyncio.wrap_future(begun)
        while some := await self._run(_some, items):
            for item in some:
                yield item

    async def _following(self, opening: Future[EventStream]) -> AsyncGenerator[Event, None]:
        stream, changed = await asyncio.wrap_future(opening), asyncio.Event()
        while True:
            list_again = time.monotonic() + LIST_AGAIN
            lanes = await self._run(stream.add_new_lanes)
            with self._client._waits.watch(lanes, self._setter(changed)):
                while (left := list_again - time.monotonic()) > 0:
                    events, found = stream.read(), False
                    while some := await self._run(_some, events):
                        found = True
                        for event in some:
                            yield event
                    if not found:
                        await _change(changed, left)


def _some(items: Iterator[T]) -> list[T]:
    return list(islice(items, _AT_ONCE))


def _set_all(events: deque[asyncio.Event]) -> None:
    while events:
        events.popleft().set()


async def _change(changed: asyncio.Event, seconds: float | None) -> None:
    """Wait until something has changed, or for so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await changed.wait()
    changed.clear()
