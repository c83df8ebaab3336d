"""`cavendish endpoint`, and what submit, show, status and doctor say about endpoints.

With a real Redis and real receivers.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from click.testing import Result

from cavendish import Client, State, SubmissionError
from cavendish.endpoints import signing
from cavendish.endpoints.encryption import Encryption, new_key
from cavendish.endpoints.signing import verify
from cavendish.endpoints.webhook_endpoint import Disabled, Endpoint, Key, endpoint_of
from cavendish.errors import CavendishError, EndpointError
from cavendish.model import Lane
from cavendish.policy.circuit import TRIP, Circuit, failed, worked
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings, env_name
from cavendish.store import Store
from cavendish.store.deliveries import Attempt
from cavendish.store.fleet import Member
from cavendish.store.keys import ENDPOINTS
from cavendish_worker.http.egress import transport
from cavendish_worker.webhooks import consent
from shell import Run, said

LANE = Lane("default", "nano-banana")
SERVICE = "nano-banana"
SHOP = "https://shop.example/hook"


@pytest.fixture(autouse=True)
def secrets(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands have an encryption key here, and a secret for webhooks."""
    monkeypatch.setenv(env_name("webhook_secret"), settings.webhook_secret)
    monkeypatch.setenv(env_name("webhook_allow"), "127.0.0.0/8")
    monkeypatch.setenv(env_name("secret_key"), new_key())


def wrong(done: Result) -> str:
    """The one sentence of a command that was refused."""
    assert done.exit_code == 1
    assert isinstance(done.exception, CavendishError)
    assert not done.stdout
    return str(done.exception)


def end(store: Store, *ids: str) -> None:
    now = store.fleet.now()
    store.tasks.claim(LANE, now + 200, "t1", store.tasks.candidates(LANE, now + 100, 1000))
    tasks = store.tasks.load(LANE, ids).tasks.values()
    store.tasks.settle(
        LANE,
        "t1",
        now,
        [(Outcome(task, State.SUCCEEDED, record={"id": task.id}), 0.0) for task in tasks],
        3600,
        100,
    )


def submit_and_end(store: Store, client: Client, webhook: str, *ids: str) -> None:
    client.submit(ids, service=SERVICE, webhook=webhook)
    end(store, *ids)


# --- add


def test_an_added_endpoint_is_encrypted_in_the_store_and_its_secret_shown_once(
    run: Run, store: Store
) -> None:
    done = run("endpoint", "add", "shop", SHOP)
    assert done.exit_code == 0
    (secret,) = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("secret")]
    row = store.connection.redis.hget(ENDPOINTS, "shop")
    assert secret.removeprefix("whsec_") not in str(row)
    encryption = Encryption((os.environ[env_name("secret_key")],))
    endpoint = store.endpoints.all()["shop"]
    assert [encryption.decrypt("shop", key.encrypted) for key in endpoint.keys] == [secret]
    assert (endpoint.url, endpoint.consent, endpoint.per_minute) == (SHOP, False, None)
    assert (
        secret
        not in run("endpoint", "show", "shop").output + run("endpoint", "list", "--json").output
    )


def test_an_added_endpoint_may_sign_with_a_key_pair_of_which_only_the_public_half_is_shown(
    run: Run, store: Store
) -> None:
    done = run("endpoint", "add", "shop", SHOP, "--ed25519", "--json")
    added = said(done)
    v1, v1a = store.endpoints.all()["shop"].living_keys(store.fleet.now())
    private = Encryption((os.environ[env_name("secret_key")],)).decrypt("shop", v1a.encrypted)
    assert added["public_key"] == v1a.public == signing.public_key(private)
    assert added["secret"].startswith("whsec_")
    assert "whsk_" not in done.output
    assert v1.public == ""


def test_without_an_encryption_key_a_warning_says_how_to_make_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "unencrypted" not in run("endpoint", "add", "encrypted", SHOP).stderr
    monkeypatch.delenv(env_name("secret_key"))
    done = run("endpoint", "add", "open", SHOP, "--json")
    assert "unencrypted" in done.stderr
    assert "cavendish endpoint new-key" in done.stderr
    assert json.loads(done.stdout)["encrypted"] is False


def test_where_workers_have_a_key_a_secret_is_stored_unencrypted_only_with_the_option(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("endpoint", "add", "shop", SHOP)
    before = store.endpoints.all()
    store.fleet.beat(Member("worker@x:1", "worker", "0", store.fleet.now(), encrypts=True))
    monkeypatch.delenv(env_name("secret_key"))
    for words in (("add", "open", SHOP), ("rotate", "shop")):
        assert "unencrypted" in wrong(run("endpoint", *words))
        assert store.endpoints.all() == before
    for words in (("add", "open", SHOP), ("rotate", "shop")):
        assert run("endpoint", *words, "--unencrypted").exit_code == 0
    assert store.endpoints.all().keys() == {"shop", "open"}


def test_a_new_key_can_be_taken_for_the_setting(run: Run) -> None:
    key = run("endpoint", "new-key").stdout.strip()
    assert Settings.load({"CAVENDISH_SECRET_KEY": key}).secret_key == (key,)
    assert said(run("endpoint", "new-key", "--json")) != said(run("endpoint", "new-key", "--json"))


@pytest.mark.parametrize(
    ("name", "url", "why"),
    [
        ("Shop", SHOP, "begins with a letter"),
        ("0123456789abcdef", SHOP, "begins with a letter"),
        ("shop", "ftp://x", "http:// or https://"),
        ("shop", "http://10.0.0.1/", "not public"),
        ("shop", "https://shop.example:22/", "port 22"),
    ],
)
def test_a_wrong_name_or_url_is_refused(
    run: Run, store: Store, name: str, url: str, why: str
) -> None:
    assert why in wrong(run("endpoint", "add", name, url))
    assert store.endpoints.all() == {}


def test_what_living_workers_may_dial_may_be_registered(run: Run, store: Store) -> None:
    store.fleet.beat(Member("worker@x:1", "worker", "0", store.fleet.now(), allow=("10.1.0.0/16",)))
    assert run("endpoint", "add", "inside", "http://10.1.2.3/").exit_code == 0
    assert run("endpoint", "add", "outside", "http://10.2.2.3/").exit_code == 1


def test_a_name_that_is_taken_is_refused_and_keeps_its_secret(run: Run, store: Store) -> None:
    run("endpoint", "add", "shop", SHOP)
    before = store.endpoints.all()["shop"]
    assert "already" in wrong(run("endpoint", "add", "shop", "https://other.example/"))
    assert store.endpoints.all()["shop"] == before


def test_a_new_endpoint_begins_anew_whatever_one_of_its_name_did_before(
    run: Run, store: Store
) -> None:
    store.shared_state.change_circuit("shop", lambda _: Circuit(failures=9, open_until=9e9))
    store.endpoints.disable("shop", Disabled(1.0, "410 Gone"))
    run("endpoint", "add", "shop", SHOP)
    assert store.shared_state.circuits(["shop"]) == [Circuit()]
    assert store.endpoints.disabled() == {}


def test_a_refusal_is_one_sentence_on_stderr_and_no_traceback(run: Run) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cavendish_worker.cli", "endpoint", "rotate", "nobody"],
        env=os.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "No endpoint is registered as 'nobody'; see `cavendish endpoint list`.\n"


# --- consent


@pytest.fixture
def asked(served: Callable[..., str]) -> Callable[..., tuple[str, list[httpx.Request]]]:
    """A receiver with this answer to the handshake, and what it was asked."""

    def serve(status: int = 200, **headers: str) -> tuple[str, list[httpx.Request]]:
        heard: list[httpx.Request] = []

        async def handle(request: httpx.Request) -> httpx.Response:
            heard.append(request)
            return httpx.Response(
                status, headers={name.replace("_", "-"): text for name, text in headers.items()}
            )

        return served(handle), heard

    return serve


def test_consent_is_asked_for_before_anything_is_registered(
    run: Run, store: Store, asked: Callable[..., Any]
) -> None:
    url, heard = asked(webhook_allowed_origin="cavendish", webhook_allowed_rate="90")
    added = said(
        run("endpoint", "add", "shop", f"{url}/in?a=1", "--consent", "--rate", "120", "--json")
    )
    assert (added["consent"], added["per_minute"]) == (True, 90.0)
    (request,) = heard
    assert (request.method, request.url.raw_path) == ("OPTIONS", b"/in?a=1")
    assert (request.headers["webhook-request-origin"], request.headers["webhook-request-rate"]) == (
        "cavendish",
        "120",
    )
    endpoint = store.endpoints.all()["shop"]
    assert (endpoint.consent, endpoint.per_minute) == (True, 90.0)


def test_consent_for_everybody_at_any_rate_is_consent_and_only_a_given_rate_is_asked_for(
    run: Run, store: Store, asked: Callable[..., Any]
) -> None:
    url, heard = asked(204, webhook_allowed_origin="*", webhook_allowed_rate="*")
    assert run("endpoint", "add", "shop", url, "--consent").exit_code == 0
    assert "webhook-request-rate" not in heard[0].headers
    assert store.endpoints.all()["shop"].per_minute is None
    assert run("endpoint", "add", "other", url, "--rate", "9").exit_code == 0
    assert (len(heard), store.endpoints.all()["other"].calls_per_minute) == (1, 9.0)


@pytest.mark.parametrize(
    ("status", "headers", "why"),
    [
        (200, {}, "without WebHook-Allowed-Origin"),
        (200, {"webhook_allowed_origin": "somebody.example"}, "'somebody.example'"),
        (405, {"webhook_allowed_origin": "*"}, "HTTP 405"),
        (302, {"webhook_allowed_origin": "*", "location": "http://127.0.0.1:1/"}, "HTTP 302"),
        (200, {"webhook_allowed_origin": "*", "webhook_allowed_rate": "fast"}, "'fast'"),
        (200, {"webhook_allowed_origin": "*", "webhook_allowed_rate": "0"}, "'0'"),
    ],
)
def test_without_consent_nothing_is_registered(
    run: Run,
    store: Store,
    asked: Callable[..., Any],
    status: int,
    headers: dict[str, str],
    why: str,
) -> None:
    url, heard = asked(status, **headers)
    sentence = wrong(run("endpoint", "add", "shop", url, "--consent"))
    assert why in sentence
    assert sentence.endswith("Nothing was registered.")
    assert store.endpoints.all() == {}
    assert len(heard) == 1


def test_an_endpoint_that_cannot_be_reached_does_not_consent(run: Run, store: Store) -> None:
    assert "does not consent: ConnectError" in wrong(
        run("endpoint", "add", "shop", "http://127.0.0.1:1/", "--consent")
    )
    assert store.endpoints.all() == {}


def test_consent_is_asked_for_within_one_deadline(
    settings: Settings, served: Callable[..., str]
) -> None:
    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        return httpx.Response(200)

    async def ask() -> consent.Consent:
        async with transport(settings.webhook_allow, settings.webhook_ports) as way:
            return await consent.ask(way, url, "cavendish", None, 0.3)

    url = served(slow)
    assert asyncio.run(ask()).complaint == "no answer within 0.3 s"


# --- list, show, rotate


def test_the_list_has_registered_endpoints_and_urls_that_are_waited_for_or_disabled(
    run: Run, store: Store, client: Client
) -> None:
    assert run("endpoint", "list").output == "no endpoints\n"
    run("endpoint", "add", "shop", SHOP, "--ed25519")
    run("endpoint", "rotate", "shop")
    submit_and_end(store, client, "shop", "a", "b")
    submit_and_end(store, client, "https://adhoc.example/x?job=1", "c")
    other = "https://gone.example/y"
    store.endpoints.disable(endpoint_of(other), Disabled(1000.0, "410 Gone", other))
    store.shared_state.change_circuit(
        "shop", lambda known: replace(known, ok_at=1500.0, failures=TRIP, open_until=9e9)
    )
    listed = {one["name"]: one for one in said(run("endpoint", "list", "--json"))}
    assert next(iter(listed)) == "shop"
    shop, adhoc, gone = (
        listed["shop"],
        listed[endpoint_of("https://adhoc.example/x")],
        listed[endpoint_of(other)],
    )
    assert (shop["registered"], shop["enabled"], shop["waiting"], shop["circuit"]) == (
        True,
        True,
        2,
        "open",
    )
    assert (shop["signatures"], shop["overlapping"], shop["last_success"]) == (
        ["v1", "v1a"],
        2,
        1500.0,
    )
    assert (adhoc["registered"], adhoc["waiting"], adhoc["url"]) == (
        False,
        1,
        "https://adhoc.example/x?job=1",
    )
    assert (gone["enabled"], gone["reason"], gone["url"]) == (False, "410 Gone", other)
    text = run("endpoint", "list").output
    for word in (
        "shop",
        "disabled since 1970-01-01",
        "410 Gone",
        "v1 v1a (2 overlap)",
        "open",
        "by its URL",
    ):
        assert word in text


def test_the_url_of_an_endpoint_is_found_in_its_queue_too(
    run: Run, store: Store, client: Client
) -> None:
    submit_and_end(store, client, SHOP, "a")
    store.deliveries.sort([LANE], store.fleet.now() + 1)
    (listed,) = said(run("endpoint", "list", "--json"))
    assert (listed["name"], listed["url"], listed["waiting"]) == (endpoint_of(SHOP), SHOP, 1)


def test_one_endpoint_is_shown_with_its_keys(run: Run) -> None:
    run("endpoint", "add", "shop", SHOP, "--ed25519")
    shown = said(run("endpoint", "show", "shop", "--json"))
    assert [key["kind"] for key in shown["keys"]] == ["v1", "v1a"]
    assert shown["keys"][1]["public_key"] in run("endpoint", "show", "shop").output
    assert "nobody" in wrong(run("endpoint", "show", "nobody"))


def test_the_text_says_yes_and_no_and_what_no_longer_signs(run: Run) -> None:
    run("endpoint", "add", "shop", SHOP)
    assert (
        "the old one no longer signs" in run("endpoint", "rotate", "shop", "--overlap", "0").stdout
    )
    assert re.search(r"^registered +yes *$", run("endpoint", "show", "shop").stdout, re.MULTILINE)


def test_after_a_rotation_the_old_secret_signs_as_well_for_a_while(run: Run, store: Store) -> None:
    first = said(run("endpoint", "add", "shop", SHOP, "--ed25519", "--json"))
    second = said(run("endpoint", "rotate", "shop", "--overlap", "2", "--json"))
    encryption, now = Encryption((os.environ[env_name("secret_key")],)), store.fleet.now()
    endpoint = store.endpoints.all()["shop"]
    secrets = [
        encryption.decrypt("shop", key.encrypted) for key in endpoint.living_keys(now + 7190)
    ]
    assert secrets[0] == second["secret"]
    assert first["secret"] in secrets
    assert len(secrets) == 4
    assert len(endpoint.living_keys(now + 7201)) == 2
    assert second["public_key"] == endpoint.living_keys(now)[1].public != first["public_key"]


@pytest.mark.parametrize(
    ("overlap", "seconds"), [("0", 0), ("36", 129600), ("7d", 604800), ("90m", 5400), ("0.5", 1800)]
)
def test_an_overlap_is_said_in_hours_or_as_a_duration(
    run: Run, store: Store, overlap: str, seconds: float
) -> None:
    run("endpoint", "add", "shop", SHOP)
    changed = said(run("endpoint", "rotate", "shop", "--overlap", overlap, "--json"))
    assert abs(changed["old_until"] - store.fleet.now() - seconds) < 5
    assert len(store.endpoints.all()["shop"].living_keys(store.fleet.now())) == (
        2 if seconds else 1
    )


@pytest.mark.parametrize("overlap", ["8d", "169", "-1", "soon", ""])
def test_a_text_that_is_no_overlap_is_refused(run: Run, store: Store, overlap: str) -> None:
    run("endpoint", "add", "shop", SHOP)
    before = store.endpoints.all()
    assert run("endpoint", "rotate", "shop", f"--overlap={overlap}").exit_code == 2
    assert store.endpoints.all() == before


# --- enable, disable, remove


def test_a_disabled_endpoint_is_enabled_with_a_fresh_circuit_and_its_queues_are_due(
    run: Run, store: Store, client: Client
) -> None:
    run("endpoint", "add", "shop", SHOP)
    submit_and_end(store, client, "shop", "a")
    assert (
        run("endpoint", "disable", "shop", "--reason", "they move").output
        == "shop is disabled; 1 delivery waits for it\n"
    )
    assert "was disabled before" in run("endpoint", "disable", "shop").output
    assert store.endpoints.disabled()["shop"].why == "they move"
    assert store.endpoints.disabled()["shop"].url == SHOP
    now = store.fleet.now()
    store.shared_state.change_circuit(
        "shop", lambda known: failed(known, now, now, 0.5, rest=900.0)
    )
    store.deliveries.sort([LANE], now)
    store.deliveries.postpone(LANE, {"shop": now + 900})
    assert said(run("endpoint", "enable", "shop", "--json")) == {
        "endpoint": "shop", "enabled": True, "was_disabled": True, "waiting": 1
    }  # fmt: skip
    assert store.endpoints.disabled() == {}
    (circuit,) = store.shared_state.circuits(["shop"])
    assert replace(circuit, error_at=0.0) == Circuit()
    assert store.deliveries.sort([LANE], store.fleet.now() + 1).worth == {LANE: ["shop"]}


def test_enabling_an_endpoint_keeps_its_last_success(run: Run, store: Store) -> None:
    run("endpoint", "add", "shop", SHOP)
    now = store.fleet.now()
    store.shared_state.change_circuit("shop", lambda known: worked(known, 1, 0.1, now, 100))
    run("endpoint", "enable", "shop")
    assert said(run("endpoint", "show", "shop", "--json"))["last_success"] == now


def test_an_endpoint_known_by_its_url_is_disabled_and_enabled_by_url_or_hash(
    run: Run, store: Store
) -> None:
    assert run("endpoint", "disable", f"{SHOP}?job=7").exit_code == 0
    assert set(store.endpoints.disabled()) == {endpoint_of(SHOP)}
    assert run("endpoint", "enable", endpoint_of(SHOP)).exit_code == 0
    assert store.endpoints.disabled() == {}
    assert "nobody" in wrong(run("endpoint", "disable", "nobody"))
    assert "nobody" in wrong(run("endpoint", "enable", "nobody"))


def test_removing_says_how_many_deliveries_wait(run: Run, store: Store, client: Client) -> None:
    run("endpoint", "add", "shop", SHOP)
    submit_and_end(store, client, "shop", "a", "b")
    assert (
        "2 deliveries wait for it, and will become dead letters"
        in run("endpoint", "remove", "shop").output
    )
    assert store.endpoints.all() == {}
    assert "nobody" in wrong(run("endpoint", "remove", "nobody"))


def test_removing_asks_at_a_terminal(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("endpoint", "add", "shop", SHOP)
    monkeypatch.setattr("cavendish_worker.cli.options.at_a_terminal", lambda: True)
    assert run("endpoint", "remove", "shop", stdin="n\n").exit_code == 1
    assert set(store.endpoints.all()) == {"shop"}
    assert run("endpoint", "remove", "shop", stdin="y\n").exit_code == 0
    run("endpoint", "add", "shop", SHOP)
    assert run("endpoint", "remove", "shop", "--yes").exit_code == 0
    assert store.endpoints.all() == {}


# --- test


def test_a_test_is_signed_by_every_living_key_and_says_what_came_back(
    run: Run, served: Callable[..., str]
) -> None:
    heard: list[tuple[httpx.Request, bytes]] = []

    async def handle(request: httpx.Request) -> httpx.Response:
        heard.append((request, await request.aread()))
        return httpx.Response(201, text="thanks")

    url = served(handle)
    added = said(run("endpoint", "add", "shop", url, "--ed25519", "--json"))
    rotated = said(run("endpoint", "rotate", "shop", "--json"))
    tested = said(run("endpoint", "test", "shop", "--json"))
    assert (tested["taken"], tested["status"], tested["address"], tested["answer"]) == (
        True,
        201,
        "127.0.0.1",
        "thanks",
    )
    ((request, body),) = heard
    for known in (added, rotated):
        for key in (known["secret"], known["public_key"]):
            assert verify(key, dict(request.headers), body, time.time()) is None
    assert json.loads(body)["type"] == "endpoint.test"
    assert json.loads(body)["data"]["endpoint"] == "shop"
    assert request.headers["webhook-id"] == tested["webhook_id"]
    assert "HTTP 201 at 127.0.0.1 after" in run("endpoint", "test", "shop").output


def test_a_test_of_a_url_is_signed_by_the_common_secret(
    run: Run, settings: Settings, served: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[httpx.Request, bytes]] = []

    async def handle(request: httpx.Request) -> httpx.Response:
        heard.append((request, await request.aread()))
        return httpx.Response(503, text="x" * 5000)

    url = served(handle)
    done = run("endpoint", "test", url)
    assert done.exit_code == 1
    assert "HTTP 503 at 127.0.0.1" in done.stdout
    assert "x" * 201 not in done.stdout
    ((request, body),) = heard
    assert verify(settings.webhook_secret, dict(request.headers), body, time.time()) is None
    monkeypatch.delenv(env_name("webhook_secret"))
    assert "CAVENDISH_WEBHOOK_SECRET" in wrong(run("endpoint", "test", url))


def test_a_test_goes_by_the_rules_of_all_webhooks(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("endpoint", "test", "http://127.0.0.1:1/", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["outcome"].startswith("ConnectError")
    monkeypatch.delenv(env_name("webhook_allow"))
    assert "not public" in wrong(run("endpoint", "test", "http://127.0.0.1:1/"))
    assert "nobody" in wrong(run("endpoint", "test", "nobody"))


def test_a_secret_that_no_key_decrypts_is_reported_and_not_shown(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("endpoint", "add", "shop", SHOP)
    monkeypatch.setenv(env_name("secret_key"), new_key())
    assert "fits no key" in wrong(run("endpoint", "test", "shop"))


# --- submit, show, status, doctor


def test_a_submit_to_a_name_that_nothing_is_registered_under_is_refused(
    client: Client, store: Store, run: Run
) -> None:
    with pytest.raises(
        SubmissionError,
        match=(
            r"No endpoint is registered as 'shop'; register it: `cavendish endpoint add shop "
            r"URL`\."
        ),
    ):
        client.submit(["a"], service=SERVICE, webhook=["https://x.example/", "shop"])
    assert client.get("a", service=SERVICE) is None
    run("endpoint", "add", "shop", SHOP)
    assert client.submit(["a"], service=SERVICE, webhook="shop")[0].outcome == "new"
    with pytest.raises(SubmissionError, match="port 22"):
        client.submit(["b"], service=SERVICE, webhook="https://x.example:22/")


def test_status_sums_the_deliveries_and_tells_of_endpoints_in_trouble(
    run: Run, store: Store, client: Client
) -> None:
    run("endpoint", "add", "shop", SHOP)
    run("endpoint", "add", "well", SHOP)
    submit_and_end(store, client, "shop", "a", "b")
    submit_and_end(store, client, "well", "c")
    assert "disabled" not in run("status").output
    run("endpoint", "disable", "shop", "--reason", "they move")
    now = store.fleet.now()
    slow = endpoint_of("https://slow.example/")
    submit_and_end(store, client, "https://slow.example/", "d")
    store.shared_state.change_circuit(
        slow, lambda known: replace(known, failures=TRIP, open_until=now + 99)
    )
    found = said(run("status", "--json"))
    assert found["lanes"][0]["deliveries_pending"] == 4
    assert found["lanes"][0]["pending_by_endpoint"] == {"shop": 2, "well": 1, slow: 1}
    assert {one["endpoint"]: one["waiting"] for one in found["endpoints"]} == {"shop": 2, slow: 1}
    text = run("status").output
    assert "they move" in text
    assert "circuit open, probed in 9" in text
    assert "https://slow.example/" in text


def doctors(run: Run) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for finding in json.loads(run("doctor", "--json").stdout):
        found.setdefault(finding["what"], []).append(finding)
    return found


def test_doctor_finds_disabled_endpoints_and_deliveries_to_names_that_are_not_registered(
    run: Run, store: Store, client: Client
) -> None:
    run("endpoint", "add", "shop", SHOP)
    run("endpoint", "add", "left", SHOP)
    submit_and_end(store, client, "shop", "a")
    submit_and_end(store, client, "left", "b")
    assert not any(what.startswith("endpoint") for what in doctors(run))
    run("endpoint", "remove", "left")
    run("endpoint", "disable", "shop", "--reason", "they move")
    found = doctors(run)
    (shop,), (left,) = found["endpoint shop"], found["endpoint left"]
    assert "they move; 1 delivery waits" in str(shop["found"])
    assert "cavendish endpoint enable shop" in str(shop["advice"])
    assert "not registered" in str(left["found"])
    assert "cavendish endpoint add left URL" in str(left["advice"])
    assert not shop["ok"]
    assert not left["ok"]


def test_doctor_finds_secrets_that_are_unencrypted_or_cannot_be_decrypted(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("endpoint", "add", "shop", SHOP)
    assert "endpoint secrets" not in doctors(run)
    monkeypatch.setenv(env_name("secret_key"), new_key())
    assert ["decrypts: shop" in str(one["found"]) for one in doctors(run)["endpoint secrets"]] == [
        True
    ]
    run("endpoint", "rotate", "shop", "--overlap", "0")
    assert "endpoint secrets" not in doctors(run)
    monkeypatch.delenv(env_name("secret_key"))
    unset, shut = doctors(run)["endpoint secrets"]
    assert "CAVENDISH_SECRET_KEY is not set for this environment" in str(unset["found"])
    assert not shut["ok"]
    store.fleet.beat(Member("worker@x:1", "worker", "0", store.fleet.now(), encrypts=True))
    (unknown,) = doctors(run)["endpoint secrets"]
    assert unknown["ok"]
    store.endpoints.add(
        Endpoint(
            "open", SHOP, 1.0, (Key(Encryption(()).encrypt("open", signing.new_secret()), 1.0),)
        )
    )
    assert [
        "unencrypted in the store: open" in str(one["found"])
        for one in doctors(run)["endpoint secrets"]
    ] == [True, False]


def test_show_tells_of_each_delivery(run: Run, store: Store, client: Client) -> None:
    run("endpoint", "add", "shop", SHOP)
    client.submit(["a"], service=SERVICE, webhook=["shop", "https://x.example/?job=1"])
    shown = said(run("show", "--service", SERVICE, "--json", "a"))
    assert [one["state"] for one in shown["deliveries"]] == ["waiting", "waiting"]
    end(store, "a")
    now = store.fleet.now()
    store.deliveries.sort([LANE], now + 1)
    adhoc = endpoint_of("https://x.example/")
    taken = store.deliveries.claim_delivery(LANE, now + 1, now + 60, "d1", 10, {"shop": 1})
    entry = {
        "at": now,
        "outcome": "HTTP 200",
        "seconds": 0.1,
        "status": 200,
        "address": "192.0.2.7",
        "answer": "ok",
    }
    store.deliveries.delivered(
        LANE, "d1", now, [Attempt(taken[0], "HTTP 200", json.dumps(entry) + "\nnonsense")], 3600
    )
    shown = said(run("show", "--service", SERVICE, "--json", "a"))
    shop, other = shown["deliveries"]
    assert (shop["state"], shop["attempts"], shop["outcome"], shop["url"], shop["log"]) == (
        "delivered",
        1,
        "HTTP 200",
        SHOP,
        [entry],
    )
    assert (other["endpoint"], other["state"], other["url"]) == (
        adhoc,
        "pending",
        "https://x.example/?job=1",
    )
    text = run("show", "--service", SERVICE, "a").output
    for word in (
        "webhook to shop: delivered, 1 attempt, last: HTTP 200",
        "192.0.2.7",
        "webhook to https://x.example/?job=1: pending",
    ):
        assert word in text


@pytest.mark.parametrize(
    "command",
    ["", "add", "list", "show", "rotate", "enable", "disable", "remove", "test", "new-key"],
)
def test_every_endpoint_command_has_help_with_an_example(run: Run, command: str) -> None:
    done = run("endpoint", *command.split(), "--help")
    assert done.exit_code == 0
    assert not command or f"cavendish endpoint {command}" in done.output


def test_the_errors_of_these_commands_are_of_our_tree() -> None:
    assert issubclass(EndpointError, CavendishError)
