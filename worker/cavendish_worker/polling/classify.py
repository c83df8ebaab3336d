"""Finds each id of a batch in the answers of the API; `policy/verdicts.py` judges one item.

An id that is missing from the answer to a batch is not gone: only a call about this id alone
confirms that the API does not know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cavendish.model import Record, TrackedTask
from cavendish.policy.verdicts import ABSENT, AbsencePolicy, Reading, Verdict, classify, match
from cavendish_worker.polling.ask import Asked, Asker
from cavendish_worker.telemetry.logs import logger

#: Absences that one retrieve confirms by single calls; the others wait for the next retrieve.
CONFIRMATIONS = 2
#: Seconds until the next poll of an id whose absence could not be confirmed yet.
SOON = 2.0
#: Seconds until the next poll of an id that the API rejects while it answers about others.
#: The deadline ends such an id.
MUCH_LATER = 60.0


@dataclass(slots=True)
class Classified:
    """What some ids were found to be, after what was `asked`.

    `readings`: by id, with the record where there is one. `missing`: ids that the answer to their
    batch does not mention; `unconfirmed` those of them that no single call has asked about yet.
    `put_back`: as in `Asked`.
    """

    asked: Asked
    readings: dict[str, tuple[Reading, Record | None]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unconfirmed: list[str] = field(default_factory=list)
    put_back: dict[str, float | None] = field(default_factory=dict)


def classify_batch(asked: Asked, now: float) -> Classified:
    """Find each id of a batch in the answers."""
    found = _refused(asked, now)
    for ids, answer in asked.answers:
        matched = match(answer.items, ids)
        found.readings |= matched
        found.missing += [task_id for task_id in ids if task_id not in matched]
    return found


def confirm_absent(
    asker: Asker, tasks: Sequence[TrackedTask], absence_policy: AbsencePolicy, at_most: int
) -> Classified:
    """Ask alone about ids that were missing from their batch, once they are past their grace time.

    A younger id counts as absent without a call: its record may not be visible yet. At most
    `at_most` calls are made.
    """
    now = asker.clock.now()
    late = [task.id for task in tasks if not absence_policy.too_early(task, now)]
    asked = asker.ask_alone(late[:at_most])
    found = _refused(asked, now)
    for (task_id,), answer in asked.answers:
        record = answer.items[0] if answer.items else None
        found.readings[task_id] = (classify(record), record)
    found.readings |= {task.id: (ABSENT, None) for task in tasks if task.id not in late}
    found.unconfirmed = late[at_most:]
    return found


def _refused(asked: Asked, now: float) -> Classified:
    """The ids that the API refuses by themselves, and those that nothing was learned about."""
    if asked.rejected:
        first, why = next(iter(asked.rejected.items()))
        logger().warning("id.refused", ids=len(asked.rejected), first=first, outcome=why)
    return Classified(
        asked,
        {name: (Reading(Verdict.FORBIDDEN, why), None) for name, why in asked.forbidden.items()},
        put_back=asked.put_back | dict.fromkeys(asked.rejected, now + MUCH_LATER),
    )
