"""Hears new entries of the streams as they come, in lanes that may change at any moment."""

from __future__ import annotations

import math
import selectors
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from cavendish.model import Lane
from cavendish.store.connection import Connection
from cavendish.store.events import (
    POLL,
    Entry,
    Events,
    entries_of,
    rows_of,
    streams_of,
)

#: Most entries of a lane that are read at once.
_AT_ONCE = 1000


class EventListener:
    """Hears what is added to the streams of some lanes. For one thread, which others may `wake`.

    Where one server holds all lanes, an XREAD blocks on a connection of its own, and the thread
    watches that connection together with a socket that wakes it. The XREAD stays under way
    meanwhile; it is given up only for a lane that it does not read. In a cluster no read blocks on
    many slots, so there the lanes are polled.

    Methods raise StoreUnavailable; the next call then begins with a new connection.
    """

    def __init__(self, connection: Connection, events: Events) -> None:
        self._redis, self._events = connection, events
        self._places: dict[Lane, str] = {}
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.settimeout(0)
        #: A client of redis-py with one connection, made when it is first needed.
        self._own: Any = None
        #: The lanes of the XREAD that is under way, if any, and when its silence means an outage.
        self._asked: set[Lane] = set()
        self._silent_at = math.inf

    def wake(self) -> None:
        """End the `hear` that is under way, or else the next one. From any thread."""
        with suppress(BlockingIOError):  # it has been woken often enough
            self._waker.send(b"\0")

    def listen(self, lanes: Collection[Lane]) -> None:
        """Hear these lanes too, from now on."""
        if new := [lane for lane in lanes if lane not in self._places]:
            self._places |= self._events.last(new)

    def leave(self, lanes: Collection[Lane]) -> None:
        """Hear these lanes no more."""
        if not self._asked.isdisjoint(lanes):
            self._give_up()
        for lane in lanes:
            self._places.pop(lane, None)

    @property
    def lanes(self) -> set[Lane]:
        """The lanes that it hears."""
        return set(self._places)

    def hear(self, seconds: float) -> list[Entry]:
        """The next entries by time; none if nothing comes for `seconds`, or if it is woken."""
        if self._redis.clustered:
            return self._poll(seconds)
        try:
            with self._redis.errors():
                return self._entries() if self._readable(seconds) else []
        except BaseException:
            self._give_up()
            raise

    def close(self) -> None:
        """Close its connection and its sockets."""
        self._give_up()
        if self._own is not None:
            self._own.close()
        for end in (self._woken, self._waker):
            end.close()

    def _poll(self, seconds: float) -> list[Entry]:
        until = time.monotonic() + seconds
        while True:
            entries = self._events.read(self._places, _AT_ONCE) if self._places else []
            left = until - time.monotonic()
            if entries or left <= 0 or self._ready([self._woken], min(POLL, left)):
                self._places |= {entry.lane: entry.place for entry in entries}
                return entries

    def _readable(self, seconds: float) -> bool:
        """Wait until the XREAD is answered; False if it is not in time, or if this is woken."""
        if not self._places:
            self._ready([self._woken], seconds)
            return False
        if not self._asked >= self._places.keys():
            self._ask()
        connection = self._own.connection
        if connection.can_read(0):  # TLS or the parser may hold it already
            return True
        left = max(min(seconds, self._silent_at - time.monotonic()), 0.0)
        if connection._sock in self._ready([self._woken, connection._sock], left):
            return True
        if time.monotonic() >= self._silent_at:
            raise TimeoutError("Timeout reading from socket")
        return False

    def _ask(self) -> None:
        self._give_up()
        if self._own is None:
            self._own = self._redis.redis.client()  # type: ignore[no-untyped-call]
        block, streams = math.ceil(self._events.longest_block * 1000), streams_of(self._places)
        words = ["XREAD", "COUNT", _AT_ONCE, "BLOCK", block, "STREAMS"]
        self._own.connection.send_command(*words, *streams, *streams.values())
        self._asked = set(self._places)
        self._silent_at = time.monotonic() + (self._redis.socket_timeout or math.inf)

    def _entries(self) -> list[Entry]:
        found = rows_of(self._own.parse_response(self._own.connection, "XREAD"), self._asked)
        self._asked = set()
        self._places |= {lane: rows[-1][0] for lane, rows in found.items()}
        return entries_of(found)

    def _ready(self, several: list[Any], seconds: float) -> list[Any]:
        """Those of these sockets that can be read before the time is over."""
        with selectors.DefaultSelector() as watched:
            for each in several:
                watched.register(each, selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in watched.select(seconds)]
        if self._woken in ready:
            with suppress(BlockingIOError):
                while self._woken.recv(4096):
                    pass
        return ready

    def _give_up(self) -> None:
        """Close the connection if an XREAD is under way: its answer would still come."""
        if self._asked:
            self._own.connection.disconnect()
            self._asked = set()
