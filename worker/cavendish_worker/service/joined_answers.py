"""Sends the head of an answer with the first piece of its body: one write, one segment, and one
read for its caller, where uvicorn makes two of each.
"""

from __future__ import annotations

import asyncio
from typing import Any

#: Bytes of a piece that is not worth a copy to save a write.
_COPIED = 64 * 1024


class JoinedAnswers:
    """A transport that keeps what is written until more comes, or until the event loop turns.

    So nothing waits for long: not the head of a stream whose first piece is late, either.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._kept = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keep the first piece, and send it with the second one."""
        if self._kept and len(data) < _COPIED:
            data, self._kept = self._kept + data, b""
            self._transport.write(data)
        elif self._kept:
            self._send()
            self._transport.write(data)
        else:
            self._kept = data
            self._loop.call_soon(self._send)

    def close(self) -> None:
        """Send what is kept, and close."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._kept:
            data, self._kept = self._kept, b""
            self._transport.write(data)
