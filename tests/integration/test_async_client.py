"""The client for asyncio: what it gives, what it costs, and how its waits and iterators end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from cavendish import (
    AsyncClient,
    Client,
    ClientClosed,
    EventsMissed,
    State,
    StoreUnavailable,
    SubmissionError,
    WaitTimeout,
)
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.keys import LaneKeys
from conftest import Server
from ending import blocked, settle
from servers import eventually

NANO, FLUX = Lane("default", "nano-banana"), Lane("default", "flux")

Story = Callable[[AsyncClient], Coroutine[Any, Any, None]]
Tell = Callable[[Story], None]


@pytest.fixture
def tell(store: Store, settings: Settings) -> Tell:
    """Run a story with a client; nothing of it is left at its end."""

    def run(story: Story) -> None:
        async def told() -> None:
            async with AsyncClient(settings=settings) as client:
                await asyncio.wait_for(story(client), 60)

        asyncio.run(told())
        assert ours() == []

    return run


@pytest.fixture
def only_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `wait` hears of nothing but what events tell."""
    monkeypatch.setattr("cavendish.waiting.waits._CHECK_ALL", 3600.0)


def ours() -> list[threading.Thread]:
    """The threads of all clients of this process."""
    return [each for each in threading.enumerate() if each.name.startswith("cavendish")]


def nobody_waits(client: AsyncClient) -> bool:
    thread = client._client._waits._thread
    return thread is None or not thread.waiters.lanes()


async def ids_of(client: AsyncClient, count: int, lane: Lane = NANO) -> list[str]:
    ids = [f"id-{number}" for number in range(count)]
    await client.submit(ids, service=lane.service)
    return ids


def test_each_method_gives_what_that_of_client_gives(
    tell: Tell, client: Client, store: Store
) -> None:
    async def story(one: AsyncClient) -> None:
        answers = await one.submit(["a", "b", ""], service=NANO.service, metadata={"order": 7})
        assert [each.outcome for each in answers] == ["new", "new", "refused"]
        assert await one.get("a", service=NANO.service) == client.get("a", service=NANO.service)
        settle(store, NANO, "a", "b")
        ended = await one.wait(["b", "a"], service=NANO.service, timeout=10)
        assert ended == client.get_many(["b", "a"], service=NANO.service)
        assert [*ended] == ["b", "a"]
        assert ended["a"].record == {"id": "a"}
        events = [event async for event in one.events(after="0", follow=False)]
        assert events == list(client.events(after="0", follow=False))
        assert await one.list(limit=1) == client.list(limit=1)
        assert [task async for task in one.iter()] == list(client.iter())
        assert await one.count() == client.count() == 2
        with pytest.raises(SubmissionError, match="service"):
            await one.submit(["a"], service="nano-bananna")

    tell(story)


def test_gets_that_come_together_are_few_reads_and_each_has_its_own_answer(
    tell: Tell, store: Store
) -> None:
    """One that is cancelled, and one that is refused, harm no other."""

    async def story(client: AsyncClient) -> None:
        ids = await ids_of(client, 1000)
        before = scripts_run(store)
        gets = [asyncio.create_task(client.get(each, service=NANO.service)) for each in ids]
        none = asyncio.create_task(client.get("nobody", service=NANO.service))
        wrong = asyncio.create_task(client.get("\ud800", service=NANO.service))
        await asyncio.sleep(0)
        gets[7].cancel()
        found = await asyncio.gather(*gets, return_exceptions=True)
        assert [getattr(one, "id", "") for one in found] == [*ids[:7], "", *ids[8:]]
        assert await none is None
        with pytest.raises(SubmissionError, match="UTF-8"):
            await wrong
        assert scripts_run(store) - before < 200

    tell(story)


def scripts_run(store: Store) -> int:
    """How many scripts Redis has run."""
    found: Any = store.connection.redis.info("commandstats")
    return sum(found.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


def test_a_thousand_waits_at_once_cost_one_thread_and_all_wake(
    tell: Tell, store: Store, only_events: None
) -> None:
    async def story(client: AsyncClient) -> None:
        ids = await ids_of(client, 1000)
        waits = [asyncio.create_task(client.wait([each], service=NANO.service)) for each in ids]
        await asyncio.to_thread(blocked, store)
        assert len([one for one in ours() if one.name == "cavendish-waits"]) == 1
        assert len(ours()) <= 1 + 8
        for start in range(0, 1000, 50):
            await asyncio.to_thread(settle, store, NANO, *ids[start : start + 50])
        ended = await asyncio.gather(*waits)
        assert [[*each] for each in ended] == [[each] for each in ids]

    tell(story)


def test_a_wait_in_another_lane_joins_while_a_read_blocks(
    store: Store, server: Server, only_events: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        settings = Settings.load({"CAVENDISH_REDIS_URL": f"{server.url}&socket_timeout=1000"})
        async with AsyncClient(settings=settings) as client:
            client._client._store.events.longest_block = 500.0  # longer than this test may take
            (nano,), (flux,) = await ids_of(client, 1), await ids_of(client, 1, FLUX)
            first = asyncio.create_task(client.wait([nano], service=NANO.service))
            await asyncio.to_thread(blocked, store)
            second = asyncio.create_task(client.wait([flux], service=FLUX.service))
            seen = asyncio.Event()
            watched = client.wait([flux], service=FLUX.service, progress=lambda *_: seen.set())
            third = asyncio.create_task(watched)
            await seen.wait()  # it listens by now
            await asyncio.to_thread(settle, store, FLUX, flux)
            assert set(await second) == set(await third) == {flux}
            await asyncio.to_thread(settle, store, NANO, nano)
            assert set(await first) == {nano}

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_wait_that_is_cancelled_or_whose_time_is_over_leaves_nothing_and_disturbs_nobody(
    tell: Tell, store: Store
) -> None:
    async def story(client: AsyncClient) -> None:
        ids = await ids_of(client, 3)
        kept = asyncio.create_task(client.wait(ids, service=NANO.service))
        dropped = asyncio.create_task(client.wait(ids[:2], service=NANO.service))
        with pytest.raises(WaitTimeout) as caught:
            await client.wait([*ids[1:]], service=NANO.service, timeout=0)
        assert caught.value.pending == ("id-1", "id-2")
        dropped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dropped
        with pytest.raises(SubmissionError, match="'stranger' is not tracked"):
            await client.wait([ids[0], "stranger"], service=NANO.service)
        settle(store, NANO, *ids)
        assert set(await kept) == set(ids)
        assert nobody_waits(client)
        assert await client.wait([], service=NANO.service) == {}

    tell(story)


def test_a_wait_ends_when_its_id_is_cancelled_or_forgotten(
    tell: Tell, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cavendish.waiting.waits._CHECK_ALL", 1.0)

    async def story(client: AsyncClient) -> None:
        ids = await ids_of(client, 2)
        waits = [asyncio.create_task(client.wait([each], service=NANO.service)) for each in ids]
        await asyncio.to_thread(blocked, store)
        await client.cancel([ids[0]], service=NANO.service)
        assert (await waits[0])[ids[0]].state is State.CANCELLED
        await client.forget([ids[1]], service=NANO.service)
        (ended,) = await asyncio.gather(waits[1], return_exceptions=True)
        if isinstance(ended, dict):  # it is cancelled first, and may be read before it is erased
            assert ended[ids[1]].state is State.CANCELLED
        else:
            assert "is not tracked" in str(ended)

    tell(story)


def test_a_wait_tells_its_progress_in_the_event_loop(tell: Tell, store: Store) -> None:
    async def story(client: AsyncClient) -> None:
        ids, seen = await ids_of(client, 3), list[tuple[int, int, bool]]()
        settle(store, NANO, ids[0])

        def progress(ended: int, of: int) -> None:
            seen.append((ended, of, threading.current_thread() is threading.main_thread()))
            if ended < of:
                settle(store, NANO, ids[ended])

        await client.wait(ids, service=NANO.service, timeout=1e300, progress=progress)
        assert seen == [(1, 3, True), (2, 3, True), (3, 3, True)]

    tell(story)


def test_a_client_that_is_closed_ends_its_waits_and_iterators_and_takes_no_more(
    settings: Settings, store: Store
) -> None:
    async def story() -> None:
        client = AsyncClient(settings=settings)
        ids = await ids_of(client, 1)
        wait = asyncio.create_task(client.wait(ids, service=NANO.service))
        following = asyncio.create_task(anext(client.events()))
        await asyncio.to_thread(blocked, store)
        await client.close()
        for task in (wait, following):
            with pytest.raises(ClientClosed):
                await task
        assert ours() == []
        with pytest.raises(ClientClosed, match="make another one"):
            await client.get("a", service=NANO.service)
        with pytest.raises(ClientClosed):
            await client.wait(ids, service=NANO.service)
        with pytest.raises(ClientClosed):
            client.events()
        await client.close()

    asyncio.run(asyncio.wait_for(story(), 60))


def test_redis_that_dies_fails_the_waits_and_the_next_ones_go_on(own_server: Server) -> None:
    settings = Settings.load({"CAVENDISH_REDIS_URL": own_server.url})
    store = Store(own_server.url)

    async def story() -> None:
        async with AsyncClient(settings=settings) as client:
            ids = await ids_of(client, 2)
            waits = [asyncio.create_task(client.wait([one], service=NANO.service)) for one in ids]
            following = asyncio.create_task(anext(client.events()))
            await asyncio.to_thread(blocked, store)
            own_server.kill(signal.SIGKILL)
            for task in (*waits, following):
                with pytest.raises(StoreUnavailable, match="does not answer"):
                    await task
            with pytest.raises(StoreUnavailable):
                await client.wait(ids, service=NANO.service)
            own_server.start()
            wait = asyncio.create_task(client.wait(ids, service=NANO.service))
            settle(store, NANO, *ids)
            assert set(await wait) == set(ids)

    asyncio.run(asyncio.wait_for(story(), 60))
    store.close()


def test_a_connection_that_is_lost_is_no_outage(
    tell: Tell, store: Store, only_events: None
) -> None:
    async def story(client: AsyncClient) -> None:
        ids = await ids_of(client, 1)
        wait = asyncio.create_task(client.wait(ids, service=NANO.service))
        for _ in range(3):
            await asyncio.to_thread(blocked, store)
            await asyncio.sleep(0.2)  # losing them one after another at once would be an outage
            assert store.connection.redis.client_kill_filter(_type="normal", skipme=True)  # type: ignore[no-untyped-call]
        settle(store, NANO, *ids)
        assert set(await wait) == set(ids)

    tell(story)


def test_a_right_that_is_missing_fails_the_waits_and_is_named(own_server: Server) -> None:
    store = Store(own_server.url)
    store.connection.redis.execute_command(
        "ACL", "SETUSER", "bare", "on", ">secret", "~*", "+@all", "-xread"
    )
    url = own_server.url.replace("unix://", "unix://bare:secret@")

    async def story() -> None:
        async with AsyncClient(url) as client:
            ids = await ids_of(client, 2)
            waits = [asyncio.create_task(client.wait([each], service=NANO.service)) for each in ids]
            for wait in waits:
                with pytest.raises(StoreUnavailable, match="xread"):
                    await wait

    asyncio.run(asyncio.wait_for(story(), 60))
    store.close()


def test_iterators_follow_without_a_thread_each_and_end_at_once(tell: Tell, store: Store) -> None:
    async def story(client: AsyncClient) -> None:
        ids = await ids_of(client, 30)
        streams = [client.events(NANO.service) for _ in range(40)]
        firsts = [asyncio.create_task(anext(stream)) for stream in streams]
        await asyncio.to_thread(blocked, store)
        settle(store, NANO, ids[0])
        assert {(await first).id for first in firsts} == {ids[0]}
        assert len(ours()) <= 1 + 8
        for stream in streams[1:]:
            await stream.aclose()
        settle(store, NANO, *ids[1:])
        assert [(await anext(streams[0])).id for _ in ids[1:]] == ids[1:]
        await streams[0].aclose()
        assert nobody_waits(client)

    tell(story)


def test_a_follower_sees_lanes_that_appear_later_and_goes_on_behind_a_position(
    tell: Tell, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cavendish.async_client.LIST_AGAIN", 0.3)

    async def story(client: AsyncClient) -> None:
        async with aclosing(client.events()) as stream:
            await ids_of(client, 1)
            settle(store, NANO, "id-0")
            first = await anext(stream)
            await client.submit(["b"], service=FLUX.service)
            settle(store, FLUX, "b", state=State.FAILED)
            second = await anext(stream)
        assert [(one.id, one.state) for one in (first, second)] == [
            ("id-0", State.SUCCEEDED),
            ("b", State.FAILED),
        ]
        after = client.events(after=first.position, follow=False)
        assert [event.id async for event in after] == ["b"]

    tell(story)


def test_what_is_wrong_with_a_position_is_raised_when_the_first_event_is_requested(
    tell: Tell, store: Store
) -> None:
    async def story(client: AsyncClient) -> None:
        with pytest.raises(SubmissionError, match="no position"):
            await anext(client.events(after="nonsense"))
        ids = await ids_of(client, 4)
        settle(store, NANO, *ids)
        first = await anext(client.events(after="0"))
        store.connection.redis.xtrim(LaneKeys(NANO).events, maxlen=1, approximate=False)
        with pytest.raises(EventsMissed, match="default/nano-banana"):
            await anext(client.events(after=first.position))

    tell(story)


def test_a_slow_reader_of_events_is_not_read_ahead_of_without_bound(
    tell: Tell, store: Store, client: Client
) -> None:
    async def story(one: AsyncClient) -> None:
        pipe = store.connection.pipeline()
        pipe.sadd("cavendish:lanes", str(NANO))
        for number in range(3000):
            pipe.xadd(LaneKeys(NANO).events, {"id": number, "state": "failed", "at": 1})
        pipe.execute()
        async with aclosing(one.events(after="0")) as stream:
            assert (await anext(stream)).id == "0"
            before = store.connection.redis.info("commandstats")["cmdstat_xread"]["calls"]
            await asyncio.sleep(0.3)
            assert store.connection.redis.info("commandstats")["cmdstat_xread"]["calls"] == before
            assert [(await anext(stream)).id for _ in range(2999)] == [
                str(number) for number in range(1, 3000)
            ]

    tell(story)


def test_one_client_serves_several_event_loops(settings: Settings, store: Store) -> None:
    client = AsyncClient(settings=settings)
    ids = asyncio.run(ids_of(client, 2))
    ended: list[str] = []

    def other_loop(task_id: str) -> None:
        ended.extend(asyncio.run(client.wait([task_id], service=NANO.service)))

    threads = [threading.Thread(target=other_loop, args=(each,)) for each in ids]
    for thread in threads:
        thread.start()
    blocked(store)
    settle(store, NANO, *ids)
    for thread in threads:
        thread.join(30)
    assert sorted(ended) == ids
    asyncio.run(client.close())


def test_a_loop_that_ends_with_waits_under_way_leaves_nothing(
    settings: Settings, store: Store
) -> None:
    client = AsyncClient(settings=settings)

    async def left() -> None:
        ids = await ids_of(client, 2)
        tasks = [asyncio.create_task(client.wait([each], service=NANO.service)) for each in ids]
        await asyncio.to_thread(blocked, store)
        assert not any(task.done() for task in tasks)  # `asyncio.run` cancels them

    asyncio.run(left())
    assert nobody_waits(client)
    asyncio.run(client.close())


def test_the_thread_of_a_client_that_nobody_closes_ends_when_nobody_waits(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cavendish.waiting.waits._CHECK_ALL", 0.2)
    client = Client(settings=settings)
    client.submit(["a"], service=NANO.service)
    with pytest.raises(WaitTimeout):
        client.wait(["a"], service=NANO.service, timeout=0.5)
    eventually(lambda: not ours(), "its thread has ended")
    settle(store, NANO, "a")
    assert set(client.wait(["a"], service=NANO.service)) == {"a"}
    client.close()


FORKING = """
import os, sys, threading
from cavendish import Client

client = Client(sys.argv[1])
client.submit(["a", "b"], service="nano-banana")
waiting = threading.Thread(target=client.wait, args=(["a"],), kwargs={"service": "nano-banana"})
waiting.start()
print("waits", flush=True)
sys.stdin.readline()
child = os.fork()
ended = client.wait(["a", "b"][child == 0 :][:1], service="nano-banana", timeout=60)
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    waiting.join()
print(*ended, flush=True)
os._exit(0)
"""


def test_a_client_that_waits_in_a_forked_process_waits_on_its_own(
    store: Store, server: Server
) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, server.url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "waits\n"
        blocked(store)
        process.stdin.write("\n")
        process.stdin.flush()
        eventually(
            lambda: int(store.connection.redis.info("clients")["blocked_clients"]) == 2,
            "both processes wait",
        )
        settle(store, NANO, "b")
        assert process.stdout.readline() == "b\n"
        settle(store, NANO, "a")
        assert process.stdout.readline() == "a\n"
        assert process.wait(30) == 0


FORKING_ASYNC = """
import asyncio, os, sys
from cavendish import AsyncClient

client = AsyncClient(sys.argv[1])

async def known():
    ended = await client.wait(["a"], service="nano-banana", timeout=60)
    await client.submit(["b"], service="nano-banana")
    return sorted({*ended, (await client.get("b", service="nano-banana")).id})

assert asyncio.run(known()) == ["a", "b"]
child = os.fork()
assert asyncio.run(known()) == ["a", "b"]
asyncio.run(client.close())
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""


def test_an_async_client_works_in_a_forked_process_too(
    store: Store, server: Server, client: Client
) -> None:
    """Servers fork their workers once everything is imported; its threads stay behind."""
    client.submit(["a"], service=NANO.service)
    settle(store, NANO, "a")
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING_ASYNC, server.url]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
