"""Submits by message that are refused: kept, found, submitted again, dropped; with a real Redis."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest

from cavendish import Client, SubmissionError
from cavendish.model import OPERATIONS
from cavendish.settings import Settings
from cavendish.store import Store, refused
from cavendish.store.keys import QUARANTINE, QUARANTINED, REFUSED, REFUSED_SENT
from cavendish.store.quarantine import entry_of
from cavendish.store.refused import LARGEST, RefusedSubmit
from cavendish_worker import doctor
from cavendish_worker.celeryapp.refused_submits import Sender, what_was_sent
from cavendish_worker.celeryapp.submit_message import take_in
from cavendish_worker.telemetry.metrics import scraped, serving
from cavendish_worker.telemetry.snapshot import gather
from cavendish_worker.webhooks import operator_alerts, troubles
from cavendish_worker.webhooks.reconcile import reconcile
from messages import GOOD, envelope
from shell import Run, said

SERVICE = "nano-banana"
HOOK = "https://example.com/hook"


def refuse(client: Client, store: Store, ids: Any = ("a",), **options: Any) -> RefusedSubmit:
    """Take a message in that is refused; what is kept of it."""
    given = list(ids) if isinstance(ids, tuple) else ids
    with pytest.raises(SubmissionError):
        take_in(client, given, options, None, Sender(store, "gen7@shop", "t1").keep)
    return store.refused.list()[0]


def kept(number: int, sender: str) -> RefusedSubmit:
    """One of ten bytes."""
    return RefusedSubmit(1000.0 + number, "service", "no", sender, sent='"xxxxxxxx"')


@pytest.mark.parametrize(
    ("ids", "options", "kind"),
    [
        (("a", "b"), {"service": "nano-bananna"}, "service"),
        (("a", "b"), {}, "service"),
        (("a", "b"), {"service": SERVICE, "webhook": "shop"}, "endpoint"),
        (("a", "b"), {"service": SERVICE, "webhook": "ftp://x.example/"}, "webhook"),
        (("a", "b"), {"service": SERVICE, "colour": "red"}, "option"),
        (("a", "b"), {"service": SERVICE, "deadline": 0}, "option"),
        ("ab", {"service": SERVICE}, "ids"),
        (None, {"service": SERVICE}, "ids"),
    ],
)
def test_a_refused_message_is_kept_with_its_reason_and_its_sender(
    client: Client, store: Store, ids: Any, options: dict[str, Any], kind: str
) -> None:
    one = refuse(client, store, ids, producer="cart", **options)
    assert (one.kind, one.sender, one.task_id, one.producer) == (kind, "gen7@shop", "t1", "cart")
    assert one.service == options.get("service", "")
    assert one.ids == (2 if isinstance(ids, tuple) else 0)
    assert one.whole
    assert one.reason
    assert client.get("a", service=SERVICE) is None


def test_what_was_refused_is_submitted_again_once_its_cause_is_mended(
    client: Client, store: Store, run: Run
) -> None:
    one = refuse(client, store, service=SERVICE, webhook="shop", metadata={"n": 1})
    again = run("refused", "retry", one.id)
    assert again.exit_code == 1
    assert "No endpoint is registered as 'shop'" in again.output
    assert [row["id"] for row in said(run("refused", "list", "--json"))] == [one.id]
    assert run("endpoint", "add", "shop", HOOK).exit_code == 0
    assert run("refused", "retry", "--all").output == f"{one.id}: 1 new\n1 retried\n"
    task = client.get("a", service=SERVICE)
    assert task is not None
    assert task.metadata == {"n": 1}
    assert run("refused", "list").output == "nothing refused\n"
    assert said(run("refused", "retry", "--all", "--json")) == []


def test_a_producer_above_its_quota_finds_its_submit_among_the_refused(
    store: Store, settings: Settings
) -> None:
    with Client(settings=replace(settings, producer_ids=1)) as client:
        one = refuse(client, store, ("a", "b"), service=SERVICE, producer="cart")
        assert (one.kind, one.producer, one.ids) == ("quota", "cart", 2)


def test_single_ids_that_are_refused_are_kept_alone(client: Client, store: Store, run: Run) -> None:
    outcome = take_in(
        client, ["a", "", 7], {"service": SERVICE}, None, Sender(store, "", "t1").keep
    )
    assert outcome == "1 new · 2 refused"
    (one,) = store.refused.list()
    assert (one.kind, one.ids, one.reason) == ("ids", 2, "an id must not be empty")
    shown = said(run("refused", "show", one.id, "--json"))
    assert shown["sent"] == {"ids": ["", 7], "options": {"service": SERVICE}}
    assert run("refused", "retry", one.id).exit_code == 1
    assert store.refused.count() == 1


def test_values_that_celery_marks_in_json_come_back_as_they_were(
    client: Client, store: Store, run: Run
) -> None:
    name = uuid.uuid4()
    one = refuse(client, store, "no list", service=SERVICE, metadata={"order": name})
    shown = said(run("refused", "show", one.id, "--json"))
    assert shown["sent"] == {
        "ids": "no list",
        "options": {"service": SERVICE, "metadata": "left out"},
    }
    again = store.refused.show(one.id)
    assert again is not None
    assert what_was_sent(again) == (
        "no list",
        {"service": SERVICE, "metadata": {"order": name}},
    )


@pytest.mark.parametrize("words", [("--json",), ()])
def test_no_secret_of_what_was_sent_is_shown(
    client: Client, store: Store, run: Run, words: tuple[str, ...]
) -> None:
    one = refuse(
        client,
        store,
        service=SERVICE,
        webhook="https://ada:hush1@shop.example/hook?key=hush2",
        metadata={"token": "hush3"},
    )
    output = run("refused", "show", one.id, *words).output
    assert "shop.example/hook" in output
    assert "hush" not in output
    assert "hush" not in run("refused", "list", *words).output


@pytest.mark.parametrize(
    "url",
    [
        "https://ada:it'shush@shop.example/hook",
        'https://ada:x"hush@shop.example/hook',
        "https://ada:x@hush@shop.example/hook",
        "https://ada:x/hush@shop.example/hook",
        "https://ada:x#hush@shop.example/hook",
        "https://[::1]/hook?key=x hush",
        'https://[::1]/hook?key=x"hush',
        "https://[::1]/it's?key=hush",
        "https://[::1]/hook https://ada:hush@shop.example/hook",
        "https:/ada:hush@shop.example",
        "ada:hush@shop.example/hook?key=hush",
    ],
)
@pytest.mark.parametrize("words", [("--json",), ()])
def test_no_secret_of_a_malformed_url_is_shown(
    client: Client, store: Store, run: Run, url: str, words: tuple[str, ...]
) -> None:
    one = refuse(client, store, service=SERVICE, webhook=url, metdata={"token": "hush"})
    done = run("refused", "show", one.id, *words)
    assert done.exit_code == 0
    assert "hush" not in done.output
    assert SERVICE in done.output


def test_no_secret_is_shown_of_the_beginning_of_what_was_too_large(store: Store, run: Run) -> None:
    sent = '[["a"], {"webhook": ["https:\\/\\/ada:hush@x.example\\/?k=hush", "https://ada:hush'
    entry = store.refused.keep(RefusedSubmit(1000.0, "ids", "no", whole=False, sent=sent))
    shown = said(run("refused", "show", entry, "--json"))["sent"]
    assert shown == '[["a"], {"webhook": ["https://…@x.example/?…", "https://…"'
    sent = '[["metdata", "b\\": c"], {"service": "x", "metdata": {"k": "hush"}, "model": "m"}]'
    entry = store.refused.keep(RefusedSubmit(1000.0, "ids", "no", whole=False, sent=sent))
    shown = said(run("refused", "show", entry, "--json"))["sent"]
    assert shown == '[["metdata", "b\\": c"], {"service": "x",  …'


def test_what_is_too_large_is_kept_by_its_beginning_and_cannot_be_retried(
    client: Client, store: Store, run: Run
) -> None:
    one = refuse(client, store, ("x" * LARGEST,), service="bogus")
    assert (one.whole, one.ids) == (False, 1)
    assert one.size > LARGEST
    entry = store.refused.show(one.id)
    assert entry is not None
    assert len(entry.sent) == 2000
    assert said(run("refused", "show", one.id, "--json"))["sent"].startswith('[["xxx')
    assert "its producer must send it again" in run("refused", "retry", one.id).output
    assert said(run("refused", "drop", one.id, "--json")) == {"dropped": 1}


def test_whoever_has_most_makes_room_for_the_others(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused, "KEPT", 5)
    store.refused.keep(kept(0, "gen1@quiet"))
    for number in range(1, 9):
        store.refused.keep(kept(number, f"gen{number}@loud"))
    found = store.refused.list()
    assert [one.at - 1000 for one in found] == [8, 7, 6, 5, 0]
    assert "4 older ones were dropped" in run("refused", "list").output
    monkeypatch.setattr(refused, "ALL", 45)
    store.refused.keep(kept(9, "gen9@loud"))
    assert [one.at - 1000 for one in store.refused.list()] == [9, 8, 7, 0]
    assert store.connection.redis.hlen(REFUSED_SENT) == store.refused.count() == 4
    assert store.refused.lost() == 6


def test_of_those_who_have_equally_many_the_oldest_makes_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused, "KEPT", 3)
    for number in range(9):
        store.refused.keep(kept(number, f"gen1@producer{number}"))
    assert [one.at - 1000 for one in store.refused.list()] == [8, 7, 6]


def test_a_refused_submit_is_kept_also_where_memory_is_full(client: Client, store: Store) -> None:
    store.connection.redis.config_set("maxmemory", "1")
    try:
        assert refuse(client, store, service="bogus").kind == "service"
    finally:
        store.connection.redis.config_set("maxmemory", "0")


def test_an_entry_that_cannot_be_read_stops_nobody(client: Client, store: Store, run: Run) -> None:
    for number, text in enumerate(("garbage", "[]", "7", '{"at": "x"}')):
        store.connection.redis.hset(REFUSED, f"odd-{number}", text)
    one = refuse(client, store, service="bogus")
    rows = said(run("refused", "list", "--json"))
    assert [row["id"] for row in rows if row["kind"] == "service"] == [one.id]
    assert sum(row["kind"] == "unreadable" for row in rows) == 4
    assert run("refused", "show", "odd-0").exit_code == 0
    assert run("refused", "retry", "odd-0").exit_code == 1
    assert run("refused", "drop", "--all", "--yes").output == "5 dropped\n"


def test_a_quarantined_message_is_found_put_back_and_dropped_by_the_same_commands(
    store: Store, run: Run
) -> None:
    raw = store.connection.redis  # it is the broker's Redis as well
    for name in ("aaa", "bbb"):
        entry = entry_of(1000.0, "cavendish.submit", "workers died", 3, envelope())
        raw.rpush(QUARANTINE, name)
        raw.hset(QUARANTINED, name, entry)
    rows = said(run("refused", "list", "--json"))
    assert [(row["id"], row["kind"], row["deaths"]) for row in rows] == [
        ("aaa", "message", 3),
        ("bbb", "message", 3),
    ]
    shown = said(run("refused", "show", "aaa", "--json"))
    assert (shown["queue"], shown["sent"]) == ("cavendish.submit", GOOD.decode())
    assert "put back into the queue" in run("refused", "retry", "aaa").output
    assert raw.llen("cavendish.submit") == 1
    assert run("refused", "drop", "bbb").output == "1 dropped\n"
    assert run("refused", "list").output == "nothing refused\n"
    assert run("refused", "drop", "bbb").exit_code == 1
    assert run("refused", "show", "bbb").exit_code == 1
    assert run("refused", "drop").exit_code == 2


def test_operators_are_told_once_of_refused_submits_until_there_are_none_for_an_hour(
    client: Client, store: Store
) -> None:
    one = refuse(client, store, service="bogus", producer="cart")
    reconcile(store, HOOK, 3600, 3600)
    refuse(client, store, service="bogus")
    reconcile(store, HOOK, 3600, 3600)
    assert sum(store.statistics([OPERATIONS]).pending_by_endpoint.values()) == 1
    later = one.at + troubles.REFUSED_FOR + 60
    assert operator_alerts.update(store, HOOK, [], later) == 0
    store.refused.keep(RefusedSubmit(later, "service", "no"))
    assert operator_alerts.update(store, "", [], later) == 0
    assert operator_alerts.update(store, HOOK, [], later) == 1
    assert operator_alerts.update(store, HOOK, [], later) == 0


def test_old_refused_submits_are_forgotten(store: Store) -> None:
    now = store.fleet.now()
    for age in (10.0, 100.0):
        store.refused.keep(RefusedSubmit(now - age, "service", "no"))
    reconcile(store, "", 50.0, 50.0)
    assert [round(now - one.at) for one in store.refused.list()] == [10]


def test_doctor_status_and_metrics_count_refused_submits(
    client: Client, store: Store, settings: Settings, run: Run
) -> None:
    assert gather(store, settings)["refused_submits"] == 0
    one = refuse(client, store, service="bogus")
    assert gather(store, settings)["refused_submits"] == 1
    assert "1 refused submits: cavendish refused list" in run("status").output
    text = serving.text(scraped.registry_of(store, 50))
    assert "cavendish_refused_submits 1.0" in text
    findings = {each.what: each for each in doctor.examine(store, settings, offline=True)}
    assert not findings["refused submits"].ok
    assert one.id in findings["refused submits"].found
