"""The checker of the chaos finds each violation that is planted, and blames no sound history."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos import history
from chaos.checker import RULES, violations
from chaos.history import Line

HOOK, FAILURES, DEADLINE = "/hook", "/failures", 600.0


class Told:
    """Writes a history by hand: a step of the time for each line, unless `at` says otherwise."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.at = 1000.0

    def note(self, op: str, *, at: float | None = None, **facts: Any) -> Told:
        self.at += 1.0
        self.lines.append({"at": self.at if at is None else at, "by": "test", "op": op, **facts})
        return self

    def call(self, op: str, asked: dict[str, Any], phase: str, **said: Any) -> Told:
        name = f"c{len(self.lines)}"
        self.note(op, phase="invoked", call=name, **asked)
        return self.note(op, phase=phase, call=name, **said)

    def submit(self, task_id: str = "a", phase: str = "ok", said: str = "new", **more: Any) -> Told:
        asked = {"ids": [task_id], "places": [HOOK], "deadline": DEADLINE, **more}
        return self.call(
            "submit", asked, phase, **({"answers": {task_id: said}} if phase == "ok" else {})
        )

    def finish(self, task_id: str = "a", state: str = "succeeded", **more: Any) -> Told:
        return self.note("finish", id=task_id, state=state, **more)

    def get(self, state: str | None, task_id: str = "a", settled_at: float | None = None) -> Told:
        ended = state not in (None, "pending")
        seen = None if state is None else [state, (settled_at or self.at) if ended else None]
        return self.call("get", {}, "ok", seen={task_id: seen})

    def deliver(
        self, state: str = "succeeded", task_id: str = "a", name: str = "", **more: Any
    ) -> Told:
        facts = {
            "webhook_id": name or f"msg-{task_id}",
            "id": task_id,
            "state": state,
            "place": HOOK,
        }
        return self.note("delivery", **{**facts, "verified": True, "answered": 204, **more})

    def end_of(self, task_id: str, state: str = "succeeded") -> Told:
        return self.finish(task_id, state).get(state, task_id).deliver(state, task_id)

    def complete(self, **more: Any) -> Told:
        facts = {"webhook_id": "group-1", "group": "g", "place": HOOK, "answered": 204}
        return self.note("completion", **{**facts, "counts": {"succeeded": 1, "failed": 1}, **more})

    def operate(self, verb: str, phase: str = "ok", said: str = "done", **asked: Any) -> Told:
        asked = {"ids": ["a"], "matching": "", **asked}
        return self.call(verb, asked, phase, **({"answers": {"a": said}} if phase == "ok" else {}))

    def cancel(self, phase: str = "ok", said: str = "done", *, silent: bool = False) -> Told:
        return self.operate("cancel", phase, said, silent=silent)

    def forget(self, phase: str = "ok", said: str = "done") -> Told:
        return self.operate("forget", phase, said)

    def deadline(self, seconds: float, phase: str = "ok", said: str = "done") -> Told:
        return self.operate("deadline", phase, said, deadline=seconds)

    def poll(self, **more: Any) -> Told:
        return self.note("poll", ids=["a"], **more)

    def listing(self, *ids: str) -> Told:
        return self.note("list", ids=[*ids])

    def end(self) -> Sequence[Line]:
        return sorted(self.note("end").lines, key=lambda line: line["at"])


def sound() -> Told:
    """An id as it should be: submitted, finished, settled at 1004, delivered, seen."""
    return Told().submit().finish().get("succeeded", settled_at=1003.5).deliver()


def sound_for_failures(state: str) -> Told:
    """The same with an endpoint that hears of failures only, and heard of nothing."""
    chosen = {"places": [HOOK, FAILURES], "chosen": {FAILURES: ["failed"]}}
    told = Told().submit(**chosen).finish(state=state)
    return told.get(state, settled_at=1003.5).deliver(state)


def grouped(then: Callable[[Told], Told] = lambda told: told) -> Told:
    """Two ids of one group, which end one behind the other; `then`: what comes in between."""
    told = Told().submit(group="g", group_size=2).submit("b", group="g", group_size=2)
    return then(told.end_of("a")).end_of("b", "failed")


def settled(state: str, **more: Any) -> Callable[[], Told]:
    return lambda: Told().submit(**more).finish().get(state).deliver(state)


PLANTED: dict[str, tuple[str, Callable[[], Told]]] = {
    "pending for ever": ("lost", lambda: Told().submit().finish().get("pending")),
    "never looked at": ("lost", lambda: Told().submit().finish()),
    "a Celery message that is lost": ("lost", lambda: Told().submit(said="sent").finish()),
    "acknowledged after an unknown try, and lost": (
        "lost",
        lambda: Told().submit(phase="unknown").submit().finish(),
    ),
    "acknowledged, then not known": (
        "forgotten",
        lambda: Told().submit().get(None).finish().get("succeeded").deliver(),
    ),
    "seen, then not known": (
        "forgotten",
        lambda: Told().submit(phase="unknown").get("pending").get(None),
    ),
    "ended, then not known": ("forgotten", lambda: sound().get(None)),
    "never delivered": ("undelivered", lambda: Told().submit().finish().get("succeeded")),
    "delivered, never taken": (
        "undelivered",
        lambda: Told().submit().finish().get("succeeded").deliver(answered=503),
    ),
    "delivered to one of two places": (
        "undelivered",
        lambda: Told().submit(places=[HOOK, "/other"]).finish().get("succeeded").deliver(),
    ),
    "delivered to a place that did not choose it": (
        "uninvited",
        lambda: sound_for_failures("succeeded").deliver(place=FAILURES),
    ),
    "not delivered to a place that chose it": (
        "undelivered",
        lambda: sound_for_failures("failed"),
    ),
    "delivered to a place that nobody named": (
        "uninvited",
        lambda: sound().deliver(place="/other"),
    ),
    "two webhook-ids": ("two webhook-ids", lambda: sound().deliver(name="msg-2")),
    "two webhook-ids, one refused": (
        "two webhook-ids",
        lambda: sound().deliver(name="msg-2", answered=500),
    ),
    "one webhook-id for two ids": (
        "shared webhook-id",
        lambda: (
            sound().submit("b").finish("b").get("succeeded", "b").deliver(task_id="b", name="msg-a")
        ),
    ),
    "settled before the finish": (
        "early",
        lambda: Told().submit().get("succeeded").finish(at=1004.5).deliver(),
    ),
    "settled_at before the finish": (
        "early",
        lambda: Told().submit().finish().get("succeeded", settled_at=1002.9).deliver(),
    ),
    "delivered before the finish": (
        "early",
        lambda: Told().submit().deliver().finish().get("succeeded", settled_at=1002.5),
    ),
    "never finished": ("early", lambda: Told().submit().get("failed").deliver("failed")),
    "settled before its submit": (
        "early",
        lambda: Told().finish().submit().get("succeeded", settled_at=1001.5).deliver(),
    ),
    "expired before its deadline": ("expired early", settled("expired")),
    "the deadline of an earlier round": (
        "expired early",
        lambda: Told().submit(deadline=2.0).get("expired", settled_at=1002.5).deliver("expired"),
    ),
    "failed, but succeeded there": ("wrong", settled("failed")),
    "unknown, but known there": ("wrong", settled("unknown")),
    "succeeded, then failed": ("changed", lambda: sound().get("failed")),
    "ended, then pending": (
        "changed",
        lambda: Told().submit().finish().get("succeeded").get("pending").deliver(),
    ),
    "settled anew": ("changed", lambda: sound().get("succeeded", settled_at=1004.2)),
    "delivered with another state": ("contradicted", lambda: sound().deliver("failed")),
    "two deliveries disagree": (
        "contradicted",
        lambda: Told().submit(phase="unknown").finish().deliver().deliver("failed"),
    ),
    "pending after its delivery": (
        "unstored",
        lambda: (
            Told().submit().finish().deliver().get("pending").get("succeeded", settled_at=1003.5)
        ),
    ),
    "delivered, then settled": (
        "unstored",
        lambda: Told().submit().finish().deliver().get("succeeded", settled_at=1004.5),
    ),
    "cancelled, then succeeded": (
        "uncancelled",
        lambda: Told().submit().cancel().finish().get("succeeded").deliver(),
    ),
    "cancelled, then delivered as failed": (
        "uncancelled",
        lambda: Told().submit().cancel().finish(state="failed").deliver("failed"),
    ),
    "cancelled, then pending": (
        "uncancelled",
        lambda: Told().submit().cancel().get("pending").get("cancelled").deliver("cancelled"),
    ),
    "cancelled, and nobody asked": ("cancelled by nobody", settled("cancelled")),
    "cancelled by a cancel that failed": (
        "cancelled by nobody",
        lambda: Told().submit().cancel("failed").get("cancelled").deliver("cancelled"),
    ),
    "cancelled, they said ended, then pending": (
        "not ended",
        lambda: Told().submit().cancel(said="ended").get("pending").end_of("a"),
    ),
    "a filter found nothing pending, and it is": (
        "not ended",
        lambda: Told().submit().deadline(9.0, said="unmatched").get("pending").end_of("a"),
    ),
    "polled after its cancel": (
        "polled",
        lambda: Told().submit().cancel().poll(at=1100.0).get("cancelled").deliver("cancelled"),
    ),
    "polled after it was forgotten": ("polled", lambda: Told().submit().forget().poll(at=1100.0)),
    "a silent cancel that is told": (
        "not silent",
        lambda: Told().submit().cancel(silent=True).get("cancelled").deliver("cancelled"),
    ),
    "cancelled, and never told": (
        "undelivered",
        lambda: Told().submit().cancel().get("cancelled"),
    ),
    "cancelled, and told under two webhook-ids": (
        "two webhook-ids",
        lambda: Told().submit().cancel().deliver("cancelled").deliver("cancelled", name="msg-2"),
    ),
    "ended, then cancelled": ("changed", lambda: sound().cancel("unknown").get("cancelled")),
    "known after it was forgotten": ("remembered", lambda: sound().forget().get("succeeded")),
    "known after a forget that found it gone": (
        "remembered",
        lambda: sound().forget("unknown").forget(said="unknown").get("succeeded"),
    ),
    "in Redis after it was forgotten": (
        "remembered",
        lambda: sound().forget().note("rest", found={"a": ["cavendish:key"]}),
    ),
    "told twice after it was forgotten": (
        "told of",
        lambda: sound().forget().deliver().deliver(),
    ),
    "told long after it was forgotten": ("told of", lambda: sound().forget().deliver(at=1100.0)),
    "an operator does not find what was submitted": (
        "forgotten",
        lambda: sound().cancel(said="unknown"),
    ),
    "a forget that was not done, and the id is gone": (
        "forgotten",
        lambda: sound().forget("failed").get(None),
    ),
    "a forget that never ended, and the id is pending": (
        "lost",
        lambda: Told().submit().finish().forget("unknown").get("pending"),
    ),
    "expired before a later deadline": (
        "expired early",
        lambda: Told().submit(deadline=2.0).deadline(60.0).get("expired", settled_at=1005.5),
    ),
    "expired before the later of two deadlines": (
        "expired early",
        lambda: Told().submit().deadline(2.0).deadline(60.0).get("expired", settled_at=1008.5),
    ),
    "not in the list at the end": ("listed wrongly", lambda: sound().listing()),
    "twice in the list at the end": ("listed wrongly", lambda: sound().listing("a", "a")),
    "forgotten, and in the list at the end": (
        "listed wrongly",
        lambda: sound().forget().get(None).listing("a"),
    ),
    "all ended, and no completion": ("incomplete", grouped),
    "one forgotten, the other ended, and no completion": (
        "incomplete",
        lambda: (
            Told()
            .submit(group="g", group_size=2)
            .submit("b", group="g", group_size=2)
            .forget()
            .end_of("b")
        ),
    ),
    "one forgotten, and not counted": (
        "miscounted",
        lambda: (
            Told()
            .submit(group="g", group_size=2)
            .submit("b", group="g", group_size=2)
            .forget()
            .end_of("b")
            .complete(counts={"succeeded": 1})
        ),
    ),
    "a completion that nobody took": ("incomplete", lambda: grouped().complete(answered=503)),
    "a group under two webhook-ids": (
        "two completions",
        lambda: grouped().complete().complete(webhook_id="group-2"),
    ),
    "completed before the last end": (
        "miscounted",
        lambda: grouped(then=lambda told: told.complete()),
    ),
    "completed before its last submit": (
        "miscounted",
        lambda: Told().submit(group="g", group_size=2).complete(counts={}).finish().end_of("a"),
    ),
    "counted wrongly": ("miscounted", lambda: grouped().complete(counts={"succeeded": 2})),
    "a signature that does not hold": (
        "unverified",
        lambda: sound().deliver(verified=False, answered=401),
    ),
    "delivered, and nobody submitted it": ("stranger", lambda: Told().finish().deliver()),
    "submitted only in a call that failed": (
        "stranger",
        lambda: Told().submit(phase="failed").get("pending"),
    ),
    "refused, and yet tracked": ("stranger", lambda: Told().submit(said="refused").get("pending")),
    "known before its submit": ("stranger", lambda: Told().get("pending").submit(phase="unknown")),
    "the wall clock was set": (
        "clock",
        lambda: sound().note("clock", wall=2000.0).note("clock", wall=2002.0),
    ),
    "an answer to no call": ("history", lambda: sound().note("get", phase="ok", call="x", seen={})),
    "an operation that nobody knows": ("history", lambda: sound().note("reset")),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_found_and_named_by_its_rule_with_lines_that_prove_it(
    name: str,
) -> None:
    rule, plant = PLANTED[name]
    told = plant().end()
    found = violations(told)
    assert rule in {one.rule for one in found}, found
    proof = next(one for one in found if one.rule == rule)
    assert proof.lines
    assert all(1 <= number <= len(told) for number in proof.lines)
    assert rule in proof.shown(told)
    assert f"line {proof.lines[0]}" in proof.shown(told)


def test_each_rule_has_a_planted_violation() -> None:
    assert {rule for rule, _ in PLANTED.values()} == {*RULES}


def test_a_history_that_was_cut_short_or_is_out_of_order_is_not_called_sound() -> None:
    told = [*sound().end()]
    assert [one.rule for one in violations(told[:-1])] == ["history"]
    assert violations([])
    assert "history" in {one.rule for one in violations([told[1], told[0], *told[2:]])}


@pytest.mark.parametrize(
    "told",
    [
        sound(),
        sound().deliver(),  # again under the same webhook-id
        Told().submit(phase="unknown").get(None),  # the answer was lost, and so was the submit
        Told().submit(phase="unknown").finish().get("succeeded").deliver(),  # the answer only
        Told().submit(phase="unknown").submit(said="known").finish().get("succeeded").deliver(),
        Told().submit().finish().get("succeeded").deliver(answered=503).deliver(),
        Told().submit(deadline=2.0).get("expired", settled_at=1003.5).deliver("expired").finish(),
        Told().submit(said="sent").get(None).finish().get("succeeded").deliver(),
        Told().submit().cancel().get("cancelled").deliver("cancelled").finish(),
        Told().submit().cancel("unknown").finish().get("succeeded").deliver(),
        Told().submit().cancel("unknown").get("cancelled").deliver("cancelled"),
        Told().submit().finish().get("succeeded").cancel(said="ended").deliver(),
        Told().submit().cancel(silent=True).get("cancelled").listing("a"),
        Told().submit().cancel("unknown", silent=True).cancel(said="ended").get("cancelled"),
        Told().submit().poll().cancel().poll().get("cancelled").deliver("cancelled"),
        sound().forget().deliver().get(None).note("rest", found={}).listing(),
        Told().submit().forget().poll().get(None).listing(),
        Told().submit().forget("unknown").forget(said="unknown").get(None),
        Told().submit().forget("unknown").get("cancelled").forget().get(None),
        Told().submit(phase="unknown").forget(said="unknown").get("pending").listing("a"),
        Told().submit().deadline(2.0).get("expired", settled_at=1005.5).deliver("expired"),
        Told().submit().deadline(1.0, "unknown").get("expired").deliver("expired"),
        grouped().complete(counts={"succeeded": 1, "failed": 1}).forget().get(None),
        Told()
        .submit(group="g", group_size=2)
        .submit("b", group="g", group_size=2)
        .forget()
        .end_of("b")
        .complete(counts={"succeeded": 1, "cancelled": 1}),
        Told().submit(promised=False).get("pending").get(None),
        Told().submit("nobody").get("unknown", "nobody").deliver("unknown", "nobody"),
        grouped().complete(answered=503).complete(),
        Told().submit(group="g", group_size=2).end_of("a"),
        sound().note("clock", wall=2000.0, at=1100.0).note("clock", wall=2010.01, at=1110.0),
        sound_for_failures("succeeded"),
        sound_for_failures("failed").deliver("failed", place=FAILURES),
    ],
    ids=range(31),
)
def test_a_sound_history_is_not_blamed(told: Told) -> None:
    assert violations(told.end()) == []


class Run:
    """A made-up run that is sound by construction.

    Each id has its truth, and every party tells of it.
    """

    def __init__(self, chance: Random) -> None:
        self.chance, self.lines = chance, list[dict[str, Any]]()
        for number in range(chance.randint(1, 5)):
            self.live(f"id-{number}")
        self.lines.append({"at": 5000.0, "by": "test", "op": "end"})
        self.lines.sort(key=lambda line: line["at"])

    def later(self, at: float) -> float:
        return at + self.chance.uniform(0.001, 3.0)

    def note(self, at: float, op: str, **facts: Any) -> None:
        self.lines.append({"at": at, "by": "test", "op": op, **facts})

    def call(
        self,
        op: str,
        began: float,
        done: float,
        phase: str,
        asked: dict[str, Any],
        said: dict[str, Any],
    ) -> None:
        name = f"c{len(self.lines)}"
        self.note(began, op, phase="invoked", call=name, **asked)
        if phase != "none":  # whoever called died
            self.note(done, op, phase=phase, call=name, **(said if phase == "ok" else {}))

    def submit(
        self, task_id: str, began: float, deadline: float, phase: str, tracked: float
    ) -> tuple[float, float]:
        """Returns when it ended, and since when the id is tracked, if it is."""
        point = self.later(began)
        done = self.later(point)
        sent = phase == "ok" and self.chance.random() < 0.2
        effective = phase == "ok" or (phase != "failed" and self.chance.random() < 0.5)
        answer = "sent" if sent else "known" if tracked < point else "new"
        asked = {"ids": [task_id], "places": [HOOK], "deadline": deadline}
        self.call("submit", began, done, phase, asked, {"answers": {task_id: answer}})
        return done, min(tracked, self.later(done) if sent else point) if effective else tracked

    def live(self, task_id: str) -> None:
        chance, at, tracked = self.chance, self.chance.uniform(1000, 1010), inf
        deadline, finish = (
            chance.choice((5.0, 600.0)),
            (self.later(at), chance.choice(("succeeded", "failed"))),
        )
        self.note(finish[0], "finish", id=task_id, state=finish[1])
        phases = [chance.choice(("unknown", "none", "failed")) for _ in range(chance.randint(0, 2))]
        for phase in [*phases, "ok"] if chance.random() < 0.8 else phases:
            at, tracked = self.submit(task_id, self.later(at), deadline, phase, tracked)
        ended, state = self.later(max(tracked, finish[0])), finish[1]
        if ended > tracked + deadline:
            ended, state = self.later(tracked + deadline), "expired"
        ended, state = self.cancel(task_id, tracked, ended, state)
        if tracked < inf:
            self.deliver(task_id, ended, state)
        for began in [chance.uniform(1000, 1040) for _ in range(5)] + [4000.0]:
            point = self.later(began)
            seen = (
                None if point < tracked else ["pending", None] if point < ended else [state, ended]
            )
            self.call("get", began, self.later(point), "ok", {}, {"seen": {task_id: seen}})

    def cancel(self, task_id: str, tracked: float, ended: float, state: str) -> tuple[float, str]:
        if self.chance.random() < 0.5:
            return ended, state
        began, phase = (
            self.chance.uniform(1005, 1030),
            self.chance.choice(("ok", "unknown", "none", "failed")),
        )
        point = self.later(began)
        hit = (
            tracked < point < ended
            and phase != "failed"
            and (phase == "ok" or self.chance.random() < 0.5)
        )
        late = "unknown" if point < tracked else "ended"
        said = {"answers": {task_id: "done" if hit else late}}
        asked = {"ids": [task_id], "matching": "", "silent": False}
        self.call("cancel", began, self.later(point), phase, asked, said)
        return (point, "cancelled") if hit else (ended, state)

    def deliver(self, task_id: str, at: float, state: str) -> None:
        facts = {
            "webhook_id": f"msg-{task_id}",
            "id": task_id,
            "state": state,
            "place": HOOK,
            "verified": True,
        }
        for answered in [
            self.chance.choice((503, 204)) for _ in range(self.chance.randint(0, 2))
        ] + [204]:
            at = self.later(at)
            self.note(at, "delivery", **facts, answered=answered)


@given(st.randoms(use_true_random=False))
def test_made_up_sound_runs_with_lost_answers_and_cancels_are_not_blamed(chance: Random) -> None:
    assert violations(Run(chance).lines) == []


@given(st.randoms(use_true_random=False))
def test_in_a_made_up_run_a_last_poll_that_is_falsified_is_found(chance: Random) -> None:
    lines = Run(chance).lines
    seen = [line["seen"] for line in lines if line.get("seen")]
    ended = [(one, task_id) for one in seen for task_id in one if one[task_id] and one[task_id][1]]
    for one, task_id in ended[-1:]:
        one[task_id] = [
            "failed" if one[task_id][0] == "succeeded" else "succeeded",
            one[task_id][1],
        ]
        assert task_id in {found.id for found in violations(lines)}


def test_a_history_is_merged_by_time_kept_in_a_file_and_judged_again_the_same(
    tmp_path: Path,
) -> None:
    offset = history.offset()
    ours, theirs = (
        history.History(tmp_path / f"{name}.jsonl", name, offset) for name in ("ours", "theirs")
    )
    call = ours.invoked("submit", ids=["a"], places=[HOOK], deadline=DEADLINE)
    ours.returned("submit", call, "ok", answers={"a": "new"})
    theirs.note("finish", id="a", state="succeeded")
    theirs.note(
        "delivery",
        webhook_id="msg-\u2028",
        id="a",
        state="succeeded",
        place=HOOK,
        verified=True,
        answered=204,
    )
    call = ours.invoked("get")
    ours.returned("get", call, "ok", seen={"a": ["succeeded", None]})
    ours.check_clock()
    ours.note("end")
    kept = tmp_path / "kept" / "run.jsonl"
    lines = history.merge(tmp_path.glob("*.jsonl"), kept)
    assert [line["by"] for line in lines] == ["ours", "ours", "theirs", "theirs", *["ours"] * 4]
    assert history.read(kept) == lines
    assert violations(history.read(kept)) == violations(lines) == []
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"op": "get"}', '{"op": "get", "at": "now"}', '{"op": 1, "at": 1.0}']
)
def test_a_line_that_is_no_history_is_named_by_its_number(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps({"op": "end", "at": 1.0}) + "\n" + text + "\n")
    with pytest.raises(ValueError, match="line 2 is no history"):
        history.read(path)
