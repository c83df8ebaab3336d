"""Messages that a worker has taken: those of producers are written down, hints are not."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from kombu import Connection, Consumer, Message, Queue

from cavendish.environment.local_paths import broker_url
from cavendish.task_names import EXPIRE, RETRIEVE
from cavendish_worker.celeryapp.redis_transport import KEPT
from consuming import Broker
from messages import envelope


def consume(lists: Broker, queue: str, count: int, take: Callable[[Any, Message], object]) -> None:
    """Let so many messages be taken, one at a time; what is in hand then is given back."""
    taken = 0

    def taking(body: Any, message: Message) -> None:
        nonlocal taken
        taken += 1
        take(body, message)

    with (
        Connection(broker_url(lists.settings)) as connection,
        connection.channel() as channel,
        Consumer(channel, [Queue(queue)], callbacks=[taking], prefetch_count=1),
    ):
        end = time.monotonic() + 10
        while taken < count and time.monotonic() < end:
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.1)


@pytest.mark.parametrize(("queue", "count"), [(KEPT, 1), (RETRIEVE, 0), (EXPIRE, 0)])
def test_redis_knows_which_messages_of_producers_are_in_hand_and_no_hints(
    lists: Broker, queue: str, count: int
) -> None:
    lists.push(queue, "x")
    noted: list[int] = []
    consume(lists, queue, 1, lambda *_: noted.append(int(lists.redis.hlen("unacked"))))
    assert noted == [count]
    assert lists.redis.llen(queue) == 1
    assert lists.redis.hlen("unacked") == lists.redis.zcard("unacked_index") == 0  # given back


def test_hints_in_hand_are_given_back_whole_and_in_their_order_by_a_worker_that_ends(
    lists: Broker,
) -> None:
    for name in "abc":
        lists.push(RETRIEVE, name)
    assert lists.consume([RETRIEVE], 2, done=False) == ["a", "b"]
    texts = [json.loads(text) for text in lists.redis.lrange(RETRIEVE, 0, -1)]
    assert [one["headers"]["id"] for one in reversed(texts)] == ["a", "b", "c"]
    assert all(one["headers"]["redelivered"] for one in texts[1:])
    assert {base64.b64decode(one["body"]) for one in texts} == {
        base64.b64decode(json.loads(envelope())["body"])
    }
    assert lists.consume([RETRIEVE], 3) == ["a", "b", "c"]


def test_no_more_hints_are_taken_than_may_be_in_hand(lists: Broker) -> None:
    for name in "abcde":
        lists.push(RETRIEVE, name)
    assert lists.consume([RETRIEVE], 5, credit=2, seconds=1, done=False) == ["a", "b"]
    assert lists.redis.llen(RETRIEVE) == 5


def test_a_hint_that_is_put_back_is_taken_again_and_one_that_is_thrown_away_is_gone(
    lists: Broker,
) -> None:
    for name in "ab":
        lists.push(RETRIEVE, name)
    seen: list[str] = []

    def take(_: object, message: Message) -> None:
        seen.append(message.headers["id"])
        message.requeue() if len(seen) == 1 else message.reject()

    consume(lists, RETRIEVE, 3, take)
    assert sorted(seen) == ["a", "a", "b"]
    assert lists.redis.llen(RETRIEVE) == lists.redis.hlen("unacked") == 0
