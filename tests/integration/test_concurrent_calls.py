"""Slots: which of the claimed deliveries are called now."""

from __future__ import annotations

import asyncio
import queue
from functools import partial

from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.webhooks.concurrent_calls import ConcurrentCalls, Job


async def work(name: str, begun: list[str], until: asyncio.Event) -> str:
    begun.append(name)
    await until.wait()
    return name


def jobs(
    names: str, endpoint: str, room: int, begun: list[str], until: asyncio.Event
) -> list[Job[str]]:
    return [Job(endpoint, room, partial(work, name, begun, until)) for name in names]


def drained(ended: queue.SimpleQueue[str | None], count: int) -> set[str | None]:
    return {ended.get(timeout=5) for _ in range(count)}


def test_as_many_run_as_there_is_room_for_in_all_and_for_each_endpoint_and_the_rest_follows(
    loop: LoopThread,
) -> None:
    ended: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    slots, begun, until = ConcurrentCalls(loop, 3, ended), list[str](), asyncio.Event()
    slots.add([*jobs("abc", "one", 2, begun, until), *jobs("xyz", "two", 2, begun, until)])
    loop.run(asyncio.sleep(0.05), timeout=2)
    assert begun == ["a", "b", "x"]
    loop.call(until.set)
    assert drained(ended, 6) == set("abcxyz")


def test_those_that_came_while_the_room_was_small_are_not_overtaken_by_those_that_came_when_it_had_grown(
    loop: LoopThread,
) -> None:
    ended: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    slots, begun, until = ConcurrentCalls(loop, 10, ended), list[str](), asyncio.Event()
    slots.add(jobs("abc", "one", 1, begun, until))
    slots.add(jobs("xyz", "one", 4, begun, until))
    loop.run(asyncio.sleep(0.05), timeout=2)
    assert begun == ["a", "b", "c", "x"]
    loop.call(until.set)
    assert drained(ended, 6) == set("abcxyz")
