"""A process begins a change of shared state with what it knows, and another may know better."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from cavendish.model import Lane
from cavendish.policy.rate_limit import RateLimit
from cavendish.policy.service_health import ServiceHealth
from cavendish.store import Store
from conftest import Server

LANE = Lane("default", "nano-banana")


def faster(known: RateLimit) -> tuple[RateLimit, float]:
    return replace(known, rate=known.rate + 1), known.rate


def test_no_change_is_lost_between_processes_that_change_in_turn_or_at_once(
    server: Server, store: Store
) -> None:
    """Each knows an old state when the other has changed it."""
    stores = [Store(server.url) for _ in range(3)]
    first = store.shared_state.rate_limit("default").rate
    for turn in range(6):
        before = stores[turn % 2].shared_state.change_rate_limit("default", faster)
        assert before == first + turn
    with ThreadPoolExecutor() as pool:
        for one in stores * 10:
            pool.submit(one.shared_state.change_rate_limit, "default", faster)
    assert store.shared_state.rate_limit("default").rate == first + 36
    for one in stores:
        one.close()


def test_nothing_to_change_is_said_of_what_is_there_now(server: Server, store: Store) -> None:
    """A process that knows an old state may find no change in it; the new one wants the change."""
    other = Store(server.url)

    def slow_down(known: RateLimit) -> tuple[RateLimit, None]:
        return replace(known, rate=1.0), None

    store.shared_state.change_rate_limit("default", slow_down)
    other.shared_state.change_rate_limit("default", faster)
    store.shared_state.change_rate_limit("default", slow_down)
    assert other.shared_state.rate_limit("default").rate == 1.0
    other.close()


def test_a_failure_that_another_process_met_is_not_overwritten_by_what_was_known_before(
    server: Server, store: Store
) -> None:
    """A healthy service is not asked about at each answer; a change begins with what is there."""
    other = Store(server.url)

    def failed(known: ServiceHealth) -> tuple[ServiceHealth, None]:
        return replace(known, failures=known.failures + 1), None

    store.shared_state.change_service_health(LANE, lambda known: (known, None))
    other.shared_state.change_service_health(LANE, failed)
    store.shared_state.change_service_health(LANE, failed)
    assert other.shared_state.service_health(LANE).failures == 2
    other.close()


def test_a_store_that_was_emptied_is_begun_anew(server: Server, store: Store) -> None:
    """What a process remembers of it is not written back, not even after as many changes."""
    for _ in range(3):
        store.shared_state.change_rate_limit("default", faster)
    first = RateLimit().rate
    store.connection.redis.flushall()
    other = Store(server.url)
    for _ in range(3):
        other.shared_state.change_rate_limit("default", faster)
    assert store.shared_state.change_rate_limit("default", faster) == first + 3
    other.close()
