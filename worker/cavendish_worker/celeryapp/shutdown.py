"""SIGTERM: what a worker does at once, while Celery waits for what runs in it.

The handler of a signal may interrupt anything, so it only sets an event; a thread that waits for it
does the work.
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

#: Seconds that are kept of SHUTDOWN_TIMEOUT to write down what came of the last calls; of a short
#: one, half of it.
LAST_WORDS = 3.0
#: Set once this process is asked to end.
ASKED = threading.Event()


def attach(app: Celery, wind_up: Callable[[], None]) -> None:
    """Let `wind_up` run once, as soon as a worker process is asked to end."""
    app.steps["consumer"].add(HandBack)

    def wait() -> None:
        ASKED.wait()
        try:
            wind_up()
        except OperationalError as away:
            logger().warning("worker.ends", outcome=f"the broker is away: {away}")
        except Exception as error:
            logger().exception("worker.ends", outcome=type(error).__name__)

    def begin(**_: Any) -> None:
        threading.Thread(target=wait, name="cavendish-closing", daemon=True).start()

    signals.worker_ready.connect(begin, weak=False)
    signals.worker_shutting_down.connect(lambda **_: ASKED.set(), weak=False)


def time_for_calls(shutdown_timeout: float) -> float:
    """Seconds that calls under way are given once the process is asked to end."""
    return max(shutdown_timeout - LAST_WORDS, shutdown_timeout / 2)


class HandBack(bootsteps.StartStopStep):
    """Gives back at once what the broker sends to a worker that has stopped listening.

    Kombu waits for messages with a BRPOP that may outlive the consumer by a second. What it pops
    meanwhile would lie in the socket until the last running task has ended.
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
