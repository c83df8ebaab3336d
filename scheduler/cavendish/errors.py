"""What can go wrong, as one tree. Each message is one plain sentence for the person who reads it.

CavendishError
├── SettingsError       environment settings that make no sense; carries every complaint at once
├── SubmissionError     a submit that is refused as a whole (service, webhook, metadata, deadline
...) ├── EndpointError       a webhook endpoint that cannot be registered, is not there, or did not
give its consent ├── BookUnavailable     Redis did not answer, or refuses to write; what was not
acknowledged is handed in again │   ├── ForeignBook     Redis answers, but the store has a format
that this version of Cavendish cannot read │   └── ServerTooOld    what answers is a Redis without
the commands that are used ├── WaitTimeout         `Client.wait` ran out of time; carries what was
still pending ├── EventsMissed        events were trimmed from a stream before they were read;
carries where to go on └── StackError          `cavendish up` cannot start or keep a part of the
stack
"""

from __future__ import annotations

from collections.abc import Sequence


class CavendishError(Exception):
    """Root of every error that Cavendish raises on purpose."""


class SettingsError(CavendishError):
    """One or more settings are ill-formed.

    `complaints` holds a sentence for each, by environment name.
    """

    def __init__(self, complaints: Sequence[str]) -> None:
        super().__init__("\n".join(complaints))
        self.complaints = tuple(complaints)


class SubmissionError(CavendishError, ValueError):
    """A submit was refused as a whole; nothing of it was written."""


class EndpointError(CavendishError):
    """What was asked of a webhook endpoint cannot be done; nothing was changed."""


class StoreUnavailable(CavendishError):
    """Redis is away or refuses to write.

    What was not acknowledged may be written or not; to hand it in again is idempotent.
    """


class StoreFormatError(StoreUnavailable):
    """The store has a format that this version cannot read.

    It is there, but not for us. Nothing was written.
    """


class ServerTooOld(StoreUnavailable):
    """The server is older than what serves (Redis 6.2 or newer, or any Valkey).

    Nothing was written.
    """


class WaitTimeout(CavendishError, TimeoutError):
    """The time of a `wait` ran out.

    `pending` are the ids that have not ended yet; they are still tracked.
    """

    def __init__(self, pending: Sequence[str], timeout: float) -> None:
        super().__init__(f"{len(pending)} of the tracked tasks had not ended after {timeout:g} s.")
        self.pending = tuple(pending)


class EventsMissed(CavendishError):
    """Events of the `lanes` were trimmed away unread.

    `position` goes on with what is kept, and repeats nothing.
    """

    def __init__(self, lanes: Sequence[str], position: str) -> None:
        others = f" and {len(lanes) - 1} more" if len(lanes) > 1 else ""
        super().__init__(
            f"Events of {lanes[0]}{others} were trimmed before they were read (CAVENDISH_EVENTS_KEPT); "
            f"what is kept follows the position {position}"
        )
        self.lanes = tuple(lanes)
        self.position = position


class StackError(CavendishError):
    """A part of the stack on this machine cannot be started."""
