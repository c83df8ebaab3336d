"""What the ids of a submit have in common is stored once, and is there as long as one needs it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cavendish.endpoints.webhook_endpoint import endpoint_in, subscription_of
from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store, new_tasks
from cavendish.store.common_parts import LONGEST_VALUE, MARGIN, Part
from cavendish.store.deliveries import Attempt
from cavendish.store.keys import LaneKeys, delivery_of
from cavendish.stored_json import compact, parse
from cavendish.submission import METADATA_BYTES, SubmitOptions

LANE = Lane("default", "nano-banana")
KEYS = LaneKeys(LANE)
LONG = "x" * LONGEST_VALUE
#: Two that are stored apart, one that is not, and none.
METADATA = [compact({"order": 1, "note": LONG}), compact({"order": 2, "note": LONG}), '{"a":1}', ""]
HOOKS = [
    f"https://one.example/{LONG}",
    f"https://one.example/{LONG}?job=7",
    "https://two.example/short",
    "shop",
]
IDS = ["a", "b", "c:d", "e"]
RETENTION, DEAD_RETENTION = 1000, 5000


def submit(
    store: Store,
    ids: Iterable[str],
    now: float,
    hooks: Iterable[str] = (),
    metadata: str = "",
    *,
    restart: bool = False,
) -> dict[str, str]:
    told = SubmitOptions(LANE.service, LANE.account, tuple(hooks), 100.0, metadata, "", "", restart)
    answers = store.tasks.add(list(ids), told, now, now)
    return {task_id: answer.outcome for task_id, answer in answers.items()}


def end(store: Store, ids: Iterable[str], now: float) -> None:
    """Claim those of the ids that are pending, and let them succeed."""
    wanted = [one for one in store.tasks.candidates(LANE, now + 1e6, 99) if one.id in {*ids}]
    claimed = store.tasks.claim(LANE, now + 100, "t", wanted)
    tasks = store.tasks.load(LANE, claimed).tasks
    outcomes = [(Outcome(tasks[each], State.SUCCEEDED, record={}), 0.0) for each in claimed]
    store.tasks.settle(LANE, "t", now, outcomes, RETENTION, 100)


def close(store: Store, picked: Iterable[str], now: float, *, dead: bool) -> None:
    """Claim all that is open, close those deliveries that are picked, and give the others back."""
    worth = store.deliveries.sort([LANE], now).worth.get(LANE, [])
    rooms = dict.fromkeys(worth, 99)
    claimed = store.deliveries.claim_delivery(LANE, now, now + 1, "d", 99, rooms)
    attempts = [Attempt(name, "") for name in claimed if name in {*picked}]
    if dead:
        store.deliveries.bury(LANE, "d", now, attempts, DEAD_RETENTION)
    else:
        store.deliveries.delivered(LANE, "d", now, attempts, RETENTION)


def test_one_message_of_five_thousand_ids_takes_its_metadata_and_urls_once(store: Store) -> None:
    raw = store.connection.redis
    raw.execute_command("FLUSHALL", "SYNC")
    before = raw.info("memory")["used_memory"]
    ids = [f"00000000-0000-4000-8000-{number:012d}" for number in range(5000)]
    hooks = [f"https://{name}.example/{'h' * 2000}?job={name}" for name in "abcdefgh"]
    metadata = compact({"note": "m" * (METADATA_BYTES - 11)})
    assert len(metadata) == METADATA_BYTES
    submit(store, ids, 1000.0, hooks, metadata)
    assert raw.info("memory")["used_memory"] - before <= 6_000_000
    assert raw.hvals(KEYS.common_open) == ["5000"]
    (task,) = store.tasks.load(LANE, ids[-1:]).tasks.values()
    assert task.metadata == parse(metadata)
    names = [delivery_of(one, task.id) for one in task.webhooks]
    assert [delivery.url for delivery in store.deliveries.load(LANE, names)] == hooks


def test_equal_parts_of_many_submits_are_one_and_short_ones_stay_in_the_record(
    store: Store,
) -> None:
    raw = store.connection.redis
    for task_id in IDS:
        submit(store, [task_id], 1000.0, HOOKS[:1], METADATA[0])
    assert raw.hlen(KEYS.common) == 2
    assert set(raw.hvals(KEYS.common_open)) == {"4"}
    submit(store, ["short"], 1000.0, HOOKS[2:], METADATA[2])
    assert raw.hlen(KEYS.common) == 2
    assert raw.hget(KEYS.task("short"), "metadata") == METADATA[2]
    assert raw.hget(KEYS.task("short"), f"to:{subscription_of(HOOKS[2])}") == HOOKS[2]


def test_a_batch_is_read_in_two_round_trips_each_part_once_and_remembered(store: Store) -> None:
    submit(store, IDS, 1000.0, HOOKS, METADATA[0])
    raw = store.connection.redis
    before = raw.info("commandstats")["cmdstat_hmget"]["calls"]
    assert set(store.tasks.load(LANE, IDS).tasks) == set(IDS)
    assert raw.info("commandstats")["cmdstat_hmget"]["calls"] == before + 2  # leases, parts
    assert set(store.tasks.load(LANE, IDS).tasks) == set(IDS)
    assert raw.info("commandstats")["cmdstat_hmget"]["calls"] == before + 3


@pytest.mark.parametrize("damage", [None, "{", "[]", '{"metadata":7}'])
def test_a_record_whose_common_part_is_gone_or_damaged_is_unreadable(
    store: Store, damage: str | None
) -> None:
    submit(store, ["a"], 1000.0, [], METADATA[0])
    submit(store, ["b"], 1000.0, [], METADATA[1])
    name = Part.of({"metadata": METADATA[0]}).name
    raw = store.connection.redis
    raw.hdel(KEYS.common, name)
    if damage is not None:
        raw.hset(KEYS.common, name, damage)
    loaded = store.tasks.load(LANE, ["a", "b"])
    assert set(loaded.tasks) == {"b"}
    assert set(loaded.unreadable) == {"a"}
    raw.hset(KEYS.task("a"), mapping={"webhooks": "shop", "to:shop": ""})
    assert [one.url for one in store.deliveries.load(LANE, ["shop:a"])] == [""]


def test_a_part_outlives_the_last_record_that_refers_to_it_and_then_goes(store: Store) -> None:
    submit(store, ["a"], 1000.0, [], METADATA[0])
    end(store, ["a"], 1001.0)
    raw = store.connection.redis
    store.common_parts.forget(LANE, 1001.0 + RETENTION + MARGIN - 1)
    assert raw.hlen(KEYS.common) == 1
    submit(store, ["b"], 1002.0, [], METADATA[0])
    store.common_parts.forget(LANE, 1001.0 + RETENTION + MARGIN + 1)
    assert raw.hlen(KEYS.common) == 1
    end(store, ["b"], 9000.0)
    store.common_parts.forget(LANE, 9000.0 + RETENTION + MARGIN + 1)
    assert raw.exists(KEYS.common, KEYS.common_open, KEYS.common_until) == 0


PICKED = st.lists(st.sampled_from(IDS), min_size=1, unique=True)
CHOSEN_HOOKS = st.lists(st.sampled_from(HOOKS), unique=True, max_size=3)


class Life(RuleBasedStateMachine):
    """Everything that happens to records, against what was submitted. `known`: by id, the metadata
    and the URL of each subscription. Time passes as Redis would let it pass.
    """

    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.raw: Any = self.store.connection.redis
        self.raw.flushall()
        self.now = 1000.0
        self.known: dict[str, tuple[str, dict[str, str]]] = {}

    @rule(ids=PICKED, hooks=CHOSEN_HOOKS, metadata=st.sampled_from(METADATA), restart=st.booleans())
    def submits(self, ids: list[str], hooks: list[str], metadata: str, restart: bool) -> None:
        urls = {subscription_of(hook): hook if ":" in hook else "" for hook in hooks}
        for _ in range(2):  # the second time changes nothing, if it restarts nothing
            answers = submit(self.store, ids, self.now, hooks, metadata, restart=restart)
            for task_id, outcome in answers.items():
                if outcome == "new":
                    self.known[task_id] = metadata, dict(urls)
                else:
                    self.known[task_id] = self.known[task_id][0], self.known[task_id][1] | urls

    @rule(ids=PICKED)
    def ends(self, ids: list[str]) -> None:
        end(self.store, ids, self.now)

    @rule(ids=PICKED, hooks=CHOSEN_HOOKS, dead=st.booleans())
    def closes(self, ids: list[str], hooks: list[str], dead: bool) -> None:
        picked = [delivery_of(subscription_of(hook), each) for hook in hooks for each in ids]
        close(self.store, picked, self.now, dead=dead)
        self.now += 2.0

    @rule(ids=PICKED, hook=st.sampled_from(HOOKS), dead=st.booleans())
    def reopens(self, ids: list[str], hook: str, dead: bool) -> None:
        names = [delivery_of(subscription_of(hook), each) for each in ids]
        self.store.closed.reopen(LANE, dict.fromkeys(names, self.now), dead=dead)

    @rule(task_id=st.sampled_from(IDS))
    def is_set_aside_as_unreadable(self, task_id: str) -> None:
        if self.raw.zscore(KEYS.due(""), task_id) is not None:
            self.store.tasks.quarantine(LANE, {task_id: "for a test"})

    @rule(seconds=st.sampled_from([10, RETENTION, DEAD_RETENTION, int(MARGIN)]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        for key in self.raw.keys("*"):
            left = self.raw.ttl(key)
            if 0 <= left <= seconds:
                self.raw.delete(key)
            elif left > seconds:
                self.raw.expire(key, left - seconds)
        for task_id in [each for each in self.known if not self.raw.exists(KEYS.task(each))]:
            del self.known[task_id]
        self.store.closed.forget_dead(LANE, self.now - DEAD_RETENTION)

    @rule()
    def is_swept(self) -> None:
        self.store.common_parts.forget(LANE, self.now)

    @invariant()
    def no_record_loses_its_metadata_or_a_url(self) -> None:
        loaded = self.store.tasks.load(LANE, list(self.known))
        assert loaded.unreadable == {}
        wanted = {each: parse(text) if text else None for each, (text, _) in self.known.items()}
        assert {each: task.metadata for each, task in loaded.tasks.items()} == wanted
        urls = {
            delivery_of(subscription, each): url
            for each, (_, some) in self.known.items()
            for subscription, url in some.items()
        }
        found = self.store.deliveries.load(LANE, list(urls))
        assert {delivery.name: delivery.url for delivery in found} == urls
        places = [(LANE, endpoint_in(name)) for name, url in urls.items() if url]
        some_urls = self.store.deliveries.urls(places)
        assert set(some_urls.values()) <= set(urls.values())

    @invariant()
    def the_count_of_each_part_is_the_truth(self) -> None:
        truth = Counter[str]()
        for task_id in self.known:
            if self.raw.ttl(KEYS.task(task_id)) == -1:
                truth.update((self.raw.hget(KEYS.task(task_id), "in") or "").split())
        counts = {name: int(count) for name, count in self.raw.hgetall(KEYS.common_open).items()}
        assert counts == truth

    def teardown(self) -> None:
        """In the end everything ends, expires, and leaves no part behind."""
        for task_id in list(self.known):
            self.raw.hdel(KEYS.quarantined, task_id)
            if self.store.tasks.load(LANE, [task_id]).tasks[task_id].state is State.PENDING:
                self.raw.zadd(KEYS.due(""), {task_id: self.now})
                self.raw.sadd(KEYS.producers, "")
        self.now += 200.0
        self.raw.delete(KEYS.leases)
        end(self.store, IDS, self.now)
        every = [delivery_of(subscription_of(hook), each) for hook in HOOKS for each in IDS]
        close(self.store, every, self.now + RETENTION, dead=False)
        self.time_passes(2 * DEAD_RETENTION)
        self.now += MARGIN + DEAD_RETENTION
        self.is_swept()
        assert self.known == {}
        assert self.raw.exists(KEYS.common, KEYS.common_open, KEYS.common_until) == 0


@pytest.mark.timeout(0 if "FUZZ_CASES" in os.environ else 120)  # a failure is shrunk first
def test_whatever_happens_no_record_loses_its_metadata_or_urls_and_no_part_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice 10 sequences of 30 steps, others in each run; FUZZ_CASES=1000 makes a long run."""
    machine = type("Machine", (Life,), {"store": store})
    chosen = settings(
        max_examples=max(10, int(os.environ.get("FUZZ_CASES", "0"))),
        stateful_step_count=30,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=chosen)
    monkeypatch.setattr(new_tasks, "MANY", 1)  # all that a submit says is one part
    run_state_machine_as_test(machine, settings=chosen)
