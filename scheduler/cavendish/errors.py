"""Every error that Cavendish raises on purpose, as one tree. Each message is one plain sentence.

CavendishError
├── SettingsError            settings that cannot be used; holds every complaint at once
├── SubmissionError          a request that is refused as a whole, and wrote nothing
│   └── QuotaExceeded        a submit for which its producer has no room
├── EndpointError            a webhook endpoint that is missing, or cannot be registered
├── StoreUnavailable         Redis does not answer, or refuses to write
│   ├── StoreFormatError     the store has a format that this version cannot read
│   └── ServerTooOld         the Redis server lacks commands that Cavendish uses
├── WaitTimeout              `Client.wait` ran out of time; holds the ids still pending
├── ClientClosed             a client was closed before or while it was used
├── EventsMissed             events were trimmed before they were read; holds where to continue
└── StackError               `cavendish up` cannot start or keep a part of the stack
"""

from __future__ import annotations

from collections.abc import Sequence


class CavendishError(Exception):
    """Root of every error that Cavendish raises on purpose."""


class SettingsError(CavendishError):
    """One or more settings cannot be used.

    `complaints` holds one sentence for each, which begins with the environment name.
    """

    def __init__(self, complaints: Sequence[str]) -> None:
        super().__init__("\n".join(complaints))
        self.complaints = tuple(complaints)


class SubmissionError(CavendishError, ValueError):
    """A request was refused as a whole; nothing was written.

    `kind`: what is wrong with it, in one word: "service", "endpoint" (not registered), "webhook",
    "ids", "quota" or "option".
    """

    def __init__(self, message: str, kind: str = "option") -> None:
        super().__init__(message)
        self.kind = kind


class QuotaExceeded(SubmissionError):
    """The producer of a submit has too many ids or bytes in the store; nothing was written.

    There is room again when ids end and their records expire.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, "quota")


class EndpointError(CavendishError):
    """A command about a webhook endpoint cannot be carried out; nothing was changed.

    `kind`: why, in one word: "missing" (not known), "taken" (the name is) or "option".
    """

    def __init__(self, message: str, kind: str = "option") -> None:
        super().__init__(message)
        self.kind = kind


class StoreUnavailable(CavendishError):
    """Redis does not answer, or refuses to write.

    A submit that was not acknowledged may have been written or not; submit it again, which is
    idempotent.
    """


class StoreFormatError(StoreUnavailable):
    """The store has a format that this version of Cavendish cannot read. Nothing was written."""


class ServerTooOld(StoreUnavailable):
    """The server is older than Redis 6.2, and no Valkey. Nothing was written."""


class WaitTimeout(CavendishError, TimeoutError):
    """A `wait` ran out of time.

    `pending` are the ids that have not ended, and stay tracked, or the one group that was waited
    for.
    """

    def __init__(self, pending: Sequence[str], timeout: float, group: str = "") -> None:
        """`group`: where a group stands, which is then all that is pending."""
        said = group or f"{len(pending)} of the tracked tasks had not ended"
        super().__init__(f"{said} after {timeout:g} s.")
        self.pending = tuple(pending)


class ClientClosed(CavendishError, RuntimeError):
    """A client was closed while a `wait` ran, or an AsyncClient was used after its `close`."""


class EventsMissed(CavendishError):
    """Events of the `lanes` were trimmed before they were read.

    Reading after `position` continues with the oldest that is kept, and repeats nothing.
    """

    def __init__(self, lanes: Sequence[str], position: str) -> None:
        others = f" and {len(lanes) - 1} more" if len(lanes) > 1 else ""
        super().__init__(
            f"Events of {lanes[0]}{others} were trimmed before they were read "
            f"(CAVENDISH_EVENTS_KEPT); the oldest that are kept follow the position {position}"
        )
        self.lanes = tuple(lanes)
        self.position = position


class StackError(CavendishError):
    """`cavendish up` cannot start a part of the stack, or keep it running."""
