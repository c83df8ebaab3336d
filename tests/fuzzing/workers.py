"""Real worker processes that get generated messages from the real lists of their broker.

Every good submit among them must be tracked, no process may end, and no log may hold a traceback.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import redis

from cavendish.client import Client
from cavendish.settings import Settings
from cavendish.task_names import QUEUES
from conftest import Server
from fuzzing import envelopes
from fuzzing.tally import Tally

#: Messages that lie in the lists at once, and worker processes.
AT_ONCE, WORKERS = 1000, 2
#: Seconds in which a worker must have taken at least one of the messages that wait.
NEVER = 60.0
#: A worker that is told of kept messages 20 times a second, and not once.
PROGRAM = """
from cavendish_worker.celeryapp import redis_transport as broker
broker.Transport.brpop_timeout = 0.05
from cavendish_worker.tasks import app
app.worker_main(["-q", "worker", "-P", "threads"])
"""


def run(seed: int, count: int, server: Server) -> Tally:
    """So many messages."""
    tally = Tally("envelopes", seed)
    with tempfile.TemporaryDirectory() as folder, _fleet(server, Path(folder)) as fleet:
        for first in range(0, count, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, count))
            fleet.take(tally, [_drawn(seed, number) for number in numbers])
            if tally.deaths:
                break
    return tally.end()


def _drawn(seed: int, number: int) -> tuple[str, bytes, list[str]]:
    return envelopes.drawn(Random(f"envelope {seed} {number}"), f"e{number}")


class _Fleet:
    def __init__(self, server: Server, folder: Path) -> None:
        settings = Settings.load({"CAVENDISH_REDIS_URL": server.url})
        self.client = Client(settings=settings)
        self.lists = redis.Redis(unix_socket_path=str(server.socket))
        environment = {
            name: text for name, text in os.environ.items() if not name.startswith("CAVENDISH_")
        }
        environment |= {
            "CAVENDISH_REDIS_URL": server.url,
            "CAVENDISH_API_TOKEN": "emulated",
            "CAVENDISH_API_URL": "http://127.0.0.1:9",  # nobody listens there
            "CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8",
            "CAVENDISH_LOG_FORMAT": "json",
        }
        self.logs = [folder / f"worker-{number}" for number in range(WORKERS)]
        self.read = dict.fromkeys(self.logs, 0)
        self.processes = []
        for path in self.logs:
            with path.open("w") as log:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-c", PROGRAM], env=environment, stdout=log, stderr=log
                    )
                )

    def take(self, tally: Tally, messages: list[tuple[str, bytes, list[str]]]) -> None:
        """Let the workers take these messages, and count what goes wrong."""
        with self.lists.pipeline(transaction=False) as lines:
            for queue, raw, _ in messages:
                lines.lpush(queue, raw)
            lines.execute()
        left = self._wait(tally, {name for *_, good in messages for name in good})
        tally.made += len(messages)
        tally.good += sum(len(good) for *_, good in messages)
        for name in sorted(left)[:100]:
            tally.mistake(f"{name} is not tracked")
        self._read_logs(tally)
        for process in self.processes:
            if process.poll() is not None:
                tally.death(f"a worker ended with {process.returncode}")

    def _wait(self, tally: Tally, expected: set[str]) -> set[str]:
        """Wait until the lists are empty and the ids tracked; returns those that are not."""
        before, since = -1, time.monotonic()
        while time.monotonic() - since < NEVER:
            wanted = sorted(expected)
            expected -= set(self.client.get_many(wanted, service="nano-banana", with_record=False))
            waiting = sum(self.lists.llen(queue) for queue in QUEUES)  # type: ignore[misc]
            if not expected and not waiting:
                return expected
            if all(process.poll() is not None for process in self.processes):
                return expected
            if (left := waiting + len(expected)) != before:
                before, since = left, time.monotonic()
            time.sleep(0.05)
        if waiting:
            tally.death(f"{waiting} messages are not taken")
        return expected

    def _read_logs(self, tally: Tally) -> None:
        for path in self.logs:
            with path.open(errors="replace") as log:
                log.seek(self.read[path])
                text = log.read()
                self.read[path] = log.tell()
            for line in text.splitlines():
                if "Traceback" in line:
                    tally.traceback(line[-1500:])

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(10)
        self.lists.close()
        self.client.close()


@contextlib.contextmanager
def _fleet(server: Server, folder: Path) -> Iterator[_Fleet]:
    fleet = _Fleet(server, folder)
    try:
        yield fleet
    finally:
        fleet.close()
