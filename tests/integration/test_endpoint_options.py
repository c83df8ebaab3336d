"""Endpoints with a choice of events, headers of their own, a rate and a schedule of retries.

With a real Redis and real receivers.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result

from cavendish.endpoints.encryption import Encryption, new_key
from cavendish.endpoints.endpoint_options import EndpointOptions
from cavendish.endpoints.webhook_endpoint import Disabled, Endpoint, Header, Key
from cavendish.model import OPERATIONS
from cavendish.policy.backoff import WEBHOOK_WINDOW, RetrySchedule
from cavendish.settings import Settings, env_name
from cavendish.store import Store
from cavendish.store.keys import ENDPOINTS
from cavendish_worker.webhooks.payload import event_id, operations_event
from conftest import SECRET
from delivering import KEYS, LANE, Delivering, Receiver, Served
from servers import eventually
from shell import Run, said

SHOP = "https://shop.example/hook"
VALUE = "Bearer 71-very-secret"


@pytest.fixture(autouse=True)
def secrets(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands have an encryption key here, and a secret for webhooks."""
    monkeypatch.setenv(env_name("webhook_secret"), settings.webhook_secret)
    monkeypatch.setenv(env_name("webhook_allow"), "127.0.0.0/8")
    monkeypatch.setenv(env_name("secret_key"), new_key())


def wrong(done: Result) -> str:
    """The one sentence of a command that was refused."""
    assert done.exit_code == 1
    assert not done.stdout
    return str(done.exception)


def registered(bench: Delivering, url: str, **options: Any) -> None:
    """Register `shop` with these options."""
    new = Endpoint("shop", url, bench.store.fleet.now(), (Key(f"plain:{SECRET}", 1.0),))
    unsealed = EndpointOptions(**options).applied(
        new, lambda _name, value, _header: f"plain:{value}"
    )
    assert bench.store.endpoints.add(unsealed)


# --- update


def test_an_update_changes_what_is_named_and_keeps_the_secret(run: Run, store: Store) -> None:
    run("endpoint", "add", "shop", SHOP, "--events", "task.failed", "--rate", "60")
    before = store.endpoints.all()["shop"]
    done = run("endpoint", "update", "shop", "--url", "https://new.example/", "--retries", "3")
    after = store.endpoints.all()["shop"]
    schedule = RetrySchedule(3, WEBHOOK_WINDOW)
    assert after == replace(before, url="https://new.example/", schedule=schedule)
    assert done.stdout == (
        f"shop is changed\nurl: https://new.example/ (was {SHOP})\nretries: 3 (was 9)\n"
    )


def test_the_json_of_an_update_says_what_was_and_what_is(run: Run) -> None:
    run("endpoint", "add", "shop", SHOP)
    words = ("--events", "task.*,group.completed", "--retry-for", "2d", "--rate", "90")
    changed = said(run("endpoint", "update", "shop", *words, "--json"))
    assert changed == {
        "name": "shop",
        "changed": {
            "events": {"before": ["all"], "after": ["task.*", "group.completed"]},
            "rate": {"before": None, "after": 90.0},
            "per_minute": {"before": None, "after": 90.0},
            "retry_for": {"before": 272105.0, "after": 172800.0},
        },
        "enabled": True,
    }
    reset = run(
        "endpoint", "update", "shop", *"--reset events --reset rate --reset retries".split()
    )
    assert "events: all (was task.* group.completed)" in reset.stdout
    assert "rate: none (was 90.0)" in reset.stdout
    assert run("endpoint", "update", "shop", "--reset", "rate").stdout == "shop is as it was\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--url", "http://10.0.0.1/"), "not public"),
        (("--url", "https://shop.example/#part"), "#fragment"),
        (("--events", "task.done"), "known are all, task.succeeded"),
        (("--header", "Host: x"), "belongs to HTTP"),
        (("--header", "X-A: a\nX-B: b"), "printable ASCII"),
        (("--header", "X-A: 1", "--header", "x-a: 2"), "given twice"),
        (("--remove-header", "X-Never"), "no header x-never"),
        (("--retries", "3", "--retry-for", "10s"), "3 retries take 15 s"),
        (("--retry-for", "8d"), "7 days"),
    ],
)
def test_a_wrong_option_is_refused_by_add_and_update_and_changes_nothing(
    run: Run, store: Store, words: tuple[str, ...], why: str
) -> None:
    run("endpoint", "add", "shop", SHOP)
    before = store.endpoints.all()
    assert why in wrong(run("endpoint", "update", "shop", *words))
    if words[0] not in ("--url", "--remove-header"):
        assert why in wrong(run("endpoint", "add", "other", SHOP, *words))
    assert store.endpoints.all() == before


def test_an_update_of_nothing_or_of_nobody_is_refused(run: Run) -> None:
    assert run("endpoint", "update", "shop").exit_code == 2
    assert "nobody" in wrong(run("endpoint", "update", "nobody", "--rate", "1"))
    for words in (("--header", "no colon"), ("--header", "@/nowhere"), ("--retry-for", "long")):
        assert run("endpoint", "update", "shop", *words).exit_code == 2


def test_retries_for_longer_than_results_are_kept_are_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(env_name("retention"), str(4 * 86400))
    run("endpoint", "add", "shop", SHOP)
    assert run("endpoint", "update", "shop", "--retry-for", "4d").exit_code == 0
    assert "CAVENDISH_RETENTION" in wrong(run("endpoint", "update", "shop", "--retry-for", "5d"))


def test_an_endpoint_that_has_consented_is_asked_anew_for_another_url_or_rate(
    run: Run, store: Store, served: Served
) -> None:
    asked: list[httpx.Request] = []
    headers = {"webhook-allowed-origin": "*", "webhook-allowed-rate": "50"}

    async def agree(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, headers=headers)

    one, other = served(agree), served(agree)
    run("endpoint", "add", "shop", one, "--consent", "--rate", "40")
    assert store.endpoints.all()["shop"].calls_per_minute == 40
    assert run("endpoint", "update", "shop", "--events", "task.failed").exit_code == 0
    assert len(asked) == 1
    assert run("endpoint", "update", "shop", "--rate", "90").exit_code == 0
    assert store.endpoints.all()["shop"].calls_per_minute == 50
    assert run("endpoint", "update", "shop", "--url", f"{other}/in").exit_code == 0
    assert [request.headers["webhook-request-rate"] for request in asked] == ["40", "90", "90"]
    assert asked[2].url.path == "/in"
    headers["webhook-allowed-origin"] = "somebody.example"
    before = store.endpoints.all()
    refused = wrong(run("endpoint", "update", "shop", "--url", one))
    assert refused.endswith("Nothing was changed.")
    assert store.endpoints.all() == before


def test_what_waits_for_another_url_is_due_at_once_and_a_disabled_endpoint_stays_so(
    endpoint_index: Delivering, served: Served, run: Run
) -> None:
    store, receiver = endpoint_index.store, Receiver()
    old = served(Receiver(httpx.Response(503, headers={"retry-after": "3000"})))
    registered(endpoint_index, old)
    endpoint_index.end("a", webhook="shop")
    assert endpoint_index.deliver().retries == 1
    store.endpoints.disable("shop", Disabled(1.0, "410 Gone"))
    done = run("endpoint", "update", "shop", "--url", served(receiver))
    assert "cavendish endpoint enable shop" in done.stderr
    assert store.endpoints.disabled()
    store.endpoints.enable("shop")
    eventually(lambda: endpoint_index.deliver().delivered, "the delivery is due at once")
    assert receiver.ids == ["a"]


def test_list_and_show_have_the_options(run: Run) -> None:
    words = ("--events", "task.failed", "--header", f"Authorization: {VALUE}", "--rate", "60")
    run("endpoint", "add", "shop", SHOP, *words, "--retries", "4", "--retry-for", "1h")
    (listed,), shown = (
        said(run("endpoint", "list", "--json")),
        said(run("endpoint", "show", "shop", "--json")),
    )
    for one in (listed, shown):
        assert (one["events"], one["headers"]) == (["task.failed"], ["Authorization"])
        assert (one["rate"], one["per_minute"]) == (60.0, 60.0)
        assert (one["retries"], one["retry_for"]) == (4, 3600.0)
    text = run("endpoint", "show", "shop").stdout
    assert "Authorization" in text
    assert "1:00:00" in text


# --- events


def test_an_event_that_was_not_chosen_is_not_sent_and_closed_as_skipped(
    endpoint_index: Delivering, served: Served, run: Run
) -> None:
    store, receiver = endpoint_index.store, Receiver()
    registered(endpoint_index, served(receiver), events=("task.failed",))
    endpoint_index.end("a", "b", webhook="shop")
    assert str(endpoint_index.deliver()) == ("0 delivered · 0 to retry · 0 buried · 2 skipped")
    assert (receiver.got, endpoint_index.pending_deliveries()) == ([], 0)
    raw = store.connection.redis
    assert 3500 < raw.ttl(KEYS.task("a")) <= 3600
    assert 3500 < raw.ttl(KEYS.result("a")) <= 3600
    counts = store.statistics([LANE]).lanes[0].counts
    assert (counts["skipped"], counts["delivered"], counts["buried"]) == (2, 0, 0)
    (shown,) = said(run("show", "a", "--json"))["deliveries"]
    assert (shown["state"], shown["attempts"], shown["log"]) == ("skipped", 0, [])
    assert shown["outcome"] == "not sent: shop does not choose task.succeeded"
    assert "shop: skipped, 0 attempts, last: not sent" in run("show", "a").stdout


def test_what_was_skipped_is_not_replayed_and_stays_skipped_when_its_attempts_are_forgotten(
    endpoint_index: Delivering, served: Served, run: Run
) -> None:
    store, receiver = endpoint_index.store, Receiver()
    registered(endpoint_index, served(receiver), events=("task.failed",))
    endpoint_index.end("a", webhook="shop")
    endpoint_index.deliver()
    store.endpoints.change("shop", lambda known: replace(known, events=()))
    endpoint_index.end("b", webhook="shop")
    assert endpoint_index.deliver().delivered == 1
    assert said(run("replay", "--endpoint", "shop", "--since", "1h", "--json"))["replayed"] == 1
    assert endpoint_index.deliver().delivered == 1
    assert receiver.ids == ["b", "b"]
    store.connection.redis.delete(KEYS.delivery("shop:a"), KEYS.delivery("shop:b"))
    states = [one.state for one in store.deliveries.load(LANE, ["shop:a", "shop:b"])]
    assert states == ["skipped", "delivered"]


def test_another_choice_counts_for_what_is_sent_from_then_on(
    endpoint_index: Delivering, served: Served
) -> None:
    store, receiver = endpoint_index.store, Receiver(httpx.Response(500), httpx.Response(200))
    registered(endpoint_index, served(receiver))
    endpoint_index.end("a", webhook="shop")
    assert endpoint_index.deliver().retries == 1
    store.endpoints.change("shop", lambda known: replace(known, events=("task.failed",)))
    endpoint_index.make_due()
    assert endpoint_index.deliver().skipped == 1
    (delivery,) = store.deliveries.load(LANE, ["shop:a"])
    assert (delivery.state, delivery.attempts) == ("skipped", 1)
    assert len(delivery.log.splitlines()) == 1
    assert len(receiver.got) == 1


def test_an_id_with_two_endpoints_is_sent_to_the_one_that_chooses_it(
    endpoint_index: Delivering, served: Served
) -> None:
    receiver, plain = Receiver(), Receiver()
    registered(endpoint_index, served(receiver), events=("task.*",))
    url = served(plain)
    endpoint_index.end("a", webhook="shop")
    endpoint_index.end("b", webhook=url)
    assert endpoint_index.deliver().delivered == 2
    assert (receiver.ids, plain.ids) == (["a"], ["b"])


def test_operators_choose_among_alerts_by_a_registered_endpoint(
    endpoint_index: Delivering, served: Served
) -> None:
    store, receiver = endpoint_index.store, Receiver()
    registered(endpoint_index, served(receiver), events=("store.*",))
    disabled = {"endpoint": "art", "url": "", "reason": "410 Gone", "disabled_at": 1.0}
    emptied = {"reason": "FLUSHALL", "began": 1.0, "noticed_at": 2.0}
    for kind, about in (("endpoint.disabled", disabled), ("store.emptied", emptied)):
        alert = operations_event(kind, about, 2.0).decode()
        store.deliveries.notify(event_id(kind), "shop", alert, store.fleet.now())
    did = endpoint_index.deliver()
    assert (did.delivered, did.skipped) == (1, 1)
    assert json.loads(receiver.got[0].content)["type"] == "store.emptied"
    assert [one.deliveries_pending for one in store.statistics([OPERATIONS]).lanes] == [0]


def test_what_is_skipped_uses_up_no_rate(endpoint_index: Delivering, served: Served) -> None:
    receiver = Receiver()
    registered(endpoint_index, served(receiver), events=("task.failed",), rate=1.0)
    endpoint_index.end(*(f"id-{number}" for number in range(20)), webhook="shop")
    assert endpoint_index.deliver().skipped == 20
    store = endpoint_index.store
    store.endpoints.change("shop", lambda known: replace(known, events=()))
    endpoint_index.end("a", webhook="shop")
    assert endpoint_index.deliver().delivered == 1


# --- headers


def test_headers_are_sealed_in_the_store_and_sent_at_attempts_replays_and_tests(
    endpoint_index: Delivering, served: Served, run: Run, tmp_path: Path
) -> None:
    receiver, store = Receiver(), endpoint_index.store
    lines = tmp_path / "headers.txt"
    lines.write_text(f"Authorization: {VALUE}\n\nX-Tenant: 7\n")
    added = run("endpoint", "add", "shop", served(receiver), "--header", f"@{lines}", "--json")
    assert said(added)["headers"] == ["Authorization", "X-Tenant"]
    row = str(store.connection.redis.hget(ENDPOINTS, "shop"))
    key = os.environ[env_name("secret_key")]
    endpoint_index.end("a", webhook="shop")
    assert endpoint_index.deliver(encrypting=(key,)).delivered == 1
    replayed = run("replay", "--endpoint", "shop", "--since", "1h")
    assert endpoint_index.deliver(encrypting=(key,)).delivered == 1
    tested = run("endpoint", "test", "shop", "--json")
    assert said(tested)["taken"]
    assert len(receiver.got) == 3
    for request in receiver.got:
        assert request.headers.get_list("authorization") == [VALUE]
        assert request.headers["x-tenant"] == "7"
        assert request.headers["webhook-id"].startswith("msg_")
    shown = [run("endpoint", *words) for words in (("show", "shop"), ("list", "--json"))]
    everything = [row, *(one.output for one in (added, replayed, tested, *shown))]
    assert not any("very-secret" in text for text in everything)


def test_an_updated_header_replaces_the_one_of_its_name_and_is_not_shown(
    endpoint_index: Delivering, served: Served, run: Run
) -> None:
    receiver = Receiver()
    run("endpoint", "add", "shop", served(receiver), "--header", "X-A: one", "--header", "X-B: two")
    done = run("endpoint", "update", "shop", "--header", "X-A: three", "--remove-header", "x-b")
    assert done.stdout == "shop is changed\nheaders: X-A (was X-A X-B)\n"
    again = run("endpoint", "update", "shop", "--header", "X-A: four")
    assert again.stdout == "shop is changed\nheaders: X-A (a new value)\n"
    endpoint_index.end("a", webhook="shop")
    endpoint_index.deliver(encrypting=(os.environ[env_name("secret_key")],))
    assert receiver.got[0].headers["x-a"] == "four"
    assert "x-b" not in receiver.got[0].headers


def test_without_an_encryption_key_a_warning_says_that_headers_are_readable(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("endpoint", "add", "shop", SHOP)
    assert "unencrypted" not in run("endpoint", "update", "shop", "--header", "X-A: 1").stderr
    monkeypatch.delenv(env_name("secret_key"))
    assert "unencrypted" in run("endpoint", "update", "shop", "--header", "X-A: 2").stderr
    assert "unencrypted" not in run("endpoint", "update", "shop", "--rate", "2").stderr


def test_a_header_that_cannot_be_decrypted_lets_the_deliveries_wait(
    endpoint_index: Delivering, served: Served
) -> None:
    receiver, key = Receiver(), new_key()
    new = Endpoint("shop", served(receiver), 1.0, (Key(f"plain:{SECRET}", 1.0),))
    options = EndpointOptions(headers={"X-Tenant": "7"})
    store = endpoint_index.store
    store.endpoints.add(options.applied(new, Encryption([key]).encrypt))
    endpoint_index.end("a", webhook="shop")
    assert endpoint_index.deliver(encrypting=(new_key(),)).retries == 1
    waiting = endpoint_index.delivery()
    assert (receiver.got, waiting.attempts) == ([], 0)
    assert "cannot decrypt the header X-Tenant of 'shop'" in waiting.outcome
    endpoint_index.make_due()
    assert endpoint_index.deliver(encrypting=(key,)).delivered == 1
    assert receiver.got[0].headers["x-tenant"] == "7"


def test_doctor_names_an_endpoint_with_a_header_that_cannot_be_decrypted(
    run: Run, store: Store
) -> None:
    run("endpoint", "add", "shop", SHOP, "--header", "X-A: 1")
    assert "endpoint secrets" not in run("doctor", "--offline").output
    sealed = Encryption([new_key()]).encrypt("shop", "1", "X-A")
    store.endpoints.change("shop", lambda known: replace(known, headers=(Header("X-A", sealed),)))
    assert "no key of this environment decrypts: shop" in run("doctor", "--offline").output
    store.endpoints.change(
        "shop", lambda known: replace(known, headers=(Header("X-A", "plain:1"),))
    )
    assert "unencrypted in the store: shop" in run("doctor", "--offline").output


def test_a_value_that_was_sealed_for_another_header_stays_shut(
    endpoint_index: Delivering, served: Served
) -> None:
    receiver, key = Receiver(), new_key()
    new = Endpoint("shop", served(receiver), 1.0, (Key(f"plain:{SECRET}", 1.0),))
    swapped = EndpointOptions(headers={"X-A": "7"}).applied(
        new, lambda name, value, _header: Encryption([key]).encrypt(name, value, "X-B")
    )
    endpoint_index.store.endpoints.add(swapped)
    endpoint_index.end("a", webhook="shop")
    assert endpoint_index.deliver(encrypting=(key,)).retries == 1
    assert receiver.got == []


# --- retries


def test_a_schedule_of_its_own_says_how_often_and_when_an_endpoint_is_tried(
    endpoint_index: Delivering, served: Served
) -> None:
    receiver, store = Receiver(httpx.Response(500)), endpoint_index.store
    registered(endpoint_index, served(receiver), retries=2, retry_for=60.0)
    endpoint_index.end("a", webhook="shop")
    waits = []
    for _ in range(2):
        before = store.fleet.now()
        assert endpoint_index.deliver().retries == 1
        due = endpoint_index.delivery().at
        assert due is not None
        waits.append(due - before)
        endpoint_index.make_due()
    assert 5 <= waits[0] < 8
    assert 55 <= waits[1] < 63
    assert endpoint_index.deliver().buried == 1
    assert len(receiver.got) == 3
    assert "all attempts are used up" in store.closed.dead(LANE)[0].outcome


def test_a_retry_after_is_not_undercut_by_a_short_schedule(
    endpoint_index: Delivering, served: Served
) -> None:
    receiver = Receiver(httpx.Response(500, headers={"retry-after": "7200"}))
    registered(endpoint_index, served(receiver), retries=2, retry_for=60.0)
    endpoint_index.end("a", webhook="shop")
    endpoint_index.deliver()
    due = endpoint_index.delivery().at
    assert due is not None
    assert due - endpoint_index.store.fleet.now() > 7190
