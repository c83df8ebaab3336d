"""Pure: the options of a registered endpoint, and the endpoint that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cavendish.endpoints.webhook_endpoint import Endpoint, Header
from cavendish.endpoints.webhook_events import ALL, events_complaint
from cavendish.endpoints.webhook_headers import headers_complaint
from cavendish.policy.backoff import LIKE_DEFAULT, RetrySchedule

#: What can take its default again.
RESETS = ("events", "headers", "rate", "retries")
#: The most calls a minute that can be asked for.
FASTEST = 1_000_000
#: Encrypts a value for an endpoint and its header, each by its name.
Seal = Callable[[str, str, str], str]


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """What is named; None and empty change nothing.

    `events`: kinds of webhooks, `all` for all; `headers`: name -> value, which may be secret;
    `removed`: headers to remove; `rate`: calls a minute; `retries` after the first attempt, within
    `retry_for` seconds; `reset`: which of RESETS take their default again.
    """

    url: str | None = None
    events: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    removed: tuple[str, ...] = ()
    rate: float | None = None
    retries: int | None = None
    retry_for: float | None = None
    reset: frozenset[str] = frozenset()

    @property
    def of_consent(self) -> bool:
        """True if an endpoint that has consented must be asked anew."""
        return self.url is not None or self.rate is not None or "rate" in self.reset

    def complaint(self, known: Endpoint) -> str | None:
        """Why an endpoint cannot be like this, or None. Its URL is checked where it is dialled."""
        kept = [header.name for header in self._kept_headers(known)]
        gone = {name.lower() for name in self.removed}
        if missing := gone - {header.name.lower() for header in known.headers}:
            return f"{known.name} has no header {min(missing)}"
        if self.rate is not None and not 1 <= self.rate <= FASTEST:
            return f"the rate is 1 to {FASTEST} calls a minute"
        chosen = [event for event in self.events if event != ALL]
        schedule = self._schedule(known)
        return (
            events_complaint(chosen)
            or headers_complaint(self.headers, kept)
            or (schedule.complaint if schedule else None)
        )

    def applied(self, known: Endpoint, seal: Seal) -> Endpoint:
        """The endpoint with what is named; everything else stays."""
        events = () if "events" in self.reset else known.events
        if self.events:
            events = () if ALL in self.events else tuple(dict.fromkeys(self.events))
        added = [
            Header(name, seal(known.name, value, name)) for name, value in self.headers.items()
        ]
        return replace(
            known,
            url=known.url if self.url is None else self.url,
            events=events,
            headers=(*self._kept_headers(known), *added),
            rate=self.rate or (None if "rate" in self.reset else known.rate),
            schedule=self._schedule(known),
        )

    def _kept_headers(self, known: Endpoint) -> list[Header]:
        gone = {name.lower() for name in (*self.removed, *self.headers)}
        if "headers" in self.reset:
            return []
        return [header for header in known.headers if header.name.lower() not in gone]

    def _schedule(self, known: Endpoint) -> RetrySchedule | None:
        before = None if "retries" in self.reset else known.schedule
        if self.retries is None and self.retry_for is None:
            return before
        schedule = before or LIKE_DEFAULT
        retries = schedule.retries if self.retries is None else self.retries
        seconds = schedule.seconds if self.retry_for is None else self.retry_for
        return RetrySchedule(retries, seconds)


def shown(endpoint: Endpoint) -> dict[str, Any]:
    """What can be changed of an endpoint, as `--json` has it; of a header only the name."""
    schedule = endpoint.schedule or LIKE_DEFAULT
    return {
        "url": endpoint.url,
        "events": list(endpoint.events) or [ALL],
        "headers": [header.name for header in endpoint.headers],
        "rate": endpoint.rate,
        "per_minute": endpoint.calls_per_minute,
        "retries": schedule.retries,
        "retry_for": schedule.seconds,
    }
