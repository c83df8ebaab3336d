"""The HTTP service on the loopback interface, served by uvicorn in a thread of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx

from cavendish.policy.access import ApiKey
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.service import listening


@contextmanager
def service(settings: Settings, port: int = 0) -> Iterator[str]:
    """A running service; yields its address. Port 0: any free one."""
    settings = replace(settings, http_port=port)
    listener = listening.listen(settings, listening.Transport())
    held: list[tuple[asyncio.AbstractEventLoop, listening.Server]] = []
    began = threading.Event()

    async def run() -> None:
        server = listening.server_of(settings)
        held.append((asyncio.get_running_loop(), server))
        began.set()
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert began.wait(10)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    loop, server = held[0]
    loop.call_soon_threadsafe(server.end)
    thread.join(20)
    assert not thread.is_alive()


def new_key(store: Store, name: str, *may: str, **limits: Any) -> str:
    """The text of a new key; without rights it has all of them."""
    text = store.api_keys.add(ApiKey(name, "", "", may or ("submit", "read", "operate"), **limits))
    assert text is not None
    return text


def caller(address: str, key: str = "") -> httpx.Client:
    """A client of the service, with a key."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=address, headers=headers, trust_env=False, timeout=30)
