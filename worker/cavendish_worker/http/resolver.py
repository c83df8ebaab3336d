"""Resolves names in threads, so that a name whose name server is silent does not delay the others.

`getaddrinfo` cannot be interrupted, and a silent name server keeps it busy for half a minute. So a
name has at most one thread. All who ask for the name share it, also after some of them gave up.
Names that were resolved before have places of their own.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from ipaddress import ip_address
from typing import Any

import httpx

from cavendish.policy.addresses import Address
from cavendish_worker.http.faults import ResolverAway

#: Seconds that a caller waits for a name.
RESOLVE_TIMEOUT = 5.0
#: Seconds for which the success of another name shows that the resolver works.
RESOLVER_PROVEN = 60.0
#: How many names may be resolved at once, and how many more that were resolved before.
PLACES, PLACES_OF_KNOWN = 512, 64
#: How many names are remembered as resolved.
REMEMBERED = 4096

_RESOLVER_ERRORS = {socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM}
#: What `getaddrinfo` returns.
_Rows = Sequence[tuple[Any, ...]]


class Resolver:
    """Resolves for one transport. It caches nothing: each dial asks for its name."""

    def __init__(self) -> None:
        #: When each name was resolved last, the oldest first.
        self._resolved: OrderedDict[str, float] = OrderedDict()
        self._running: dict[str, Future[_Rows]] = {}
        self._lock = threading.Lock()

    async def addresses(self, name: str, port: int) -> list[Address]:
        """Each address of a name once.

        Raises ResolverAway if the fault is ours, else httpx.ConnectError.
        """
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT):
                rows = await asyncio.wrap_future(self._resolve(name, port))
        except (OSError, UnicodeError) as error:
            code = getattr(error, "errno", None)
            ours = isinstance(error, TimeoutError) or code in _RESOLVER_ERRORS
            if ours and not self._proven_by_others(name):
                raise ResolverAway("Names cannot be resolved.") from error
            raise httpx.ConnectError("The name cannot be resolved.") from error
        if not rows:
            raise httpx.ConnectError("The name has no address.")
        self._remember(name)
        return [ip_address(address) for address in dict.fromkeys(str(row[4][0]) for row in rows)]

    def _resolve(self, name: str, port: int) -> Future[_Rows]:
        """What the thread of this name will find. Raises ResolverAway if it can have no thread."""
        with self._lock:
            if (shared := self._running.get(name)) is not None:
                return shared
            if len(self._running) >= PLACES + (PLACES_OF_KNOWN if name in self._resolved else 0):
                raise ResolverAway("Too many names keep the resolver busy.")
            found = self._running[name] = Future[_Rows]()
        # From now on a caller who gives up does not cancel it for the others.
        found.set_running_or_notify_cancel()
        words = (name, port, found)
        thread = threading.Thread(target=self._run, args=words, name="cavendish-dns", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._forget(name)
            raise ResolverAway("This process can have no more threads.") from error
        return found

    def _run(self, name: str, port: int, found: Future[_Rows]) -> None:
        try:
            rows = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        except BaseException as error:
            self._forget(name)
            found.set_exception(error)
        else:
            self._forget(name)
            found.set_result(rows)

    def _forget(self, name: str) -> None:
        with self._lock:
            del self._running[name]

    def _remember(self, name: str) -> None:
        self._resolved[name] = time.monotonic()
        self._resolved.move_to_end(name)
        if len(self._resolved) > REMEMBERED:
            self._resolved.popitem(last=False)

    def _proven_by_others(self, name: str) -> bool:
        newest = next((at for other, at in reversed(self._resolved.items()) if other != name), None)
        return newest is not None and time.monotonic() - newest < RESOLVER_PROVEN
