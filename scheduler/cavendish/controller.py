"""Carries out what operators want while everything runs: checks it, and stores it."""

from __future__ import annotations

import getpass
import os
import socket

from cavendish.errors import SubmissionError
from cavendish.policy.operator_controls import Pause, RateCeiling
from cavendish.service_names import SERVICE
from cavendish.store import Store
from cavendish.store.due_index import Place
from cavendish.stored_json import END_OF_TIME
from cavendish.submission import checked_account

#: Characters of a reason and of a name, at most.
LONGEST = 200
#: Calls per second: the bounds of CAVENDISH_RATE.
LEAST_CALLS, MOST_CALLS = 0.01, 100_000.0


class Controller:
    """Every method raises StoreUnavailable, and SubmissionError for values that are not valid."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def pause(
        self,
        account: str,
        service: str | None,
        seconds: float | None,
        until: float | None,
        reason: str,
        by: str | None,
    ) -> Pause:
        """Pause an account, or a service of it; see `Client.pause`."""
        _check_names(account, service)
        if seconds is not None and until is not None:
            raise SubmissionError("Give either `seconds` or `until`, not both.")
        now = self._store.fleet.now()
        until = until if seconds is None else now + _number(seconds, "seconds")
        if until is not None and not now < _number(until, "until") < END_OF_TIME:
            raise SubmissionError("A pause must end in the future, and before the year 10000.")
        new = Pause(account, service, now, until, _name(by), checked_text(reason, "reason"))
        before = self._store.controls.read().pauses.get(new.name)
        if before and before.in_force(now):
            new = Pause(account, service, before.since, until, new.by, new.reason, replaced=True)
        self._store.controls.pause(new)
        return new

    def resume(self, account: str, service: str | None) -> Pause | None:
        """End the pause of an account, or of a service of it; see `Client.resume`."""
        _check_names(account, service)
        now = self._store.fleet.now()
        name = account if service is None else f"{account}/{service}"
        ended = self._store.controls.read().pauses.get(name)
        if ended is None:
            return None
        self._store.controls.end_pause(name)
        if service is not None:
            self._look_at(account, service, now)
        return ended if ended.in_force(now) else None

    def pauses(self) -> list[Pause]:
        """All pauses that are in force, by account and service."""
        return self._store.controls.read().in_force(self._store.fleet.now())

    def set_rate_ceiling(
        self, account: str, calls: float | None, by: str | None
    ) -> RateCeiling | None:
        """Set or remove the rate ceiling of an account; see `Client.set_rate_ceiling`."""
        _check_names(account, None)
        if calls is None:
            self._store.controls.end_ceiling(account)
            return None
        if not LEAST_CALLS <= _number(calls, "calls") <= MOST_CALLS:
            raise SubmissionError(
                f"`calls` must lie within {LEAST_CALLS:g} and {MOST_CALLS:.0f} calls per second."
            )
        ceiling = RateCeiling(account, float(calls), self._store.fleet.now(), _name(by))
        self._store.controls.set_ceiling(ceiling)
        return ceiling

    def rate_ceilings(self) -> list[RateCeiling]:
        """All ceilings that operators have set, by account."""
        return [one for _, one in sorted(self._store.controls.read().ceilings.items())]

    def _look_at(self, account: str, service: str, now: float) -> None:
        """Let the dispatch look at the lanes of a service at once: it had put them off."""
        tasks = self._store.tasks
        lanes = [one for one in tasks.lanes() if (one.account, one.service) == (account, service)]
        places = [Place(name, lane, now) for lane in lanes for name in tasks.producers(lane)]
        tasks.due(account).note(places, now)


def whoever_calls() -> str:
    """The user and the host of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _check_names(account: object, service: object) -> None:
    checked_account(account)
    if service is not None and not (isinstance(service, str) and SERVICE.fullmatch(service)):
        raise SubmissionError(
            "A service must be a name of 1 to 40 of the characters a-z, 0-9 and '-'.", "service"
        )


def _name(by: str | None) -> str:
    return checked_text(whoever_calls() if by is None else by, "by") or whoever_calls()


def checked_text(value: object, name: str) -> str:
    """A reason or a name, without white space around it. Raises SubmissionError."""
    if not isinstance(value, str) or len(value) > LONGEST or not value.isprintable():
        raise SubmissionError(f"`{name}` must be a text of at most {LONGEST} printable characters.")
    return value.strip()


def _number(value: object, name: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) < END_OF_TIME:  # type: ignore[arg-type]
        raise SubmissionError(f"`{name}` must be a number of ordinary size.")
    return float(value)  # type: ignore[arg-type]
