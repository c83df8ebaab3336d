"""Every worker is ended by SIGTERM and replaced by another, under load: who waits longer for it?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from acceptance.conftest import SERVICE, wait_until
from acceptance.parts import BLUR, Parts
from cavendish_worker.devstack.emulator.api import Config
from conftest import Server, http_server

#: Ids each tenth of a second; seconds between one replacement and the next, and until the load ends
#: after the last.
FEW, APART, AFTER = 4, 3.0, 8.0
#: Seconds from the finish at the API to the settle in the store that the slowest in a hundred may
#: take.
BAR = 2.0


def roll(parts: Parts, workers: int) -> list[float]:
    """Replace each worker under load.

    Returns the delays of all ids in order, once they are settled and announced.
    """
    ids, over = list[str](), threading.Event()

    def load() -> None:
        while not over.wait(0.1):
            fresh = parts.emulator.create(FEW)
            parts.client.submit(fresh, service=SERVICE, webhook=parts.receiver)
            ids.extend(fresh)

    parts.celery("beat")
    fleet = [parts.celery("worker") for _ in range(workers)]
    warm = parts.emulator.create(200)
    parts.client.submit(warm, service=SERVICE)  # how long tasks take is known by then
    wait_until(lambda: parts.settled(warm), 30, "the duration model is learned")
    source = threading.Thread(target=load)
    source.start()
    try:
        for worker in fleet:
            time.sleep(APART)
            parts.end(worker)
            parts.celery("worker")
        time.sleep(AFTER)
    finally:
        over.set()
        source.join()
    wait_until(lambda: parts.settled(ids), 30, "nothing is lost")
    wait_until(lambda: len(parts.announced()["states"]) == len(ids), 20, "all announced")
    return parts.delays(ids)


def restarts(say: Callable[[str], None], times: int) -> bool:
    """Print the delays of so many rolling restarts of two workers.

    True if none was above the bar or too early.
    """
    kept = True
    for _ in range(times):
        server = Server()
        server.start()
        with ExitStack() as stack:
            stack.callback(server.close)
            parts = Parts(
                server.url,
                lambda handler: stack.enter_context(http_server(handler)),
                Config(rate=0.0, median=2.0, sigma=0.3),
            )
            stack.callback(parts.close)
            delays = roll(parts, 2)
        middle, slow = delays[len(delays) // 2], delays[int(len(delays) * 0.99)]
        say(
            f"two workers replaced under load: {len(delays)} ids, delay {middle:.2f} s, p99 {slow:.2f} s (bar {BAR:g} s)"
        )
        kept &= slow <= BAR and delays[0] > -BLUR
    return kept
