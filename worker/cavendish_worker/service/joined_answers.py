"""Sends the head of an answer with the first piece of its body: one write, one segment, and one
read for its caller, where uvicorn makes two of each.
"""

from __future__ import annotations

import asyncio
from typing import Any

#: Bytes of a piece that is not worth a copy to save a write.
_COPIED = 64 * 1024


class JoinedAnswers:
    """A transport that keeps a head that names a length, as its body follows at once.

    Streams have none: their heads go out before the first piece is there.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._write = transport, transport.write
        self.is_closing = transport.is_closing
        self._kept = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keep a head, and send it with what comes next."""
        if kept := self._kept:
            self._kept = b""
            if len(data) < _COPIED:
                data = kept + data
            else:
                self._write(kept)
        elif data.startswith(b"HTTP/1.1 ") and b"\r\ncontent-length: " in data:
            self._kept = data
            return
        self._write(data)

    def close(self) -> None:
        """Send what is kept, and close."""
        self.send_kept()
        self._transport.close()

    def send_kept(self) -> None:
        """Send a head that has no body, such as the answer to a HEAD."""
        if self._kept:
            self._write(self._kept)
            self._kept = b""
