"""Pure: the kinds of webhooks, and which of them an endpoint chooses."""

from __future__ import annotations

from collections.abc import Sequence

from cavendish.model import State

#: What is said of ids and groups to the endpoints that their producers name.
TO_PRODUCERS = (*(f"task.{state.value}" for state in State if state.terminal), "group.completed")
#: What is said to operators, by CAVENDISH_OPERATIONS_WEBHOOK.
TO_OPERATORS = (
    "account.blind",
    "account.paused",
    "account.resumed",
    "endpoint.disabled",
    "refused.submits",
    "service.back",
    "service.down",
    "service.paused",
    "store.emptied",
    "worker.gone",
)
KINDS = (*TO_PRODUCERS, *TO_OPERATORS)
#: Choices of an endpoint: each kind, and their first words.
MOST = 50
#: What stands for every kind, also for those that later versions add.
ALL = "all"


def chosen(events: Sequence[str], kind: str) -> bool:
    """True if an endpoint with this choice gets webhooks of this kind; no choice chooses all."""
    return not events or any(_covers(event, kind) for event in events)


def events_complaint(events: Sequence[str]) -> str | None:
    """Why an endpoint cannot choose these, or None."""
    if len(events) > MOST:
        return f"an endpoint chooses at most {MOST} kinds of webhooks"
    unknown = [event for event in events if not any(_covers(event, kind) for kind in KINDS)]
    if not unknown:
        return None
    known = ", ".join(KINDS)
    return f"{unknown[0]!r} is no kind of webhook; known are {ALL}, {known}, and such as task.*"


def _covers(event: str, kind: str) -> bool:
    """`task.*` covers every kind that begins with `task.`."""
    return kind.startswith(event[:-1]) if event.endswith(".*") else kind == event
