"""How well an endpoint took its webhooks lately: counted by who delivers, and read by operators."""

from __future__ import annotations

import httpx

from cavendish.endpoints.webhook_endpoint import endpoint_of
from cavendish.policy.attempt_history import KEPT, PERIOD
from cavendish.policy.circuit import TRIP, Circuit, failed, worked
from cavendish.store import Store
from cavendish.store.keys import attempts
from cavendish.store.shared_state import FORGOTTEN_AFTER
from delivering import Delivering, Served
from shell import Run, said


def test_each_attempt_at_a_receiver_is_counted_by_what_came_of_it(
    endpoint_index: Delivering, store: Store, served: Served, run: Run
) -> None:
    """A failure counts when it is tried again, and when it is the last one."""
    answers = iter([204, 500, 204, 400])

    async def receiver(_request: httpx.Request) -> httpx.Response:
        status = next(answers)
        headers = {"webhook-delivery": "abort-message"} if status == 400 else {}
        return httpx.Response(status, headers=headers)

    url = served(receiver)
    for task_id in ("a", "b", "c", "d"):
        endpoint_index.end(task_id, webhook=url)
        endpoint_index.deliver()
    name, now = endpoint_of(url), store.fleet.now()
    (day,) = store.attempt_counts.of([name], now)
    assert (day.delivered, day.failed) == (2, 2)
    (circuit,) = store.shared_state.circuits([name])
    assert "400" in circuit.error
    shown = said(run("endpoint", "show", name, "--json"))
    assert (shown["attempts_24h"], shown["success_rate_24h"]) == (4, 0.5)
    assert "50.0%" in run("endpoint", "show", name).stdout


def test_of_an_endpoint_a_day_is_kept_however_long_it_is_called(store: Store) -> None:
    """And nothing at all a day after its last call."""
    now = store.fleet.now()
    for period in range(3 * KEPT):
        for _ in range(2):
            store.attempt_counts.add({"shop": (5, 1)}, now + period * PERIOD)
    later = now + (3 * KEPT - 1) * PERIOD
    (day,) = store.attempt_counts.of(["shop"], later)
    assert (day.delivered, day.failed) == (10 * KEPT, 2 * KEPT)
    redis = store.connection.redis
    assert redis.hlen(attempts("shop")) == 2 * KEPT
    assert 0 < redis.ttl(attempts("shop")) <= (KEPT + 1) * PERIOD  # type: ignore[operator]


def test_damaged_counts_stop_nobody(store: Store) -> None:
    """Nothing is decided by them."""
    store.connection.redis.set(attempts("bad"), "x")
    now = store.fleet.now()
    store.attempt_counts.add({"bad": (1, 0), "shop": (1, 0)}, now)
    bad, shop = store.attempt_counts.of(["bad", "shop"], now)
    assert (bad.success_rate, shop.success_rate) == (None, 1.0)


def test_an_endpoint_is_listed_while_its_circuit_is_open(store: Store) -> None:
    """So nobody need read the circuits of ten thousand to find those that fail."""
    now, state = store.fleet.now(), store.shared_state

    def fail(name: str, at: float = now) -> None:
        for _ in range(TRIP):
            state.change_circuit(name, lambda known: failed(known, at, at, 0.5, error="HTTP 500"))

    state.change_circuit("shop", lambda known: worked(known, 1, 0.1, now, 100))
    assert store.statistics().open_circuits == ()
    fail("shop")
    assert store.statistics().open_circuits == ("shop",)
    state.change_circuit("shop", lambda known: worked(known, 1, 0.1, now, 100))
    assert store.statistics().open_circuits == ()
    (circuit,) = state.circuits(["shop"])
    assert (circuit.error, circuit.error_at) == ("HTTP 500", now)  # what it was, after all is well
    state.open_circuits.add("shop", now)  # as a process leaves it that dies between two writes
    state.change_circuit("shop", lambda known: worked(known, 1, 0.1, now + 60, 100))
    assert store.statistics().open_circuits == ()
    fail("gone", now - FORGOTTEN_AFTER - 1)
    fail("shop")
    assert store.statistics().open_circuits == ("shop",)
    state.change_circuit("shop", lambda _: Circuit())
    assert store.statistics().open_circuits == ()
