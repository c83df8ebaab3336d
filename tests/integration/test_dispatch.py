"""Beat's tick with a real Redis.

It asks the rate limit first, and claims only what may be asked.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest

from cavendish.model import Lane, State
from cavendish.policy.rate_limit import RateLimit
from cavendish.policy.service_health import ServiceHealth, failed, not_served
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish.store.due_index import Place
from cavendish.store.forecasts import Forecasts
from cavendish.store.keys import LaneKeys
from cavendish.submission import SubmitOptions
from cavendish_worker.polling.dispatch import DispatchConfig, Dispatched, Dispatcher
from cavendish_worker.telemetry import logs

LANE = Lane("default", "nano-banana")
CONFIG = DispatchConfig(tick=0.25, batch_size=50, lease=60.0, rate=0.0)


class Sent:
    """Where the batches of a test go."""

    def __init__(self) -> None:
        self.batches: list[tuple[Lane, list[str], str]] = []

    def __call__(self, lane: Lane, ids: list[str], token: str, _until: float) -> None:
        self.batches.append((lane, ids, token))

    @property
    def ids(self) -> list[str]:
        return [task_id for _, ids, _ in self.batches for task_id in ids]


def add(store: Store, count: int, lane: Lane = LANE, producer: str = "") -> None:
    now = store.fleet.now()
    options = SubmitOptions(lane.service, lane.account, (), 1000.0, "", "", producer, False)
    store.tasks.add(
        [f"{lane.service}-{number}" for number in range(count)], options, now - 10, now - 10
    )


def tick(store: Store, sent: Sent, config: DispatchConfig = CONFIG) -> Dispatched | None:
    dispatcher = Dispatcher(store, Forecasts(store.shared_state), config)
    return dispatcher.dispatch(["default"], store.clock(), sent)


def full_tick(store: Store, sent: Sent, config: DispatchConfig = CONFIG) -> Dispatched | None:
    """A tick that nobody else has taken."""
    store.connection.redis.delete("cavendish:tick")
    return tick(store, sent, config)


def allow(store: Store, rate: float) -> None:
    store.shared_state.change_rate_limit("default", lambda _: (RateLimit(rate=rate), None))


def test_a_batch_is_filled_to_its_size_and_no_further(store: Store) -> None:
    add(store, 70)
    allow(store, 1000.0)
    sent = Sent()
    full_tick(store, sent)
    assert [len(ids) for _, ids, _ in sent.batches] == [50, 20]
    assert len(set(sent.ids)) == 70


def test_no_more_is_claimed_than_the_rate_limit_allows(store: Store) -> None:
    add(store, 500)
    allow(store, 8.0)
    sent = Sent()
    for _ in range(4):
        full_tick(store, sent)
    assert 6 <= len(sent.batches) <= 10
    assert store.connection.redis.hlen(LaneKeys(LANE).leases) == len(sent.ids)


def test_a_configured_ceiling_caps_the_rate_limit(store: Store) -> None:
    add(store, 500)
    allow(store, 1000.0)
    sent = Sent()
    for _ in range(4):
        full_tick(store, sent, replace(CONFIG, rate=4.0))
    assert 3 <= len(sent.batches) <= 5


def test_a_held_account_is_not_asked_and_nothing_is_claimed(store: Store) -> None:
    add(store, 10)
    store.shared_state.change_rate_limit(
        "default",
        lambda rate_limit: (
            replace(rate_limit, paused_until=store.fleet.now() + 60, pause_reason="x"),
            None,
        ),
    )
    sent = Sent()
    full_tick(store, sent)
    assert sent.batches == []
    assert store.connection.redis.hlen(LaneKeys(LANE).leases) == 0


def test_a_service_out_of_order_does_not_stop_its_neighbours(store: Store) -> None:
    add(store, 10)
    add(store, 10, Lane("default", "flux"))
    allow(store, 1000.0)
    now = store.fleet.now()
    for _ in range(6):
        store.shared_state.change_service_health(
            LANE, lambda known: (failed(known, "HTTP 500", now + 1, now, 0.0), None)
        )
    sent = Sent()
    full_tick(store, sent)
    assert {lane.service for lane, _, _ in sent.batches} == {"flux"}


def test_a_service_that_is_not_served_is_asked_about_one_id_once_its_pause_is_over(
    store: Store,
) -> None:
    add(store, 10)
    allow(store, 1000.0)
    now = store.fleet.now()
    for ago, sends in ((0.0, []), (60.0, [1])):
        at = now - ago
        store.shared_state.change_service_health(
            LANE, lambda _, at=at: (not_served(ServiceHealth(), "404", at, at, 0.0), None)
        )
        store.tasks.due("default").note([Place("", LANE, at)], now)
        sent = Sent()
        full_tick(store, sent)
        assert [len(ids) for _, ids, _ in sent.batches] == sends


def test_an_account_without_a_token_is_left_alone(store: Store) -> None:
    add(store, 10, Lane("other", "nano-banana"))
    sent = Sent()
    full_tick(store, sent)
    assert sent.batches == []


def test_two_beats_at_once_are_harmless(store: Store) -> None:
    add(store, 300)
    allow(store, 40.0)
    sent, ran = Sent(), []

    def beat() -> None:
        for _ in range(12):
            ran.append(tick(store, sent))
            time.sleep(0.08)

    beats = [threading.Thread(target=beat) for _ in range(2)]
    for one in beats:
        one.start()
    for one in beats:
        one.join()
    assert ran.count(None) > 0
    assert len(sent.ids) == len(set(sent.ids)) == 300


def test_a_tick_ends_though_more_is_due_than_the_rate_limit_allows(store: Store) -> None:
    """It goes on for about its tick, so that ticks never pile up.

    At this rate limit all that is due would take 20 s.
    """
    add(store, 5000)
    allow(store, 5.0)
    sent = Sent()
    full_tick(store, sent)
    assert 0 < len(sent.ids) < 2500


def test_ids_whose_message_cannot_be_sent_are_due_again_at_once(store: Store) -> None:
    add(store, 10)
    allow(store, 1000.0)

    def broken(*_: object) -> None:
        raise OSError("the broker is away")

    with pytest.raises(OSError, match="broker"):
        full_tick(store, broken)  # type: ignore[arg-type]
    assert store.connection.redis.hlen(LaneKeys(LANE).leases) == 0
    sent = Sent()
    full_tick(store, sent)
    assert len(sent.ids) == 10


def test_a_lone_id_of_a_small_lane_gets_its_turn_beside_a_crowd(store: Store) -> None:
    add(store, 2000)
    add(store, 1, Lane("default", "flux"))
    allow(store, 8.0)
    sent, dispatcher = Sent(), Dispatcher(store, Forecasts(store.shared_state), CONFIG)
    for _ in range(4):
        store.connection.redis.delete("cavendish:tick")
        dispatcher.dispatch(["default"], store.clock(), sent)
    assert "flux" in {lane.service for lane, _, _ in sent.batches[:4]}


def test_a_lane_whose_keys_are_damaged_does_not_stop_the_others(store: Store) -> None:
    add(store, 10)
    add(store, 10, Lane("default", "flux"))
    allow(store, 1000.0)
    store.connection.redis.delete(LaneKeys(LANE).producers)
    store.connection.redis.set(LaneKeys(LANE).producers, "?")
    sent = Sent()
    full_tick(store, sent)
    assert {lane.service for lane, _, _ in sent.batches} == {"flux"}


def test_ids_of_an_account_without_a_token_are_told_of_once_a_minute(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.set_up("json", "warning")
    lane, sent = Lane("shpo", "nano-banana"), Sent()
    full_tick(store, sent)
    assert capsys.readouterr().err == ""  # nothing waits for it yet
    add(store, 1, lane)
    dispatcher = Dispatcher(store, Forecasts(store.shared_state), CONFIG)
    for _ in range(3):
        store.connection.redis.delete("cavendish:tick")
        dispatcher.dispatch(["default"], store.clock(), sent)
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["event"], line["account"]) == ("account.no_token", "shpo")
    assert "CAVENDISH_API_TOKENS_FILE" in line["advice"]
    assert not sent.ids


def test_a_round_reads_no_more_with_a_thousand_quiet_lanes_than_with_none(store: Store) -> None:
    def commands() -> int:
        stats = store.connection.redis.info("commandstats")
        return sum(row["calls"] for name, row in stats.items() if "|" not in name)

    def costs(quiet: int) -> int:
        store.connection.redis.flushdb()
        later = store.fleet.now() + 3600
        for number in range(quiet):
            options = SubmitOptions(f"quiet{number}", "default", (), 9000.0, "", "", "", False)
            store.tasks.add(["x"], options, later, later)
        add(store, 1)
        sent, now, before = Sent(), store.fleet.now(), commands()
        dispatcher = Dispatcher(store, Forecasts(store.shared_state), CONFIG)
        dispatcher.run_round(frozenset(["default"]), now, sent, Dispatched())
        assert sent.ids == ["nano-banana-0"]
        return commands() - before

    costs(0)  # the server gets to know the scripts
    assert costs(1000) == costs(0)


def test_a_producer_with_forty_lanes_gets_no_more_calls_than_one_with_a_single_lane(
    store: Store,
) -> None:
    for number in range(40):
        add(store, 1, Lane("default", f"bogus{number}"), producer="careless")
    add(store, 2000, producer="careful")
    allow(store, 1000.0)
    sent, dispatcher = Sent(), Dispatcher(store, Forecasts(store.shared_state), CONFIG)
    while len(sent.batches) < 20:
        dispatcher.run_round(frozenset(["default"]), store.fleet.now(), sent, Dispatched())
    assert Counter(lane == LANE for lane, _, _ in sent.batches[:20]) == {True: 10, False: 10}
    assert len({lane for lane, _, _ in sent.batches[:20]}) == 11


def test_a_lane_whose_ids_have_ended_leaves_the_indices_so_that_ticks_end(store: Store) -> None:
    add(store, 1)
    now = store.fleet.now()
    for index in ("default", "cavendish:deadlines"):  # what was noted is written by now
        store.connection.redis.delete(f"cavendish:{{{index}}}:noted")
    store.tasks.claim(LANE, now + 60, "t", store.tasks.candidates(LANE, now, 1))
    task = store.tasks.load(LANE, ["nano-banana-0"]).tasks["nano-banana-0"]
    store.tasks.settle(LANE, "t", now, [(Outcome(task, State.SUCCEEDED), now)], 3600, 100)
    assert store.tasks.anything_pending()
    dispatcher = Dispatcher(store, Forecasts(store.shared_state), CONFIG)
    dispatcher.run_round(frozenset(["default"]), now + 2, Sent(), Dispatched())
    assert not store.tasks.anything_pending()


def test_a_tick_during_a_dispatch_of_the_same_process_makes_it_go_on_in_its_thread(
    store: Store,
) -> None:
    add(store, 60)
    allow(store, 1000.0)
    config = replace(CONFIG, tick=0.05)
    dispatcher, second = Dispatcher(store, Forecasts(store.shared_state), config), []

    def send(*_: object) -> None:
        store.connection.redis.delete("cavendish:tick")
        second.append(dispatcher.dispatch(["default"], store.clock(), Sent()))

    first = dispatcher.dispatch(["default"], store.clock(), send)
    assert first is not None
    assert second == [None, None]
    assert first.ids == 60
    store.connection.redis.delete("cavendish:tick")
    assert dispatcher.dispatch(["default"], store.clock(), Sent()) is not None
