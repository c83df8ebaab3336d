"""What Prometheus is told.

By a worker process of what it did, and of the store, with a real Redis.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from cavendish.client import Client
from cavendish.clock import Clock
from cavendish.endpoints.webhook_endpoint import Disabled, Endpoint, endpoint_of
from cavendish.model import Lane, State, UpstreamErrorKind
from cavendish.policy.rate_limit import RateLimit, report_error
from cavendish.policy.service_health import failed, too_many
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.fleet import Member
from cavendish.store.forecasts import Forecasts
from cavendish.store.keys import LaneKeys
from cavendish.submission import SubmitOptions
from cavendish_worker.cli import cli
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.polling.dispatch import Dispatcher
from cavendish_worker.polling.dispatch_round import RoundConfig, Rounds
from cavendish_worker.polling.expire import ExpiryConfig, expire_overdue
from cavendish_worker.telemetry import logs
from cavendish_worker.telemetry.metrics import recorded, scraped, serving
from cavendish_worker.telemetry.metrics.families import MOST_ROWS, OTHER, Counter, Histogram
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind
from conftest import Server
from delivering import KEYS, LANE, Delivering, Receiver, RoundTrips, Served
from integration.test_retrieve import Bench, done, error, items

Sample = tuple[str, frozenset[tuple[str, str]]]


def read(text: str) -> dict[Sample, float]:
    """An exposition as a scrape reads it."""
    families = text_string_to_metric_families(text)
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in families
        for one in family.samples
    }


def told(store: Store, *, rate: float = 0.0) -> Callable[..., float | None]:
    """What the store says now: a value by name and labels, None where there is none."""
    samples = read(serving.text(scraped.registry_of(store, 50, rate)))
    return lambda name, **labels: samples.get((f"cavendish_{name}", frozenset(labels.items())))


class Since:
    """What this process has recorded since: the registry is one for all tests."""

    def __init__(self) -> None:
        self._before = read(serving.text(recorded.REGISTRY))

    def __call__(self, name: str, **labels: str) -> float:
        place = (f"cavendish_{name}", frozenset(labels.items()))
        return read(serving.text(recorded.REGISTRY)).get(place, 0.0) - self._before.get(place, 0.0)


OURS = {"account": "default", "service": "nano-banana"}
SERVICE = {"service": "nano-banana"}


# --- what a worker records


def test_a_batch_is_counted_with_its_polls_its_length_its_fill_and_how_late_its_finishes_were_seen(
    store: Store, loop: LoopThread
) -> None:
    bench, since = Bench(store, loop), Since()
    bench.add("a", "b", "c", "d")
    now = store.fleet.now()
    late = {
        "id": "a",
        "finished_at": now - 4,
        "response": {"success": True, "data": [{"image_url": "https://x/y.png"}]},
    }
    batch = items(
        late, {"id": "b"}, done("c") | {"response": {"success": False, "error": {"code": "no"}}}
    )
    bench.run(
        lambda question: (
            batch if question["action"] == "retrieve_batch" else httpx.Response(200, json={})
        )
    )
    assert [
        since("polls_total", verdict=one, **SERVICE)
        for one in ("succeeded", "failed", "pending", "absent")
    ] == [1, 1, 1, 1]
    assert since("absences_total", **SERVICE) == 1
    assert since("call_ids_count", **SERVICE) == 1
    assert since("call_ids_sum", **SERVICE) == 4
    # Two calls: the batch, and the one that confirmed that `d` is unknown.
    assert since("calls_total", outcome="answered", **SERVICE) == since(
        "call_duration_seconds_count", outcome="answered", **SERVICE
    )
    assert since("calls_total", outcome="answered", **SERVICE) == 2
    # `c` was stamped long before its submit: what came before that is not our delay.
    assert since("detection_delay_seconds_count", **SERVICE) == 2
    assert since("detection_delay_seconds_bucket", le="3.0", **SERVICE) == 0
    assert since("detection_delay_seconds_bucket", le="8.0", **SERVICE) == 1
    assert 104 <= since("detection_delay_seconds_sum", **SERVICE) <= 110


def test_a_verdict_that_comes_too_late_is_a_poll_and_no_detection(
    store: Store, loop: LoopThread
) -> None:
    bench, since = Bench(store, loop), Since()
    bench.add("a")

    def answer(question: dict[str, list[str]]) -> httpx.Response:
        store.connection.redis.delete(KEYS.leases)  # somebody else holds it by now
        return items(*map(done, question["ids"]))

    bench.run(answer)
    assert since("polls_total", verdict="succeeded", **SERVICE) == 1
    assert since("detection_delay_seconds_count", **SERVICE) == 0


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [(429, "too_many_requests", "rate"), (401, "invalid_token", "account"), (503, "x", "down")],
)
def test_a_refused_call_is_counted_by_its_kind(
    store: Store, loop: LoopThread, status: int, code: str, outcome: str
) -> None:
    bench, since = Bench(store, loop), Since()
    bench.add("a")
    bench.run(lambda _: error(status, code))
    assert since("calls_total", outcome=outcome, **SERVICE) == 1
    assert since("polls_total", verdict="pending", **SERVICE) == 0


def test_the_lag_of_a_claim_is_that_of_the_ids_that_were_due(store: Store) -> None:
    now, since = store.fleet.now(), Since()
    options = SubmitOptions("nano-banana", "default", (), 1000.0, "", "", "", False)
    store.tasks.add(["late"], options, now - 20, now - 6)
    store.tasks.add(["early"], options, now - 20, now + 500)
    store.shared_state.change_rate_limit("default", lambda _: (RateLimit(rate=1000.0), None))
    rounds = Rounds(store, Forecasts(store.shared_state), RoundConfig(50, 60.0, 0.0))
    dispatcher = Dispatcher(store, rounds, 0.1)
    sent: list[str] = []
    dispatcher.dispatch(["default"], store.clock(), lambda batches: sent.extend(batches[0].ids))
    assert sorted(sent) == ["early", "late"]
    assert since("poll_lag_seconds_count", **SERVICE) == 1
    assert 6 <= since("poll_lag_seconds_sum", **SERVICE) < 8


def test_what_expires_unasked_and_what_cannot_be_read_is_counted(store: Store) -> None:
    now, since = store.fleet.now(), Since()
    options = SubmitOptions("nano-banana", "default", (), 1.0, "", "", "", False)
    store.tasks.add(["a", "broken"], options, now, now)
    store.connection.redis.hset(KEYS.task("broken"), "submitted_at", "nonsense")
    expire_overdue(store, LANE, Clock(now + 1000), ExpiryConfig(60.0, 3600.0, 100))
    assert since("expired_total", **SERVICE) == 1
    assert since("quarantined_total", **SERVICE) == 1


def test_a_delivery_is_counted_with_its_length_and_its_delays_and_a_retry_has_no_delay_of_its_own(
    endpoint_index: Delivering, served: Served
) -> None:
    since = Since()
    endpoint_index.end("a", webhook=served(Receiver(httpx.Response(500), httpx.Response(200))))
    endpoint_index.deliver()
    assert (
        since("webhook_attempts_total", outcome="retry")
        == since("webhook_duration_seconds_count", outcome="retry")
        == 1
    )
    assert (
        since("webhook_delay_seconds_count") == since("webhook_delay_seconds_bucket", le="5.0") == 1
    )
    endpoint_index.make_due()
    endpoint_index.deliver()
    assert since("webhook_attempts_total", outcome="delivered") == 1
    assert since("webhook_delay_seconds_count") == 1
    assert since("webhook_duration_seconds_sum", outcome="delivered") > 0


def test_a_delivery_that_was_not_sent_is_an_attempt_without_a_length(
    endpoint_index: Delivering,
) -> None:
    since = Since()
    endpoint_index.end("a", webhook="http://127.0.0.1:9/hook")
    endpoint_index.deliver(secret="")
    assert since("webhook_attempts_total", outcome="our_fault") == 1
    assert since("webhook_duration_seconds_count", outcome="our_fault") == 0
    assert since("webhook_delay_seconds_count") == 0


def test_a_call_that_a_worker_cuts_short_as_it_ends_leaves_the_delay_to_the_attempt_that_counts(
    endpoint_index: Delivering,
) -> None:
    since = Since()
    endpoint_index.end("a", webhook="http://127.0.0.1:9/hook")
    now = endpoint_index.store.fleet.now()
    endpoint_index.store.deliveries.sort([LANE], now)
    (name,) = endpoint_index.store.deliveries.claim_delivery(
        LANE, now, now + 60, "t1", 1, {endpoint_of("http://127.0.0.1:9/hook"): 1}
    )
    (delivery,), task = (
        endpoint_index.store.deliveries.load(LANE, [name]),
        endpoint_index.store.tasks.load(LANE, ["a"]).tasks["a"],
    )
    for kind in (ResultKind.NOT_SENT, ResultKind.RETRY):
        recorded.attempted(delivery, task, AttemptResult(kind, "…", sent_at=now, seconds=1.0))
    assert since("webhook_duration_seconds_count", outcome="not_sent") == 1
    assert since("webhook_delay_seconds_count") == 1


def test_from_finish_to_acknowledgement_is_counted_once_and_not_again_for_a_replay(
    endpoint_index: Delivering, served: Served
) -> None:
    since, url = Since(), served(Receiver())
    now = endpoint_index.store.fleet.now()
    endpoint_index.store.tasks.add(
        ["a"],
        SubmitOptions("nano-banana", "default", (url,), 1000.0, "", "", "", False),
        now - 100,
        now - 100,
    )
    endpoint_index.store.tasks.claim(
        LANE, now + 60, "t1", endpoint_index.store.tasks.candidates(LANE, now, 10)
    )
    task = endpoint_index.store.tasks.load(LANE, ["a"]).tasks["a"]
    outcome = Outcome(task, State.SUCCEEDED, finished_at=now - 40, record={"id": "a"})
    endpoint_index.store.tasks.settle(LANE, "t1", now, [(outcome, 0.0)], 3600, 100)
    endpoint_index.deliver()
    assert since("webhook_end_to_end_seconds_count") == 1
    assert 40 <= since("webhook_end_to_end_seconds_sum") < 45
    assert endpoint_index.store.closed.reopen(LANE, {f"{endpoint_of(url)}:a": now - 1}, dead=False)
    assert endpoint_index.deliver().delivered == 1
    assert since("webhook_attempts_total", outcome="delivered") == 2
    assert since("webhook_end_to_end_seconds_count") == since("webhook_delay_seconds_count") == 1


def test_counts_are_exact_whatever_number_of_threads_add_to_them() -> None:
    counter, histogram = Counter("x", "X.", ("a",)), Histogram("y_seconds", "Y.", (1, 2))

    def add() -> None:
        for number in range(2000):
            counter.add("one")
            histogram.add(number % 3)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    samples = {
        one.name: one.value
        for family in (counter, histogram)
        for it in family.collect()
        for one in it.samples
    }
    assert samples["x_total"] == samples["y_seconds_count"] == 16000
    (family,) = histogram.collect()
    assert [one.value for one in family.samples[:3]] == [10672.0, 16000.0, 16000.0]


def test_there_is_a_bound_to_the_names_that_a_metric_tells_apart() -> None:
    counter, histogram = (
        Counter("x", "X.", ("service",)),
        Histogram("y_seconds", "Y.", (1,), ("service",)),
    )
    for number in range(MOST_ROWS + 50):
        counter.add(f"s{number}")
        histogram.add(0.5, f"s{number}")
    for one in (counter, histogram):
        (family,) = one.collect()
        named = {sample.labels["service"] for sample in family.samples}
        assert len(named) == MOST_ROWS + 1
        rest = [
            s.value
            for s in family.samples
            if s.labels["service"] == OTHER and s.name.endswith(("_total", "_count"))
        ]
        assert rest == [50]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_not_counted(value: float) -> None:
    histogram = Histogram("y_seconds", "Y.", (1,))
    histogram.add(value)
    histogram.add(-0.001)
    (family,) = histogram.collect()
    assert {one.name: one.value for one in family.samples}["y_seconds_count"] == 1
    assert {one.name: one.value for one in family.samples}["y_seconds_sum"] == 0


def test_a_folder_for_several_processes_is_neither_used_nor_missed(tmp_path: Path) -> None:
    """PROMETHEUS_MULTIPROC_DIR belongs to others.

    With it, prometheus_client's own metrics write files, or fail.
    """
    code = (
        "from cavendish_worker.telemetry.metrics import recorded, "
        "serving\nrecorded.EXPIRED.add('s')\nprint(serving.text(recorded.REGISTRY))"
    )
    for folder in (tmp_path, tmp_path / "missing"):
        environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert 'cavendish_expired_total{service="s"} 1.0' in done.stdout
    assert list(tmp_path.iterdir()) == []


# --- what the store says


def test_tasks_are_counted_by_account_and_service_and_the_shards_of_a_lane_are_one(
    server: Server, store: Store
) -> None:
    sharded = Store(server.url, shards=4)
    now = store.fleet.now()
    options = SubmitOptions("nano-banana", "default", (), 1000.0, "", "", "", False)
    sharded.tasks.add([f"due-{n}" for n in range(20)], options, now - 50, now - 30)
    sharded.tasks.add([f"later-{n}" for n in range(5)], options, now, now + 600)
    assert len(sharded.tasks.lanes()) == 4
    lane = Lane.of("default", "nano-banana", "due-0", 4)
    taken = sharded.tasks.claim(
        lane,
        now + 60,
        "t1",
        [one for one in sharded.tasks.candidates(lane, now, 50) if one.due <= now],
    )
    say = told(sharded)
    assert say("store_up") == 1
    assert say("tasks_pending", **OURS) == say("tasks_submitted_total", **OURS) == 25
    assert say("tasks_in_flight", **OURS) == len(taken) > 0
    assert say("tasks_due", **OURS) == 20 - len(taken)
    assert 30 <= (say("due_lag_seconds", **OURS) or 0) < 35
    task = sharded.tasks.load(lane, taken[:1]).tasks[taken[0]]
    sharded.tasks.settle(lane, "t1", now, [(Outcome(task, State.EXPIRED), 0.0)], 3600, 100)
    say = told(sharded)
    assert [
        say("tasks_ended_total", state=one, **OURS)
        for one in ("expired", "succeeded", "failed", "unknown")
    ] == [1, 0, 0, 0]
    sharded.close()


def test_nothing_due_is_no_lag(store: Store) -> None:
    now = store.fleet.now()
    store.tasks.add(
        ["a"],
        SubmitOptions("nano-banana", "default", (), 1000.0, "", "", "", False),
        now,
        now + 600,
    )
    assert told(store)("due_lag_seconds", **OURS) == told(store)("tasks_due", **OURS) == 0


def test_rate_limit_ceiling_pauses_and_a_service_out_of_order_are_reported(store: Store) -> None:
    now = store.fleet.now()
    store.tasks.add(
        ["a"], SubmitOptions("nano-banana", "default", (), 1000.0, "", "", "", False), now, now
    )
    assert told(store)("rate_limit_ceiling_calls_per_second", account="default") is None
    limited = report_error(
        RateLimit(rate=4.0, limited=True, began=now - 60),
        UpstreamErrorKind.ACCOUNT,
        "no credit",
        None,
        now,
        now,
        0.5,
    )
    store.shared_state.change_rate_limit("default", lambda _: (limited, None))
    store.shared_state.change_service_health(
        LANE, lambda known: (too_many(failed(known, "HTTP 503", now, now + 20, 0.5), 30), None)
    )
    store.tasks.tally(LANE, calls=7, rate_refused=2)
    say = told(store)
    assert say("rate_limit_ceiling_calls_per_second", account="default") == 4
    assert (say("rate_limit_calls_per_second", account="default") or 0) > 0
    assert (say("pause_seconds", account="default", kind="account") or 0) > 1
    assert say("pause_seconds", account="default", kind="rate") == 0
    assert (say("service_down_seconds", **OURS) or 0) > 15
    assert say("service_paused_lanes", **OURS) == 0
    assert say("batch_size_ids", **OURS) == 30
    assert (say("fleet_calls_total", **OURS), say("fleet_calls_rate_refused_total", **OURS)) == (
        7,
        2,
    )
    capped = told(store, rate=0.5)
    assert (
        capped("rate_limit_ceiling_calls_per_second", account="default")
        == capped("rate_limit_calls_per_second", account="default")
        == 0.5
    )


def test_the_durations_of_the_latest_models_are_told_and_those_that_nobody_teaches_are_not(
    store: Store, loop: LoopThread
) -> None:
    bench = Bench(store, loop)
    bench.add("a", "b", "c", ago=20)
    record = {
        "finished_at": bench.now - 10,
        "response": {"success": True, "data": [{"url": "https://x"}]},
    }
    models = iter(["swift", "", "swift"])
    bench.run(
        lambda q: items(
            *({"id": one, "request": {"model": next(models)}, **record} for one in q["ids"])
        )
    )
    say = told(store)
    assert 0 < (say("forecast_duration_seconds", model="swift", share="0.5", **OURS) or 0) < 30
    assert say("forecast_duration_seconds", model="", share="0.95", **OURS) is not None
    store.shared_state.note_models(LANE, [f"m{number}" for number in range(500)], 1.0)
    assert store.connection.redis.zcard(KEYS.models) == 50
    assert "swift" in store.connection.redis.zrange(KEYS.models, 0, -1)
    assert told(store)("forecast_duration_seconds", model="swift", share="0.5", **OURS) is not None


def test_deliveries_are_told_by_name_and_all_that_have_none_together(
    endpoint_index: Delivering,
) -> None:
    store = endpoint_index.store
    store.endpoints.add(Endpoint("shop", "https://shop.example/hook", 1.0))
    for number, webhook in enumerate(
        ["shop", "http://127.0.0.1:9/one", "http://127.0.0.1:9/two?job=1", "shop"]
    ):
        endpoint_index.end(f"id-{number}", webhook=webhook)
    say = told(store)
    assert (
        say("webhooks_pending", endpoint="INBOX"),
        say("webhooks_pending", endpoint="shop"),
    ) == (4, 0)
    now = store.fleet.now()
    store.deliveries.sort([LANE], now + 40)
    say = told(store)
    assert [say("webhooks_pending", endpoint=one) for one in ("INBOX", "shop", "URL")] == [0, 2, 2]
    assert (say("webhooks_oldest_pending_seconds") or 0) < 5
    store.connection.redis.zadd(KEYS.endpoint_index, {"shop": now - 90})
    assert 90 <= (told(store)("webhooks_oldest_pending_seconds") or 0) < 95
    store.deliveries.postpone(
        LANE,
        dict.fromkeys(
            ["shop", *map(endpoint_of, ["http://127.0.0.1:9/one", "http://127.0.0.1:9/two"])],
            now + 60,
        ),
    )
    assert told(store)("webhooks_oldest_pending_seconds") == 0


def test_disabled_endpoints_and_open_circuits_are_told(
    endpoint_index: Delivering, served: Served
) -> None:
    store, now = endpoint_index.store, endpoint_index.store.fleet.now()
    store.endpoints.add(Endpoint("shop", "https://shop.example/hook", 1.0))
    store.endpoints.disable("shop", Disabled(now, "410 Gone"))
    store.endpoints.disable("0123456789abcdef", Disabled(now, "410 Gone"))
    url = served(Receiver(httpx.Response(500)))
    endpoint_index.end(*(f"id-{number}" for number in range(6)), webhook=url)
    endpoint_index.deliver()
    say = told(store)
    assert (
        say("endpoint_disabled", endpoint="shop"),
        say("endpoint_disabled", endpoint="URL"),
    ) == (1, 1)
    assert (
        say("endpoint_circuit_open", endpoint="shop"),
        say("endpoint_circuit_open", endpoint="URL"),
    ) == (0, 1)
    store.endpoints.enable("shop")
    assert told(store)("endpoint_disabled", endpoint="shop") == 0


def test_delivered_webhooks_and_dead_letters_are_told(
    endpoint_index: Delivering, served: Served
) -> None:
    refusing = Receiver(httpx.Response(400, headers={"webhook-delivery": "abort-message"}))
    endpoint_index.end("a", webhook=served(Receiver()))
    endpoint_index.end("b", webhook=served(refusing))
    endpoint_index.deliver()
    say = told(endpoint_index.store)
    assert [
        say(f"webhooks_{one}", **OURS) for one in ("delivered_total", "buried_total", "dead")
    ] == [
        1,
        1,
        1,
    ]


def test_the_fleet_is_told_by_role_and_version_and_who_is_gone_is_not_counted(store: Store) -> None:
    now = store.fleet.now()
    for name, role, version, at in (
        ("a", "worker", "1", now),
        ("b", "worker", "2", now),
        ("c", "worker", "1", now - 100),
    ):
        store.fleet.beat(Member(name, role, version, at))
    store.fleet.beat(Member("d", "beat", "1", now - 90))
    say = told(store)
    assert (say("processes", role="worker"), say("processes", role="beat")) == (2, 0)
    assert say("process_versions", role="worker", version="1") == 1
    assert (say("process_heartbeat_age_seconds", role="worker") or 0) < 5
    assert 90 <= (say("process_heartbeat_age_seconds", role="beat") or 0) < 95


def test_a_lane_that_cannot_be_read_is_left_out_and_reported(store: Store) -> None:
    now = store.fleet.now()
    for service in ("nano-banana", "veo"):
        store.tasks.add(
            ["a"], SubmitOptions(service, "default", (), 1000.0, "", "", "", False), now, now
        )
    store.connection.redis.delete(LaneKeys(Lane("default", "veo")).producers)
    store.connection.redis.set(LaneKeys(Lane("default", "veo")).producers, "nonsense")
    say = told(store)
    assert say("tasks_pending", **OURS) == say("lanes_unreadable") == 1
    assert say("tasks_pending", account="default", service="veo") is None


def test_a_lane_whose_counts_are_no_numbers_is_left_out_and_reported(store: Store) -> None:
    now = store.fleet.now()
    for service in ("nano-banana", "veo"):
        store.tasks.add(
            ["a"], SubmitOptions(service, "default", (), 1000.0, "", "", "", False), now, now
        )
    store.connection.redis.hset(LaneKeys(Lane("default", "veo")).counts, "calls", "many")
    say = told(store)
    assert say("tasks_pending", **OURS) == say("lanes_unreadable") == 1


def test_services_beyond_what_a_scrape_can_bear_are_told_as_one_and_without_counters(
    store: Store,
) -> None:
    """Who is among them changes, and a counter that falls polls as if it had begun anew.

    DeadLetters would ring.
    """
    now = store.fleet.now()
    for number in range(scraped.MOST_SERVICES + 3):
        store.tasks.add(
            ["a"],
            SubmitOptions(f"s{number:03}", "default", (), 1000.0, "", "", "", False),
            now,
            now,
        )
    say = told(store)
    assert say("tasks_pending", account=OTHER, service=OTHER) == 3
    assert say("tasks_submitted_total", account=OTHER, service=OTHER) is None
    assert say("tasks_submitted_total", account="default", service="s000") == 1


def test_accounts_that_strangers_name_are_bounded_and_a_paused_one_is_always_reported(
    store: Store,
) -> None:
    now = store.fleet.now()
    for number in range(scraped.MOST_SERVICES + 3):
        store.tasks.add(
            ["a", "b"],
            SubmitOptions("veo", f"a{number:03}", (), 1000.0, "", "", "", False),
            now,
            now,
        )
    store.tasks.add(["a"], SubmitOptions("veo", "held", (), 1000.0, "", "", "", False), now, now)
    held = report_error(
        RateLimit(began=now), UpstreamErrorKind.ACCOUNT, "no credit", None, now, now, 0.5
    )
    store.shared_state.change_rate_limit("held", lambda _: (held, None))
    samples = read(serving.text(scraped.registry_of(store, 50)))
    accounts = {
        dict(labels)["account"] for name, labels in samples if name == "cavendish_pause_seconds"
    }
    assert len(accounts) == scraped.MOST_SERVICES + 1
    assert "held" in accounts


def test_a_scrape_takes_a_few_round_trips_whatever_the_number_of_lanes_and_ids(
    store: Store,
) -> None:
    now = store.fleet.now()
    for number in range(20):
        options = SubmitOptions(
            f"s{number}", "default", ("https://example.com/hook",), 1000.0, "", "", "", False
        )
        store.tasks.add([f"id-{one}" for one in range(100)], options, now, now)
    asked = RoundTrips(store)
    told(store)
    assert asked.count <= 9


# --- how it is served


def test_with_redis_away_a_scrape_is_answered_and_says_so_and_goes_on_when_it_is_back(
    own_server: Server,
) -> None:
    store = Store(own_server.url)
    port = serving.serve(("127.0.0.1", 0), scraped.registry_of(store, 50))
    url = f"http://127.0.0.1:{port}/metrics"
    own_server.kill(signal.SIGKILL)
    away = httpx.get(url, trust_env=False, timeout=10)
    assert away.status_code == 200
    assert read(away.text) == {("cavendish_store_up", frozenset()): 0.0}
    own_server.start()
    back = httpx.get(url, trust_env=False, timeout=10)
    assert read(back.text)["cavendish_store_up", frozenset()] == 1.0
    assert back.headers["content-type"].startswith("text/plain")
    store.close()


def test_the_command_prints_what_the_store_says_as_text_and_as_json(
    server: Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAVENDISH_REDIS_URL", server.url)
    with Client(settings=Settings.load({"CAVENDISH_REDIS_URL": server.url})) as client:
        client.submit(["a", "b"], service="nano-banana")
    text = CliRunner().invoke(cli, ["metrics"])
    assert text.exit_code == 0
    assert read(text.output)["cavendish_tasks_pending", frozenset(OURS.items())] == 2
    rows = json.loads(CliRunner().invoke(cli, ["metrics", "--json"]).output)
    assert {"name": "cavendish_tasks_pending", "labels": OURS, "value": 2} in rows


def test_the_command_fails_where_redis_is_away_and_says_what_a_scrape_would_hear(
    own_server: Server,
) -> None:
    own_server.kill()
    environment = os.environ | {"CAVENDISH_REDIS_URL": own_server.url}
    command = [sys.executable, "-m", "cavendish_worker.cli", "metrics"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert "cavendish_store_up 0.0" in done.stdout
    assert done.stderr.count("\n") == 1
    assert "does not answer" in done.stderr


def test_the_command_serves_until_it_is_ended_and_a_taken_port_is_one_sentence(
    server: Server, store: Store
) -> None:
    environment = os.environ | {"CAVENDISH_REDIS_URL": server.url, "CAVENDISH_LOG_FORMAT": "json"}
    command = [sys.executable, "-m", "cavendish_worker.cli", "metrics", "--serve"]
    process = subprocess.Popen([*command, "0"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        at = json.loads(process.stderr.readline())["at"]
        assert read(httpx.get(at, trust_env=False).text)["cavendish_store_up", frozenset()] == 1.0
        taken = subprocess.run(
            [*command, re.findall(r":(\d+)/", at)[0]],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert (taken.returncode, taken.stderr.count("\n")) == (1, 1)
        assert "cannot be listened on" in taken.stderr
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert process.returncode == 0


def test_a_worker_whose_port_is_taken_says_so_in_one_line_and_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.set_up("json", "info")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serving.begin(("127.0.0.1", port), recorded.REGISTRY)
    serving.begin(("no-such-host.invalid", 0), recorded.REGISTRY)
    serving.begin(("no..name", 0), recorded.REGISTRY)
    serving.begin(None, recorded.REGISTRY)
    first, second, third = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["event"] == second["event"] == third["event"] == "metrics.unserved"
    assert (
        first["outcome"]
        == f"127.0.0.1:{port} cannot be listened on (Address already in use); the process goes on"
    )
    assert "no-such-host.invalid:0 cannot be listened on" in second["outcome"]
    assert (
        third["outcome"]
        == "no..name:0 cannot be listened on (no name of a host); the process goes on"
    )


def test_an_address_of_the_newer_kind_is_said_as_a_url() -> None:
    assert serving.address("::1", 9809) == "http://[::1]:9809/metrics"


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool (Debian's package prometheus) is not installed",
)
def test_promtool_has_nothing_to_say_against_names_and_units(
    store: Store, loop: LoopThread
) -> None:
    bench = Bench(store, loop)
    bench.add("a")
    bench.run(lambda _: items(done("a")))
    assert told(store)("forecast_duration_seconds", model="", share="0.5", **OURS) is not None
    for registry in (scraped.registry_of(store, 50), recorded.REGISTRY):
        said = subprocess.run(
            ["promtool", "check", "metrics"],
            input=serving.text(registry),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert (said.returncode, said.stdout + said.stderr) == (0, "")
