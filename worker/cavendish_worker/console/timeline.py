"""Pure: the history of one id as steps in time, and why it is in its state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cavendish.endpoints.webhook_endpoint import name_complaint
from cavendish.model import LoggedAttempt, State, TrackedTask
from cavendish.operator_act import OperatorAct
from cavendish.store.delivery_reader import Delivery
from cavendish.store.outlook import Outlook, Receiver
from cavendish.stored_json import END_OF_TIME, read_lines
from cavendish_worker.console.shown import Shown

_lasted, _moment = Shown.lasted, Shown.moment
#: What operators did, by its verb.
_ACTS = {
    "deadline": "Deadline moved",
    "replay": "To be replayed",
    "revive": "Dead letter revived",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened, or will (`ahead`), at a time; None: nobody knows when.

    `tone`: "well", "ill" or "". `excerpt`: what a receiver answered.
    """

    at: float | None
    what: str
    more: str = ""
    tone: str = ""
    excerpt: str = ""
    ahead: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """A delivery, and the endpoint that it goes to, as people know it."""

    delivery: Delivery
    receiver: Receiver
    to: str
    attempts: tuple[LoggedAttempt, ...]

    @property
    def state(self) -> str:
        return self.delivery.state


def sent(deliveries: Sequence[Delivery], receivers: Mapping[str, Receiver]) -> list[Sent]:
    """Each delivery with its receiver: a registered one by its name, others by their host."""
    return [
        Sent(
            one,
            receivers[one.name],
            one.endpoint
            if name_complaint(one.endpoint) is None
            else Shown.host(one.url) or f"the endpoint {one.endpoint}",
            tuple(
                each for each in read_lines(LoggedAttempt, one.log) if 0 <= each.at < END_OF_TIME
            ),
        )
        for one in deliveries
    ]


def why(task: TrackedTask, found: Outlook, webhooks: Sequence[Sent], now: float) -> list[str]:
    """In which state the id is, and what keeps it there, as sentences."""
    if task.state is State.PENDING:
        return [_pending(task, found, now)]
    said = [f"It has ended as {task.state}" + (f": {task.reason}." if task.reason else ".")]
    if not webhooks:
        said.append("It has no webhook.")
    return said + [_announced(one, now) for one in webhooks]


def _pending(task: TrackedTask, found: Outlook, now: float) -> str:
    if pause := found.controls.pause_of(task.account, task.service, now):
        return f"It is not polled: {pause.sentence}."
    if found.limit.paused(now):
        return f"The API paused the account {task.account}: {found.limit.pause_reason}."
    if found.health.paused_since:
        return f"The API does not serve {task.service}: {found.health.reason}."
    if found.health.down_until > now:
        rest = _lasted(found.health.down_until - now)
        return f"Calls to the API fail: {found.health.reason}. The next one is made in {rest}."
    if found.visibility.reported(now):
        return f"It waits, since {found.visibility.reason}."
    if found.asked:
        return "A poll of it is under way."
    if task.absences:
        polls = f"last {task.absences} polls" if task.absences > 1 else "last poll"
        return f"The API did not find it in the {polls}. If that goes on, it ends as unknown."
    if found.poll_at is None:
        return "No poll is due for it. The reconcile run repairs that, or it ends at its deadline."
    if found.poll_at > now:
        return f"It is pending. Its next poll is due in {_lasted(found.poll_at - now)}."
    return f"It waits for its turn: its poll has been due for {_lasted(now - found.poll_at)}."


def _announced(one: Sent, now: float) -> str:
    """Whether a receiver has got the webhook, and if not, why."""
    to, times, last = one.to, _times(one.delivery.attempts), one.delivery.outcome
    if one.state == "delivered":
        return f"{to} has acknowledged its webhook."
    if one.state == "skipped":
        return f"{to} does not choose this kind of webhook, so none was sent."
    if one.state == "dead":
        return f"Its webhook to {to} is a dead letter after {times}; the last one: {last}."
    tried = f" {times} failed, the last one: {last}." if one.delivery.attempts else ""
    if one.receiver.registered is None and name_complaint(one.delivery.endpoint) is None:
        return f"Its webhook waits for {to}, which is not registered.{tried}"
    if one.receiver.disabled:
        since, reason = _moment(one.receiver.disabled.at), one.receiver.disabled.why
        return f"Its webhook waits: {to} is disabled since {since}: {reason}.{tried}"
    if one.receiver.circuit.state == "open":
        closed_in = max(one.receiver.circuit.open_until - now, 0.0)
        again = f"probed in {_lasted(closed_in)}" if closed_in else "about to be probed"
        failures = one.receiver.circuit.failures
        return f"Its webhook waits: {to} failed {failures} times in a row, and is {again}.{tried}"
    if one.receiver.next_at is not None and one.receiver.next_at > now:
        rest = _lasted(one.receiver.next_at - now)
        return f"Its webhook to {to} is tried again in {rest}.{tried}"
    return f"Its webhook to {to} is about to be sent.{tried}"


def _times(number: int) -> str:
    return "1 attempt" if number == 1 else f"{number} attempts"


def steps(task: TrackedTask, found: Outlook, webhooks: Sequence[Sent], now: float) -> list[Step]:
    """All that is known of one id, in the order in which it happened; what is ahead comes last."""
    known = [*_of_task(task, found), *(step for one in webhooks for step in _of_sent(one, now))]
    return sorted(known, key=lambda step: (step.ahead, step.at or 0.0))


def _of_task(task: TrackedTask, found: Outlook) -> Iterator[Step]:
    by = f"by {task.producer}" if task.producer else ""
    again = f"restart {task.restarts}" if task.restarts else ""
    words = (by, again, f"model {task.model}" if task.model else "")
    yield Step(task.submitted_at, "Submitted", ", ".join(filter(None, words)))
    if task.polled_at is not None:
        polls = "1 poll" if task.polls == 1 else f"{task.polls} polls so far"
        yield Step(task.polled_at, "Last poll", polls)
    if task.absences and task.absent_since is not None:
        times = f"{task.absences} times in a row"
        yield Step(task.absent_since, "Not found by the API", times, "ill")
    if task.finished_at is not None:
        took = task.finished_at - task.submitted_at
        more = f"{_lasted(abs(took))} {'after' if took >= 0 else 'before'} the submit"
        yield Step(task.finished_at, "Finished at the API", more)
    for act in task.acts:
        yield Step(act.at, _ACTS.get(act.verb, act.verb), _act(act))
    if task.settled_at is None:
        yield Step(found.poll_at, "Next poll", _why_then(found), ahead=True)
        yield Step(task.deadline_at, "Deadline", "it expires then, if it has not ended", ahead=True)
        return
    late = ""
    if task.finished_at is not None:
        late = f"noticed {_lasted(max(task.settled_at - task.finished_at, 0.0))} after its finish"
    tone = "well" if task.state is State.SUCCEEDED else "ill"
    yield Step(
        task.settled_at, f"Ended: {task.state}", "; ".join(filter(None, (task.reason, late))), tone
    )


def _act(act: OperatorAct) -> str:
    """Who did it, and what else there is to say."""
    until = f", to {_moment(act.deadline_at)}" if act.deadline_at else ""
    return f"by {act.by}{until}"


def _why_then(found: Outlook) -> str:
    if found.asked:
        return "a poll is under way; if no answer comes, the next one is due then"
    return "when the task has probably finished"


def _of_sent(one: Sent, now: float) -> Iterator[Step]:
    for number, attempt in enumerate(one.attempts, 1):
        took = f"after {attempt.seconds:.2f} s"
        more = ", ".join(filter(None, (attempt.outcome, took, attempt.address)))
        well = attempt.status is not None and 200 <= attempt.status < 300
        tone = "well" if well else "ill"
        what = f"Webhook to {one.to}, attempt {number}"
        yield Step(attempt.at, what, more, tone, attempt.answer)
    at = one.receiver.next_at
    if one.state == "dead":
        yield Step(one.delivery.at, f"Dead letter to {one.to}", one.delivery.outcome, "ill")
    elif one.state == "pending" and at is not None:
        due = "when the endpoint is enabled" if one.receiver.disabled else ""
        yield Step(max(at, now), f"Next attempt to {one.to}", due, ahead=True)
