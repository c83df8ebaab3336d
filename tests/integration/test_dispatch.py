"""Beat's tick with a real Redis.

It asks the rate limit first, and claims only what may be asked.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from cavendish.model import Lane, State
from cavendish.policy import next_poll
from cavendish.policy.rate_limit import RateLimit
from cavendish.policy.service_health import ServiceHealth, failed, not_served
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store, keys
from cavendish.store.due_index import Place
from cavendish.store.fleet import Member
from cavendish.store.forecasts import Forecasts
from cavendish.store.keys import LaneKeys
from cavendish.submission import SubmitOptions
from cavendish_worker.polling.dispatch import Dispatcher
from cavendish_worker.polling.dispatch_round import Claimed, Dispatched, RoundConfig, Rounds
from cavendish_worker.telemetry import logs
from conftest import Server

LANE = Lane("default", "nano-banana")
TICK = keys.dispatcher("default")
CONFIG = RoundConfig(batch_size=50, lease=60.0, rate=0.0)


class Sent:
    """Where the batches of a test go."""

    def __init__(self) -> None:
        self.batches: list[tuple[Lane, list[str], str]] = []

    def __call__(self, batches: Sequence[Claimed]) -> None:
        self.batches += [(one.lane, one.ids, one.token) for one in batches]

    @property
    def ids(self) -> list[str]:
        return [task_id for _, ids, _ in self.batches for task_id in ids]


def add(store: Store, count: int, lane: Lane = LANE, producer: str = "") -> None:
    now = store.fleet.now()
    options = SubmitOptions(lane.service, lane.account, (), 1000.0, "", "", producer, False)
    store.tasks.add(
        [f"{lane.service}-{number}" for number in range(count)], options, now - 10, now - 10
    )


def dispatcher_of(store: Store, config: RoundConfig = CONFIG, every: float = 0.25) -> Dispatcher:
    return Dispatcher(store, Rounds(store, Forecasts(store.shared_state), config), every)


def tick(store: Store, sent: Sent, config: RoundConfig = CONFIG) -> Dispatched | None:
    dispatcher = dispatcher_of(store, config)
    return dispatcher.dispatch(["default"], store.clock(), sent)


def full_tick(store: Store, sent: Sent, config: RoundConfig = CONFIG) -> Dispatched | None:
    """A tick that nobody else has taken."""
    store.connection.redis.delete(TICK)
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


def test_a_paused_account_is_not_asked_and_nothing_is_claimed(store: Store) -> None:
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
    sent, dispatcher = Sent(), dispatcher_of(store)
    for _ in range(4):
        store.connection.redis.delete(TICK)
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
    dispatcher = dispatcher_of(store)
    for _ in range(3):
        store.connection.redis.delete(TICK)
        dispatcher.dispatch(["default"], store.clock(), sent)
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["event"], line["account"]) == ("account.no_token", "shpo")
    assert "CAVENDISH_API_TOKENS_FILE" in line["advice"]
    assert not sent.ids


def test_a_round_reads_no_more_with_a_thousand_quiet_lanes_than_with_none(
    server: Server, store: Store
) -> None:
    def commands() -> int:
        stats = store.connection.redis.info("commandstats")
        # By it the pauses of operators are read, five times a second at most, for all rounds.
        stats.pop("cmdstat_hgetall", None)
        return sum(row["calls"] for name, row in stats.items() if "|" not in name)

    def costs(quiet: int) -> int:
        store.connection.redis.flushdb()
        later = store.fleet.now() + 3600
        for number in range(quiet):
            options = SubmitOptions(f"quiet{number}", "default", (), 9000.0, "", "", "", False)
            store.tasks.add(["x"], options, later, later)
        add(store, 1)
        with closing(Store(server.url)) as fresh:  # it remembers nothing of the emptied one
            sent, now, before = Sent(), fresh.fleet.now(), commands()
            dispatcher = dispatcher_of(fresh)
            dispatcher.run_round(frozenset(["default"]), now, sent, Dispatched())
            assert sent.ids == ["nano-banana-0"]
            return commands() - before

    costs(0)  # the server gets to know the scripts
    assert costs(1000) == costs(0)


def test_a_producer_with_forty_lanes_gets_no_more_calls_than_one_with_a_single_lane(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_poll, "DEAR_CALLS", 1e9)  # a call about a single id may be worth it
    for number in range(40):
        add(store, 1, Lane("default", f"bogus{number}"), producer="careless")
    add(store, 2000, producer="careful")
    allow(store, 1000.0)
    sent, dispatcher = Sent(), dispatcher_of(store)
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
    assert store.deadlines.anything_pending()
    dispatcher = dispatcher_of(store)
    dispatcher.run_round(frozenset(["default"]), now + 2, Sent(), Dispatched())
    assert not store.deadlines.anything_pending()


def test_a_tick_during_a_dispatch_of_the_same_process_makes_it_go_on_in_its_thread(
    store: Store,
) -> None:
    add(store, 60)
    allow(store, 1000.0)
    dispatcher, second = dispatcher_of(store, every=0.05), []

    def send(*_: object) -> None:
        store.connection.redis.delete(TICK)
        second.append(dispatcher.dispatch(["default"], store.clock(), Sent()))

    first = dispatcher.dispatch(["default"], store.clock(), send)
    assert first is not None
    assert second == [None, None]
    assert first.ids == 60
    store.connection.redis.delete(TICK)
    assert dispatcher.dispatch(["default"], store.clock(), Sent()) is not None


# --- several batches in one round


def hurry(store: Store, rate: float = 1000.0) -> None:
    """Calls have been allowed for a while that nobody has made."""
    now = store.fleet.now()
    known = RateLimit(rate=rate, began=now - 60, next_at=now - 60)
    store.shared_state.change_rate_limit("default", lambda _: (known, None))


def test_where_calls_are_plentiful_one_round_sends_several_batches_of_a_lane(store: Store) -> None:
    add(store, 170)
    hurry(store)
    sent, did, now = Sent(), Dispatched(), store.fleet.now()
    assert dispatcher_of(store).run_round(frozenset(["default"]), now, sent, did) == 0.0
    assert [len(ids) for _, ids, _ in sent.batches] == [50, 50, 50, 20]
    assert len(set(sent.ids)) == 170
    assert len({token for _, _, token in sent.batches}) == 4
    assert store.connection.redis.hlen(LaneKeys(LANE).leases) == 170
    assert (did.batches, did.ids) == (4, 170)


def test_a_round_makes_no_more_calls_than_came_due_while_nobody_looked(store: Store) -> None:
    add(store, 500)
    hurry(store, 60.0)
    sent, now = Sent(), store.fleet.now()
    dispatcher = dispatcher_of(store)
    dispatcher.run_round(frozenset(["default"]), now, sent, Dispatched())
    assert len(sent.batches) == 3  # those of the last 40 ms, and the one that is due
    dispatcher.run_round(frozenset(["default"]), now, sent, Dispatched())
    assert len(sent.batches) == 3
    dispatcher.run_round(frozenset(["default"]), now + 1 / 60, sent, Dispatched())
    assert len(sent.batches) == 4


@pytest.mark.parametrize("ceiling", [30.0, 60.0])
def test_a_cap_of_the_operator_is_kept_to_the_call(store: Store, ceiling: float) -> None:
    add(store, 500)
    hurry(store)
    sent, now = Sent(), store.fleet.now()
    dispatcher = dispatcher_of(store, replace(CONFIG, rate=ceiling))
    for _ in range(3):
        dispatcher.run_round(frozenset(["default"]), now, sent, Dispatched())
    assert len(sent.batches) == 1


def test_a_round_of_several_batches_is_shared_between_producers_as_many_rounds_are(
    store: Store,
) -> None:
    for number in range(7):
        add(store, 100, Lane("default", f"bogus{number}"), producer="careless")
    add(store, 600, producer="careful")
    hurry(store)
    sent = Sent()
    dispatcher_of(store).run_round(frozenset(["default"]), store.fleet.now(), sent, Dispatched())
    assert Counter(lane == LANE for lane, _, _ in sent.batches) == {True: 3, False: 3}


def test_a_service_that_fails_gets_one_batch_a_round(store: Store) -> None:
    add(store, 300)
    hurry(store)
    past = store.fleet.now() - 100
    store.shared_state.change_service_health(
        LANE, lambda known: (failed(known, "HTTP 500", past, past, 0.0), None)
    )
    sent, now = Sent(), store.fleet.now()
    dispatcher = dispatcher_of(store)
    dispatcher.run_round(frozenset(["default"]), now, sent, Dispatched())
    assert len(sent.batches) == 1
    dispatcher.run_round(frozenset(["default"]), now + 0.5, sent, Dispatched())
    assert len(sent.batches) == 1  # all others wait for the answer


def test_if_the_broker_goes_away_within_a_round_all_of_its_batches_are_due_at_once(
    store: Store,
) -> None:
    add(store, 200)
    hurry(store)
    left = list[Claimed]()

    def send(batches: Sequence[Claimed]) -> None:
        left.append(batches[0])
        raise OSError("the broker is away")

    with pytest.raises(OSError, match="broker"):
        dispatcher_of(store).run_round(
            frozenset(["default"]), store.fleet.now(), send, Dispatched()
        )
    assert store.connection.redis.hlen(LaneKeys(LANE).leases) == 0
    # A message that left all the same finds nothing to ask about.
    assert store.tasks.claimed(LANE, left[0].ids, left[0].token).tasks == {}
    again = Sent()
    full_tick(store, again)
    assert len(again.ids) == 200


def test_where_the_script_fails_for_one_lane_the_others_have_their_answers(store: Store) -> None:
    add(store, 2)
    flux = Lane("default", "flux")
    add(store, 2, flux)
    now = store.fleet.now()
    seen = {lane: store.tasks.candidates(lane, now, 9) for lane in (LANE, flux)}
    store.connection.redis.set(LaneKeys(LANE).leases, "damaged")
    bad, good = store.tasks.claim_all(now + 9, [(LANE, "t", seen[LANE]), (flux, "u", seen[flux])])
    assert isinstance(bad, Exception)
    assert good == ["flux-0", "flux-1"]


# --- which worker dispatches which account


def test_an_account_has_one_dispatcher_and_different_accounts_may_have_different_ones(
    store: Store,
) -> None:
    for account in ("default", "shop"):
        add(store, 60, Lane(account, "nano-banana"))
        store.shared_state.change_rate_limit(account, lambda _: (RateLimit(rate=1000.0), None))
    first, second, all_ended = Sent(), Sent(), []

    def beside(*batch: Any) -> None:
        """Another worker gets a tick while the first one dispatches."""
        first(*batch)
        if not all_ended:
            all_ended.append(True)
            did = dispatcher_of(store, every=0.1).dispatch(
                ["default", "shop"], store.clock(), second
            )
            assert did is not None

    dispatcher_of(store, every=0.1).dispatch(["default"], store.clock(), beside)
    assert {lane.account for lane, _, _ in first.batches} == {"default"}
    assert {lane.account for lane, _, _ in second.batches} == {"shop"}
    assert len(first.ids) == len(second.ids) == 60


def test_the_worker_that_gets_a_tick_shares_the_accounts_among_the_living_workers(
    store: Store,
) -> None:
    accounts = [f"a{number}" for number in range(8)]
    for account in accounts:
        add(store, 1, Lane(account, "nano-banana"))
    now = store.fleet.now()
    for name, at in (("one", now), ("two", now), ("dead", now - 100)):
        store.fleet.beat(Member(name, "worker", "1", at))
    store.fleet.beat(Member("beat", "beat", "1", now))
    sent, passed = Sent(), list[list[str]]()
    dispatcher = dispatcher_of(store, every=0.1)
    dispatcher.dispatch([*accounts, "idle"], store.clock(), sent, passed.append)
    (part,) = passed
    mine = {lane.account for lane, _, _ in sent.batches}
    assert len(part) == len(mine) == 4
    assert mine | {*part} == {*accounts}
    others = Sent()
    dispatcher_of(store, every=0.1).dispatch(part, store.clock(), others)
    assert {lane.account for lane, _, _ in others.batches} == {*part}


def test_a_lone_worker_and_a_lone_account_are_passed_on_to_nobody(store: Store) -> None:
    passed = list[list[str]]()
    add(store, 1)
    add(store, 1, Lane("shop", "nano-banana"))
    sent = Sent()
    dispatcher_of(store).dispatch(["default", "shop"], store.clock(), sent, passed.append)
    assert len(sent.ids) == 2
    for name in ("one", "two"):
        store.fleet.beat(Member(name, "worker", "1", store.fleet.now()))
    add(store, 9, Lane("lone", "nano-banana"))
    dispatcher_of(store).dispatch(["lone"], store.clock(), sent, passed.append)
    assert len(sent.ids) == 11
    assert passed == []
