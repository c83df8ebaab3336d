"""Pure: which tracked tasks are wanted, and the page of those that were found."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

from cavendish.arguments import complaint_about
from cavendish.endpoints.webhook_endpoint import endpoint_of, subscription_of_group
from cavendish.errors import SubmissionError
from cavendish.model import Lane, State, TrackedTask

_ALL_TIME = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """The tracked tasks that match all that is given; None matches any.

    - `service`, `account`, `producer`, `model`, `key`, `group`: as they were submitted;
    - `state`: one of them, or several, such as `["failed", "expired"]`;
    - `endpoint`: the name or the URL of an endpoint that one of its webhooks goes to;
    - `since`, `until`: seconds since the Unix epoch, both included, compared with the end of a
      task, or with its submit while it is pending.

    Raises SubmissionError for a state that does not exist, and for a value of another type.
    """

    service: str | None = None
    account: str | None = None
    state: str | Iterable[str] | None = None
    producer: str | None = None
    model: str | None = None
    key: str | None = None
    group: str | None = None
    endpoint: str | None = None
    since: float | None = None
    until: float | None = None

    def __post_init__(self) -> None:
        told = {each: getattr(self, each) for each in self.__slots__}
        if complaint := complaint_about(told, _hints()):
            raise SubmissionError(complaint)
        if not isinstance(self.state, str | None):  # it is read more than once
            object.__setattr__(self, "state", tuple(map(str, self.state)))
        if self.state == ():
            raise SubmissionError("`state` must name a state; without it, a filter means all.")
        known = [state.value for state in State]
        for state in states_of(self):
            if state not in known:
                states = ", ".join(known)
                raise SubmissionError(f"There is no state {state!r}; the states are {states}.")
        for name in ("since", "until"):
            at = getattr(self, name)
            if at is not None and not math.isfinite(at):
                raise SubmissionError(f"`{name}` must be a number of seconds, not {at!r}.")


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the tracked tasks that match a filter: `items`, the newest submits first.

    `next`: the cursor of the next page, an opaque printable text; None: there are no more. A page
    may hold fewer items than were asked for, even none, and have a `next`: where few of many tasks
    match, a page ends before it took too long.
    """

    items: tuple[TrackedTask, ...]
    next: str | None


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(Filter)


def states_of(found: Filter) -> tuple[str, ...]:
    """The states that a filter wants; none: all."""
    if found.state is None or isinstance(found.state, str):
        return () if found.state is None else (str(found.state),)
    return tuple(sorted({str(each) for each in found.state}))


def fields_of(found: Filter) -> dict[str, str]:
    """What a filter wants fields of a record to be."""
    given = {"producer": found.producer, "model": found.model, "key": found.key}
    return {name: value for name, value in given.items() if value is not None}


def times_of(found: Filter) -> tuple[float, float]:
    """The first and the last second that a filter wants."""
    since, until = found.since, found.until
    return (0.0 if since is None else since), (_ALL_TIME if until is None else until)


def told_to(found: Filter) -> tuple[str, ...]:
    """What a filter wants the end of a task to be told to: an endpoint, and a group."""
    endpoint = () if found.endpoint is None else (endpoint_of(found.endpoint),)
    group = () if found.group is None else (subscription_of_group(found.group),)
    return endpoint + group


def includes(found: Filter, lane: Lane) -> bool:
    """True if tasks of a lane may match a filter."""
    return found.service in (None, lane.service) and found.account in (None, lane.account)


def mark_of(found: Filter) -> str:
    """A short text that equal filters share."""
    place = found.service, found.account, states_of(found), sorted(fields_of(found).items())
    text = repr((*place, told_to(found), times_of(found)))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
