"""Why no connection was made: each reason has a class, the `__cause__` of the httpx error."""

from __future__ import annotations

import httpx


class DialFault(Exception):
    """No connection was made, and not only the other end is the reason."""

    def as_httpx(self) -> httpx.ConnectError:
        """The error that the caller gets, with the notes of this one. Raise it from this one."""
        error = httpx.ConnectError(str(self))
        for note in getattr(self, "__notes__", ()):
            error.add_note(note)
        return error


class AddressRefused(DialFault):
    """The name stands for an address or a port that webhooks may not reach.

    The text does not tell what lives there.
    """


class ResolverAway(DialFault):
    """Names cannot be resolved at the moment; nothing shows that only this one cannot."""


class NetworkAway(DialFault):
    """This machine cannot make connections: it has no route, or no more sockets."""


class ProxyAway(DialFault):
    """The proxy that all calls go through cannot be reached, or refuses to serve us."""
