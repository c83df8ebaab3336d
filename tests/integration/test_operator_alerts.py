"""Alerts to operators: once for each episode, whoever looks and dies.

With a real Redis and real receivers.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from cavendish import Client
from cavendish.model import OPERATIONS, Lane, UpstreamErrorKind
from cavendish.policy import rate_limit, service_health, visibility
from cavendish.store import Store
from cavendish.store.fleet import GONE_AFTER, Member
from cavendish.store.refused import RefusedSubmit
from cavendish_worker.webhooks.operator_alerts import update
from conftest import Server
from delivering import Delivering, Receiver, Served
from servers import eventually

LANE = Lane("default", "nano-banana")
WEBHOOK = "https://operations.example/alerts"
Change = Callable[[Store, float], None]


def refuse_account(store: Store, now: float) -> None:
    why = UpstreamErrorKind.ACCOUNT
    store.shared_state.change_rate_limit(
        "default",
        lambda known: (
            rate_limit.report_error(known, why, "HTTP 402 used_up", None, now, now, 0.0),
            None,
        ),
    )


def answer_account(store: Store, now: float) -> None:
    store.shared_state.change_rate_limit(
        "default", lambda known: (rate_limit.report_answer(known, now, now), None)
    )


def fail_service(store: Store, now: float) -> None:
    store.shared_state.change_service_health(
        LANE, lambda known: (service_health.failed(known, "HTTP 503", now, now, 0.0), None)
    )


def refuse_service(store: Store, now: float) -> None:
    store.shared_state.change_service_health(
        LANE, lambda known: (service_health.not_served(known, "HTTP 404", now, now, 0.0), None)
    )


def answer_service(store: Store, _now: float) -> None:
    store.shared_state.change_service_health(
        LANE, lambda known: (service_health.worked(known), None)
    )


def hide_ids(store: Store, now: float) -> None:
    store.shared_state.change_visibility(
        LANE, lambda known: (visibility.missed(known, visibility.ALARMING, now), None)
    )


def show_ids(store: Store, now: float) -> None:
    store.shared_state.change_visibility(LANE, lambda known: (visibility.saw(known, now), None))


def lose_worker(store: Store, now: float) -> None:
    store.fleet.beat(Member("worker@x:7", "worker", "1", now - GONE_AFTER - 10))


def say_goodbye(store: Store, _now: float) -> None:
    store.fleet.leave("worker@x:7")


def refuse_submit(store: Store, now: float) -> None:
    store.refused.keep(RefusedSubmit(now, "service", "no such service", ids=3))


def drop_submits(store: Store, _now: float) -> None:
    store.refused.drop([one.id for one in store.refused.list()])


#: How each trouble begins and ends, and what is told of it.
TROUBLES: dict[str, tuple[Change, Change, list[str]]] = {
    "account.paused": (refuse_account, answer_account, ["account.paused", "account.resumed"]),
    "account.blind": (hide_ids, show_ids, ["account.blind"]),
    "service.down": (fail_service, answer_service, ["service.down", "service.back"]),
    "service.paused": (refuse_service, answer_service, ["service.paused", "service.back"]),
    "worker.gone": (lose_worker, say_goodbye, ["worker.gone"]),
    "refused.submits": (refuse_submit, drop_submits, ["refused.submits"]),
}


def bodies(receiver: Receiver) -> list[dict[str, Any]]:
    """What came, in the order in which it happened."""
    came = [json.loads(request.content) for request in receiver.got]
    return sorted(came, key=lambda body: str(body["timestamp"]))


@pytest.mark.parametrize("kind", TROUBLES)
def test_an_episode_is_told_once_at_its_beginning_and_once_at_its_end(
    endpoint_index: Delivering, served: Served, kind: str
) -> None:
    store, receiver = endpoint_index.store, Receiver()
    url, (begin, end, kinds) = served(receiver), TROUBLES[kind]
    began = store.fleet.now() - 1000  # so that what is told of it is due
    begin(store, began)
    for minute in range(1, 5):
        update(store, url, ["default"], began + 65 * minute)
    end(store, began + 300)
    for minute in range(5, 10):
        update(store, url, ["default"], began + 65 * minute)
    endpoint_index.deliver(operations=url)
    told = bodies(receiver)
    assert [body["type"] for body in told] == kinds
    assert len({request.headers["webhook-id"] for request in receiver.got}) == len(kinds)
    if len(kinds) == 2:
        first, last = (body["data"] for body in told)
        names = ("account", "service", "paused_by")
        subject = {name: first[name] for name in names if name in first}
        assert last == subject | {
            "was": kind,
            "reason": first["reason"],
            "began_at": began,
            "ended_at": pytest.approx(began + 65 * 5),
            "lasted": pytest.approx(65 * 5),
        }


def test_an_account_says_who_paused_it_and_why(endpoint_index: Delivering, served: Served) -> None:
    store, receiver = endpoint_index.store, Receiver()
    now = store.fleet.now() - 100
    refuse_account(store, now)
    refuse_account(store, now + 20)
    update(store, url := served(receiver), ["default"], now + 30)
    endpoint_index.deliver(operations=url)
    (body,) = bodies(receiver)
    assert body["data"] == {
        "account": "default",
        "paused_by": "api",
        "reason": "HTTP 402 used_up",
        "by": "api",
        "paused_at": now,
    }


def test_a_pause_by_an_operator_is_told_with_its_end(
    endpoint_index: Delivering, served: Served, client: Client
) -> None:
    store, receiver = endpoint_index.store, Receiver()
    url, now = served(receiver), store.fleet.now()
    refuse_account(store, now - 900)
    client.pause("default", reason="audit", by="ann")
    client.pause("default", "flux", seconds=3600.0, reason="slow", by="bob")
    update(store, url, ["default"], now + 1)
    client.pause("default", reason="audit goes on", by="cleo")
    update(store, url, ["default"], now + 2)
    client.resume("default")
    for minute in range(1, 4):
        update(store, url, ["default"], now + 65 * minute)
    assert told(store) == ["account.paused"] * 3 + ["account.resumed"]
    eventually(lambda: endpoint_index.deliver(operations=url) and len(receiver.got) >= 3, "told")
    begun = {one["data"]["by"]: one["data"] for one in bodies(receiver)}
    assert {*begun} == {"api", "ann", "bob"}
    one = begun["bob"]
    assert (one["service"], one["reason"], one["paused_by"]) == ("flux", "slow", "operator")
    assert one["until"] == pytest.approx(one["paused_at"] + 3600)


def test_a_service_that_fails_for_a_moment_is_not_down(store: Store) -> None:
    now = store.fleet.now()
    fail_service(store, now)
    assert update(store, WEBHOOK, [], now + 59) == 0
    answer_service(store, now)
    assert update(store, WEBHOOK, [], now + 61) == 0
    fail_service(store, now + 70)
    assert update(store, WEBHOOK, [], now + 131) == 1


def test_a_service_that_is_paused_while_it_is_down_is_not_told_to_be_back(store: Store) -> None:
    now = store.fleet.now()
    fail_service(store, now)
    assert update(store, WEBHOOK, [], now + 61) == 1
    refuse_service(store, now + 70)
    for minute in range(2, 9):
        update(store, WEBHOOK, [], now + 60 * minute)
    assert told(store) == ["service.down", "service.paused"]
    answer_service(store, now)
    for minute in range(9, 14):
        update(store, WEBHOOK, [], now + 60 * minute)
    assert told(store) == ["service.back", "service.back", "service.down", "service.paused"]


def test_a_worker_that_said_goodbye_or_beats_again_is_not_gone(store: Store) -> None:
    now = store.fleet.now()
    lose_worker(store, now)
    update(store, WEBHOOK, [], now)
    store.fleet.beat(Member("worker@x:7", "worker", "1", now + 30))
    update(store, WEBHOOK, [], now + 45)
    say_goodbye(store, now)
    update(store, WEBHOOK, [], now + 120)
    update(store, WEBHOOK, [], now + 180)
    assert told(store) == []


def told(store: Store) -> list[str]:
    """The kinds of all alerts that are stored, in the order of the alphabet."""
    raw = store.connection.redis
    keys = raw.scan_iter("cavendish:{cavendish/operations/0}:result:*")
    return sorted(json.loads(str(raw.get(key)))["type"] for key in keys)


# --- under kills


def look_on_and_on(url: str, clock: Any) -> None:
    """A process that looks again and again, at the time of this clock."""
    store = Store(url)
    while True:
        update(store, WEBHOOK, ["default"], clock.value)


class Lookers:
    """Processes that look, and are killed while the time goes on."""

    def __init__(self, store: Store, url: str) -> None:
        self._store, self._url, self._chance = store, url, random.Random(7)
        self._context = multiprocessing.get_context("fork")
        # Without a lock: who is killed while it holds it would never give it back.
        self.clock = self._context.Value("d", store.fleet.now(), lock=False)
        self._running = [self._started() for _ in range(2)]
        self.kills = 0

    def _started(self) -> Any:
        started = self._context.Process(
            target=look_on_and_on, args=(self._url, self.clock), daemon=True
        )
        started.start()
        return started

    def until(self, kind: str, times: int) -> None:
        """Let the time go on, and kill, until this kind was told so often."""
        stop = time.monotonic() + 60
        while told(self._store).count(kind) < times:
            assert time.monotonic() < stop, (kind, times, told(self._store))
            self.clock.value += 10.0
            time.sleep(self._chance.random() * 0.02)
            place = self._chance.randrange(2)
            self._running[place].kill()
            self._running[place].join()
            self.kills += 1
            self._running[place] = self._started()

    def close(self) -> None:
        for one in self._running:
            one.kill()
            one.join()


def test_each_episode_is_told_once_whatever_number_of_processes_look_and_are_killed(
    store: Store, server: Server
) -> None:
    lookers, episodes = Lookers(store, server.url), 8
    try:
        for episode in range(1, episodes + 1):
            fail_service(store, lookers.clock.value)
            refuse_account(store, lookers.clock.value)
            lookers.until("service.down", episode)
            lookers.until("account.paused", episode)
            answer_service(store, lookers.clock.value)
            end_pause(store)
            lookers.until("service.back", episode)
            lookers.until("account.resumed", episode)
    finally:
        lookers.close()
    update(store, WEBHOOK, ["default"], lookers.clock.value + 1000)
    kinds = ["account.paused", "account.resumed", "service.back", "service.down"]
    assert told(store) == sorted(kinds * episodes)
    assert lookers.kills > 10 * episodes
    (lane,) = store.statistics([OPERATIONS]).lanes
    assert lane.deliveries_pending == len(kinds) * episodes


def end_pause(store: Store) -> None:
    """Let the account be as new."""
    store.shared_state.change_rate_limit("default", lambda _: (rate_limit.RateLimit(), None))
