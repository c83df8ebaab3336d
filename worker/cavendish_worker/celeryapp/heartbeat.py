"""Each worker and each beat leaves a heartbeat in the store, so that `status` and `doctor` know who
lives.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from celery import signals

from cavendish.errors import ServerTooOld, StoreFormatError, StoreUnavailable
from cavendish.store.fleet import EVERY, Member
from cavendish_worker.celeryapp import broker_clock
from cavendish_worker.runtime import get_runtime
from cavendish_worker.telemetry.logs import logger

#: Seconds until the next try while the store is away: beat sends nothing until it hears of a
#: worker.
AGAIN = 1.0


class Heart:
    """Beats in a daemon thread of its process; misses a beat quietly while the store is away."""

    def __init__(self, role: str, queues: Callable[[], tuple[str, ...]] = tuple) -> None:
        """`queues`.

        Asked at each beat, since a worker may be told to take more of them or fewer.
        """
        self._role, self._name, self._queues = (
            role,
            f"{role}@{socket.gethostname()}:{os.getpid()}",
            queues,
        )
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
        with suppress(StoreUnavailable):
            get_runtime().store.fleet.leave(self._name)

    def _beat(self) -> bool:
        try:
            self._say()
        except (
            StoreFormatError,
            ServerTooOld,
        ) as refused:  # the store was away when this process began, and is another one now
            logger().error("process.ends", outcome=str(refused))
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:  # noqa: S110 (whatever it is, the next beat may succeed; a heart must not stop)
            pass
        else:
            return True
        return False

    def _say(self) -> None:
        runtime = get_runtime()
        settings, fleet = runtime.settings, runtime.store.fleet
        now = fleet.now()
        ahead = round(time.time() - now, 3)
        broker_clock.keep(now)
        fleet.found()
        fleet.beat(
            Member(
                self._name,
                self._role,
                version("cavendish"),
                now,
                accounts=tuple(sorted(runtime.upstream.accounts)),
                signs=bool(settings.webhook_secret),
                allow=tuple(map(str, settings.webhook_allow)),
                encrypts=bool(settings.secret_key),
                queues=self._queues(),
                ahead=ahead,
            )
        )


def attach() -> None:
    """Let the heart of whichever process this becomes start and stop with it."""
    hearts: list[Heart] = []

    def start_worker(sender: Any, **_: Any) -> None:
        taken = sender.app.amqp.queues
        start(Heart("worker", lambda: tuple(sorted(taken.consume_from))))

    def start_beat(**_: Any) -> None:
        start(Heart("beat"))
        atexit.register(join)  # Celery tells nobody that a beat ends

    def start(heart: Heart) -> None:
        hearts.append(heart)
        heart.start()

    def stop(**_: Any) -> None:
        for heart in hearts:
            heart.stop()

    def join(**_: Any) -> None:
        stop()
        for heart in hearts:
            heart.join()

    def begin(**_: Any) -> None:
        try:
            get_runtime().store.refuse_old_server()
            broker_clock.keep(get_runtime().store.fleet.now())
        except (StoreFormatError, ServerTooOld) as refused:
            sys.stderr.write(f"{refused}\n")
            sys.exit(2)
        except StoreUnavailable:
            pass  # it is waited for

    signals.worker_init.connect(begin, weak=False)
    signals.beat_init.connect(begin, weak=False)
    signals.worker_ready.connect(start_worker, weak=False)
    signals.beat_init.connect(start_beat, weak=False)
    signals.worker_shutting_down.connect(stop, weak=False)
    signals.worker_shutdown.connect(join, weak=False)
