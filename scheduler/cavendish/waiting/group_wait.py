"""Waits until a group is complete: when to read it again, and how the wait ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from cavendish.errors import SubmissionError, WaitTimeout
from cavendish.model import Group

#: Seconds after which a group is read again: its completion makes an event, other ends in it none.
_AGAIN = 1.0


class GroupWait:
    """One `Client.wait_group`, whose options these are. `group` is what was read last."""

    def __init__(
        self,
        name: str,
        account: str,
        timeout: float | None,
        progress: Callable[[Group], None] | None,
    ) -> None:
        self._name, self._account, self._progress = name, account, progress
        self._timeout = timeout or 0.0
        self._until = math.inf if timeout is None else time.monotonic() + timeout
        self._told: Group | None = None
        self.group: Group

    def next_read(self, found: Group | None) -> float:
        """Seconds until the group is to be read again, if nothing is heard before; 0: never.

        Raises WaitTimeout, and SubmissionError if there is no such group.
        """
        if found is None:
            raise SubmissionError(
                f"No group of the account {self._account!r} is called {self._name!r}."
            )
        if self._progress and found != self._told:
            self._progress(found)
        self.group = self._told = found
        if found.completed_at is not None:
            return 0.0
        left = self._until - time.monotonic()
        if left <= 0:
            raise WaitTimeout([self._name], self._timeout, f"The {found}")
        return min(left, _AGAIN)
