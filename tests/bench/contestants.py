"""Who takes part.

Each starts what it needs on the ground, and returns how ids are handed over to it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from celery import Celery
from ground import HERE, Ground

from cavendish import Client
from cavendish.environment.local_paths import celery_spelling
from cavendish.settings import Settings

SERVICE, BATCH = "nano-banana", 100

HandOver = Callable[[list[str]], object]


@dataclass(frozen=True, slots=True)
class Contestant:
    """Its name is its token as well, and the name of its process."""

    name: str
    what: str
    start: Callable[[Ground, ExitStack], HandOver]


def settings_of_ours(ground: Ground) -> Settings:
    """What our own client needs to find the store."""
    return Settings.load({"CAVENDISH_REDIS_URL": ground.redis(0)})


def _ours(ground: Ground, ends: ExitStack) -> HandOver:
    data = ground.folder / "ours"
    surroundings = {
        "CAVENDISH_REDIS_URL": ground.redis(0),
        "CAVENDISH_BROKER_URL": ground.redis(1),
        "CAVENDISH_DATA_DIR": str(data),
        "CAVENDISH_API_URL": ground.api,
        "CAVENDISH_API_TOKEN": "ours",
        "CAVENDISH_BATCH_SIZE": str(BATCH),
    }
    ends.enter_context(
        ground.running(
            "ours",
            [sys.executable, "-m", "cavendish_worker.cli", "up", "--no-flower", "--no-http"],
            surroundings,
        )
    )
    ground.wait_for((data / "stack.json").exists)
    client = ends.enter_context(Client(settings=settings_of_ours(ground)))
    return lambda ids: client.submit(ids, service=SERVICE)


def _polite(name: str) -> list[str]:
    """Those that ask about one id per call may have what the others leave of the machine.

    Their limit binds them anyway.
    """
    return ["nice", "-n", "15"] if name in ROUNDS[1] else []


def _program(name: str) -> Callable[[Ground, ExitStack], HandOver]:
    """One of the programs in peers.py, which take ids from their stdin."""

    def start(ground: Ground, ends: ExitStack) -> HandOver:
        command = [*_polite(name), sys.executable, str(HERE / "peers.py"), name, ground.api, name]
        process = ends.enter_context(ground.running(name, command))

        def hand_over(ids: list[str]) -> None:
            assert process.stdin is not None
            process.stdin.write("".join(f"{task_id}\n" for task_id in ids))
            process.stdin.flush()

        return hand_over

    return start


def _celery(ground: Ground, ends: ExitStack) -> HandOver:
    broker = celery_spelling(ground.redis(5))
    surroundings = {"PEER_API_URL": ground.api, "PEER_TOKEN": "celery", "PEER_BROKER": broker}
    words = (
        "-q -A peers_celery worker -P threads -c 16 -l error --without-gossip --without-mingle"
    ).split()
    command = [*_polite("celery"), sys.executable, "-m", "celery", *words]
    # Killed at the end: an orderly shutdown would first put thousands of messages back that nobody
    # needs any more.
    ends.enter_context(ground.running("celery", command, surroundings, stop=signal.SIGKILL))
    producer = Celery("producer", broker=broker, set_as_current=False)
    ends.callback(producer.close)
    return lambda ids: [producer.send_task("peers.look", args=[task_id]) for task_id in ids]


CONTESTANTS = (
    Contestant("ours", "`cavendish up`, batches of 100", _ours),
    Contestant(
        "beat", "every 3 s all pending in batches of 100, a 429 is waited out", _program("beat")
    ),
    Contestant(
        "sdk", "official SDK: tasks.wait, a thread per id, at most 1,000 threads", _program("sdk")
    ),
    Contestant("celery", "a Celery task per id, retry(countdown=3), -P threads -c 16", _celery),
)
#: Side by side in one round. The last two ask about one id per call, and keep both cores of a small
#: machine busy with refusals.
ROUNDS = (("ours", "beat"), ("sdk", "celery"))
