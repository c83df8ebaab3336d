"""Cancelled ids are polled no more and end once; their webhooks hear it, unless it is silent."""

from __future__ import annotations

import pytest

from cavendish import Client, Filter, State, SubmissionError
from cavendish.model import Lane
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish.store.keys import LaneKeys

SERVICE, HOOK = "nano-banana", "https://example.com/hook"
LANE = Lane("default", SERVICE)


def outcomes(changes: list[object]) -> dict[str, str]:
    return {one.id: one.outcome for one in changes}  # type: ignore[attr-defined]


def test_a_cancelled_id_ends_at_once_and_tells_its_webhooks(client: Client, store: Store) -> None:
    client.submit(["a", "b"], service=SERVICE, webhook=HOOK)
    changes = client.cancel(["a", "x"], service=SERVICE, reason="wrong model", by="ann@shop")
    assert outcomes(changes) == {"a": "done", "x": "unknown"}
    task = client.get("a", service=SERVICE)
    assert task
    assert (task.state, task.reason) == (State.CANCELLED, "cancelled by ann@shop: wrong model")
    assert (task.polls, task.polled_at, task.finished_at) == (0, None, None)
    assert task.settled_at
    (event,) = client.events(after="0", follow=False)
    assert (event.id, event.state) == ("a", State.CANCELLED)
    (name,) = store.connection.redis.zrange(LaneKeys(LANE).inbox, 0, -1)
    assert str(name).endswith(":a")
    assert [one.id for one in store.tasks.candidates(LANE, 9e9, 10)] == ["b"]
    assert store.statistics().tracked[0].counts["cancelled"] == 1
    assert outcomes(client.cancel(["a"], service=SERVICE)) == {"a": "ended"}


def test_a_silent_cancel_tells_nobody_and_its_record_expires(client: Client, store: Store) -> None:
    client.submit([f"id-{number}" for number in range(20)], service=SERVICE, webhook=HOOK)
    assert len(client.cancel(["id-3"], service=SERVICE, silent=True)) == 1
    redis, keys = store.connection.redis, LaneKeys(LANE)
    assert redis.exists(keys.inbox, keys.ended) == 0
    assert redis.ttl(keys.task("id-3")) > 0
    task = client.get("id-3", service=SERVICE)
    assert task
    assert (task.state, task.webhooks) == (State.CANCELLED, ())


def test_what_a_call_under_way_answers_is_dropped(client: Client, store: Store) -> None:
    client.submit(["a"], service=SERVICE, webhook=HOOK)
    now = store.fleet.now()
    store.tasks.claim(LANE, now + 60, "call", store.tasks.candidates(LANE, 9e9, 10))
    (task,) = store.tasks.load(LANE, ["a"], token="call").tasks.values()
    assert outcomes(client.cancel(["a"], service=SERVICE)) == {"a": "done"}
    late = [(Outcome(task, State.SUCCEEDED, record={"id": "a"}), now)]
    assert [one.verdict for one in store.tasks.settle(LANE, "call", now, late, 60, 10)] == ["stale"]
    ended = client.get("a", service=SERVICE)
    assert ended
    assert (ended.state, ended.record) == (State.CANCELLED, None)


def test_an_id_whose_end_was_written_before_stays_as_it_is(client: Client, store: Store) -> None:
    client.submit(["a"], service=SERVICE)
    now = store.fleet.now()
    store.tasks.claim(LANE, now + 60, "call", store.tasks.candidates(LANE, 9e9, 10))
    (task,) = store.tasks.load(LANE, ["a"], token="call").tasks.values()
    store.tasks.settle(LANE, "call", now, [(Outcome(task, State.FAILED), now)], 60, 10)
    assert outcomes(client.cancel(["a"], service=SERVICE)) == {"a": "ended"}
    ended = client.get("a", service=SERVICE)
    assert ended
    assert ended.state is State.FAILED


def test_a_process_that_dies_between_its_two_steps_leaves_an_id_that_is_polled(
    client: Client, store: Store
) -> None:
    """It has seized the id and not ended it: the id is due as before, and can be cancelled."""
    client.submit(["a"], service=SERVICE)
    before = store.tasks.candidates(LANE, 9e9, 10)
    assert store.tasks.seize(LANE, ["a", "x"], store.fleet.now(), "dead") == ["a"]
    (after,) = store.tasks.candidates(LANE, 9e9, 10)
    assert after == before[0]
    store.tasks.claim(LANE, 9e9, "next", [after])
    assert list(store.tasks.load(LANE, ["a"], token="next").tasks) == ["a"]
    assert outcomes(client.cancel(["a"], service=SERVICE)) == {"a": "done"}


def test_all_that_match_a_filter_are_cancelled_and_nothing_else(
    client: Client, store: Store
) -> None:
    client.submit(
        [f"wrong-{number}" for number in range(1200)], service=SERVICE, producer="careless"
    )
    client.submit(["right"], service=SERVICE, producer="careful")
    client.submit(["other"], service="veo", producer="careless")
    changes = client.cancel(Filter(producer="careless", service=SERVICE))
    assert len(changes) == 1200
    assert {one.outcome for one in changes} == {"done"}
    assert client.count(Filter(state="cancelled")) == 1200
    assert sorted(task.id for task in client.iter(Filter(state="pending"))) == ["other", "right"]


def test_a_group_counts_a_silent_cancel(client: Client, store: Store) -> None:
    client.submit(["a", "b"], service=SERVICE, webhook=HOOK, group="order", group_size=2)
    client.cancel(["a", "b"], service=SERVICE, silent=True)
    names = store.connection.redis.zrange(LaneKeys(LANE).inbox, 0, -1)
    assert [str(name).partition(".")[0] for name in names] == ["+group", "+group"]


@pytest.mark.parametrize(
    ("chosen", "options", "said"),
    [
        (["a"], {}, "Name the service"),
        ("a", {"service": SERVICE}, "must be a list"),
        (["a"], {"service": SERVICE, "account": "A"}, "account"),
        (["a"], {"service": SERVICE, "reason": "x" * 201}, "`reason`"),
        (Filter(state="failed"), {}, "Only pending ids"),
        (Filter(), {"service": SERVICE}, "A filter names service"),
    ],
)
def test_a_wrong_value_is_refused_and_changes_nothing(
    client: Client, chosen: object, options: dict[str, str], said: str
) -> None:
    client.submit(["a"], service=SERVICE)
    with pytest.raises(SubmissionError, match=said):
        client.cancel(chosen, **options)  # type: ignore[arg-type]
    assert client.count(Filter(state="pending")) == 1
