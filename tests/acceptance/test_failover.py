"""A server dies in the middle of the work, and nothing that was acknowledged is lost.

Sentinel, a cluster, and RabbitMQ.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import forked
from acceptance.conftest import SERVICE, Stack, wait_until
from cavendish import Client
from cavendish.errors import StoreUnavailable
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.keys import LaneKeys
from servers import PASSWORD, SENTINEL_PASSWORD, Cluster, Rabbit, Watched, started

Start = Callable[..., Stack]
#: Ids, how many are handed over at once, and how many when the server dies.
IDS, PORTION, BEFORE = 300, 10, 120
OPTIONS = ("--rate", "20", "--median", "3", "--sigma", "0.2", "--no-flower")
#: What was under way when a primary died is due again after its lease.
SOON = {"CAVENDISH_LEASE": "10", "CAVENDISH_CALL_TIMEOUT": "5", "CAVENDISH_LAST_POLL": "5"}
#: The fleet starts with so many calls per second; else it takes 20 s to climb to them.
FIRST_RATE = 15.0


class Run:
    """A stack, and a producer that runtime each portion over until it is acknowledged, whatever
    dies meanwhile.
    """

    def __init__(self, start: Start, **settings: str) -> None:
        self._settings = {f"CAVENDISH_{name}": value for name, value in settings.items()}
        self.stack = start(*OPTIONS, **self._settings, **SOON)
        self.client = Client(settings=Settings.load(self._settings))
        with closing(Store(self._settings["CAVENDISH_REDIS_URL"])) as store:
            store.shared_state.change_rate_limit(
                "default", lambda known: (replace(known, rate=FIRST_RATE), None)
            )
        self.ids = self.stack.create(IDS)
        wait_until(lambda: len(self.stack.status()["fleet"]) == 2, 60, "worker and beat live")
        self._pids = self.stack.pids()
        self.upstream_errors: list[str] = []

    def hand_over(self, kill: Callable[[], object]) -> None:
        """All ids, portion by portion; after some of them `kill` is called."""
        for first in range(0, IDS, PORTION):
            if first == BEFORE:
                wait_until(
                    lambda: len(self.stack.ledger()["states"]) > 20, 60, "some are announced"
                )
                kill()
                self.killed_at = time.time()
            self._acknowledged(self.ids[first : first + PORTION])
        self.acknowledged_at = time.time()

    def _acknowledged(self, ids: list[str]) -> None:
        until = time.monotonic() + 60
        while True:
            try:
                answers = self.client.submit(
                    ids, service=SERVICE, webhook=self.stack.facts["receiver"]
                )
            except StoreUnavailable as away:
                self.upstream_errors.append(str(away))
                assert time.monotonic() < until, self.upstream_errors
                time.sleep(0.1)
            else:
                assert {answer.outcome for answer in answers} <= {"new", "known"}
                return

    def ends_whole(self, where: Callable[[str], bool] = lambda _: True) -> None:
        """Everything that was acknowledged is settled and announced, under one webhook-id each, and
        no part ever exited.

        `where` are the ids that lay on the server that died.
        """
        wait_until(lambda: len(self.stack.ledger()["states"]) == IDS, 60, "all announced")
        ledger = self.stack.ledger()
        assert set(ledger["states"]) == set(self.ids)
        assert set(ledger["states"].values()) == {"succeeded", "failed"}
        assert (ledger["under_two_ids"], ledger["refused"]) == (0, [])
        tasks = self.client.get_many(self.ids, service=SERVICE, with_record=False)
        settled = {task_id: task.settled_at or 0.0 for task_id, task in tasks.items()}
        assert len(settled) == IDS
        assert min(settled.values()) > 0
        first = (
            min(
                at
                for task_id, at in settled.items()
                if where(task_id) and at > self.killed_at + 0.2
            )
            - self.killed_at
        )
        refused = len(self.upstream_errors)
        print(f"first settled {first:.1f} s after the death, {refused} submits refused")  # noqa: T201
        assert self.stack.pids() == self._pids
        # Its destination is named so that its answer ends the wait.
        words = ["-A", "cavendish_worker", "inspect", "stats", "--timeout", "10"]
        words += ["--destination", f"worker@{socket.gethostname()}"]

        def answered() -> str:
            printed = self.stack.folder / "stats"
            forked.shared().start("celery", words, self.stack.environment, printed).wait()
            return text if "worker@" in (text := printed.read_text()) else ""

        stats = wait_until(answered, 120, "the worker answers to remote control")
        for text in (
            self.stack.lines(),
            self.stack.cavendish("doctor").stdout,
            stats,
            *self.upstream_errors,
        ):
            assert PASSWORD not in text
            assert SENTINEL_PASSWORD not in text
        broken = [line for line in self.stack.lines().splitlines() if "Traceback" in line]
        assert not broken, broken[0]
        self.client.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "back_after",
    [None, 8.0],
    ids=["it dies", "it freezes and comes back as if it were still the primary"],
)
def test_sentinel_gives_store_and_broker_a_new_primary_and_nothing_acknowledged_is_lost(
    start: Start, back_after: float | None
) -> None:
    """What happens to the machine of the primary happens to the Sentinel on it."""
    with started(Watched) as servers:
        run = Run(start, REDIS_URL=servers.url, BROKER_URL=servers.broker_url, WAIT_REPLICAS="1")

        machine = (servers.primary, servers.sentinels[0])

        def kill() -> None:
            for server in machine:
                server.kill(signal.SIGSTOP if back_after else signal.SIGKILL)
                if back_after:
                    threading.Timer(back_after, server.kill, [signal.SIGCONT]).start()

        run.hand_over(kill)
        wait_until(servers.promoted, 60, "all Sentinels name another primary")
        assert run.upstream_errors != []
        run.ends_whole()


@pytest.mark.timeout(300)
def test_a_cluster_loses_the_primary_of_a_shard_and_nothing_acknowledged_is_lost(
    start: Start,
) -> None:
    """Its replica takes over.

    What waits for a replica goes on when the dead server is back, as a replica.
    """
    with started(Cluster) as servers, started(lambda begin: begin()) as broker:
        where = {"REDIS_URL": servers.url, "BROKER_URL": f"redis://127.0.0.1:{broker.port}/0"}
        run = Run(start, **where, SHARDS="4", WAIT_REPLICAS="1")
        lane = Lane("default", SERVICE, 0)
        key = LaneKeys(lane).deadlines
        owner = servers.owner(key)

        back = threading.Timer(5, owner.start)

        def kill() -> None:
            owner.kill()
            back.start()

        run.hand_over(kill)
        back.join()
        assert servers.owner(key) is not owner
        assert any("does not answer" in upstream_error for upstream_error in run.upstream_errors)
        assert any(
            "only 0 of 1 replicas have it" in upstream_error
            for upstream_error in run.upstream_errors
        )
        run.ends_whole(lambda task_id: Lane.of("default", SERVICE, task_id, 4) == lane)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("frozen_for", [0.0, 25.0], ids=["it dies", "it freezes and then dies"])
@pytest.mark.skipif(
    not Rabbit.PROGRAM.exists(),
    reason="RabbitMQ is not installed (Debian: apt-get install rabbitmq-server)",
)
def test_rabbitmq_is_the_broker_and_dies_and_nothing_is_lost(
    start: Start, tmp_path: Path, frozen_for: float
) -> None:
    """The store is in a Redis beside it.

    Celery's messages are hints, so a broker that forgets them costs time only.
    """
    rabbit = Rabbit(tmp_path)
    try:
        with started(lambda begin: begin(appendonly="yes")) as store:
            run = Run(start, REDIS_URL=f"redis://127.0.0.1:{store.port}/0", BROKER_URL=rabbit.url)

            def kill() -> None:
                emulator = run.stack.pids()["emulator"]
                os.kill(
                    emulator, signal.SIGSTOP
                )  # so that tasks are under way: Celery counts them when the connection is lost
                time.sleep(1)
                if frozen_for:
                    rabbit.freeze()
                    os.kill(emulator, signal.SIGCONT)
                    time.sleep(frozen_for)
                rabbit.kill()
                rabbit.start()
                os.kill(emulator, signal.SIGCONT)

            run.hand_over(kill)
            run.ends_whole()
    finally:
        rabbit.close()
