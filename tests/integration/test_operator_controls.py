"""What operators set while everything runs, with a real Redis: pauses and rate ceilings."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from cavendish import Client, State, SubmissionError
from cavendish.controller import whoever_calls
from cavendish.model import Lane
from cavendish.policy.operator_controls import LOOK_AGAIN
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.fleet import Member
from cavendish.store.keys import CONTROLS, LaneKeys
from cavendish.submission import SubmitOptions
from cavendish.task_names import DISPATCH
from cavendish_worker.celeryapp.beat import Watch
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.polling.expire import ExpiryConfig, expire_overdue
from cavendish_worker.telemetry import logs
from integration.test_dispatch import LANE, Sent, add, allow, dispatcher_of, full_tick
from integration.test_retrieve import Bench, done, error, items
from shell import Run

OTHER = Lane("default", "flux")


@pytest.fixture
def bench(store: Store, loop: LoopThread) -> Bench:
    return Bench(store, loop)


def fresh(store: Store) -> None:
    """As if what is known of the controls was read long ago."""
    store.controls._read_at = -1e9


# --- pause and resume


def test_no_id_of_a_paused_account_is_claimed_and_all_are_once_it_is_resumed(
    store: Store, client: Client
) -> None:
    """Nothing has to be noted anew: the lanes stay due."""
    add(store, 10)
    add(store, 10, OTHER)
    allow(store, 1000.0)
    client.pause("default")
    sent = Sent()
    full_tick(store, sent)
    assert sent.batches == []
    assert store.connection.redis.hlen(LaneKeys(LANE).leases) == 0
    client.resume("default")
    fresh(store)
    full_tick(store, sent)
    assert len(sent.ids) == 20


def test_a_paused_service_does_not_stop_its_neighbours_and_is_looked_at_at_once_when_resumed(
    store: Store, client: Client
) -> None:
    add(store, 10)
    add(store, 10, OTHER)
    allow(store, 1000.0)
    client.pause("default", "flux")
    sent = Sent()
    full_tick(store, sent)
    assert {lane.service for lane, _, _ in sent.batches} == {"nano-banana"}
    client.resume("default", "flux")
    (place,) = [
        one
        for one in store.tasks.due("default").due([""], store.fleet.now(), -1)
        if one.lane == OTHER
    ]
    assert (place.at or 0.0) <= store.fleet.now()


def test_lanes_of_a_paused_service_are_put_off_so_that_they_crowd_out_nobody(
    store: Store, client: Client, settings: Settings
) -> None:
    """A round reads 16 lanes: those that are paused, and were due first, come before the other."""
    sharded = Store(settings.redis_url, shards=64)
    add(sharded, 300, OTHER)
    lanes = len(sharded.tasks.lanes())
    assert lanes > 40
    sharded.close()
    add(store, 1)
    allow(store, 1000.0)
    store.connection.redis.delete("cavendish:{default}:noted")  # all of that was written long ago
    client.pause("default", "flux")
    sent = Sent()
    full_tick(store, sent)
    assert {lane.service for lane, _, _ in sent.batches} == {"nano-banana"}
    now = store.fleet.now()
    looks = store.connection.redis.zrange("cavendish:{default}:due:", 0, -1, withscores=True)
    put_off = [at for name, at in looks if name.startswith("default/flux/")]
    assert len(put_off) == lanes
    assert all(now < at <= now + LOOK_AGAIN for at in put_off)


def test_after_a_resume_no_more_calls_are_made_than_the_rate_limit_allows(
    store: Store, client: Client
) -> None:
    """What was not used while it was paused cannot be used afterwards."""
    add(store, 1000)
    allow(store, 8.0)
    client.pause("default")
    sent = Sent()
    full_tick(store, sent)
    time.sleep(1.0)
    client.resume("default")
    fresh(store)
    full_tick(store, sent)
    assert 1 <= len(sent.batches) <= 3


def test_a_pause_with_a_time_ends_by_itself(store: Store, client: Client) -> None:
    add(store, 10)
    allow(store, 1000.0)
    client.pause("default", seconds=0.3)
    sent = Sent()
    full_tick(store, sent)
    assert sent.batches == []
    time.sleep(0.4)
    full_tick(store, sent)
    assert len(sent.ids) == 10
    assert client.pauses() == []
    assert client.resume("default") is None


def test_a_batch_that_was_sent_before_the_pause_is_given_back_without_a_call(
    bench: Bench, client: Client
) -> None:
    bench.add("a", "b")
    client.pause("default", "nano-banana", reason="the provider migrates", by="ada")
    did = bench.run(lambda _: items(done("a"), done("b")))
    assert bench.asked == []
    assert (did.released, did.calls) == (2, 0)
    assert "paused by operator ada" in did.failure
    assert bench.all_still_tracked("a", "b")


def test_a_batch_that_is_cut_makes_no_further_call_once_its_account_is_paused(
    bench: Bench, client: Client, store: Store
) -> None:
    bench.add("a", "b", "c", "d")

    def refuse(_: dict[str, Any]) -> httpx.Response:
        client.pause("default")
        fresh(store)
        return error(400, "bad_request", "too many ids: at most 2")

    bench.run(refuse)
    assert len(bench.asked) == 1
    assert bench.all_still_tracked("a", "b", "c", "d")


def test_beat_sends_no_tick_for_a_paused_account(store: Store, client: Client) -> None:
    add(store, 1)
    store.fleet.beat(Member("worker@x:1", "worker", "0", store.fleet.now()))
    assert Watch(store).useful(DISPATCH)
    client.pause("default")
    fresh(store)
    assert not Watch(store).useful(DISPATCH)


def test_a_deadline_wins_over_a_pause_and_its_reason_says_who_paused_and_why(
    store: Store, client: Client
) -> None:
    now = store.fleet.now()
    options = SubmitOptions("nano-banana", "default", (), 10.0, "", "", "", restart=False)
    store.tasks.add(["late"], options, now - 200, now - 100)
    client.pause("default", reason="the invoice is disputed", by="ada@office")
    config = ExpiryConfig(last_poll=60.0, retention=3600.0, events_kept=100)
    assert expire_overdue(store, LANE, store.clock(), config)[0] == 1
    task = store.tasks.get("default", "nano-banana", ["late"])["late"]
    assert task.state is State.EXPIRED
    assert "the account default is paused by operator ada@office since 20" in task.reason
    assert task.reason.endswith(": the invoice is disputed")


def test_ids_are_accepted_while_their_account_is_paused(client: Client) -> None:
    client.pause("default")
    (answer,) = client.submit(["a"], service="nano-banana")
    assert answer.outcome == "new"


# --- what the client answers


def test_a_second_pause_takes_the_place_of_the_first_and_keeps_since_when(client: Client) -> None:
    first = client.pause("default", reason="one", seconds=60)
    second = client.pause("default", reason="two", by="bob")
    assert not first.replaced
    assert first.by == whoever_calls()
    assert (second.replaced, second.since, second.until) == (True, first.since, None)
    assert client.pauses() == [second]


def test_a_pause_whose_time_is_over_is_not_replaced(client: Client) -> None:
    client.pause("default", seconds=0.05)
    time.sleep(0.1)
    assert not client.pause("default").replaced


def test_an_account_and_its_services_are_paused_and_resumed_one_by_one(client: Client) -> None:
    client.pause("default")
    client.pause("default", "flux")
    assert [one.name for one in client.pauses()] == ["default", "default/flux"]
    ended = client.resume("default")
    assert ended is not None
    assert ended.service is None
    assert client.resume("default") is None
    assert [one.name for one in client.pauses()] == ["default/flux"]


@pytest.mark.parametrize(
    "options",
    [
        {"account": "Default!"},
        {"account": "default", "service": "no/service"},
        {"account": "default", "seconds": 5, "until": 4e9},
        {"account": "default", "seconds": float("nan")},
        {"account": "default", "seconds": 10**400},
        {"account": "default", "seconds": "60"},
        {"account": "default", "seconds": -1},
        {"account": "default", "until": 1.0},
        {"account": "default", "until": 1e30},
        {"account": "default", "reason": "two\nlines"},
        {"account": "default", "by": "x" * 201},
    ],
)
def test_a_wrong_value_is_refused_and_nothing_is_written(
    client: Client, store: Store, options: dict[str, Any]
) -> None:
    with pytest.raises(SubmissionError):
        client.pause(**options)
    assert not store.connection.redis.exists(CONTROLS)


def test_a_damaged_entry_is_left_out_and_stops_nobody(client: Client, store: Store) -> None:
    client.pause("other")
    store.connection.redis.hset(
        CONTROLS, mapping={"pause default": "?", "ceiling default": "{}", "what": "1"}
    )
    assert [one.account for one in client.pauses()] == ["other"]
    assert client.rate_ceilings() == []


def test_a_pause_is_written_where_memory_is_full(client: Client, store: Store) -> None:
    redis = store.connection.redis
    redis.config_set("maxmemory", "1")
    try:
        client.pause("default")
    finally:
        redis.config_set("maxmemory", "0")
    assert [one.account for one in client.pauses()] == ["default"]


# --- rate ceilings


def test_a_ceiling_counts_instead_of_the_setting_until_it_is_removed(
    store: Store, client: Client
) -> None:
    """The setting has no ceiling, so batches go out as fast as rounds are made."""
    add(store, 1500)
    allow(store, 1000.0)
    client.set_rate_ceiling("default", 4.0, by="ada")
    sent = Sent()
    for _ in range(4):
        full_tick(store, sent)
    capped = len(sent.batches)
    assert 3 <= capped <= 5
    client.set_rate_ceiling("default", None)
    fresh(store)
    full_tick(store, sent)
    assert len(sent.batches) > 2 * capped


def test_a_ceiling_that_is_raised_does_not_wait_for_the_call_that_the_old_one_allowed(
    store: Store, client: Client
) -> None:
    add(store, 100)
    allow(store, 1000.0)
    client.set_rate_ceiling("default", 0.01)
    sent = Sent()
    full_tick(store, sent)
    full_tick(store, sent)
    assert len(sent.batches) == 1  # the next one is allowed in a hundred seconds
    client.set_rate_ceiling("default", 20.0)
    fresh(store)
    full_tick(store, sent)
    assert len(sent.batches) > 1


@pytest.mark.parametrize("calls", [0, -1, 1e9, float("inf"), True])
def test_a_ceiling_out_of_bounds_is_refused(client: Client, calls: float) -> None:
    with pytest.raises(SubmissionError, match="calls"):
        client.set_rate_ceiling("default", calls)
    assert client.rate_ceilings() == []


# --- commands, and what is shown


def test_the_commands_say_what_they_did_and_what_was_so_before(run: Run, client: Client) -> None:
    client.submit(["a"], service="flux")
    words = ("pause", "--account", "default", "--service", "flux")
    said = run(*words, "--for", "30m", "--reason", "it moves", "--by", "ada").stdout
    assert "default/flux: paused by operator ada since 20" in said
    assert " until 20" in said
    assert said.endswith(": it moves\n")
    assert "paused before" in run(*words).stdout
    shown: Any = run("resume", *words[1:])
    assert (shown.exit_code, "resumed; it was paused by" in shown.stdout) == (0, True)
    again: Any = run("resume", *words[1:])
    assert (again.exit_code, again.stdout) == (0, "default/flux: was not paused\n")


def test_the_commands_print_json(run: Run, client: Client) -> None:
    until, at = "2099-01-02T03:04:05Z", datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    pause = json.loads(run("pause", "--account", "a", "--until", until, "--json").stdout)
    assert (pause["account"], pause["service"], pause["until"]) == ("a", None, at)
    client.pause("a", "flux")
    resumed = json.loads(run("resume", "--account", "a", "--json").stdout)
    assert resumed["resumed"]["account"] == "a"
    assert [one["service"] for one in resumed["still_paused"]] == ["flux"]
    assert json.loads(run("resume", "--account", "a", "--json").stdout)["resumed"] is None
    limit = ("rate-limit", "--account", "a")
    assert json.loads(run(*limit, "--json").stdout)["calls"] is None
    assert json.loads(run(*limit, "--calls", "5", "--by", "ada", "--json").stdout)["calls"] == 5
    assert "at most 5 calls/s, set by operator ada" in run(*limit).stdout
    assert "no ceiling is set here" in run(*limit, "--default").stdout


def test_a_name_that_the_store_does_not_know_is_paused_and_said_to_be_new(run: Run) -> None:
    done: Any = run("pause", "--account", "defualt")
    assert done.exit_code == 0
    assert "is the name right?" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("pause",),
        ("pause", "--account", "a", "--for", "soon"),
        ("pause", "--account", "a", "--until", "tomorrow"),
        ("pause", "--account", "a", "--until", "2020-01-01"),
        ("pause", "--account", "a", "--for", "1h", "--until", "2099-01-01"),
        ("pause", "--account", "A B"),
        ("resume",),
        ("rate-limit", "--account", "a", "--calls", "5", "--default"),
        ("rate-limit", "--account", "a", "--calls", "0"),
    ],
)
def test_a_command_with_wrong_values_is_answered_by_one_sentence(
    run: Run, words: tuple[str, ...]
) -> None:
    done: Any = run(*words)
    assert done.exit_code != 0
    assert "Traceback" not in done.output


def test_status_top_doctor_and_show_say_who_paused_since_when_until_when_and_why(
    run: Run, client: Client, store: Store
) -> None:
    """An account and a service: `status`, `top`, `doctor`, `show`, the metrics."""
    client.submit(["a"], service="nano-banana")
    client.submit(["b"], service="flux", account="second")
    client.submit(["c"], service="veo", account="second")
    client.pause("default", reason="the invoice is disputed", by="ada", seconds=3600)
    client.pause("second", "flux", by="bob")
    for words in (("status",), ("top", "--once", "--every", "0.1")):
        shown = run(*words).output
        assert "paused by operator ada since 20" in shown
        assert "second/flux is paused by operator bob since 20" in shown
    said = json.loads(run("status", "--json").stdout)
    assert [(one["account"], one["service"], one["by"]) for one in said["pauses"]] == [
        ("default", None, "ada"),
        ("second", "flux", "bob"),
    ]
    assert said["accounts"]["default"]["operator_pause"].endswith("the invoice is disputed")
    assert said["accounts"]["second"]["operator_pause"] == ""
    paused = {one["lane"] for one in said["lanes"] if one["operator_pause"]}
    assert paused == {"default/nano-banana/0", "second/flux/0"}
    found = [
        one
        for one in json.loads(run("doctor", "--offline", "--json").stdout)
        if "paused by operator" in one["found"]
    ]
    assert [(one["what"], one["ok"]) for one in found] == [
        ("account default", True),
        ("account second, service flux", True),
    ]
    assert "cavendish resume --account second --service flux" in found[1]["advice"]
    assert "not polled  the account default is paused by operator ada" in run("show", "a").stdout
    assert json.loads(run("show", "b", "--json").stdout)["paused"]["by"] == "bob"
    assert json.loads(run("show", "c", "--json").stdout)["paused"] is None
    metrics = run("metrics").stdout
    assert 'cavendish_paused{account="default",by="operator",service=""} 1.0' in metrics
    assert 'cavendish_paused{account="second",by="operator",service="flux"} 1.0' in metrics
    assert 'by="api"' not in metrics


def test_what_the_api_paused_is_told_apart_from_what_an_operator_paused(
    run: Run, client: Client, bench: Bench, store: Store
) -> None:
    """Both at once: the API refuses the credential, and an operator paused the account."""
    bench.add("a")
    bench.run(lambda _: error(401, "invalid_token"))
    client.pause("default", by="ada")
    shown = run("status").output
    assert "paused by operator ada" in shown
    account = json.loads(run("status", "--json").stdout)["accounts"]["default"]
    assert "invalid_token" in account["pause_reason"]
    assert account["operator_pause"].startswith("paused by operator ada")
    metrics = run("metrics").stdout
    for who in ("api", "operator"):
        assert f'cavendish_paused{{account="default",by="{who}",service=""}} 1.0' in metrics
    store.fleet.beat(Member("worker@x:1", "worker", "0", bench.now, accounts=("default",)))
    findings = json.loads(run("doctor", "--offline", "--json").stdout)
    said = {one["ok"]: one["found"] for one in findings if one["what"] == "account default"}
    assert said[False].startswith("paused by the API for ")
    assert said[True].startswith("paused by operator ada ")


def test_a_pause_of_an_account_without_any_id_is_shown_too(run: Run, client: Client) -> None:
    client.pause("new", by="ada")
    assert "new is paused by operator ada" in run("status").output


def test_the_ceiling_is_shown_where_the_rate_limit_is(
    run: Run, client: Client, store: Store
) -> None:
    client.submit(["a"], service="nano-banana")
    client.set_rate_ceiling("default", 3.0, by="ada")
    now = store.fleet.now()
    store.fleet.beat(Member("worker@x:1", "worker", "0", now, accounts=("default",)))
    assert "default: at most 3 calls/s, set by operator ada at 20" in run("status").stdout
    assert "may make 3.00 calls/s; at most 3" in run("doctor", "--offline").stdout
    (ceiling,) = json.loads(run("status", "--json").stdout)["rate_ceilings"]
    assert (ceiling["account"], ceiling["calls"], ceiling["by"]) == ("default", 3.0, "ada")
    account = json.loads(run("status", "--json").stdout)["accounts"]["default"]
    assert (account["rate"], account["at_most"]) == (3.0, 3.0)
    assert 'cavendish_rate_limit_calls_per_second{account="default"} 3.0' in run("metrics").stdout


def test_a_process_logs_once_when_a_pause_begins_and_once_when_it_is_over(
    store: Store, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.set_up("json", "info")
    add(store, 1)
    dispatcher = dispatcher_of(store)
    client.pause("default", by="ada", reason="it moves")
    for _ in range(3):
        fresh(store)
        dispatcher.dispatch(["default"], store.clock(), Sent())
    client.resume("default")
    for _ in range(3):
        fresh(store)
        dispatcher.dispatch(["default"], store.clock(), Sent())
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    ours = [line for line in lines if line["event"].startswith("operator.")]
    assert [line["event"] for line in ours] == ["operator.paused", "operator.resumed"]
    assert "paused by operator ada" in ours[0]["why"]
