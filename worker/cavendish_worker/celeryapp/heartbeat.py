"""Writes heartbeats of each worker and beat into the store, so that `status` and `doctor` know
which of them live.
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

#: Seconds until the next heartbeat while the store is away. Beat sends nothing until a worker has a
#: heartbeat, so this is short. And seconds between two looks at the file of tokens.
RETRY, LOOK_EVERY = 1.0, 1.0


class Heartbeat:
    """Writes heartbeats from a daemon thread; silently skips them while the store is away."""

    def __init__(self, role: str, queues: Callable[[], tuple[str, ...]] = tuple) -> None:
        """`queues` is called for each heartbeat, since Celery can change them while it runs."""
        self._name = f"{role}@{socket.gethostname()}:{os.getpid()}"
        self._role, self._queues = role, queues
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cavendish-heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write no more. Safe in a signal handler: the thread itself deletes the heartbeat."""
        self._stopped.set()

    def join(self) -> None:
        """Wait until the heartbeat is deleted."""
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        beat_at = 0.0
        while True:
            changed = get_runtime().api_tokens.refresh()  # whose accounts a heartbeat tells
            if changed or time.monotonic() >= beat_at:
                beat_at = time.monotonic() + (EVERY if self._beat() else RETRY)
            if self._stopped.wait(LOOK_EVERY):
                break
        with suppress(StoreUnavailable):
            get_runtime().store.fleet.leave(self._name)

    def _beat(self) -> bool:
        try:
            self._write()
        except (StoreFormatError, ServerTooOld) as error:  # the store came back as another one
            logger().error("process.ends", outcome=str(error))
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:  # noqa: S110 (whatever it is, the next heartbeat may succeed)
            pass
        else:
            return True
        return False

    def _write(self) -> None:
        runtime = get_runtime()
        settings, fleet = runtime.settings, runtime.store.fleet
        now = fleet.now()
        ahead = round(time.time() - now, 3)
        broker_clock.set_clock(now)
        if emptied := fleet.found(now):
            advice = (
                "all that was tracked is lost: find out who emptied it, and submit the ids again"
            )
            logger().error("store.emptied", why=emptied.reason, advice=advice)
        if self._role == "worker":  # it makes the calls
            runtime.token_news.tell(now)
            runtime.dispatcher.pause_log.tell(runtime.store.controls.read(), now)
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
                token_fault=runtime.api_tokens.fault,
            )
        )


def _begin(**_: Any) -> None:
    """Take the clock of the store; end if its Redis or its format cannot be used."""
    try:
        get_runtime().store.refuse_old_server()
        broker_clock.set_clock(get_runtime().store.fleet.now())
    except (StoreFormatError, ServerTooOld) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except StoreUnavailable:
        pass  # the worker waits for it


def attach() -> None:
    """Start and stop the heartbeats with the worker or beat that this process becomes."""
    heartbeats: list[Heartbeat] = []

    def start_worker(sender: Any, **_: Any) -> None:
        queues = sender.app.amqp.queues
        start(Heartbeat("worker", lambda: tuple(sorted(queues.consume_from))))

    def start_beat(**_: Any) -> None:
        start(Heartbeat("beat"))
        atexit.register(join)  # Celery has no signal for the end of a beat

    def start(heartbeat: Heartbeat) -> None:
        heartbeats.append(heartbeat)
        heartbeat.start()

    def stop(**_: Any) -> None:
        for heartbeat in heartbeats:
            heartbeat.stop()

    def join(**_: Any) -> None:
        stop()
        for heartbeat in heartbeats:
            heartbeat.join()

    signals.worker_init.connect(_begin, weak=False)
    signals.beat_init.connect(_begin, weak=False)
    signals.worker_ready.connect(start_worker, weak=False)
    signals.beat_init.connect(start_beat, weak=False)
    signals.worker_shutting_down.connect(stop, weak=False)
    signals.worker_shutdown.connect(join, weak=False)
