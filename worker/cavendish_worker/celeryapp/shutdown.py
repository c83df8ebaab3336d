"""SIGTERM: what a worker does at once, while Celery waits for its running tasks.

A signal handler may interrupt anything, so it only sets an event; a waiting thread does the work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery import Celery, bootsteps, signals
from celery.exceptions import OperationalError
from celery.worker.consumer import Tasks

from cavendish_worker.telemetry.logs import logger

#: Seconds of SHUTDOWN_TIMEOUT that are reserved to write back the last calls; at most half of it.
RESERVED = 3.0
#: Set once this process is asked to end.
ASKED = threading.Event()


def attach(app: Celery, shut_down: Callable[[], None]) -> None:
    """Call `shut_down` once, as soon as a worker process is asked to end."""
    app.steps["consumer"].add(GiveBack)

    def wait() -> None:
        ASKED.wait()
        try:
            shut_down()
        except OperationalError as away:
            logger().warning("worker.shutdown_failed", outcome=f"the broker is away: {away}")
        except Exception as error:
            logger().exception("worker.shutdown_failed", outcome=type(error).__name__)

    def begin(**_: Any) -> None:
        threading.Thread(target=wait, name="cavendish-shutdown", daemon=True).start()

    signals.worker_ready.connect(begin, weak=False)
    signals.worker_shutting_down.connect(lambda **_: ASKED.set(), weak=False)


def time_for_calls(shutdown_timeout: float) -> float:
    """Seconds that running calls get once the process is asked to end."""
    return max(shutdown_timeout - RESERVED, shutdown_timeout / 2)


class GiveBack(bootsteps.StartStopStep):
    """Gives back at once what the broker sends to a worker that no longer consumes.

    Kombu waits for messages with a BRPOP that may outlive the consumer by a second. A message that
    it pops then would stay in the socket until the last running task has ended.
    """

    requires = (Tasks,)

    def stop(self, consumer: Any) -> None:
        if consumer.task_consumer is None or not ASKED.is_set():  # only a lost connection
            return
        with suppress(Exception):  # the broker may be away; then there is nothing to give back
            channel = consumer.task_consumer.channel
            consumer.task_consumer.cancel()
            while getattr(channel, "_in_poll", False):
                channel._brpop_read()
