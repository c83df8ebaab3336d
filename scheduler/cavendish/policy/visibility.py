"""Pure: whether the API knows any id of an account and service under the token that is used.

The API hides the tasks of other owners, and its gateway does not check the token for every service.
So a wrong token, or one of another owner, looks as if no id existed. A token is blind until the API
knows a first id under it, and again after ENOUGH absent ids without a known one. While it is blind
no id becomes unknown: all wait for their deadline.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cavendish.model import TrackedTask
from cavendish.stored_json import compact, read

#: Absent ids in a row after which a token counts as blind although ids were known under it.
ENOUGH = 20
#: Absent ids from which operators are alerted: fewer may be typing errors at a new account.
ALARMING = 5
#: Seconds for which a blind token is reported after the last absent id, and between two notes of
#: when that was.
REPORTED_FOR, NOTED_EVERY = 3600.0, 60.0
#: Longest wait between two polls of an absent id under a blind token, in seconds.
LONGEST_WAIT = 300.0


@dataclass(frozen=True, slots=True)
class Visibility:
    """What one token sees of one service.

    `token` is its keyed fingerprint; `known`: the API knew an id under it. Absences of a task count
    from `counts_from` on. `absent` ids in a row were absent, the last at `absent_at`; the token is
    blind since `blind_since`. Times are in seconds since the epoch, 0 for never.
    """

    token: str = ""
    known: bool = False
    counts_from: float = 0.0
    absent: int = 0
    absent_at: float = 0.0
    blind_since: float = 0.0

    @classmethod
    def from_json(cls, text: object) -> Visibility:
        """Read what `to_json` wrote; anything unreadable is a token that was never used."""
        return read(cls, text) or cls()

    def to_json(self) -> str:
        """The JSON text that is stored."""
        return compact(self)

    @property
    def blind(self) -> bool:
        """True while an absence proves nothing."""
        return not self.known or self.absent >= ENOUGH

    @property
    def alarming(self) -> bool:
        """True if operators must know that it is blind."""
        return self.blind and self.absent >= ALARMING

    @property
    def reason(self) -> str:
        """What the API does, as a sentence without a full stop."""
        last = "the last " if self.known else ""
        ids = f"{last}{self.absent} ids" if self.absent > 1 else f"{self.absent} id"
        return f"the API answers, but knows none of {ids} under this token"

    def reported(self, now: float) -> bool:
        """True if it is blind, and ids were absent lately."""
        return self.blind and self.absent > 0 and now - self.absent_at < REPORTED_FOR

    def first_absence(self, task: TrackedTask) -> bool:
        """True if no absence of a task counts yet."""
        return not task.absences or (task.absent_since or 0.0) < self.counts_from

    def wait(self, absences: int, first: float) -> float:
        """Seconds until the next poll of a task that was absent so often in a row.

        `first` if an absence proves something; else the waits double, as they may go on for days.
        """
        return min(first * 2.0 ** min(absences - 1, 32), LONGEST_WAIT) if self.blind else first


def used(visibility: Visibility, token: str, now: float) -> Visibility:
    """The API answered under this token; another one than before has seen nothing yet."""
    if visibility.token == token:
        return visibility
    return Visibility(token, counts_from=now)


def saw(visibility: Visibility, now: float) -> Visibility:
    """The API knew an id. The absences of a blind time do not count."""
    counts_from = now if visibility.blind else visibility.counts_from
    return Visibility(visibility.token, known=True, counts_from=counts_from)


def missed(visibility: Visibility, ids: int, now: float) -> Visibility:
    """Ids were absent; `ids` of them for the first time."""
    if not ids and now - visibility.absent_at < NOTED_EVERY:
        return visibility
    absent = visibility.absent + ids
    after = replace(visibility, absent=absent, absent_at=now)
    return replace(after, blind_since=visibility.blind_since or now) if after.blind else after
