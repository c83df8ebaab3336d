"""Closes a connection that brings no whole head of a request in time: uvicorn would wait.

Bodies have a time of their own, and a connection between two requests uvicorn's keep-alive.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds within which the head of a request must have come.
HEAD_WITHIN = 15.0


class Protocol(H11Protocol):
    """HTTP/1.1 of uvicorn, with a time for heads."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The time begins with the connection."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """And with the first bytes of each later head; it ends with a whole one."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        super().connection_lost(exc)
        self._forget()

    def _watch(self) -> None:
        if not self._between():
            self._forget()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_WITHIN, self._close_if_late)

    def _between(self) -> bool:
        """True while no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _close_if_late(self) -> None:
        self._late = None
        if self._between():
            self.transport.close()

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
