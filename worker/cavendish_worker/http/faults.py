"""Why a connection was not made, told apart: the caller meets an `httpx.ConnectError` whose
`__cause__` is one of these.
"""

from __future__ import annotations

import httpx


class DialFault(Exception):
    """Something kept us from calling that is not simply the other end's doing."""

    def told(self) -> httpx.ConnectError:
        """The error that the caller meets, with the notes of this one. Raise it from this one."""
        error = httpx.ConnectError(str(self))
        for note in getattr(self, "__notes__", ()):
            error.add_note(note)
        return error


class AddressRefused(DialFault):
    """The name stands for an address or port that webhooks may not reach. The text does not tell
    what lives there.
    """


class ResolverAway(DialFault):
    """Names cannot be resolved at the moment, and this one is not known to be the only one."""


class NetworkAway(DialFault):
    """This machine cannot make connections: no route, or no more sockets."""


class ProxyAway(DialFault):
    """The proxy that all calls go through cannot be reached, or refuses to serve us."""
