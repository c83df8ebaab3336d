"""What endpoints do to deliveries.

Secrets of their own, allowances and circuits, consent withdrawn, owners told.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import replace

import httpx
import pytest
from standardwebhooks import Webhook

from cavendish.endpoints.encryption import Encryption, new_key
from cavendish.endpoints.signing import new_secret, new_signing_key, public_key, verify
from cavendish.endpoints.webhook_endpoint import Disabled, Endpoint, Key, endpoint_of
from cavendish.model import OPERATIONS, Lane
from cavendish.policy.circuit import TRIP
from cavendish.policy.service_health import not_served
from cavendish.store import keys
from cavendish.submission import SubmitOptions
from cavendish_worker.webhooks.reconcile import reconcile
from conftest import SECRET
from delivering import LANE, Delivering, Receiver, Served
from servers import eventually


def registered(
    endpoint_index: Delivering,
    name: str,
    url: str,
    *secrets: str,
    encryption: Encryption | None = None,
    until: float | None = None,
) -> None:
    encrypts = encryption or Encryption(())
    keys = [
        Key(encrypts.encrypt(name, secret), float(place), until if place else None)
        for place, secret in enumerate(secrets)
    ]
    assert endpoint_index.store.endpoints.add(
        Endpoint(name, url, endpoint_index.store.fleet.now(), tuple(keys))
    )


def test_a_registered_endpoint_is_signed_by_every_key_that_lives_and_by_no_other(
    endpoint_index: Delivering, served: Served
) -> None:
    receiver, new, old, dead, private = (
        Receiver(),
        new_secret(),
        new_secret(),
        new_secret(),
        new_signing_key(),
    )
    encryption = Encryption([key := new_key()])
    now = endpoint_index.store.fleet.now()
    keys = [
        Key(encryption.encrypt("shop", text), at, until)
        for text, at, until in ((new, 3.0, None), (private, 2.0, None))
    ]
    keys += [
        Key(encryption.encrypt("shop", old), 1.0, now + 60),
        Key(encryption.encrypt("shop", dead), 0.0, now - 1),
    ]
    endpoint_index.store.endpoints.add(Endpoint("shop", served(receiver), now, tuple(keys)))
    endpoint_index.end("a", webhook="shop")
    assert endpoint_index.deliver(secret="", encrypting=(key,)).delivered == 1
    (request,) = receiver.got
    for secret in (new, old):
        Webhook(secret).verify(request.content, dict(request.headers))
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(dead).verify(request.content, dict(request.headers))
    assert verify(public_key(private), dict(request.headers), request.content, now) is None


def test_an_encrypted_secret_that_cannot_be_decrypted_sends_nothing_and_charges_no_attempt(
    endpoint_index: Delivering, served: Served
) -> None:
    receiver = Receiver()
    registered(
        endpoint_index, "shop", served(receiver), new_secret(), encryption=Encryption([new_key()])
    )
    endpoint_index.end("a", webhook="shop")
    assert endpoint_index.deliver(encrypting=(new_key(),)).retries == 1
    assert (receiver.got, endpoint_index.delivery().attempts) == ([], 0)
    assert "cannot decrypt" in endpoint_index.delivery().outcome


def test_what_is_pending_to_a_name_that_is_not_registered_lies_in_the_dead_letters_until_it_is(
    endpoint_index: Delivering, served: Served
) -> None:
    endpoint_index.end("a", webhook="shop")
    assert endpoint_index.deliver().buried == 1
    (dead,) = endpoint_index.store.closed.dead(LANE)
    assert "no endpoint is registered as 'shop'" in dead.outcome
    registered(endpoint_index, "shop", served(Receiver()), SECRET)
    endpoint_index.store.closed.reopen(
        LANE, {dead.name: endpoint_index.store.fleet.now()}, dead=True
    )
    assert endpoint_index.deliver().delivered == 1


@pytest.mark.parametrize(
    ("answer", "delivered"),
    [
        (httpx.Response(410), 0),
        (httpx.Response(500, headers={"Webhook-Delivery": "Disable"}), 0),
        (httpx.Response(200, headers={"webhook-delivery": "disable"}), 1),
    ],
    ids=["410", "disable with 500", "disable with 200"],
)
def test_an_endpoint_that_wants_no_more_is_disabled_at_once_and_loses_nothing(
    endpoint_index: Delivering, served: Served, answer: httpx.Response, delivered: int
) -> None:
    receiver = Receiver(answer, httpx.Response(200))
    url = served(receiver)
    endpoint_index.end("a", webhook=url)
    assert endpoint_index.deliver().delivered == delivered
    (name,) = endpoint_index.store.endpoints.disabled()
    assert name == endpoint_of(url)
    endpoint_index.end("b", webhook=url)
    assert str(endpoint_index.deliver()) == "nothing pending"
    assert (len(receiver.got), endpoint_index.pending_deliveries()) == (1, 2 - delivered)
    endpoint_index.store.endpoints.enable(name)
    endpoint_index.store.deliveries.postpone(LANE, {name: endpoint_index.store.fleet.now()})
    assert endpoint_index.deliver().delivered == 2 - delivered
    assert sorted(set(receiver.ids)) == ["a", "b"]


def test_abort_message_buries_this_one_and_not_the_next(
    endpoint_index: Delivering, served: Served
) -> None:
    receiver = Receiver(
        httpx.Response(422, headers={"webhook-delivery": "abort-message"}), httpx.Response(200)
    )
    url = served(receiver)
    endpoint_index.end("a", webhook=url)
    assert endpoint_index.deliver().buried == 1
    assert "aborts the message" in endpoint_index.store.closed.dead(LANE)[0].outcome
    endpoint_index.end("b", webhook=url)
    assert endpoint_index.deliver().delivered == 1


def test_an_endpoint_that_fails_for_days_is_disabled_and_its_owner_is_told(
    endpoint_index: Delivering, served: Served
) -> None:
    operations, failing = Receiver(), Receiver(httpx.Response(500))
    told, url = served(operations), served(failing)
    endpoint_index.end("a", webhook=url)
    endpoint_index.deliver(operations=told, disable_after=0.2)
    time.sleep(0.3)
    endpoint_index.end("b", webhook=url)
    endpoint_index.deliver(operations=told, disable_after=0.2)
    assert list(endpoint_index.store.endpoints.disabled()) == [endpoint_of(url)]
    endpoint_index.deliver(operations=told)
    reconcile(endpoint_index.store, told, 3600, 3600)  # says it once, however often it is looked at
    endpoint_index.deliver(operations=told)
    (request,) = operations.got
    Webhook(SECRET).verify(request.content, dict(request.headers))
    said = json.loads(request.content)
    assert said["type"] == "endpoint.disabled"
    assert said["data"]["url"] == url
    assert "HTTP 500" in said["data"]["reason"]
    assert request.headers["webhook-id"].startswith("msg_")


def test_operators_are_told_once_of_each_service_that_the_api_does_not_serve(
    endpoint_index: Delivering, served: Served
) -> None:
    store, operations = endpoint_index.store, Receiver()
    lanes = [Lane("default", "flux-next", 0), Lane("default", "flux-next", 1), LANE]
    options = SubmitOptions("flux-next", "default", (), 1000.0, "", "", "", restart=False)
    now = store.fleet.now()
    for lane in lanes:
        store.tasks.add(["a"], replace(options, service=lane.service), now, now)
        store.connection.redis.sadd(keys.LANES, str(lane))
    for lane in lanes[:2]:
        store.shared_state.change_service_health(
            lane, lambda known: (not_served(known, "HTTP 404 no_api", now, now, 0.0), None)
        )
    for _ in range(2):
        reconcile(store, url := served(operations), 3600, 3600)
    assert endpoint_index.deliver(operations=url).delivered == 1
    said = json.loads(operations.got[0].content)
    assert said["type"] == "service.paused"
    assert said["data"] == {
        "account": "default",
        "service": "flux-next",
        "reason": "HTTP 404 no_api",
        "paused_at": now,
        "paused_services": 1,
    }


def test_an_alert_lost_between_two_steps_is_pending_by_the_reconcile_run(
    endpoint_index: Delivering, served: Served
) -> None:
    operations = Receiver()
    endpoint_index.store.endpoints.disable(
        "shop", Disabled(endpoint_index.store.fleet.now(), "410 Gone", "https://shop.example/")
    )
    reconcile(endpoint_index.store, url := served(operations), 3600, 3600)
    assert sum(endpoint_index.store.statistics([OPERATIONS]).pending_by_endpoint.values()) == 1
    assert endpoint_index.deliver(operations=url).delivered == 1
    assert json.loads(operations.got[0].content)["data"]["endpoint"] == "shop"


def test_a_circuit_opens_after_some_failures_in_a_row_and_lets_one_probe_through(
    endpoint_index: Delivering, served: Served
) -> None:
    receiver = Receiver(*[httpx.Response(500)] * 10, httpx.Response(200))
    url = served(receiver)
    endpoint_index.end(*(f"id-{number:02}" for number in range(30)), webhook=url)
    endpoint_index.deliver()
    assert len(receiver.got) == 10  # the first allowance; all that follow wait, uncharged
    assert endpoint_index.store.shared_state.circuits([endpoint_of(url)])[0].failures >= TRIP
    assert str(endpoint_index.deliver()) == "nothing pending"
    _end_of_rest(endpoint_index, url)
    assert endpoint_index.deliver().delivered >= 20
    assert len(receiver.got) >= 30


def _end_of_rest(endpoint_index: Delivering, url: str) -> None:
    endpoint_index.store.shared_state.change_circuit(
        endpoint_of(url), lambda known: replace(known, open_until=0.0)
    )
    endpoint_index.store.deliveries.postpone(LANE, {endpoint_of(url): 1.0})


def test_an_overloaded_endpoint_is_left_alone_as_a_whole_for_as_long_as_it_says(
    endpoint_index: Delivering, served: Served
) -> None:
    receiver = Receiver(httpx.Response(429, headers={"retry-after": "900"}))
    url = served(receiver)
    endpoint_index.end("a", webhook=url)
    endpoint_index.deliver()
    endpoint_index.end("b", webhook=url)
    assert str(endpoint_index.deliver()) == "nothing pending"
    assert receiver.ids == ["a"]
    assert (
        endpoint_index.store.shared_state.circuits([endpoint_of(url)])[0].open_until
        - endpoint_index.store.fleet.now()
        > 890
    )


def test_fresh_deliveries_go_before_retries(endpoint_index: Delivering, served: Served) -> None:
    receiver = Receiver(*[httpx.Response(500)] * 4, httpx.Response(200))
    url = served(receiver)
    endpoint_index.end(*(f"old-{number}" for number in range(4)), webhook=url)
    endpoint_index.deliver()
    raw = endpoint_index.store.connection.redis
    for key in raw.scan_iter("*:retries:*"):
        raw.zadd(key, dict.fromkeys(raw.zrange(key, 0, -1), 1))
    endpoint_index.end(*(f"new-{number}" for number in range(4)), webhook=url)
    endpoint_index.deliver(calls=1)
    assert all(name.startswith("new-") for name in receiver.ids[4:8])
    assert all(name.startswith("old-") for name in receiver.ids[8:])
    assert endpoint_index.pending_deliveries() == 0


def test_hanging_endpoints_hold_a_part_of_the_calls_only(
    endpoint_index: Delivering, served: Served
) -> None:
    began, quick, over = list[str](), Receiver(), threading.Event()

    async def hanging(request: httpx.Request) -> httpx.Response:
        began.append(request.url.path)
        while not over.is_set():
            await asyncio.sleep(0.01)
        return httpx.Response(200)

    stuck, well = served(hanging), served(quick)
    endpoint_index.end("w", webhook=well)
    endpoint_index.deliver()
    for number in range(30):
        endpoint_index.end(f"stuck-{number}", webhook=f"{stuck}/{number}")
    endpoint_index.end(*(f"well-{number}" for number in range(100)), webhook=well)
    delivery_worker = endpoint_index.delivery_worker(calls=10, timeout=60.0)
    run = threading.Thread(target=delivery_worker.deliver, args=(lambda: None,))
    run.start()
    try:
        eventually(lambda: len(began) == 5, "half of the calls hang", 60)
        endpoint_index.end(*(f"late-{number}" for number in range(100)), webhook=well)
        delivery_worker.deliver(lambda: None)  # a poke
        eventually(
            lambda: len(quick.got) == 201,
            "the others are delivered while none of the hanging calls ends",
            60,
        )
        assert len(began) == 5
    finally:
        over.set()
        run.join(60)
    assert len(began) == 30


def test_urls_that_differ_in_their_query_are_one_endpoint_and_each_is_called_as_it_is(
    endpoint_index: Delivering, served: Served
) -> None:
    receiver = Receiver()
    url = served(receiver)
    for number in range(3):
        endpoint_index.end(f"id-{number}", webhook=f"{url}/hook?job={number}")
    assert len(endpoint_index.store.statistics([LANE]).pending_by_endpoint) == 1
    assert endpoint_index.deliver().delivered == 3
    assert sorted(request.url.query.decode() for request in receiver.got) == [
        "job=0",
        "job=1",
        "job=2",
    ]


def test_the_rate_that_an_endpoint_allowed_is_kept(
    endpoint_index: Delivering, served: Served
) -> None:
    receiver = Receiver()
    keys = (Key(Encryption(()).encrypt("shop", SECRET), 0.0),)
    endpoint_index.store.endpoints.add(
        Endpoint("shop", served(receiver), 0.0, keys, consent=True, per_minute=600.0)
    )
    endpoint_index.end(*(f"id-{number:02}" for number in range(25)), webhook="shop")
    began, delivered = endpoint_index.store.fleet.now(), 0
    while delivered < 25:
        delivered += endpoint_index.deliver().delivered
        assert len(receiver.got) <= 12 + 10 * (
            endpoint_index.store.fleet.now() - began
        )  # ten a second, after a second's worth at once
        endpoint_index.store.deliveries.postpone(LANE, {"shop": 1.0})
        time.sleep(0.05)
    assert delivered == 25
    assert endpoint_index.store.fleet.now() - began > 1.3


def test_who_gave_consent_is_told_who_calls_and_an_old_key_that_cannot_be_opened_stops_nothing(
    endpoint_index: Delivering, served: Served
) -> None:
    receiver, secret, encryption = Receiver(), new_secret(), Encryption([key := new_key()])
    now = endpoint_index.store.fleet.now()
    keys = (
        Key(encryption.encrypt("shop", secret), 2.0),
        Key(Encryption([new_key()]).encrypt("shop", new_secret()), 1.0, now + 60),
    )
    endpoint_index.store.endpoints.add(Endpoint("shop", served(receiver), now, keys, consent=True))
    endpoint_index.end("a", webhook="shop")
    assert endpoint_index.deliver(encrypting=(key,)).delivered == 1
    assert receiver.got[0].headers["webhook-request-origin"] == "us"
    Webhook(secret).verify(receiver.got[0].content, dict(receiver.got[0].headers))


def test_enabling_lets_go_what_waits_for_a_retry_too(
    endpoint_index: Delivering, served: Served
) -> None:
    receiver = Receiver(httpx.Response(500), httpx.Response(200))
    url = served(receiver)
    endpoint_index.end("a", webhook=url)
    endpoint_index.deliver()
    assert (endpoint_index.delivery().at or 0) > endpoint_index.store.fleet.now() + 3
    endpoint_index.store.deliveries.hasten(
        LANE, endpoint_of(url), now := endpoint_index.store.fleet.now()
    )
    endpoint_index.store.deliveries.postpone(LANE, {endpoint_of(url): now})
    assert endpoint_index.deliver().delivered == 1


def test_deliveries_to_an_endpoint_whose_record_nobody_can_read_wait(
    endpoint_index: Delivering,
) -> None:
    endpoint_index.store.connection.redis.hset(
        "cavendish:endpoints", "shop", '{"of": "another version"}'
    )
    endpoint_index.end("a", webhook="shop")
    assert endpoint_index.deliver().retries == 1
    assert endpoint_index.delivery().attempts == 0
