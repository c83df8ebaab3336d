"""Is a host there? Asked of the resolver and of the network, for a few seconds at most."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

#: Seconds; a resolver without a network may take much longer.
PATIENCE = 4.0
#: How many are asked at once.
MOST = 16

T = TypeVar("T")
Fault = tuple[type[OSError], str]


def at_once(asks: Sequence[Callable[[], T]]) -> list[T]:
    """Ask several at the same time, so that many that are away take no longer than one.

    The answers in the order of `asks`.
    """
    with ThreadPoolExecutor(MOST) as pool:
        return [answer.result() for answer in [pool.submit(ask) for ask in asks]]


def complaint(host: str, port: int) -> Fault | None:
    """Why no connection is made there; `socket.gaierror` where the name is not found."""
    return _within(lambda: socket.create_connection((host, port), PATIENCE).close())


def unresolved(host: str) -> Fault | None:
    """Why a name is not found."""
    return _within(lambda: socket.getaddrinfo(host, None))


def _within(ask: Callable[[], object]) -> Fault | None:
    answers: queue.Queue[Fault | None] = queue.Queue()

    def run() -> None:
        try:
            ask()
        except (OSError, UnicodeError) as error:
            said = getattr(error, "strerror", None) or str(error)
            answers.put(
                (
                    socket.gaierror
                    if isinstance(error, socket.gaierror | UnicodeError)
                    else OSError,
                    said,
                )
            )
        else:
            answers.put(None)

    threading.Thread(target=run, daemon=True).start()  # a resolver cannot be interrupted
    try:
        return answers.get(timeout=PATIENCE + 0.5)
    except queue.Empty:
        return socket.gaierror, f"no answer within {PATIENCE:g} s"
