"""Names into addresses, in threads: names whose name server keeps silent must not hold up the
others.

`getaddrinfo` cannot be interrupted, and a silent name server keeps it for half a minute. So each
name has one thread at most, which all who ask for the name share, also after they have given up;
and names that were resolved before have places of their own.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from ipaddress import ip_address

import httpx

from cavendish.policy.addresses import Address
from cavendish_worker.http.faults import ResolverAway

#: Seconds that a caller waits, and for which another name's success shows that the resolver works.
RESOLVE_TIMEOUT, RESOLVER_PROVEN = 5.0, 60.0
#: Look-ups under way for names that nobody knows yet, and further ones for names that were resolved
#: before.
STRANGERS, ACQUAINTANCES = 512, 64
#: Names that are remembered as resolved.
REMEMBERED = 4096

_RESOLVER_ERRORS = {socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM}
_Rows = list[tuple[object, ...]]


class Resolver:
    """Resolves for one transport. What it finds is never kept: a name is asked for at each dial."""

    def __init__(self) -> None:
        #: When each name was resolved last, the oldest first.
        self._resolved: OrderedDict[str, float] = OrderedDict()
        self._under_way: dict[str, Future[_Rows]] = {}
        self._lock = threading.Lock()

    async def addresses(self, name: str, port: int) -> list[Address]:
        """Each address of a name once. Raises ResolverAway where the fault is ours, else
        httpx.ConnectError.
        """
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT):
                rows = await asyncio.wrap_future(self._poll_up(name, port))
        except (OSError, UnicodeError) as error:
            ours = (
                isinstance(error, TimeoutError) or getattr(error, "errno", None) in _RESOLVER_ERRORS
            )
            if ours and not self._proven_by_others(name):
                raise ResolverAway("Names cannot be resolved.") from error
            raise httpx.ConnectError("The name cannot be resolved.") from error
        if not rows:
            raise httpx.ConnectError("The name has no address.")
        self._resolved[name] = time.monotonic()
        self._resolved.move_to_end(name)
        if len(self._resolved) > REMEMBERED:
            self._resolved.popitem(last=False)
        return [ip_address(address) for address in dict.fromkeys(str(row[4][0]) for row in rows)]  # type: ignore[index]

    def _poll_up(self, name: str, port: int) -> Future[_Rows]:
        with self._lock:
            if (shared := self._under_way.get(name)) is not None:
                return shared
            if len(self._under_way) >= STRANGERS + (ACQUAINTANCES if name in self._resolved else 0):
                raise ResolverAway("Too many names keep the resolver busy.")
            answer = self._under_way[name] = Future[_Rows]()
        # From now on, who gives up does not end it for the others.
        answer.set_running_or_notify_cancel()
        thread = threading.Thread(
            target=self._ask, args=(name, port, answer), name="cavendish-dns", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            self._leave(name)
            raise ResolverAway("This process can have no more threads.") from error
        return answer

    def _ask(self, name: str, port: int, answer: Future[_Rows]) -> None:
        try:
            rows = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        except BaseException as error:
            self._leave(name)
            answer.set_exception(error)
        else:
            self._leave(name)
            answer.set_result(rows)  # type: ignore[arg-type]

    def _leave(self, name: str) -> None:
        with self._lock:
            del self._under_way[name]

    def _proven_by_others(self, name: str) -> bool:
        newest = next((at for other, at in reversed(self._resolved.items()) if other != name), None)
        return newest is not None and time.monotonic() - newest < RESOLVER_PROVEN
