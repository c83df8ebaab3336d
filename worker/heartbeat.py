"""Each worker and each beat leaves a heartbeat in the book, so that `status` and `doctor` know who lives."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from celery import signals

from scheduler.errors import BookUnavailable
from scheduler.store.fleet import EVERY, Member
from worker import steady
from worker.wiring import hands

#: Seconds until the next try while the book is away: beat sends nothing until it hears of a worker.
AGAIN = 1.0


class Heart:
    """Beats in a daemon thread of its process; misses a beat quietly while the book is away."""

    def __init__(self, role: str) -> None:
        self._role, self._name = role, f"{role}@{socket.gethostname()}:{os.getpid()}"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cavendish-heart", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Beat no more. Safe in the handler of a signal: the thread itself says goodbye."""
        self._stopped.set()

    def join(self) -> None:
        """Wait until it has said goodbye."""
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._stopped.wait(EVERY if self._beat() else AGAIN):
            pass
        with suppress(BookUnavailable):
            hands().book.fleet.leave(self._name)

    def _beat(self) -> bool:
        with suppress(Exception):  # whatever it is, the next beat may succeed; a heart must not stop
            hand = hands()
            fleet, accounts = hand.book.fleet, tuple(sorted(hand.upstream.accounts))
            signs, allow = bool(hand.settings.webhook_secret), tuple(map(str, hand.settings.webhook_allow))
            seals = bool(hand.settings.secret_key)
            now = fleet.now()
            steady.keep(now)
            fleet.beat(Member(self._name, self._role, version("cavendish"), now, accounts, signs, allow, seals))
            return True
        return False


def attach() -> None:
    """Let the heart of whichever process this becomes start and stop with it."""
    hearts: list[Heart] = []

    def start(role: str) -> None:
        hearts.append(Heart(role))
        hearts[-1].start()

    def stop(**_: Any) -> None:
        for heart in hearts:
            heart.stop()

    def join(**_: Any) -> None:
        stop()
        for heart in hearts:
            heart.join()

    def set_clock(**_: Any) -> None:
        with suppress(BookUnavailable):
            steady.keep(hands().book.fleet.now())

    signals.worker_init.connect(set_clock, weak=False)
    signals.worker_ready.connect(lambda **_: start("worker"), weak=False)
    signals.beat_init.connect(lambda **_: start("beat"), weak=False)
    signals.worker_shutting_down.connect(stop, weak=False)
    signals.worker_shutdown.connect(join, weak=False)
