"""Pure: what a producer may submit. A wrong id is refused alone, anything else as a whole."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from cavendish.arguments import is_text
from cavendish.endpoints.webhook_endpoint import is_url, name_complaint
from cavendish.errors import SubmissionError
from cavendish.model import Task
from cavendish.policy.addresses import Network, webhook_complaint
from cavendish.service_names import SERVICE, is_allowed, proposal
from cavendish.stored_json import DEEPEST, compact, too_deep

ID_LENGTH = 200
METADATA_BYTES = 8 * 1024
SHORTEST_DEADLINE, LONGEST_DEADLINE = 1.0, 30 * 86400.0
WEBHOOKS = 8
LABEL_LENGTH = 100
KEY_LENGTH = 200
#: Ids that a group may have: one script writes all of them.
GROUP_SIZE = 10_000

_ACCOUNT = re.compile(r"[a-z0-9_-]{1,40}")
#: Version, trace, parent and flags of W3C Trace Context; a trace or parent of zeros is invalid.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """Everything that a submit says beside its ids, checked. `metadata` is JSON text, or ""."""

    service: str
    account: str
    webhooks: tuple[str, ...]
    deadline: float
    metadata: str
    model: str
    producer: str
    restart: bool
    trace: str = ""
    group: str = ""
    group_size: int | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """The ids of a submit: for each, in their order, its name and why it is refused, or None.

    `sound` are the others, each once; `metadata` is what some have of their own, as JSON texts;
    `keys` are those of some.
    """

    answers: list[tuple[Any, str | None]]
    sound: list[str]
    metadata: dict[str, str]
    keys: dict[str, str]


def check_ids(ids: Iterable[object]) -> Checked:
    """Check ids, each a text, a UUID or a `Task`. Of an id that comes twice the first counts."""
    answers: list[tuple[Any, str | None]] = []
    sound: dict[str, tuple[str, str]] = {}
    for one in ids:
        task = one if isinstance(one, Task) else None
        name = text_of(task.id if task else one)
        complaint, own = id_complaint(name), ("", "")
        if task and not complaint:
            try:
                own = _metadata(task.metadata), _key(text_of(task.key))
            except SubmissionError as error:
                complaint = str(error).removesuffix(".")  # others end it with their own
        answers.append((name, complaint))
        if not complaint:
            sound.setdefault(name, own)
    metadata = {name: text for name, (text, _) in sound.items() if text}
    return Checked(answers, list(sound), metadata, {n: key for n, (_, key) in sound.items() if key})


def with_key(ids: list[str | UUID | Task], key: str | UUID | None) -> list[str | UUID | Task]:
    """The one id of a submit, with a key. Raises SubmissionError where there are several."""
    if key is None:
        return ids
    if len(ids) != 1:
        raise SubmissionError("A key belongs to one id; give several ids as `Task(id, key=…)`.")
    _key(text_of(key))
    (one,) = ids
    task = one if isinstance(one, Task) else Task(one)
    return [task if task.key else replace(task, key=key)]


def text_of(task_id: Any) -> Any:
    """A UUID as its text; any other id as it is."""
    return str(task_id) if isinstance(task_id, UUID) else task_id


def listed(ids: Iterable[Any]) -> list[Any]:
    """The ids as a list; a single string is taken for a mistake, not for its characters."""
    if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Iterable):
        raise SubmissionError("The ids must be a list of strings.", "ids")
    return [text_of(each) for each in ids]


def ids_of(ids: Iterable[Any]) -> list[str]:
    """The ids of tasks as a list of texts. Raises SubmissionError for what is none."""
    found = listed(ids)
    for each in found:
        if not is_text(each):
            raise SubmissionError(f"An id must be a text that UTF-8 has, not {shown(each)}.", "ids")
    return found


def id_complaint(task_id: object) -> str | None:
    """Why this cannot be an id of a remote job, or None."""
    if not isinstance(task_id, str):
        return f"an id must be a string, not {type(task_id).__name__}"
    if not task_id.strip():
        return "an id must not be empty"
    if len(task_id) > ID_LENGTH:
        return f"an id has at most {ID_LENGTH} characters, this one has {len(task_id)}"
    if not task_id.isprintable():
        return "an id must not hold control characters"
    if task_id != task_id.strip():
        return "an id must not begin or end with white space"
    return None


def traceparent_complaint(text: object) -> str | None:
    """Why this is no `traceparent` of W3C Trace Context, or None."""
    if not isinstance(text, str) or not _TRACEPARENT.fullmatch(text):
        return "a traceparent looks like 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    return None


def check(
    *,
    service: object,
    account: object = "default",
    webhook: object = None,
    deadline: object,
    metadata: object = None,
    model: object = None,
    producer: object = None,
    restart: object = False,
    traceparent: object = None,
    group: object = None,
    group_size: object = None,
    allowed: Iterable[Network],
    ports: tuple[range, ...] | None = None,
    services: Collection[str] = (),
) -> SubmitOptions:
    """Check what a submit says beside its ids. Raises SubmissionError with the first complaint.

    `services`: those that may be named beside the known ones; "*": any.
    """
    if not isinstance(restart, bool):
        raise SubmissionError("`restart` must be true or false.")
    if traceparent is not None and (complaint := traceparent_complaint(traceparent)):
        raise SubmissionError(f"Refused: {complaint}, not {shown(traceparent)}.")
    return SubmitOptions(
        service=_service(service, services),
        account=checked_account(account),
        webhooks=_webhooks(webhook, tuple(allowed), ports),
        deadline=_deadline(deadline),
        metadata=_metadata(metadata),
        model=_label("model", model),
        producer=_label("producer", producer),
        restart=restart,
        trace=str(traceparent or ""),
        group=group_name(group) if group is not None else "",
        group_size=_group_size(group, group_size),
    )


def _service(value: object, others: Collection[str]) -> str:
    if not isinstance(value, str) or not SERVICE.fullmatch(value):
        raise SubmissionError(
            f"The service {shown(value)} must be a name of 1 to 40 of the characters "
            f"a-z, 0-9 and '-'.{proposal(value, others)}",
            "service",
        )
    if not is_allowed(value, others):
        raise SubmissionError(
            f"The service {value!r} is not known.{proposal(value, others)} "
            "CAVENDISH_SERVICES can allow other names.",
            "service",
        )
    return value


def checked_account(value: object) -> str:
    """The name of an account. Raises SubmissionError for what cannot be one."""
    if not isinstance(value, str) or not _ACCOUNT.fullmatch(value):
        raise SubmissionError(
            f"The account {shown(value)} must be a name of 1 to 40 of the characters "
            "a-z, 0-9, '_' and '-'."
        )
    return value


def _webhooks(
    webhook: object, allowed: tuple[Network, ...], ports: tuple[range, ...] | None
) -> tuple[str, ...]:
    given: list[object] = [] if webhook is None else [webhook]
    if isinstance(webhook, Iterable) and not isinstance(webhook, str | bytes | Mapping):
        given = list(webhook)
    if len(given) > WEBHOOKS:
        raise SubmissionError(
            f"At most {WEBHOOKS} webhooks may be given, not {len(given)}.", "webhook"
        )
    for one in given:
        named = isinstance(one, str) and one and not is_url(one)
        complaint = name_complaint(str(one)) if named else webhook_complaint(one, allowed, ports)
        if isinstance(one, str) and "#" in one and not named:
            complaint = (
                complaint or "the webhook URL must not have a #fragment, which is never sent"
            )
        if complaint:
            or_url = ", or must be a URL" if named else ""
            raise SubmissionError(f"Refused: {complaint}{or_url}.", "webhook")
    return tuple(dict.fromkeys(str(one) for one in given))


def _deadline(deadline: object) -> float:
    if isinstance(deadline, bool) or not isinstance(deadline, int | float):
        raise SubmissionError(f"The deadline must be a number of seconds, not {shown(deadline)}.")
    if not SHORTEST_DEADLINE <= deadline <= LONGEST_DEADLINE:  # also refuses NaN
        raise SubmissionError(
            f"The deadline must lie within 1 s and 30 days (2592000 s), not {shown(deadline)} s."
        )
    return float(deadline)


def _metadata(metadata: object) -> str:
    if metadata is None:
        return ""
    if not isinstance(metadata, Mapping):
        raise SubmissionError(f"The metadata must be a JSON object, not {type(metadata).__name__}.")
    if too_deep(dict(metadata)):
        raise SubmissionError(f"The metadata is nested more than {DEEPEST} deep.")
    try:
        text = compact(dict(metadata))
    except (TypeError, ValueError, RecursionError):
        raise SubmissionError("The metadata holds something that JSON cannot express.") from None
    if len(text.encode()) > METADATA_BYTES:
        raise SubmissionError(f"The metadata is larger than {METADATA_BYTES // 1024} KiB.")
    return text


def _key(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= KEY_LENGTH:
        raise SubmissionError(f"The key must be a printable text of 1 to {KEY_LENGTH} characters.")
    return value


def group_name(value: object) -> str:
    """The name of a group. Raises SubmissionError for what cannot be one."""
    if isinstance(value, str) and value.strip() and value == value.strip():
        return _label("group", value)
    raise SubmissionError(
        f"The group must be a printable text of 1 to {LABEL_LENGTH} characters, "
        "without white space around it."
    )


def _group_size(group: object, size: object) -> int | None:
    if size is None:
        return None
    if group is None:
        raise SubmissionError("A group size needs the name of a group.")
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= GROUP_SIZE:
        raise SubmissionError(
            f"The group size must be a whole number of 1 to {GROUP_SIZE}, not {shown(size)}."
        )
    return size


def _label(name: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not value.isprintable() or len(value) > LABEL_LENGTH:
        raise SubmissionError(
            f"The {name} must be a printable text of at most {LABEL_LENGTH} characters."
        )
    return value


def shown(value: object) -> str:
    """A refused value as a message may show it: JSON of at most 60 characters, or its type."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = f"of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
