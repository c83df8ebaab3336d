"""Waits for the first of several things."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cavendish_worker.service.held_requests import cancelled


async def first_of(*several: Callable[[], Awaitable[object]]) -> None:
    """Begin all of them, wait for the first, cancel the others. Raises what the first raises."""
    tasks = [asyncio.ensure_future(one()) for one in several]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
    finally:
        await cancelled(*tasks)
