"""Pure: what the item of the API about an id means (its verdict), and the state that follows.

The remote API has no status word that all its services share, and its own clients disagree about
the same body. The rules here: an explicit failure wins; media count only if no status word says
that the job still runs; an acknowledgement without data is pending; an unknown status word is
pending and is reported. An answer of an unexpected shape is pending too: only its deadline ends
such an id.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cavendish.model import Record, State, TrackedTask, printable
from cavendish.policy.visibility import Visibility

RUNNING = frozenset(
    "pending processing queued queueing running generating planning producing submitted "
    "submitting starting started waiting created accepted in_progress in_queue not_start "
    "throttling streaming preparing".split()
)
SUCCESSFUL = frozenset(
    "succeeded succeed success successful completed complete done finished ready ok".split()
)
UNSUCCESSFUL = frozenset(
    "failed failure fail error errored cancelled canceled dead timeout rejected aborted".split()
)

_NO_RESULT = frozenset(
    "task_id trace_id id success state status progress code message detail error".split()
)
_NOT_MEDIA = tuple(
    "callback input init prompt reference request source status poll webhook".split()
)

_REASON_LENGTH = 500
_DEPTH = 12


#: A number of seconds or milliseconds, as text.
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")


class Verdict(StrEnum):
    """What one answer of the API says about one id."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABSENT = "absent"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class Reading:
    """A verdict, and what else the record says.

    `reason` says why it failed, `notice` what an operator should know about the record. Times are
    in seconds since the epoch.
    """

    verdict: Verdict
    reason: str = ""
    notice: str = ""
    model: str = ""
    finished_at: float | None = None


ABSENT = Reading(Verdict.ABSENT)


def classify(record: Any) -> Reading:
    """Read one upstream record; `None` and `{}` mean that the API has none. Never raises."""
    if not record:
        return ABSENT
    if not isinstance(record, Mapping):
        return Reading(Verdict.PENDING, notice=f"the record is a {type(record).__name__}")
    response = response_of(record)
    places = (record, response) if isinstance(response, Mapping) else (record,)
    # Only a time that can be read counts: a zero date stands for none.
    times = (timestamp(place.get("finished_at")) for place in places)
    finished_at = next((time for time in times if time is not None), None)
    verdict, reason, notice = _verdict(record, response, finished=finished_at is not None)
    request = record.get("request")
    model = request.get("model") if isinstance(request, Mapping) else None
    return Reading(
        verdict,
        printable(reason, _REASON_LENGTH),
        printable(notice, _REASON_LENGTH),
        model[:100] if isinstance(model, str) and model.isprintable() else "",
        finished_at,
    )


def _verdict(record: Record, response: Any, *, finished: bool) -> tuple[Verdict, str, str]:
    if not isinstance(response, Mapping):
        notice = "" if response is None else f"the response is a {type(response).__name__}"
        return Verdict.PENDING, "", notice
    success, error = response.get("success"), response.get("error") or record.get("error")
    words = set(_status_words(record, response))
    unknown = sorted(words - RUNNING - SUCCESSFUL - UNSUCCESSFUL)
    media = next(_media(response), None) is not None

    if success is False and (isinstance(error, Mapping) or finished):
        return Verdict.FAILED, _reason(error, response), ""
    if success is not False and error and not media:
        return Verdict.FAILED, _reason(error, response), ""
    if _native_failure(response):
        return Verdict.FAILED, _reason(response, response), ""
    notice = f"unknown status word {unknown[0]!r}" if unknown else ""
    running = unknown or words & RUNNING or (_progress(response) < 100 and not words & SUCCESSFUL)
    if running and not (finished and media):
        return Verdict.PENDING, "", notice
    if words & UNSUCCESSFUL and (not media or words <= UNSUCCESSFUL):
        return Verdict.FAILED, _reason(error, response), ""
    if success is False:
        return Verdict.PENDING, "", ""
    if media:
        return Verdict.SUCCEEDED, "", notice
    if words & SUCCESSFUL or (finished and (success is True or _substance(response))):
        return Verdict.SUCCEEDED, "", "finished without any media"
    return Verdict.PENDING, "", ""


def response_of(record: Record) -> Any:
    """The `response` of a record; some documents show records that are their own response."""
    if "response" in record:
        return record["response"]
    bare = "request" not in record and not record.keys().isdisjoint(("success", "data", "error"))
    return record if bare else None


def timestamp(value: Any) -> float | None:
    """Seconds since the epoch from a number, also as text, or an ISO-8601 text; else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, int | float):
        seconds = float(value) if abs(value) < 1e15 else math.inf
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    else:
        return None
    if seconds > 1e11:  # milliseconds
        seconds /= 1000
    return seconds if 0 < seconds < 1e11 else None


def _status_words(record: Record, response: Mapping[str, Any]) -> Iterator[str]:
    for place in (record, *_places(response)):
        for key in ("state", "status"):
            word = place.get(key)
            if isinstance(word, str) and word.strip():
                yield word.strip().lower().replace("-", "_").replace(" ", "_")


def _places(response: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The response itself, and its first thousand items of data."""
    data = response.get("data")
    items = data[:1000] if isinstance(data, list) else [data]
    return (place for place in (response, *items) if isinstance(place, Mapping))


def _progress(response: Mapping[str, Any]) -> float:
    """Percent done, 100 if the response does not say."""
    found = [100.0]
    for place in _places(response):
        value = place.get("progress")
        if isinstance(value, str):
            try:
                value = float(value.strip().rstrip("%"))
            except ValueError:
                continue
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100:
            found.append(float(value))
    return min(found)


def _media(value: Any, depth: int = 0, key: str = "") -> Iterator[str]:
    """Every URL of a result: texts under keys that end in `url` or `urls`, without the input."""
    if depth > _DEPTH:
        return
    if isinstance(value, str):
        if (
            key.endswith(("url", "urls"))
            and value.startswith(("http://", "https://", "data:"))
            and len(value) > len("https://")
        ):
            yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            lower = str(name).lower()
            if not lower.startswith(_NOT_MEDIA):
                yield from _media(inner, depth + 1, lower)
    elif isinstance(value, list):
        for inner in value:
            yield from _media(inner, depth + 1, key)


def _substance(response: Mapping[str, Any]) -> bool:
    """True if a response holds more than ids, status words and error texts."""
    return any(value for key, value in response.items() if key not in _NO_RESULT)


def _native_failure(response: Mapping[str, Any]) -> bool:
    """True for the bare `{"status": 4xx, "message": …}` of a service whose provider refused."""
    status = response.get("status")
    return (
        isinstance(status, int)
        and not isinstance(status, bool)
        and 400 <= status < 600
        and "success" not in response
    )


def _reason(error: Any, response: Mapping[str, Any]) -> str:
    if isinstance(error, Mapping):
        code = error.get("code") or error.get("status") or ""
        message = error.get("message") or error.get("detail") or ""
    else:
        code, message = "", error or response.get("message")
    words = [
        str(word)
        for word in (code, message)
        if isinstance(word, str | float) or (isinstance(word, int) and abs(word) < 1e15)
    ]
    return ": ".join(word for word in words if word) or "the API gives no reason for the failure"


def match(items: Sequence[Any], ids: Iterable[str]) -> dict[str, tuple[Reading, Record]]:
    """The readings and records of the ids that were asked about, found by id, never by position.

    Other items are ignored; of duplicates the first that ended counts, else the first.
    """
    wanted, found = set(ids), dict[str, tuple[Reading, Record]]()
    for record in items:
        if not isinstance(record, Mapping):
            continue
        task_id = record.get("id") or record.get("task_id")
        if not isinstance(task_id, str) or task_id not in wanted:
            continue
        reading = classify(record)
        first = found.setdefault(task_id, (reading, record))[0].verdict
        if first is Verdict.PENDING and reading.verdict is not Verdict.PENDING:
            found[task_id] = (reading, record)
    return found


@dataclass(frozen=True, slots=True)
class AbsencePolicy:
    """When an id that the API does not find is given up as unknown.

    That is after `polls` confirmed absences that span at least `over` seconds. Absences within
    `grace` seconds after the submit do not count.
    """

    grace: float
    polls: int
    over: float

    def too_early(self, task: TrackedTask, now: float) -> bool:
        """True while the API may not show the record yet."""
        return now - task.submitted_at < self.grace


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is written to the store: a terminal state, or pending.

    `polled`: it follows from a poll; `silent`: no webhooks are sent.
    """

    task: TrackedTask
    state: State
    reason: str = ""
    absences: int = 0
    absent_since: float | None = None
    finished_at: float | None = None
    model: str = ""
    record: Record | None = None
    polled: bool = True
    silent: bool = False


#: A token under which ids are known.
SEEING = Visibility(known=True)
_ENDED = {Verdict.SUCCEEDED: State.SUCCEEDED, Verdict.FAILED: State.FAILED}


def decide(
    task: TrackedTask,
    reading: Reading,
    record: Record | None,
    now: float,
    policy: AbsencePolicy,
    visibility: Visibility = SEEING,
) -> Outcome:
    """What follows from a reading, under a token of this `visibility`.

    FORBIDDEN must have been confirmed by a poll of that single id, and so must ABSENT, unless the
    token is blind.
    """
    model, finished_at = reading.model, reading.finished_at
    if state := _ENDED.get(reading.verdict):
        why = reading.notice if state is State.SUCCEEDED else reading.reason
        return Outcome(task, state, why, finished_at=finished_at, model=model, record=record)
    absences, absent_since = 0, None
    if reading.verdict in (Verdict.ABSENT, Verdict.FORBIDDEN) and not policy.too_early(task, now):
        absences, absent_since = 1, now
        if not visibility.first_absence(task):
            absences, absent_since = task.absences + 1, task.absent_since or now
        over, hidden = now - absent_since, visibility.blind and reading.verdict is Verdict.ABSENT
        if absences >= policy.polls and over >= policy.over and not hidden:
            if reading.verdict is Verdict.FORBIDDEN:
                return Outcome(task, State.FAILED, reading.reason, absences, absent_since)
            why = f"the API reported the id as not found in {absences} polls over {over:.0f} s"
            return Outcome(task, State.UNKNOWN, why, absences, absent_since)
    if now >= task.deadline_at:
        why = f"the deadline passed; the last poll found it {reading.verdict}"
        if visibility.blind and absences and reading.verdict is Verdict.ABSENT:
            why += f"; {visibility.reason}: it may be that of another owner"
        return Outcome(task, State.EXPIRED, why, model=model, record=record)
    return Outcome(task, State.PENDING, absences=absences, absent_since=absent_since, model=model)
