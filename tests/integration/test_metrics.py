"""What Prometheus is told: by a worker process of what it did, and of the book, with a real Redis."""

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
from conftest import Server
from integration.test_retrieve import Bench, done, error, items
from owing import KEYS, LANE, Owing, Receiver, Served
from prometheus_client.parser import text_string_to_metric_families

from scheduler.client import Client
from scheduler.clock import Clock
from scheduler.condition import failed, too_many
from scheduler.endpoints import Disabled, Endpoint, endpoint_of
from scheduler.forecast import Forecasts
from scheduler.pace import Pace, report_refusal
from scheduler.settings import Settings
from scheduler.store import Book
from scheduler.store.fleet import Member
from scheduler.store.keys import LaneKeys
from scheduler.submission import Wishes
from scheduler.tracking import Lane, Refusal, State
from scheduler.verdicts import Outcome
from worker import dispatch, logs
from worker.cli import cli
from worker.expire import Knobs as ExpireKnobs
from worker.expire import expire_overdue
from worker.loop import LoopThread
from worker.metrics import recorded, scraped, serving
from worker.metrics.families import MOST_ROWS, OTHER, Counter, Histogram
from worker.receipts import Fate, Receipt

Sample = tuple[str, frozenset[tuple[str, str]]]


def read(text: str) -> dict[Sample, float]:
    """An exposition as a scrape reads it."""
    families = text_string_to_metric_families(text)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def told(book: Book, *, rate: float = 0.0) -> Callable[..., float | None]:
    """What the book says now: a value by name and labels, None where there is none."""
    samples = read(serving.text(scraped.registry_of(book, 50, rate)))
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


def test_a_batch_is_counted_with_its_looks_its_length_its_fill_and_how_late_its_finishes_were_seen(
    book: Book, loop: LoopThread
) -> None:
    bench, since = Bench(book, loop), Since()
    bench.add("a", "b", "c", "d")
    now = book.fleet.now()
    late = {"id": "a", "finished_at": now - 4, "response": {"success": True, "data": [{"image_url": "https://x/y.png"}]}}
    batch = items(late, {"id": "b"}, done("c") | {"response": {"success": False, "error": {"code": "no"}}})
    bench.run(lambda question: batch if question["action"] == "retrieve_batch" else httpx.Response(200, json={}))
    assert [since("looks_total", verdict=one, **SERVICE) for one in ("succeeded", "failed", "pending", "absent")] == [1, 1, 1, 1]
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


def test_a_verdict_that_comes_too_late_is_a_look_and_no_detection(book: Book, loop: LoopThread) -> None:
    bench, since = Bench(book, loop), Since()
    bench.add("a")

    def answer(question: dict[str, list[str]]) -> httpx.Response:
        book.connection.redis.delete(KEYS.leases)  # somebody else holds it by now
        return items(*map(done, question["ids"]))

    bench.run(answer)
    assert since("looks_total", verdict="succeeded", **SERVICE) == 1
    assert since("detection_delay_seconds_count", **SERVICE) == 0


@pytest.mark.parametrize(
    ("status", "code", "outcome"), [(429, "too_many_requests", "rate"), (401, "invalid_token", "account"), (503, "x", "down")]
)
def test_a_refused_call_is_counted_by_its_kind(book: Book, loop: LoopThread, status: int, code: str, outcome: str) -> None:
    bench, since = Bench(book, loop), Since()
    bench.add("a")
    bench.run(lambda _: error(status, code))
    assert since("calls_total", outcome=outcome, **SERVICE) == 1
    assert since("looks_total", verdict="pending", **SERVICE) == 0


def test_the_lag_of_a_claim_is_that_of_the_ids_that_were_due(book: Book) -> None:
    now, since = book.fleet.now(), Since()
    wishes = Wishes("nano-banana", "default", (), 1000.0, "", "", "", False)
    book.tasks.add(["late"], wishes, now - 20, now - 6)
    book.tasks.add(["early"], wishes, now - 20, now + 500)
    book.learned.change_pace("default", lambda _: (Pace(rate=1000.0), None))
    desk = dispatch.Desk(book, Forecasts(book.learned), dispatch.Knobs(0.1, 50, 60.0, 0.0))
    sent: list[str] = []
    dispatch.drain(desk, ["default"], book.clock(), lambda _lane, ids, _token, _until: sent.extend(ids))
    assert sorted(sent) == ["early", "late"]
    assert since("look_lag_seconds_count", **SERVICE) == 1
    assert 6 <= since("look_lag_seconds_sum", **SERVICE) < 8


def test_what_expires_unasked_and_what_cannot_be_read_is_counted(book: Book) -> None:
    now, since = book.fleet.now(), Since()
    wishes = Wishes("nano-banana", "default", (), 1.0, "", "", "", False)
    book.tasks.add(["a", "broken"], wishes, now, now)
    book.connection.redis.hset(KEYS.task("broken"), "submitted_at", "nonsense")
    expire_overdue(book, LANE, Clock(now + 1000), ExpireKnobs(60.0, 3600.0, 100))
    assert since("expired_total", **SERVICE) == 1
    assert since("set_aside_total", **SERVICE) == 1


def test_a_delivery_is_counted_with_its_length_and_its_delays_and_a_retry_has_no_delay_of_its_own(
    owing: Owing, served: Served
) -> None:
    since = Since()
    owing.end("a", webhook=served(Receiver(httpx.Response(500), httpx.Response(200))))
    owing.deliver()
    assert since("webhook_tries_total", outcome="later") == since("webhook_duration_seconds_count", outcome="later") == 1
    assert since("webhook_delay_seconds_count") == since("webhook_delay_seconds_bucket", le="5.0") == 1
    owing.make_due()
    owing.deliver()
    assert since("webhook_tries_total", outcome="paid") == 1
    assert since("webhook_delay_seconds_count") == 1
    assert 0 < since("webhook_duration_seconds_sum", outcome="paid") < 2


def test_a_debt_that_was_not_sent_is_a_try_without_a_length(owing: Owing) -> None:
    since = Since()
    owing.end("a", webhook="http://127.0.0.1:9/hook")
    owing.deliver(secret="")
    assert since("webhook_tries_total", outcome="ours") == 1
    assert since("webhook_duration_seconds_count", outcome="ours") == 0
    assert since("webhook_delay_seconds_count") == 0


def test_a_call_that_a_worker_cuts_short_as_it_ends_leaves_the_delay_to_the_try_that_counts(owing: Owing) -> None:
    since = Since()
    owing.end("a", webhook="http://127.0.0.1:9/hook")
    now = owing.book.fleet.now()
    owing.book.debts.sort([LANE], now)
    (name,) = owing.book.debts.claim_delivery(LANE, now, now + 60, "t1", 1, {endpoint_of("http://127.0.0.1:9/hook"): 1})
    (debt,), task = owing.book.debts.load(LANE, [name]), owing.book.tasks.load(LANE, ["a"]).tasks["a"]
    for fate in (Fate.UNSENT, Fate.LATER):
        recorded.tried(debt, task, Receipt(fate, "…", sent_at=now, seconds=1.0))
    assert since("webhook_duration_seconds_count", outcome="unsent") == 1
    assert since("webhook_delay_seconds_count") == 1


def test_from_finish_to_acknowledgement_is_counted_once_and_not_again_for_a_replay(owing: Owing, served: Served) -> None:
    since, url = Since(), served(Receiver())
    now = owing.book.fleet.now()
    owing.book.tasks.add(["a"], Wishes("nano-banana", "default", (url,), 1000.0, "", "", "", False), now - 100, now - 100)
    owing.book.tasks.claim(LANE, now + 60, "t1", owing.book.tasks.candidates(LANE, now, 10))
    task = owing.book.tasks.load(LANE, ["a"]).tasks["a"]
    outcome = Outcome(task, State.SUCCEEDED, finished_at=now - 40, record={"id": "a"})
    owing.book.tasks.settle(LANE, "t1", now, [(outcome, 0.0)], 3600, 100)
    owing.deliver()
    assert since("webhook_end_to_end_seconds_count") == 1
    assert 40 <= since("webhook_end_to_end_seconds_sum") < 45
    assert owing.book.debts.reopen(LANE, {f"{endpoint_of(url)}:a": now - 1}, dead=False)
    assert owing.deliver().paid == 1
    assert since("webhook_tries_total", outcome="paid") == 2
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
    samples = {one.name: one.value for family in (counter, histogram) for it in family.collect() for one in it.samples}
    assert samples["x_total"] == samples["y_seconds_count"] == 16000
    (family,) = histogram.collect()
    assert [one.value for one in family.samples[:3]] == [10672.0, 16000.0, 16000.0]


def test_there_is_a_bound_to_the_names_that_a_metric_tells_apart() -> None:
    counter, histogram = Counter("x", "X.", ("service",)), Histogram("y_seconds", "Y.", (1,), ("service",))
    for number in range(MOST_ROWS + 50):
        counter.add(f"s{number}")
        histogram.add(0.5, f"s{number}")
    for one in (counter, histogram):
        (family,) = one.collect()
        named = {sample.labels["service"] for sample in family.samples}
        assert len(named) == MOST_ROWS + 1
        rest = [s.value for s in family.samples if s.labels["service"] == OTHER and s.name.endswith(("_total", "_count"))]
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
    """PROMETHEUS_MULTIPROC_DIR belongs to others: with it, prometheus_client's own metrics write files, or fail."""
    code = "from worker.metrics import recorded, serving\nrecorded.EXPIRED.add('s')\nprint(serving.text(recorded.REGISTRY))"
    for folder in (tmp_path, tmp_path / "missing"):
        environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        assert 'cavendish_expired_total{service="s"} 1.0' in done.stdout
    assert list(tmp_path.iterdir()) == []


# --- what the book says


def test_tasks_are_counted_by_account_and_service_and_the_shards_of_a_lane_are_one(server: Server, book: Book) -> None:
    sharded = Book(server.url, shards=4)
    now = book.fleet.now()
    wishes = Wishes("nano-banana", "default", (), 1000.0, "", "", "", False)
    sharded.tasks.add([f"due-{n}" for n in range(20)], wishes, now - 50, now - 30)
    sharded.tasks.add([f"later-{n}" for n in range(5)], wishes, now, now + 600)
    assert len(sharded.tasks.lanes()) == 4
    lane = Lane.of("default", "nano-banana", "due-0", 4)
    taken = sharded.tasks.claim(lane, now + 60, "t1", [one for one in sharded.tasks.candidates(lane, now, 50) if one.due <= now])
    say = told(sharded)
    assert say("book_up") == 1
    assert say("tasks_pending", **OURS) == say("tasks_submitted_total", **OURS) == 25
    assert say("tasks_in_flight", **OURS) == len(taken) > 0
    assert say("tasks_due", **OURS) == 20 - len(taken)
    assert 30 <= (say("due_lag_seconds", **OURS) or 0) < 35
    task = sharded.tasks.load(lane, taken[:1]).tasks[taken[0]]
    sharded.tasks.settle(lane, "t1", now, [(Outcome(task, State.EXPIRED), 0.0)], 3600, 100)
    say = told(sharded)
    assert [say("tasks_ended_total", state=one, **OURS) for one in ("expired", "succeeded", "failed", "unknown")] == [1, 0, 0, 0]
    sharded.close()


def test_nothing_due_is_no_lag(book: Book) -> None:
    now = book.fleet.now()
    book.tasks.add(["a"], Wishes("nano-banana", "default", (), 1000.0, "", "", "", False), now, now + 600)
    assert told(book)("due_lag_seconds", **OURS) == told(book)("tasks_due", **OURS) == 0


def test_pace_ceiling_holds_and_a_service_out_of_order_are_told(book: Book) -> None:
    now = book.fleet.now()
    book.tasks.add(["a"], Wishes("nano-banana", "default", (), 1000.0, "", "", "", False), now, now)
    assert told(book)("pace_ceiling_calls_per_second", account="default") is None
    limited = report_refusal(Pace(rate=4.0, limited=True, began=now - 60), Refusal.ACCOUNT, "no credit", None, now, now, 0.5)
    book.learned.change_pace("default", lambda _: (limited, None))
    book.learned.change_condition(LANE, lambda known: (too_many(failed(known, "HTTP 503", now, now + 20, 0.5), 30), None))
    book.tasks.tally(LANE, calls=7, rate_refused=2)
    say = told(book)
    assert say("pace_ceiling_calls_per_second", account="default") == 4
    assert (say("pace_calls_per_second", account="default") or 0) > 0
    assert (say("hold_seconds", account="default", kind="account") or 0) > 1
    assert say("hold_seconds", account="default", kind="rate") == 0
    assert (say("service_down_seconds", **OURS) or 0) > 15
    assert say("batch_size_ids", **OURS) == 30
    assert (say("book_calls_total", **OURS), say("book_calls_rate_refused_total", **OURS)) == (7, 2)
    capped = told(book, rate=0.5)
    assert capped("pace_ceiling_calls_per_second", account="default") == capped("pace_calls_per_second", account="default") == 0.5


def test_the_laws_of_the_latest_models_are_told_and_those_that_nobody_teaches_are_not(book: Book, loop: LoopThread) -> None:
    bench = Bench(book, loop)
    bench.add("a", "b", "c")
    record = {
        "created_at": bench.now - 20,
        "finished_at": bench.now - 10,
        "response": {"success": True, "data": [{"url": "https://x"}]},
    }
    models = iter(["swift", "", "swift"])
    bench.run(lambda q: items(*({"id": one, "request": {"model": next(models)}, **record} for one in q["ids"])))
    say = told(book)
    assert 0 < (say("law_duration_seconds", model="swift", share="0.5", **OURS) or 0) < 30
    assert say("law_duration_seconds", model="", share="0.95", **OURS) is not None
    book.learned.note_models(LANE, [f"m{number}" for number in range(500)], 1.0)
    assert book.connection.redis.zcard(KEYS.models) == 50
    assert "swift" in book.connection.redis.zrange(KEYS.models, 0, -1)
    assert told(book)("law_duration_seconds", model="swift", share="0.5", **OURS) is not None


def test_debts_are_told_by_name_and_all_that_have_none_together(owing: Owing) -> None:
    book = owing.book
    book.endpoints.add(Endpoint("shop", "https://shop.example/hook", 1.0))
    for number, webhook in enumerate(["shop", "http://127.0.0.1:9/one", "http://127.0.0.1:9/two?job=1", "shop"]):
        owing.end(f"id-{number}", webhook=webhook)
    say = told(book)
    assert (say("webhooks_owed", endpoint="INBOX"), say("webhooks_owed", endpoint="shop")) == (4, 0)
    now = book.fleet.now()
    book.debts.sort([LANE], now + 40)
    say = told(book)
    assert [say("webhooks_owed", endpoint=one) for one in ("INBOX", "shop", "URL")] == [0, 2, 2]
    assert (say("webhooks_oldest_owed_seconds") or 0) < 5
    book.connection.redis.zadd(KEYS.owing, {"shop": now - 90})
    assert 90 <= (told(book)("webhooks_oldest_owed_seconds") or 0) < 95
    book.debts.postpone(
        LANE, dict.fromkeys(["shop", *map(endpoint_of, ["http://127.0.0.1:9/one", "http://127.0.0.1:9/two"])], now + 60)
    )
    assert told(book)("webhooks_oldest_owed_seconds") == 0


def test_disabled_endpoints_and_open_circuits_are_told(owing: Owing, served: Served) -> None:
    book, now = owing.book, owing.book.fleet.now()
    book.endpoints.add(Endpoint("shop", "https://shop.example/hook", 1.0))
    book.endpoints.disable("shop", Disabled(now, "410 Gone"))
    book.endpoints.disable("0123456789abcdef", Disabled(now, "410 Gone"))
    url = served(Receiver(httpx.Response(500)))
    owing.end(*(f"id-{number}" for number in range(6)), webhook=url)
    owing.deliver()
    say = told(book)
    assert (say("endpoint_disabled", endpoint="shop"), say("endpoint_disabled", endpoint="URL")) == (1, 1)
    assert (say("endpoint_circuit_open", endpoint="shop"), say("endpoint_circuit_open", endpoint="URL")) == (0, 1)
    book.endpoints.enable("shop")
    assert told(book)("endpoint_disabled", endpoint="shop") == 0


def test_paid_webhooks_and_dead_letters_are_told(owing: Owing, served: Served) -> None:
    refusing = Receiver(httpx.Response(400, headers={"webhook-delivery": "abort-message"}))
    owing.end("a", webhook=served(Receiver()))
    owing.end("b", webhook=served(refusing))
    owing.deliver()
    say = told(owing.book)
    assert [say(f"webhooks_{one}", **OURS) for one in ("paid_total", "buried_total", "dead")] == [1, 1, 1]


def test_the_fleet_is_told_by_role_and_version_and_who_is_gone_is_not_counted(book: Book) -> None:
    now = book.fleet.now()
    for name, role, version, at in (("a", "worker", "1", now), ("b", "worker", "2", now), ("c", "worker", "1", now - 100)):
        book.fleet.beat(Member(name, role, version, at))
    book.fleet.beat(Member("d", "beat", "1", now - 90))
    say = told(book)
    assert (say("processes", role="worker"), say("processes", role="beat")) == (2, 0)
    assert say("process_versions", role="worker", version="1") == 1
    assert (say("process_last_heard_seconds", role="worker") or 0) < 5
    assert 90 <= (say("process_last_heard_seconds", role="beat") or 0) < 95


def test_a_lane_that_cannot_be_read_is_left_out_and_told(book: Book) -> None:
    now = book.fleet.now()
    for service in ("nano-banana", "veo"):
        book.tasks.add(["a"], Wishes(service, "default", (), 1000.0, "", "", "", False), now, now)
    book.connection.redis.delete(LaneKeys(Lane("default", "veo")).deadlines)
    book.connection.redis.set(LaneKeys(Lane("default", "veo")).deadlines, "nonsense")
    say = told(book)
    assert say("tasks_pending", **OURS) == say("lanes_unreadable") == 1
    assert say("tasks_pending", account="default", service="veo") is None


def test_a_lane_whose_counts_are_no_numbers_is_left_out_and_told(book: Book) -> None:
    now = book.fleet.now()
    for service in ("nano-banana", "veo"):
        book.tasks.add(["a"], Wishes(service, "default", (), 1000.0, "", "", "", False), now, now)
    book.connection.redis.hset(LaneKeys(Lane("default", "veo")).counts, "calls", "many")
    say = told(book)
    assert say("tasks_pending", **OURS) == say("lanes_unreadable") == 1


def test_services_beyond_what_a_scrape_can_bear_are_told_as_one_and_without_counters(book: Book) -> None:
    """Who is among them changes, and a counter that falls looks as if it had begun anew: DeadLetters would ring."""
    now = book.fleet.now()
    for number in range(scraped.MOST_SERVICES + 3):
        book.tasks.add(["a"], Wishes(f"s{number:03}", "default", (), 1000.0, "", "", "", False), now, now)
    say = told(book)
    assert say("tasks_pending", account=OTHER, service=OTHER) == 3
    assert say("tasks_submitted_total", account=OTHER, service=OTHER) is None
    assert say("tasks_submitted_total", account="default", service="s000") == 1


def test_accounts_that_strangers_name_are_bounded_and_one_that_is_held_is_always_told(book: Book) -> None:
    now = book.fleet.now()
    for number in range(scraped.MOST_SERVICES + 3):
        book.tasks.add(["a", "b"], Wishes("veo", f"a{number:03}", (), 1000.0, "", "", "", False), now, now)
    book.tasks.add(["a"], Wishes("veo", "held", (), 1000.0, "", "", "", False), now, now)
    held = report_refusal(Pace(began=now), Refusal.ACCOUNT, "no credit", None, now, now, 0.5)
    book.learned.change_pace("held", lambda _: (held, None))
    samples = read(serving.text(scraped.registry_of(book, 50)))
    accounts = {dict(labels)["account"] for name, labels in samples if name == "cavendish_hold_seconds"}
    assert len(accounts) == scraped.MOST_SERVICES + 1
    assert "held" in accounts


def test_a_scrape_takes_a_few_round_trips_whatever_the_number_of_lanes_and_ids(book: Book) -> None:
    now = book.fleet.now()
    for number in range(20):
        wishes = Wishes(f"s{number}", "default", ("https://example.com/hook",), 1000.0, "", "", "", False)
        book.tasks.add([f"id-{one}" for one in range(100)], wishes, now, now)
    asked = Counted(book)
    told(book)
    assert asked.round_trips <= 16 + 20  # one for the laws of each service


class Counted:
    """Counts the round trips to Redis from now on."""

    def __init__(self, book: Book) -> None:
        self.round_trips = 0
        pool = book.connection.redis.connection_pool
        connect = pool.get_connection

        def get_connection(*args: object, **options: object) -> object:
            self.round_trips += 1
            return connect(*args, **options)

        pool.get_connection = get_connection


# --- how it is served


def test_with_redis_away_a_scrape_is_answered_and_says_so_and_goes_on_when_it_is_back(own_server: Server) -> None:
    book = Book(own_server.url)
    port = serving.serve(("127.0.0.1", 0), scraped.registry_of(book, 50))
    url = f"http://127.0.0.1:{port}/metrics"
    own_server.kill(signal.SIGKILL)
    away = httpx.get(url, trust_env=False, timeout=10)
    assert away.status_code == 200
    assert read(away.text) == {("cavendish_book_up", frozenset()): 0.0}
    own_server.start()
    back = httpx.get(url, trust_env=False, timeout=10)
    assert read(back.text)["cavendish_book_up", frozenset()] == 1.0
    assert back.headers["content-type"].startswith("text/plain")
    book.close()


def test_the_command_prints_what_the_book_says_as_text_and_as_json(
    server: Server, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAVENDISH_REDIS_URL", server.url)
    with Client(settings=Settings.load({"CAVENDISH_REDIS_URL": server.url})) as client:
        client.submit(["a", "b"], service="nano-banana")
    text = CliRunner().invoke(cli, ["metrics"])
    assert text.exit_code == 0
    assert read(text.output)["cavendish_tasks_pending", frozenset(OURS.items())] == 2
    rows = json.loads(CliRunner().invoke(cli, ["metrics", "--json"]).output)
    assert {"name": "cavendish_tasks_pending", "labels": OURS, "value": 2} in rows


def test_the_command_fails_where_redis_is_away_and_says_what_a_scrape_would_hear(own_server: Server) -> None:
    own_server.kill()
    environment = os.environ | {"CAVENDISH_REDIS_URL": own_server.url}
    command = [sys.executable, "-m", "worker.cli", "metrics"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "cavendish_book_up 0.0" in done.stdout
    assert done.stderr.count("\n") == 1
    assert "does not answer" in done.stderr


def test_the_command_serves_until_it_is_ended_and_a_taken_port_is_one_sentence(server: Server, book: Book) -> None:
    environment = os.environ | {"CAVENDISH_REDIS_URL": server.url, "CAVENDISH_LOG_FORMAT": "json"}
    command = [sys.executable, "-m", "worker.cli", "metrics", "--serve"]
    process = subprocess.Popen([*command, "0"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        at = json.loads(process.stderr.readline())["at"]
        assert read(httpx.get(at, trust_env=False).text)["cavendish_book_up", frozenset()] == 1.0
        taken = subprocess.run(
            [*command, re.findall(r":(\d+)/", at)[0]], env=environment, capture_output=True, text=True, check=False, timeout=30
        )
        assert (taken.returncode, taken.stderr.count("\n")) == (1, 1)
        assert "cannot be listened on" in taken.stderr
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert process.returncode == 0


def test_a_worker_whose_port_is_taken_says_so_in_one_line_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json", "info")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serving.begin(("127.0.0.1", port))
    serving.begin(("no-such-host.invalid", 0))
    serving.begin(("no..name", 0))
    serving.begin(None)
    first, second, third = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["event"] == second["event"] == third["event"] == "metrics.unserved"
    assert first["outcome"] == f"127.0.0.1:{port} cannot be listened on (Address already in use); the worker goes on"
    assert "no-such-host.invalid:0 cannot be listened on" in second["outcome"]
    assert third["outcome"] == "no..name:0 cannot be listened on (no name of a host); the worker goes on"


def test_an_address_of_the_newer_kind_is_said_as_a_url() -> None:
    assert serving.address("::1", 9809) == "http://[::1]:9809/metrics"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian's package prometheus) is not installed")
def test_promtool_has_nothing_to_say_against_names_and_units(book: Book, loop: LoopThread) -> None:
    bench = Bench(book, loop)
    bench.add("a")
    bench.run(lambda _: items(done("a")))
    assert told(book)("law_duration_seconds", model="", share="0.5", **OURS) is not None
    for registry in (scraped.registry_of(book, 50), recorded.REGISTRY):
        said = subprocess.run(
            ["promtool", "check", "metrics"],
            input=serving.text(registry),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert (said.returncode, said.stdout + said.stderr) == (0, "")
