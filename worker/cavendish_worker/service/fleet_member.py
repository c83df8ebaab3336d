"""Sends the heartbeats of this process of the HTTP service.

The event loop that answers requests writes the heartbeat, so a loop that stands still writes none.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from importlib.metadata import version

from cavendish.errors import StoreUnavailable
from cavendish.store import Store
from cavendish.store.fleet import EVERY, Member

#: Seconds for which an end waits until the heartbeat is deleted.
_PATIENCE = 1.0


async def beat(store: Store) -> None:
    """Write heartbeats until it is cancelled; while the store is away there are none."""
    name = f"http@{socket.gethostname()}:{os.getpid()}"
    try:
        while True:
            with suppress(StoreUnavailable):
                await asyncio.to_thread(_write, store, name)
            await asyncio.sleep(EVERY)
    finally:
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await asyncio.to_thread(store.fleet.leave, name)


def _write(store: Store, name: str) -> None:
    store.fleet.beat(Member(name, "http", version("cavendish"), store.fleet.now()))
