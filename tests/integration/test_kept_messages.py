"""Messages that are more than hints.

Whoever takes one out of the broker may die at any moment, and it is not lost.
"""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Queue

from cavendish.environment.local_paths import broker_url
from cavendish.task_names import EXPIRE
from cavendish_worker.celeryapp import redis_transport as broker
from cavendish_worker.celeryapp.redis_transport import KEPT, POPPED
from conftest import Server
from consuming import DIES, Broker, tracked
from messages import envelope


def test_a_message_whose_worker_died_as_it_took_it_out_is_taken_by_the_next(lists: Broker) -> None:
    lists.redis.lpush(KEPT, envelope())
    assert lists.program(DIES).wait(30) == -signal.SIGKILL
    assert lists.redis.llen(KEPT) == 0
    assert lists.redis.hlen("unacked") == 0  # for Kombu, it is gone
    ((note, popped_at),) = lists.redis.zrange(POPPED, 0, -1, withscores=True)
    assert abs(popped_at - time.time()) < 60
    lists.redis.zadd(POPPED, {note: popped_at - 20})  # as if it had been a while ago
    process = lists.worker()
    tracked(lists)
    process.terminate()
    process.wait(30)
    assert lists.redis.zcard(POPPED) == lists.redis.hlen("unacked") == 0


def test_a_note_of_a_moment_ago_is_left_to_whoever_made_it(lists: Broker) -> None:
    now = int(lists.redis.time()[0])
    theirs, nobodys = envelope(headers={"id": "theirs"}), envelope(headers={"id": "nobody's"})
    lists.redis.zadd(POPPED, {theirs: now, nobodys: now - 60})
    lists.push(KEPT, "new")
    assert lists.consume([KEPT, EXPIRE], 2) == ["nobody's", "new"]
    assert lists.redis.zrange(POPPED, 0, -1) == [theirs]


@pytest.mark.parametrize("credit", [1, 4, 100])
def test_many_messages_of_producers_and_many_hints_take_turns(lists: Broker, credit: int) -> None:
    for number in range(20):
        lists.push(KEPT, f"kept {number}")
        lists.push(EXPIRE, f"hint {number}")
    taken = lists.consume([KEPT, EXPIRE], 40, credit)
    assert [name for name in taken if name.startswith("kept")] == [
        f"kept {number}" for number in range(20)
    ]
    assert [name for name in taken if name.startswith("hint")] == [
        f"hint {number}" for number in range(20)
    ]
    assert all(
        sum(name.startswith("kept") for name in taken[start : start + 4]) == 2
        for start in range(0, 40, 4)
    )
    assert lists.redis.zcard(POPPED) == lists.redis.hlen("unacked") == 0


def test_a_message_of_another_priority_is_taken_as_well(lists: Broker) -> None:
    for key in (KEPT, f"{KEPT}\x06\x163", f"{KEPT}\x06\x169"):
        lists.push(key, key)
    assert sorted(lists.consume([KEPT, EXPIRE], 3)) == [
        KEPT,
        f"{KEPT}\x06\x163",
        f"{KEPT}\x06\x169",
    ]


def test_a_worker_of_nothing_else_waits_and_takes_it(
    lists: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker.Transport, "brpop_timeout", 1)  # as in a worker
    before = lists.redis.info("stats")["total_commands_processed"]
    assert lists.consume([KEPT], 1, seconds=2) == []
    assert lists.redis.info("stats")["total_commands_processed"] - before < 80  # it is no busy loop
    lists.push(KEPT, "x")
    assert lists.consume([KEPT], 1) == ["x"]


# --- one test for each bug that was found here, named after it


@pytest.mark.parametrize(
    "odd",
    [
        {"delivery_info": {"exchange": "celery", "routing_key": "cavendish.submit"}},
        {"delivery_info": {"exchange": "", "routing_key": ""}},
        {"delivery_info": {"exchange": "", "routing_key": "submit"}},
        {"delivery_info": [], "priority": 1e999},
        {"priority": 9},
    ],
    ids=str,
)
@pytest.mark.parametrize("headers", [None, [], {"id": "x"}], ids=str)
def test_a_message_goes_back_whence_it_came_whatever_its_envelope_says(
    lists: Broker, odd: dict[str, Any], headers: Any
) -> None:
    lists.redis.lpush(
        KEPT,
        envelope(
            headers=headers, properties={"delivery_tag": "x", "body_encoding": "base64", **odd}
        ),
    )
    for done in (False, False, True):
        assert len(lists.consume([KEPT, EXPIRE], 1, done=done)) == 1
        assert lists.redis.llen(KEPT) == int(not done)
    assert [key for key in lists.redis.scan_iter() if not key.startswith(b"_kombu")] == []


def test_messages_that_share_a_delivery_tag_are_not_taken_for_one(lists: Broker) -> None:
    for name in ("one", "two"):
        lists.redis.lpush(KEPT, envelope(tag="T", headers={"id": name}))
    assert lists.consume([KEPT, EXPIRE], 2, done=False) == ["one", "two"]
    assert lists.redis.llen(KEPT) == 2


def test_junk_without_end_leaves_time_for_everything_else(lists: Broker) -> None:
    lists.redis.lpush(KEPT, *(b"{%d" % number for number in range(5_000)))
    assert lists.consume([KEPT, EXPIRE], 1, seconds=0.05) == []
    assert lists.redis.llen(KEPT) > 1_000


def test_a_message_that_there_is_no_memory_for_is_left_to_another_worker(
    lists: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists.push(KEPT, "x")

    def full(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(broker.Transport, "_deliver", full)
        assert lists.consume([KEPT, EXPIRE], 1, seconds=0.5) == []
    ((note, popped_at),) = lists.redis.zrange(POPPED, 0, -1, withscores=True)
    lists.redis.zadd(POPPED, {note: popped_at - 20})
    assert lists.consume([KEPT, EXPIRE], 1) == ["x"]


def test_a_channel_that_never_subscribed_can_be_closed_after_its_connection(lists: Broker) -> None:
    """Redis restarts just as a worker has connected.

    Celery closes what it has begun, and would end itself where that fails.
    """
    with Connection(broker_url(lists.settings)) as connection:
        channel = connection.channel()
        Consumer(channel, [Queue("news", Exchange("news", "fanout"))]).consume()
        channel.connection.client = None  # as Kombu leaves it when it gives a connection up
        channel.close()


def test_a_connection_that_is_lost_while_a_message_is_popped_is_no_error(
    lists: Broker, own_server: Server
) -> None:
    with Connection(broker_url(lists.settings)) as connection:
        channel = connection.channel()
        Consumer(channel, [Queue(KEPT)]).consume()
        lists.push(KEPT, "x")
        own_server.kill()
        assert channel._pop() is False
        own_server.start()
    assert lists.consume([KEPT], 1) == ["x"]


def test_a_redis_that_permits_no_scripts_is_told_of(
    lists: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with Connection(broker_url(lists.settings)) as connection:
        channel = connection.channel()
        Consumer(channel, [Queue(KEPT)]).consume()
        lists.push(KEPT, "x")
        lists.redis.acl_setuser(
            "default", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-evalsha"]
        )
        assert channel._pop() is False
    assert "Redis refuses to give out messages" in caplog.text
    assert lists.redis.llen(KEPT) == 1
