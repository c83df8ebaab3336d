"""The first page and the pages of webhooks inside Flower, over real HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cavendish import Client
from cavendish.endpoints.webhook_endpoint import Endpoint
from cavendish.model import Lane
from cavendish.policy.circuit import TRIP, failed
from cavendish.store import Store
from cavendish.store.deliveries import Attempt
from conftest import Server
from delivering import Delivering, Served
from ending import settle
from flowering import flower
from integration.test_acting_in_flower import OURS, fields
from integration.test_pages_in_flower import text
from servers import eventually

SERVICE = "nano-banana"
LANE = Lane("default", SERVICE)
HOOK = "https://a.example/hook?token=nobodys-business"


@pytest.fixture(scope="module")
def http(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """One Flower for the tests of this file."""
    with flower(server.url, tmp_path_factory.mktemp("flower")) as opened:
        yield opened


def buried(store: Store, client: Client, *ids: str, hook: str = HOOK, why: str = "HTTP 500") -> str:
    """Ids whose webhook is a dead letter; the endpoint."""
    client.submit(list(ids), service=SERVICE, webhook=hook)
    settle(store, LANE, *ids)
    store.deliveries.sort([LANE], store.fleet.now())
    task = client.get(ids[0], service=SERVICE)
    assert task is not None
    (subscription,) = task.webhooks
    endpoint, now = subscription.partition(".")[0], store.fleet.now()
    names = store.deliveries.claim_delivery(LANE, now + 1, now + 60, "t", 999, {endpoint: 999})
    attempts = [Attempt(name, why) for name in names]
    assert store.deliveries.bury(LANE, "t", now, attempts, 3600) == len(ids)
    return endpoint


def test_the_first_page_has_the_numbers_and_says_what_is_wrong(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """As `top` and `doctor` do, of the same numbers."""
    client.submit(["a", "b"], service=SERVICE, account="shop")
    client.submit(["c"], service=SERVICE)
    settle(store, LANE, "c")
    client.pause("shop", reason="new token", by="ada")
    page = text(http.get("/cavendish"))
    for words in (
        "2 pending",
        "1 succeeded",
        "shop/nano-banana/0 2",
        "paused by operator ada",
        "worker : 0 alive",
        "beat : 0 alive",
        "0 workers and 0 beats",
        "Delay from the finish to the store",
    ):
        assert words in page
    assert "<polyline" in http.get("/cavendish").text


def test_endpoints_are_shown_by_their_host_and_switched_by_their_page(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """The path and the query of a URL may be secret; it is shown when asked for."""
    client.add_endpoint("shop", HOOK, unencrypted=True)
    for page in ("/cavendish/webhooks", "/cavendish/endpoint/shop", "/cavendish"):
        assert "nobodys-business" not in http.get(page).text
    eventually(  # all who look within a second get the same numbers
        lambda: "https://a.example/…" in text(http.get("/cavendish/webhooks")), "it is listed"
    )
    assert HOOK in text(http.get("/cavendish/endpoint/shop?url=1"))
    form = {"token": fields(http.get("/cavendish/endpoint/shop").text)["token"]}
    for data, words in (
        ({"verb": "disable", "reason": "it is broken"}, "shop is disabled"),
        ({"verb": "enable"}, "shop is enabled"),
        ({"verb": "rotate"}, "The new secret of shop, shown only now: whsec_"),
        ({"verb": "move", "to": "https://b.example/other"}, "shop is now at https://b.example/…"),
    ):
        done = http.post("/cavendish/endpoint/shop", data=form | data, headers=OURS)
        assert (done.status_code, words in text(done)) == (200, True), text(done)
        if data["verb"] == "disable":
            assert "nobodys-business" not in http.get("/cavendish").text
            assert 'href="/cavendish/endpoint/shop"' in http.get("/cavendish").text
            assert client.endpoint("shop").reason == "by ada in Flower: it is broken"
    assert client.endpoint("shop").url == "https://b.example/other"
    refused = http.post(
        "/cavendish/endpoint/shop", data=form | {"verb": "move", "to": "ftp://x"}, headers=OURS
    )
    assert (refused.status_code, "Refused" in text(refused)) == (400, True)
    assert http.get("/cavendish/endpoint/nobody").status_code == 400
    assert store.endpoints.all()["shop"].keys


def test_a_test_webhook_says_what_the_receiver_answered(
    http: httpx.Client, client: Client, served: Served
) -> None:
    """Sent from Flower's machine, by the rules of all webhooks."""
    asked = list[str]()

    async def receiver(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["webhook-id"])
        return httpx.Response(503, text="<b>closed</b>")

    client.add_endpoint("shop", served(receiver), unencrypted=True)
    form = {"token": fields(http.get("/cavendish/endpoint/shop").text)["token"], "verb": "test"}
    done = http.post("/cavendish/endpoint/shop", data=form, headers=OURS)
    assert "shop did not take the test: HTTP 503" in text(done)
    assert "<b>closed" not in done.text
    assert len(asked) == 1


def test_dead_letters_are_found_revived_and_dropped_after_a_preview(
    http: httpx.Client, client: Client, store: Store, endpoint_index: Delivering
) -> None:
    """Those that match a filter, or those that are selected."""
    one = buried(store, client, "a", "b", "c")
    buried(store, client, "d", hook="https://b.example/", why="timeout")
    page = http.get("/cavendish/webhooks", params={"reason": "http 5"})
    assert set(re.findall(r"/cavendish/id/nano-banana/(\w)", page.text)) == {"a", "b", "c"}
    assert re.search(
        r"20[-\d]+ [\d:]+ Dead letter to", text(http.get(f"/cavendish/id/{SERVICE}/a"))
    )
    form = {"token": fields(page.text)["token"], "verb": "revive", "endpoint": one}
    asked: dict[str, Any] = {"headers": OURS, "follow_redirects": True}
    preview = http.post("/cavendish/dead", data=form, **asked)
    where = str(preview.url)
    eventually(lambda: "3 dead letters will be sent again" in text(http.get(where)), "counted")
    assert "a to" in text(preview)
    assert len(store.closed.dead(LANE)) == 4
    done = http.post("/cavendish/dead", data=fields(preview.text), **asked)
    assert "3 of 3 revived" in text(done)
    assert [each.task_id for each in store.closed.dead(LANE)] == ["d"]
    name = f"{LANE} {store.closed.dead(LANE)[0].name}"
    form = {"token": form["token"], "verb": "drop", "delivery": name}
    preview = http.post("/cavendish/dead", data=form, **asked)
    http.post("/cavendish/dead", data=fields(preview.text), **asked)
    eventually(lambda: store.closed.dead(LANE) == [], "it is dropped")
    nothing = http.post("/cavendish/dead", data=form | {"delivery": ""}, headers=OURS)
    assert (nothing.status_code, "Choose dead letters" in text(nothing)) == (400, True)


def test_dead_letters_are_read_page_by_page_each_once(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """Those of one moment are never divided."""
    for start in range(0, 120, 40):
        buried(store, client, *(f"id-{n:03}" for n in range(start, start + 40)))
    place, seen = "/cavendish/webhooks", list[str]()
    while place:
        page = http.get(place).text
        seen += re.findall(r'<a href="/cavendish/id/nano-banana/(id-\d+)', page)
        following = re.search(r'rel="next" href="([^"]+)">Older', page)
        place = following[1].replace("&amp;", "&") if following else ""
    assert sorted(seen) == [f"id-{n:03}" for n in range(120)]


def test_of_ten_thousand_endpoints_those_in_trouble_come_first_and_any_is_found_by_name_or_url(
    http: httpx.Client, store: Store
) -> None:
    """A list of two hundred pages helps nobody who looks for one."""
    for number in range(120):
        store.endpoints.add(Endpoint(f"e-{number:03}", f"https://e{number}.example/hook", 1.0))
    now = store.fleet.now()
    for _ in range(TRIP):
        store.shared_state.change_circuit(
            "e-077", lambda known: failed(known, now, now, 0.5, error="HTTP 503 <b>")
        )
    store.attempt_counts.add({"e-077": (97, 3)}, now)
    eventually(
        lambda: "120 in all" in text(http.get("/cavendish/webhooks")), "the numbers are fresh"
    )
    page = http.get("/cavendish/webhooks")
    listed = re.findall(r'href="/cavendish/endpoint/(e-\d+)"', page.text)
    assert listed[:2] == ["e-077", "e-000"]
    assert len(listed) == 50
    shown = text(page)
    assert "circuit open" in shown
    assert "97 %" in shown
    assert "HTTP 503 &lt;b&gt;" in page.text
    assert "97 % of 100 attempts in the last 24 hours succeeded, 3 failed." in page.text
    for words in ("e-110", "E110.EXAMPLE"):
        found = http.get("/cavendish/webhooks", params={"named": words}).text
        assert re.findall(r'href="/cavendish/endpoint/(e-\d+)"', found) == ["e-110"]
    more = re.search(r'rel="next" href="([^"]+)">More', page.text)
    assert more is not None
    second = http.get(more[1].replace("&amp;", "&")).text
    assert not {*listed} & {*re.findall(r'href="/cavendish/endpoint/(e-\d+)"', second)}
    one = text(http.get("/cavendish/endpoint/e-077"))
    assert "97 % of 100 attempts" in one
    assert "HTTP 503 &lt;b&gt;, " in one


def test_an_account_and_its_services_are_paused_resumed_and_limited_and_the_page_says_by_whom(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """As the commands do; the page of actions keeps who did what."""
    client.submit(["a"], service=SERVICE, account="shop")
    place = "/cavendish/account/shop"
    eventually(lambda: SERVICE in text(http.get(place)), "the numbers are fresh")
    assert f'href="{place}"' in http.get("/cavendish").text
    form = {"token": fields(http.get(place).text)["token"]}
    for data, words in (
        ({"verb": "pause", "for": "30m", "reason": "new token"}, "The account shop is paused by"),
        ({"verb": "resume"}, "The account shop is polled again"),
        ({"verb": "resume"}, "The account shop is not paused by an operator"),
        ({"verb": "pause", "service": SERVICE}, f"The service {SERVICE} of account shop is"),
        ({"verb": "ceiling", "calls": "2.5"}, "makes at most 2.5 calls/s, set by operator ada"),
    ):
        done = http.post(place, data=form | data, headers=OURS)
        assert (done.status_code, words in text(done)) == (200, True), text(done)
    (pause,) = client.pauses()
    assert (pause.name, pause.by) == (f"shop/{SERVICE}", "ada in Flower")
    assert [one.calls for one in client.rate_ceilings()] == [2.5]
    page = http.get(place)
    assert 'aria-label="Resume nano-banana"' in page.text
    assert "at most 2.5 calls/s" in text(page)
    http.post(place, data=form | {"verb": "default"}, headers=OURS)
    http.post(place, data=form | {"verb": "resume", "service": SERVICE}, headers=OURS)
    assert (client.pauses(), client.rate_ceilings()) == ([], [])
    actions = text(http.get("/cavendish/actions"))
    assert actions.count(" ada ") >= 7
    for words in ("Account shop: paused", "Account shop/nano-banana: paused", "ceiling set"):
        assert words in actions
    for data, words in (
        ({"verb": "pause", "for": "soon"}, "Enter for how long"),
        ({"verb": "ceiling", "calls": "many"}, "Enter how many calls"),
        ({"verb": "ceiling", "calls": "nan"}, "must be a number"),
        ({"verb": "x"}, "Choose what to do"),
    ):
        refused = http.post(place, data=form | data, headers=OURS)
        assert (refused.status_code, words in text(refused)) == (400, True), text(refused)
    assert "Is the name right?" in text(http.get("/cavendish/account/nobody"))
