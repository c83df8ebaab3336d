"""Pending ids can be given another deadline, earlier or later, and end by it."""

from __future__ import annotations

import pytest

from cavendish import Client, Filter, State, SubmissionError
from cavendish.clock import Clock
from cavendish.model import Lane
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish_worker.polling.expire import ExpiryConfig, expire_overdue

SERVICE = "nano-banana"
LANE = Lane("default", SERVICE)
CONFIG = ExpiryConfig(last_poll=1.0, retention=3600.0, events_kept=100)


def expired(store: Store, after: float) -> list[str]:
    """The ids that have expired so many seconds from now, if nobody can ask the API."""
    clock = Clock(store.fleet.now() + after, 0.0)
    clock.now = lambda: store.fleet.now() + after  # type: ignore[method-assign]
    store.shared_state.change_service_health(
        LANE, lambda health: (health.__class__(failures=3, reason="it fails"), None)
    )
    expire_overdue(store, LANE, clock, CONFIG)
    found = Client(store.connection._url).iter(Filter(state="expired"))
    return sorted(task.id for task in found)


@pytest.mark.parametrize("many", [2, 20])
def test_an_earlier_deadline_ends_an_id_earlier(client: Client, store: Store, many: int) -> None:
    ids = [f"id-{number:02}" for number in range(many)]
    client.submit(ids, service=SERVICE, deadline=3600)
    changes = client.set_deadline(ids[:1], 60, service=SERVICE)
    assert [(one.id, one.outcome) for one in changes] == [("id-00", "done")]
    task = client.get("id-00", service=SERVICE)
    assert task
    assert task.deadline_at == pytest.approx(store.fleet.now() + 60, abs=20)
    assert expired(store, 90) == ["id-00"]
    assert expired(store, 3700) == ids


@pytest.mark.parametrize("many", [2, 20])
def test_a_later_deadline_lets_an_id_live(client: Client, store: Store, many: int) -> None:
    ids = [f"id-{number:02}" for number in range(many)]
    client.submit(ids, service=SERVICE, deadline=60)
    client.set_deadline(ids[:1], 3600, service=SERVICE)
    assert expired(store, 90) == ids[1:]
    assert expired(store, 3700) == ids


def test_an_id_is_due_at_the_latest_at_its_new_deadline(client: Client, store: Store) -> None:
    client.submit(["a"], service=SERVICE)
    (seen,) = store.tasks.candidates(LANE, 9e9, 10)
    store.tasks.claim(LANE, 9e9, "t", [seen])
    (task,) = store.tasks.load(LANE, ["a"], token="t").tasks.values()
    now = store.fleet.now()
    store.tasks.settle(LANE, "t", now, [(Outcome(task, State.PENDING), now + 900)], 60, 10)
    client.set_deadline(["a"], 100, service=SERVICE)
    (after,) = store.tasks.candidates(LANE, 9e9, 10)
    assert after.due == pytest.approx(now + 100, abs=20)
    client.set_deadline(["a"], 800, service=SERVICE)
    (later,) = store.tasks.candidates(LANE, 9e9, 10)
    assert later.due == pytest.approx(after.due, abs=0.002)  # no harm: one poll more


def test_a_filter_gives_all_that_are_pending_another_deadline(client: Client, store: Store) -> None:
    client.submit([f"id-{number}" for number in range(700)], service=SERVICE, producer="p")
    client.cancel(["id-5"], service=SERVICE)
    changes = client.set_deadline(Filter(producer="p"), 7200)
    assert len(changes) == 699
    times = {task.deadline_at for task in client.iter(Filter(state="pending"))}
    assert len(times) == 1


def test_ended_and_unknown_ids_stay_as_they_are(client: Client) -> None:
    client.submit(["a"], service=SERVICE)
    client.cancel(["a"], service=SERVICE)
    changes = client.set_deadline(["a", "b"], 60, service=SERVICE)
    assert [one.outcome for one in changes] == ["ended", "unknown"]


@pytest.mark.parametrize(
    ("seconds", "why"),
    [
        *((seconds, "A deadline must lie within") for seconds in (0, -1, 30 * 86400 + 1)),
        *((seconds, "`deadline` must be a number") for seconds in (float("nan"), "60", True)),
    ],
)
def test_a_deadline_out_of_bounds_is_refused(client: Client, seconds: float, why: str) -> None:
    client.submit(["a"], service=SERVICE)
    with pytest.raises(SubmissionError, match=why):
        client.set_deadline(["a"], seconds, service=SERVICE)
