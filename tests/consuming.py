"""Consumers of the broker's lists by our transport, in this process and in real workers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import redis
from kombu import Connection, Consumer, Queue

import forked
from cavendish.client import Client
from cavendish.environment.local_paths import broker_url
from cavendish.settings import Settings
from conftest import Server
from messages import envelope
from servers import eventually

#: A worker that is killed between Kombu's two steps: a message is out of its list, and not written
#: down as taken.
DIES = """
import os, signal
from cavendish_worker.celeryapp import redis_transport as broker
real = broker.Transport._deliver
def deliver(self, message, queue):
    if queue == broker.KEPT:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, message, queue)
broker.Transport._deliver = deliver
from cavendish_worker.tasks import app
app.worker_main(["-q", "worker", "-P", "threads"])
"""


class Broker:
    """A Redis with lists, a consumer of them by our transport, and worker processes."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.settings = Settings.load({"CAVENDISH_REDIS_URL": server.url})
        self.redis = redis.Redis(unix_socket_path=str(server.socket))
        self.started: list[subprocess.Popen[bytes] | forked.Process] = []
        self.log = (folder / "log").open("w")
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
        }
        self.environment = environment | {
            "CAVENDISH_REDIS_URL": server.url,
            "CAVENDISH_API_TOKEN": "emulated",
        }

    def push(self, key: str, name: str) -> None:
        self.redis.lpush(key, envelope(headers={"id": name}))

    def consume(
        self, queues: list[str], count: int, credit: int = 4, seconds: float = 10, done: bool = True
    ) -> list[str]:
        """The ids of so many messages, in the order in which they come.

        Those that are not `done` go back at the end.
        """
        taken: list[str] = []
        with ExitStack() as ends:
            connection = ends.enter_context(Connection(broker_url(self.settings)))
            channel = ends.enter_context(connection.channel())
            consumer = ends.enter_context(
                Consumer(channel, [Queue(name) for name in queues], prefetch_count=credit)
            )
            consumer.register_callback(
                lambda _, message: (taken.append(message.headers.get("id")), done and message.ack())
            )
            end = time.monotonic() + seconds
            while len(taken) < count and time.monotonic() < end:
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.1)
        return taken

    def worker(self) -> forked.Process:
        """Start a worker as production does."""
        words = ["-q", "-A", "cavendish_worker", "worker", "-P", "threads"]
        process = forked.shared().start("celery", words, self.environment, Path(self.log.name))
        self.started.append(process)
        return process

    def program(self, code: str) -> subprocess.Popen[bytes]:
        """Start a process that runs this code."""
        command = [sys.executable, "-c", code]
        process = subprocess.Popen(command, env=self.environment, stdout=self.log, stderr=self.log)
        self.started.append(process)
        return process

    def producer(self, code: str, *given: object) -> None:
        """Run a producer to its end: a process that knows no setting of ours."""
        environment = {
            name: value
            for name, value in self.environment.items()
            if not name.startswith("CAVENDISH_")
        }
        command = [sys.executable, "-c", code, *map(repr, given)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr


def tracked(lists: Broker, task_id: str = "x") -> None:
    """Wait until the store knows an id."""
    with Client(settings=lists.settings) as client:
        known = lambda: client.get(task_id, service="nano-banana")  # noqa: E731
        eventually(known, f"{task_id} is tracked; {lists.log.name} says why not", 30)
