"""What endpoints do to deliveries: secrets of their own, allowances and circuits, consent withdrawn, owners told."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace

import httpx
import pytest
from conftest import SECRET
from owing import LANE, Owing, Receiver, Served
from standardwebhooks import Webhook

from scheduler.circuit import TRIP
from scheduler.endpoints import Disabled, Endpoint, Key, endpoint_of
from scheduler.tracking import OPERATIONS
from worker.webhooks.signing import new_secret, new_signing_key, public_key, verify
from worker.webhooks.sweep import sweep
from worker.webhooks.vault import Vault, new_key


def registered(owing: Owing, name: str, url: str, *secrets: str, vault: Vault | None = None, until: float | None = None) -> None:
    seals = vault or Vault(())
    keys = [Key(seals.seal(name, secret), float(place), until if place else None) for place, secret in enumerate(secrets)]
    assert owing.book.endpoints.add(Endpoint(name, url, owing.book.fleet.now(), tuple(keys)))


def test_a_registered_endpoint_is_signed_by_every_key_that_lives_and_by_no_other(owing: Owing, served: Served) -> None:
    receiver, new, old, dead, private = Receiver(), new_secret(), new_secret(), new_secret(), new_signing_key()
    vault = Vault([key := new_key()])
    now = owing.book.fleet.now()
    keys = [Key(vault.seal("shop", text), at, until) for text, at, until in ((new, 3.0, None), (private, 2.0, None))]
    keys += [Key(vault.seal("shop", old), 1.0, now + 60), Key(vault.seal("shop", dead), 0.0, now - 1)]
    owing.book.endpoints.add(Endpoint("shop", served(receiver), now, tuple(keys)))
    owing.end("a", webhook="shop")
    assert owing.deliver(secret="", sealing=(key,)).paid == 1
    (request,) = receiver.got
    for secret in (new, old):
        Webhook(secret).verify(request.content, dict(request.headers))
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(dead).verify(request.content, dict(request.headers))
    assert verify(public_key(private), dict(request.headers), request.content, now) is None


def test_a_sealed_secret_that_cannot_be_opened_sends_nothing_and_charges_no_try(owing: Owing, served: Served) -> None:
    receiver = Receiver()
    registered(owing, "shop", served(receiver), new_secret(), vault=Vault([new_key()]))
    owing.end("a", webhook="shop")
    assert owing.deliver(sealing=(new_key(),)).later == 1
    assert (receiver.got, owing.debt().tries) == ([], 0)
    assert "cannot be opened" in owing.debt().outcome


def test_what_is_owed_to_a_name_that_is_not_registered_lies_in_the_dead_letters_until_it_is(owing: Owing, served: Served) -> None:
    owing.end("a", webhook="shop")
    assert owing.deliver().buried == 1
    (dead,) = owing.book.debts.dead(LANE)
    assert "no endpoint is registered as 'shop'" in dead.outcome
    registered(owing, "shop", served(Receiver()), SECRET)
    owing.book.debts.reopen(LANE, {dead.name: owing.book.fleet.now()}, dead=True)
    assert owing.deliver().paid == 1


@pytest.mark.parametrize(
    ("answer", "paid"),
    [
        (httpx.Response(410), 0),
        (httpx.Response(500, headers={"Webhook-Delivery": "Disable"}), 0),
        (httpx.Response(200, headers={"webhook-delivery": "disable"}), 1),
    ],
    ids=["410", "disable with 500", "disable with 200"],
)
def test_an_endpoint_that_wants_no_more_is_disabled_at_once_and_loses_nothing(
    owing: Owing, served: Served, answer: httpx.Response, paid: int
) -> None:
    receiver = Receiver(answer, httpx.Response(200))
    url = served(receiver)
    owing.end("a", webhook=url)
    assert owing.deliver().paid == paid
    (name,) = owing.book.endpoints.disabled()
    assert name == endpoint_of(url)
    owing.end("b", webhook=url)
    assert str(owing.deliver()) == "nothing owed"
    assert (len(receiver.got), owing.owed()) == (1, 2 - paid)
    owing.book.endpoints.enable(name)
    owing.book.debts.postpone(LANE, {name: owing.book.fleet.now()})
    assert owing.deliver().paid == 2 - paid
    assert sorted(set(receiver.ids)) == ["a", "b"]


def test_abort_message_buries_this_one_and_not_the_next(owing: Owing, served: Served) -> None:
    receiver = Receiver(httpx.Response(422, headers={"webhook-delivery": "abort-message"}), httpx.Response(200))
    url = served(receiver)
    owing.end("a", webhook=url)
    assert owing.deliver().buried == 1
    assert "aborts the message" in owing.book.debts.dead(LANE)[0].outcome
    owing.end("b", webhook=url)
    assert owing.deliver().paid == 1


def test_an_endpoint_that_fails_for_days_is_disabled_and_its_owner_is_told(owing: Owing, served: Served) -> None:
    operations, failing = Receiver(), Receiver(httpx.Response(500))
    told, url = served(operations), served(failing)
    owing.end("a", webhook=url)
    owing.deliver(operations=told, disable_after=0.2)
    time.sleep(0.3)
    owing.end("b", webhook=url)
    owing.deliver(operations=told, disable_after=0.2)
    assert list(owing.book.endpoints.disabled()) == [endpoint_of(url)]
    owing.deliver(operations=told)
    sweep(owing.book, told, 3600)  # says it once, however often it is looked at
    owing.deliver(operations=told)
    (request,) = operations.got
    Webhook(SECRET).verify(request.content, dict(request.headers))
    said = json.loads(request.content)
    assert said["type"] == "endpoint.disabled"
    assert said["data"]["url"] == url
    assert "HTTP 500" in said["data"]["reason"]
    assert request.headers["webhook-id"].startswith("msg_")


def test_a_notice_lost_between_two_steps_is_owed_by_the_sweep(owing: Owing, served: Served) -> None:
    operations = Receiver()
    owing.book.endpoints.disable("shop", Disabled(owing.book.fleet.now(), "410 Gone", "https://shop.example/"))
    sweep(owing.book, url := served(operations), 3600)
    assert sum(owing.book.debts.waiting(OPERATIONS).values()) == 1
    assert owing.deliver(operations=url).paid == 1
    assert json.loads(operations.got[0].content)["data"]["endpoint"] == "shop"


def test_a_circuit_opens_after_some_failures_in_a_row_and_lets_one_probe_through(owing: Owing, served: Served) -> None:
    receiver = Receiver(*[httpx.Response(500)] * 10, httpx.Response(200))
    url = served(receiver)
    owing.end(*(f"id-{number:02}" for number in range(30)), webhook=url)
    owing.deliver()
    assert len(receiver.got) == 10  # the first allowance; all that follow wait, uncharged
    assert owing.book.learned.circuits([endpoint_of(url)])[0].failures >= TRIP
    assert str(owing.deliver()) == "nothing owed"
    _end_of_rest(owing, url)
    assert owing.deliver().paid >= 20
    assert len(receiver.got) >= 30


def _end_of_rest(owing: Owing, url: str) -> None:
    owing.book.learned.change_circuit(endpoint_of(url), lambda known: replace(known, open_until=0.0))
    owing.book.debts.postpone(LANE, {endpoint_of(url): 1.0})


def test_an_overloaded_endpoint_is_left_alone_as_a_whole_for_as_long_as_it_says(owing: Owing, served: Served) -> None:
    receiver = Receiver(httpx.Response(429, headers={"retry-after": "900"}))
    url = served(receiver)
    owing.end("a", webhook=url)
    owing.deliver()
    owing.end("b", webhook=url)
    assert str(owing.deliver()) == "nothing owed"
    assert receiver.ids == ["a"]
    assert owing.book.learned.circuits([endpoint_of(url)])[0].open_until - owing.book.fleet.now() > 890


def test_fresh_debts_go_before_retries(owing: Owing, served: Served) -> None:
    receiver = Receiver(*[httpx.Response(500)] * 4, httpx.Response(200))
    url = served(receiver)
    owing.end(*(f"old-{number}" for number in range(4)), webhook=url)
    owing.deliver()
    raw = owing.book.connection.redis
    for key in raw.scan_iter("*:retries:*"):
        raw.zadd(key, dict.fromkeys(raw.zrange(key, 0, -1), 1))
    owing.end(*(f"new-{number}" for number in range(4)), webhook=url)
    owing.deliver(calls=1)
    assert all(name.startswith("new-") for name in receiver.ids[4:8])
    assert all(name.startswith("old-") for name in receiver.ids[8:])
    assert owing.owed() == 0


def test_hanging_endpoints_hold_a_part_of_the_calls_only(owing: Owing, served: Served) -> None:
    hanging, quick = Receiver(5.0), Receiver()
    stuck, well = served(hanging), served(quick)
    owing.end("w", webhook=well)
    owing.deliver()
    for number in range(30):
        owing.end(f"stuck-{number}", webhook=f"{stuck}/{number}")
    owing.end(*(f"well-{number}" for number in range(100)), webhook=well)
    began = time.monotonic()
    owing.deliver(calls=10, timeout=1.0)
    counted = Counter(name.partition("-")[0] for name, at in zip(quick.ids, quick.at, strict=True) if at - began < 0.9)
    assert counted["well"] == 100
    assert sum(at - began < 0.9 for at in hanging.at) <= 5


def test_urls_that_differ_in_their_query_are_one_endpoint_and_each_is_called_as_it_is(owing: Owing, served: Served) -> None:
    receiver = Receiver()
    url = served(receiver)
    for number in range(3):
        owing.end(f"id-{number}", webhook=f"{url}/hook?job={number}")
    assert len(owing.book.debts.waiting(LANE)) == 1
    assert owing.deliver().paid == 3
    assert sorted(request.url.query.decode() for request in receiver.got) == ["job=0", "job=1", "job=2"]


def test_the_rate_that_an_endpoint_allowed_is_kept(owing: Owing, served: Served) -> None:
    receiver = Receiver()
    keys = (Key(Vault(()).seal("shop", SECRET), 0.0),)
    owing.book.endpoints.add(Endpoint("shop", served(receiver), 0.0, keys, consent=True, per_minute=600.0))
    owing.end(*(f"id-{number:02}" for number in range(25)), webhook="shop")
    began, paid = time.monotonic(), 0
    while paid < 25 and time.monotonic() - began < 10:
        paid += owing.deliver().paid
        owing.book.debts.postpone(LANE, {"shop": 1.0})
        time.sleep(0.05)
    assert paid == 25
    for start, end in zip(receiver.at, receiver.at[12:], strict=False):  # ten a second, after a second's worth at once
        assert end - start > 0.15
    assert receiver.at[-1] - receiver.at[0] > 1.3


def test_who_gave_consent_is_told_who_calls_and_an_old_key_that_cannot_be_opened_stops_nothing(
    owing: Owing, served: Served
) -> None:
    receiver, secret, vault = Receiver(), new_secret(), Vault([key := new_key()])
    now = owing.book.fleet.now()
    keys = (Key(vault.seal("shop", secret), 2.0), Key(Vault([new_key()]).seal("shop", new_secret()), 1.0, now + 60))
    owing.book.endpoints.add(Endpoint("shop", served(receiver), now, keys, consent=True))
    owing.end("a", webhook="shop")
    assert owing.deliver(sealing=(key,)).paid == 1
    assert receiver.got[0].headers["webhook-request-origin"] == "us"
    Webhook(secret).verify(receiver.got[0].content, dict(receiver.got[0].headers))


def test_enabling_lets_go_what_waits_for_a_retry_too(owing: Owing, served: Served) -> None:
    receiver = Receiver(httpx.Response(500), httpx.Response(200))
    url = served(receiver)
    owing.end("a", webhook=url)
    owing.deliver()
    assert (owing.debt().at or 0) > owing.book.fleet.now() + 3
    owing.book.debts.hasten(LANE, endpoint_of(url), now := owing.book.fleet.now())
    owing.book.debts.postpone(LANE, {endpoint_of(url): now})
    assert owing.deliver().paid == 1


def test_debts_to_an_endpoint_whose_record_nobody_can_read_wait(owing: Owing) -> None:
    owing.book.connection.redis.hset("cavendish:endpoints", "shop", '{"of": "another version"}')
    owing.end("a", webhook="shop")
    assert owing.deliver().later == 1
    assert owing.debt().tries == 0
