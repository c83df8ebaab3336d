"""The checker: judges a history by the promise. Pure: lines in, violations out.

A call counts from its `invoked` to its answer. One thing comes before another only where it ended
before the other began: a get that ran beside the settle may see the id before or after it. A call
that is `unknown` may have been done or not, at any time from then on: nobody is blamed for either.
A call that never returned is `unknown` too.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from chaos.group_stories import GROUP_RULES, judged
from chaos.history import Line
from chaos.stories import ACKNOWLEDGED, CANCELLED, DONE, EXPIRED, PENDING, UNKNOWN, Reading, Story

#: What each rule says; a violation names its rule by the key.
RULES = {
    "lost": "an acknowledged submit has no terminal state at the end",
    "forgotten": "an id that was acknowledged, or seen before, is not known",
    "undelivered": "the id ended, and no delivery of it was verified and taken",
    "uninvited": "an endpoint that chose other ends was told of this one",
    "two webhook-ids": "one end was delivered to one place under two webhook-ids",
    "shared webhook-id": "two ids were delivered under one webhook-id",
    "early": "settled, seen or delivered before the finish at the API, or before it was submitted",
    "expired early": "expired before the deadline that was asked for",
    "wrong": "another end than the API tells of",
    "changed": "a terminal state changed, or was gone again",
    "contradicted": "a delivery says another state than the store, or than another delivery",
    "unstored": "delivered before it was stored",
    "uncancelled": "a cancel was acknowledged, and the id is not cancelled",
    "cancelled by nobody": "cancelled, and nobody asked for it before",
    "not ended": "an operator was told that the id had ended, and it was pending after that",
    "polled": "polled, long after its cancel or its forget was acknowledged",
    "not silent": "a silent cancel was acknowledged, and a webhook was told",
    "remembered": "a forget was acknowledged, and the id is known, or in Redis, after that",
    "told of": "a forget was acknowledged, and more than the webhook under way came after that",
    "listed wrongly": "the list at the end does not have exactly the ids that are known, each once",
    "unverified": "a delivery whose signature does not hold",
    "stranger": "known or delivered, and nobody had submitted it before",
    **GROUP_RULES,
    "clock": "the wall clock was set during the run: times of Redis cannot be compared",
    "history": "the lines themselves do not make sense",
}


#: Seconds for which a call or a webhook may be under way: a lease, and the longest freeze.
UNDER_WAY = 25.0


@dataclass(frozen=True)
class Violation:
    """One broken rule. `lines`: the numbers of the lines that prove it, from 1."""

    rule: str
    id: str
    lines: tuple[int, ...]

    def shown(self, history: Sequence[Line]) -> str:
        """For people: the rule, the id, and its lines."""
        told = [f"  line {number}: {_cut(history[number - 1], self.id)}" for number in self.lines]
        return "\n".join([f"{self.rule}: {self.id or '-'} ({RULES[self.rule]})", *told])


Found = Iterator[tuple[str, tuple[int, ...]]]


def violations(history: Sequence[Line]) -> list[Violation]:
    """Judge a history, whose lines are in the order of time.

    Returns what breaks the promise, by rule and id; one proof for each rule and id is enough.
    """
    reading = Reading(history)
    found = [Violation(*blame) for blame in reading.blamed]
    for story in reading.stories.values():
        proofs: dict[str, tuple[int, ...]] = {}
        for judge in _JUDGES:
            for rule, lines in judge(story):
                proofs.setdefault(rule, tuple(sorted({*lines})))
        found += [Violation(rule, story.id, lines) for rule, lines in proofs.items()]
    proved = {(rule, name): lines for rule, name, lines in judged(history, reading.stories)}
    found += [Violation(rule, name, lines) for (rule, name), lines in proved.items()]
    return sorted(found, key=lambda one: ([*RULES].index(one.rule), one.id, one.lines))


def _kept(story: Story) -> Found:
    """It ends, and is not forgotten before. A Celery message may wait a while until it is known."""
    submit, last = story.acknowledged, story.sights[-1:]
    gone = story.forgotten or (last and last[0].state is None and story.may_be_gone(last[0].at))
    if submit and not gone and not any(one.terminal for one in story.sights):
        yield "lost", (*submit.lines, *(one.line for one in last))
    known = [(submit.done, submit.done_line)] if submit and submit.answer != "sent" else []
    if not _unpromised(story):
        known += [(one.at, one.line) for one in story.sights if one.state is not None]
    since, line = min(known, default=(inf, 0))
    for one in story.sights:
        if one.state is None and one.began > since and not story.may_be_gone(one.at):
            yield "forgotten", (line, one.line)
            return


def _delivered(story: Story) -> Found:
    """At least once to each place that wants it, always under the same webhook-id."""
    names: dict[str, dict[str, int]] = defaultdict(dict)
    for one in story.deliveries:
        names[one.facts["place"]].setdefault(one.facts["webhook_id"], one.line)
    for lines in names.values():
        if len(lines) > 1:
            yield "two webhook-ids", tuple(lines.values())
    for one in story.deliveries if story.submits else ():
        if not any(call.wants(one.facts["place"], one.state) for call in story.submits):
            yield "uninvited", (one.line,)
    ended = next((one for one in story.sights if one.terminal), None)
    submit = story.acknowledged
    silent = any(call.facts["silent"] for call in story.cancels)
    untold = silent and ended is not None and ended.state == CANCELLED
    if submit is None or ended is None or untold or story.may_be_gone(inf):
        return
    places = {
        place
        for call in story.submits
        if call.answer in ACKNOWLEDGED
        for place in call.facts["places"]
        if call.wants(place, ended.state)
    }
    taken = {one.facts["place"] for one in story.deliveries if 200 <= one.facts["answered"] < 300}
    for place in sorted(places - taken):
        attempts = [one.line for one in story.deliveries if one.facts["place"] == place]
        yield "undelivered", (*submit.lines, ended.line, *attempts)


def _true(story: Story) -> Found:
    """The end is the one that the API tells of, and does not come before it."""
    first = min((call.began for call in story.submits), default=-inf)
    submitted = tuple(call.line for call in story.submits[:1])
    for at, line, state, settled_at in story.ends:
        when = at if settled_at is None else min(at, settled_at)
        finish = (story.finish[1],) if story.finish else ()
        if state in ("succeeded", "failed") and (story.finish is None or when < story.finish[0]):
            yield "early", (line, *finish)
        elif settled_at is not None and settled_at < first:
            yield "early", (line, *submitted)
        if state == EXPIRED and when < _deadline(story, when):
            yield "expired early", (*submitted, *(call.line for call in story.deadlines), line)
        if story.finish and state in ("succeeded", "failed", UNKNOWN) and state != story.finish[2]:
            yield "wrong", (line, *finish)


def _deadline(story: Story, at: float) -> float:
    """The first deadline that an id may have had at a time."""
    known = min((call.done for call in story.submits), default=inf)
    rows = [(call.began, known, call.facts["deadline"]) for call in story.submits]
    changes = [call for call in story.deadlines if call.answer in (DONE, "")]
    rows += [(call.began, call.done, call.facts["deadline"]) for call in changes]
    sure = [call for call in changes if call.answer == DONE and call.done < at]
    since = max((call.began for call in sure), default=-inf)
    return min(
        (began + one for began, done, one in rows if began < at and done > since), default=inf
    )


def _broker_clock(story: Story) -> Found:
    """A terminal state stays, and every party tells of the same."""
    seen = [one for one in story.sights if one.terminal]
    for one in seen[1:]:
        if (one.state, one.settled_at) != (seen[0].state, seen[0].settled_at):
            yield "changed", (seen[0].line, one.line)
            break
    before = min(seen, key=lambda one: one.at, default=None)
    for one in story.sights:
        if before and one.state == PENDING and one.began > before.at:
            yield "changed", (before.line, one.line)
            break
    told = seen[0] if seen else story.deliveries[0] if story.deliveries else None
    for delivery in story.deliveries:
        if told and delivery.state != told.state:
            yield "contradicted", (told.line, delivery.line)
            break


def _stored(story: Story) -> Found:
    """Nothing is delivered that is not stored."""
    for delivery in story.deliveries[:1]:
        for one in story.sights:
            unseen = not one.terminal and one.began > delivery.at and not _unpromised(story)
            unseen = unseen and not (one.state is None and story.may_be_gone(one.at))
            if unseen or (one.settled_at or 0.0) > delivery.at:
                yield "unstored", (delivery.line, one.line)
                return


def _cancelled(story: Story) -> Found:
    """What was cancelled stays so; and only who asks gets it."""
    sure = story.cancelled
    asked = min((call.began for call in [*story.cancels, *story.forgets]), default=inf)
    for at, line, state, _ in story.ends:
        if state == CANCELLED and at < asked:
            yield "cancelled by nobody", (line,)
        if sure and state != CANCELLED:
            yield "uncancelled", (*sure.lines, line)
    for one in story.sights:
        if sure and one.state == PENDING and one.began > sure.done:
            yield "uncancelled", (*sure.lines, one.line)
        for call in [*story.cancels, *story.deadlines]:
            late = call.answer in ("ended", "unmatched") and one.began > call.done
            if late and one.state == PENDING:
                yield "not ended", (*call.lines, one.line)
    loud = sure and sure.facts["silent"] and all(call.done < inf for call in story.submits)
    if sure and loud and story.deliveries:
        yield "not silent", (*sure.lines, story.deliveries[0].line)
    for call in filter(None, (sure, story.forgotten)):
        for at, line in story.polls:
            if at > call.done + UNDER_WAY:
                yield "polled", (*call.lines, line)


def _forgotten(story: Story) -> Found:
    """Nothing is left of what was forgotten, and nobody tells of it."""
    call = story.forgotten
    if call is None:
        return
    known = [one.line for one in story.sights if one.state is not None and one.began > call.done]
    known += [story.rest] if story.rest else []
    if known:
        yield "remembered", (*call.lines, *known)
    later = [one for one in story.deliveries if one.at > call.done]
    places = [one.facts["place"] for one in later]
    if len(places) > len({*places}) or any(one.at > call.done + UNDER_WAY for one in later):
        yield "told of", (*call.lines, *(one.line for one in later))


def _listed(story: Story) -> Found:
    """The list at the end has what is known, each once; nobody looks at what never was answered."""
    if story.listed is None:
        return
    (line, times), last = story.listed, story.sights[-1:]
    known = last[0].state is not None if last else times > 0
    if times > 1 or bool(times) != known:
        yield "listed wrongly", (*(one.line for one in last), line)


def _submitted(story: Story) -> Found:
    """Only what was submitted is known."""
    first = min((call.began for call in story.submits), default=inf)
    told = [(one.at, one.line) for one in story.sights if one.state is not None]
    told += [(one.at, one.line) for one in story.deliveries]
    at, line = min(told, default=(inf, 0))
    if at < first:
        yield "stranger", (line, *(call.line for call in story.submits[:1]))


def _unpromised(story: Story) -> bool:
    return any(not call.facts.get("promised", True) for call in story.submits)


_JUDGES: tuple[Callable[[Story], Found], ...] = (
    _kept,
    _delivered,
    _true,
    _broker_clock,
    _stored,
    _cancelled,
    _forgotten,
    _listed,
    _submitted,
)


def _cut(line: Line, task_id: str) -> str:
    """A line as text; of what it says by id, only what it says of this one."""
    about: dict[str, Any] = {**line}
    for name in ("seen", "answers"):
        if task_id in about.get(name, ()):
            about[name] = {task_id: about[name][task_id]}
    return json.dumps(about, ensure_ascii=False)[:400]
