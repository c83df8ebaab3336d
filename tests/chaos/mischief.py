"""What makes the rare steps happen.

A lane of decoys, with ids that nobody knows, records that are gone, and odd receivers.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from itertools import count

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from cavendish.errors import StoreUnavailable
from cavendish.model import Lane
from cavendish.store import Store
from cavendish.store.keys import LaneKeys
from cavendish.task_names import DELIVER, EXPIRE, RECONCILE, SUBMIT
from chaos.recorded import told_of
from chaos.world import SERVICE, World

DECOYS = "flux"
EVERY = 0.4


class Mischief:
    """Works in a thread of its own.

    What a Celery message was to submit, and the broker acknowledged, is posted in the world.
    """

    def __init__(self, world: World, *, door: bool = True) -> None:
        self._world, self._door, self._stopped = world, door, threading.Event()
        self._store = Store(world.redis.url)
        self._app = Celery("a-producer", broker=world.broker, set_as_current=False)
        self._app.conf.broker_transport_options = {"socket_timeout": 2, "socket_connect_timeout": 1}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for number in count():
            if self._stopped.wait(EVERY):
                return
            with suppress(StoreUnavailable, OperationalError, redis.RedisError, OSError):
                self._stir(number)

    def _stir(self, number: int) -> None:
        world = self._world
        self._decoy([f"nobody-{number}", f"no-one-{number}"], f"/abort/{number % 5}")
        self._decoy(world.create(1), f"/gone/{number}")
        self._decoy(world.create(1), f"/later/{number % 7}")
        lost = world.create(1)
        self._decoy(lost, f"/abort/{number % 5}")
        self._store.connection.redis.delete(
            LaneKeys(Lane.of("default", DECOYS, lost[0], 1)).task(lost[0])
        )
        for hint in (RECONCILE, EXPIRE, DELIVER):
            self._app.send_task(hint, queue=hint, retry=False)
        if self._door:
            ids = world.create(1)
            group = f"posted-{number}", 1
            options = {"service": SERVICE, "webhook": f"{world.receiver}/hook", **told_of(group)}

            def send() -> None:
                self._app.send_task(SUBMIT, args=[ids], kwargs=options, queue=SUBMIT, retry=False)

            world.recorded.message(ids, "/hook", send, group)
            world.posted |= {*ids}
            world.posted_groups[group[0]] = frozenset(ids)

    def _decoy(self, ids: list[str], place: str) -> None:
        self._world.recorded.submit(ids, service=DECOYS, place=place, deadline=30, promised=False)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._app.close()
        self._store.close()
