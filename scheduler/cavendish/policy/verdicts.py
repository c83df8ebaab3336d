"""Pure: what does this answer mean, and what follows from it.

The remote API has no status word of its own that all services share, and its own clients disagree
about the same body. The rule here is the defensible one: a failure that is spelt out wins; media
count only when no word says that the job still runs; an acknowledgement without data is pending; a
word that nobody knows is pending and gets noticed. An answer of a strange shape is pending too:
only its deadline ends such an id.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cavendish.model import Record, State, TrackedTask, printable

RUNNING = frozenset(
    "pending processing queued queueing running generating planning producing submitted submitting starting started "
    "waiting created accepted in_progress in_queue not_start throttling streaming preparing".split()
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
_NOT_MEDIA = (
    "callback",
    "input",
    "init",
    "prompt",
    "reference",
    "request",
    "source",
    "status",
    "poll",
    "webhook",
)

_REASON_LENGTH = 500
_DEPTH = 12


class Verdict(StrEnum):
    """What one answer says about one id."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABSENT = "absent"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class Reading:
    """A verdict with what else the record says.

    `notice` is something odd that a person should hear of.
    """

    verdict: Verdict
    reason: str = ""
    notice: str = ""
    model: str = ""
    created_at: float | None = None
    finished_at: float | None = None


ABSENT = Reading(Verdict.ABSENT)


def classify(record: Any) -> Reading:
    """Read one upstream record.

    `None` and `{}` mean that the API does not know the id. Never raises.
    """
    if not record:
        return ABSENT
    if not isinstance(record, Mapping):
        return Reading(Verdict.PENDING, notice=f"the record is a {type(record).__name__}")
    finished_at = timestamp(record.get("finished_at"))
    verdict, reason, notice = _verdict(record, finished=bool(record.get("finished_at")))
    request = record.get("request")
    model = request.get("model") if isinstance(request, Mapping) else None
    return Reading(
        verdict,
        printable(reason, _REASON_LENGTH),
        printable(notice, _REASON_LENGTH),
        model[:100] if isinstance(model, str) and model.isprintable() else "",
        timestamp(record.get("created_at")),
        finished_at,
    )


def _verdict(record: Record, *, finished: bool) -> tuple[Verdict, str, str]:
    response = response_of(record)
    if not isinstance(response, Mapping):
        odd = "" if response is None else f"the response is a {type(response).__name__}"
        return Verdict.PENDING, "", odd
    success, error = response.get("success"), response.get("error") or record.get("error")
    words = set(_status_words(record, response))
    strange = sorted(words - RUNNING - SUCCESSFUL - UNSUCCESSFUL)
    media = next(_media(response), None) is not None

    if success is False and (isinstance(error, Mapping) or finished):
        return Verdict.FAILED, _reason(error, response), ""
    if success is not False and error and not media:
        return Verdict.FAILED, _reason(error, response), ""
    if _native_failure(response):
        return Verdict.FAILED, _reason(response, response), ""
    notice = f"unknown status word {strange[0]!r}" if strange else ""
    running = strange or words & RUNNING or (_progress(response) < 100 and not words & SUCCESSFUL)
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
    """The `response` of a record.

    A record that is its own response (some guides show one) is taken as such.
    """
    if "response" in record:
        return record["response"]
    unwrapped = "request" not in record and any(
        key in record for key in ("success", "data", "error")
    )
    return record if unwrapped else None


def timestamp(value: Any) -> float | None:
    """Seconds since the epoch from a float, an int or an ISO-8601 text; None for anything else."""
    if isinstance(value, bool):
        return None
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
    data = response.get("data")
    items = data if isinstance(data, list) else [data]
    for place in (record, response, *items[:1000]):
        if isinstance(place, Mapping):
            for key in ("state", "status"):
                word = place.get(key)
                if isinstance(word, str) and word.strip():
                    yield word.strip().lower().replace("-", "_").replace(" ", "_")


def _progress(response: Mapping[str, Any]) -> float:
    """Percent done, 100 where nothing is said."""
    data = response.get("data")
    items = data if isinstance(data, list) else [data]
    found = [100.0]
    for place in (response, *items[:1000]):
        value = place.get("progress") if isinstance(place, Mapping) else None
        if isinstance(value, str):
            try:
                value = float(value.strip().rstrip("%"))
            except ValueError:
                continue
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100:
            found.append(float(value))
    return min(found)


def _media(value: Any, depth: int = 0, key: str = "") -> Iterator[str]:
    """Every URL of a result in a response.

    Texts under keys that end in `url` or `urls`, not what was sent in.
    """
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
    """True if a response without a success flag holds a result.

    More than ids, words of state and words of excuse.
    """
    return any(value for key, value in response.items() if key not in _NO_RESULT)


def _native_failure(response: Mapping[str, Any]) -> bool:
    """The bare `{"status".

    4xx, "message": …}` that one service stores when its provider refused.
    """
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
        words = [
            str(word)
            for word in (code, message)
            if isinstance(word, str) or (isinstance(word, int) and abs(word) < 1e15)
        ]
        text = ": ".join(word for word in words if word)
    else:
        said = error or response.get("message")
        text = (
            str(said)
            if isinstance(said, str | float) or (isinstance(said, int) and abs(said) < 1e15)
            else ""
        )
    return text or "the API says that it failed, and not why"


def match(items: Sequence[Record], ids: Iterable[str]) -> dict[str, tuple[Reading, Record]]:
    """Find the asked ids in the items of an answer: by id, never by place or count.

    Foreign items are passed over; of duplicates the first that ended counts, else the first.
    """
    wanted, found = set(ids), dict[str, tuple[Reading, Record]]()
    for record in items:
        task_id = (
            (record.get("id") or record.get("task_id")) if isinstance(record, Mapping) else None
        )
        if not isinstance(task_id, str) or task_id not in wanted:
            continue
        reading = classify(record)
        if task_id not in found or (
            found[task_id][0].verdict is Verdict.PENDING and reading.verdict is not Verdict.PENDING
        ):
            found[task_id] = (reading, record)
    return found


@dataclass(frozen=True, slots=True)
class Patience:
    """When an absent id is given up.

    After `attempts` confirmed absences that span at least `over` seconds.
    """

    grace: float
    attempts: int
    over: float

    def too_early(self, task: TrackedTask, now: float) -> bool:
        """True while a record may simply not be visible yet."""
        return now - task.submitted_at < self.grace


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is written back for one poll: a terminal state, or pending and when to look again."""

    task: TrackedTask
    state: State
    reason: str = ""
    absences: int = 0
    absent_since: float | None = None
    finished_at: float | None = None
    model: str = ""
    record: Record | None = None


def decide(
    task: TrackedTask, reading: Reading, record: Record | None, now: float, patience: Patience
) -> Outcome:
    """What follows from a reading.

    ABSENT and FORBIDDEN count when they were confirmed by a poll at that one id.
    """
    model, finished_at = reading.model, reading.finished_at
    if reading.verdict is Verdict.SUCCEEDED:
        return Outcome(
            task,
            State.SUCCEEDED,
            reading.notice,
            finished_at=finished_at,
            model=model,
            record=record,
        )
    if reading.verdict is Verdict.FAILED:
        return Outcome(
            task, State.FAILED, reading.reason, finished_at=finished_at, model=model, record=record
        )
    absences, absent_since = 0, None
    if reading.verdict in (Verdict.ABSENT, Verdict.FORBIDDEN) and not patience.too_early(task, now):
        absences, absent_since = task.absences + 1, task.absent_since or now
        if absences >= patience.attempts and now - absent_since >= patience.over:
            if reading.verdict is Verdict.FORBIDDEN:
                return Outcome(task, State.FAILED, reading.reason, absences, absent_since)
            why = f"the API did not know the id in {absences} polls over {now - absent_since:.0f} s"
            return Outcome(task, State.UNKNOWN, why, absences, absent_since)
    if now >= task.deadline_at:
        why = f"the deadline passed and the last poll found it {reading.verdict}"
        return Outcome(task, State.EXPIRED, why, model=model, record=record)
    return Outcome(task, State.PENDING, absences=absences, absent_since=absent_since, model=model)
