"""Messages that are more than hints: whoever takes one out of the broker may die at any moment, and it is not lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import redis
from conftest import Server
from kombu import Connection, Consumer, Queue
from messages import envelope

from scheduler.beat import EXPIRE
from scheduler.client import Client
from scheduler.settings import Settings
from scheduler.whereabouts import broker_url
from worker import broker
from worker.broker import KEPT, POPPED

#: A worker that is killed between Kombu's two steps: a message is out of its list, and not written down as taken.
DIES = """
import os, signal
from worker import broker
real = broker.Transport._deliver
def deliver(self, message, queue):
    if queue == broker.KEPT:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, message, queue)
broker.Transport._deliver = deliver
from worker.tasks import app
app.worker_main(["-q", "worker", "-P", "threads"])
"""


class Broker:
    """A Redis with lists, a consumer of them by our transport, and worker processes."""

    def __init__(self, server: Server, folder: Path) -> None:
        broker.install()
        self.settings = Settings.load({"CAVENDISH_REDIS_URL": server.url})
        self.redis = redis.Redis(unix_socket_path=str(server.socket))
        self.started: list[subprocess.Popen[bytes]] = []
        self.log = (folder / "log").open("w")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")}
        self.environment = environment | {"CAVENDISH_REDIS_URL": server.url, "CAVENDISH_API_TOKEN": "emulated"}

    def push(self, key: str, tag: str) -> None:
        self.redis.lpush(key, envelope(tag))

    def consume(self, queues: list[str], count: int, credit: int = 4, seconds: float = 10) -> list[str]:
        """The tags of so many messages, in the order in which they come."""
        taken: list[str] = []
        with ExitStack() as ends:
            connection = ends.enter_context(Connection(broker_url(self.settings)))
            channel = ends.enter_context(connection.channel())
            consumer = ends.enter_context(Consumer(channel, [Queue(name) for name in queues], prefetch_count=credit))
            consumer.register_callback(lambda _, message: (taken.append(message.delivery_tag), message.ack()))
            end = time.monotonic() + seconds
            while len(taken) < count and time.monotonic() < end:
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.1)
        return taken

    def worker(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, *words]
        self.started.append(subprocess.Popen(command, env=self.environment, stdout=self.log, stderr=self.log))
        return self.started[-1]


@pytest.fixture
def lists(own_server: Server, tmp_path: Path) -> Iterator[Broker]:
    one = Broker(own_server, tmp_path)
    yield one
    for process in one.started:
        process.kill()
        process.wait(10)
    one.redis.close()
    one.log.close()


def until(lists: Broker, client: Client, task_id: str) -> None:
    end = time.monotonic() + 30
    while not client.get(task_id, service="nano-banana"):
        assert time.monotonic() < end, Path(lists.log.name).read_text()
        time.sleep(0.05)


def test_a_message_whose_worker_died_as_it_took_it_out_is_taken_by_the_next(lists: Broker) -> None:
    lists.push(KEPT, "x")
    assert lists.worker("-c", DIES).wait(30) == -signal.SIGKILL
    assert lists.redis.llen(KEPT) == 0
    assert lists.redis.hlen("unacked") == 0  # for Kombu, it is gone
    ((note, popped_at),) = lists.redis.zrange(POPPED, 0, -1, withscores=True)
    assert abs(popped_at - time.time()) < 60
    lists.redis.zadd(POPPED, {note: popped_at - 20})  # as if it had been a while ago
    process = lists.worker("-m", "celery", "-q", "-A", "worker.tasks", "worker", "-P", "threads")
    with Client(settings=lists.settings) as client:
        until(lists, client, "x")
    process.terminate()
    process.wait(30)
    assert lists.redis.zcard(POPPED) == lists.redis.hlen("unacked") == 0


def test_a_note_of_a_moment_ago_is_left_to_whoever_made_it(lists: Broker) -> None:
    now = int(lists.redis.time()[0])
    lists.redis.zadd(POPPED, {envelope("theirs"): now, envelope("nobody's"): now - 60})
    lists.push(KEPT, "new")
    assert len(lists.consume([KEPT, EXPIRE], 2)) == 2
    assert lists.redis.zrange(POPPED, 0, -1) == [envelope("theirs")]


@pytest.mark.parametrize("credit", [1, 4, 100])
def test_many_messages_of_producers_and_many_hints_take_turns(lists: Broker, credit: int) -> None:
    for number in range(20):
        lists.push(KEPT, f"kept {number}")
        lists.push(EXPIRE, f"hint {number}")
    taken = lists.consume([KEPT, EXPIRE], 40, credit)
    assert [tag for tag in taken if tag.startswith("kept")] == [f"kept {number}" for number in range(20)]
    assert [tag for tag in taken if tag.startswith("hint")] == [f"hint {number}" for number in range(20)]
    assert all(sum(tag.startswith("kept") for tag in taken[start : start + 4]) == 2 for start in range(0, 40, 4))
    assert lists.redis.zcard(POPPED) == lists.redis.hlen("unacked") == 0


def test_a_message_of_another_priority_is_taken_as_well(lists: Broker) -> None:
    for key in (KEPT, f"{KEPT}\x06\x163", f"{KEPT}\x06\x169"):
        lists.push(key, key)
    assert sorted(lists.consume([KEPT, EXPIRE], 3)) == [KEPT, f"{KEPT}\x06\x163", f"{KEPT}\x06\x169"]


def test_a_worker_of_nothing_else_waits_and_takes_it(lists: Broker) -> None:
    before = lists.redis.info("stats")["total_commands_processed"]
    assert lists.consume([KEPT], 1, seconds=5) == []
    assert lists.redis.info("stats")["total_commands_processed"] - before < 200  # it is no busy loop
    lists.push(KEPT, "x")
    assert lists.consume([KEPT], 1) == ["x"]
