"""Our pages inside Flower over real HTTP: who sees what, and what they say."""

from __future__ import annotations

import hmac
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from cavendish import Client, Task
from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish_worker.devstack.ports import free_port
from conftest import Server
from ending import settle
from flowering import flower
from slow_redis import slow

SERVICE = "nano-banana"
LANE = Lane("default", SERVICE)


@pytest.fixture(scope="module")
def http(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """One Flower for the tests of this file; its pages keep nothing between two requests."""
    with flower(server.url, tmp_path_factory.mktemp("flower")) as opened:
        yield opened


def text(answer: httpx.Response) -> str:
    """What a person reads of a page's own part."""
    page = answer.text.partition("<main")[2].partition("</main>")[0]
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_our_pages_are_behind_the_login_and_each_page_of_flower_has_their_tab(
    http: httpx.Client,
) -> None:
    """Nobody without the login sees anything, also with a wrong one."""
    address = f"{http.base_url}/cavendish/ids"
    assert httpx.get(address, trust_env=False).status_code == 401
    assert httpx.get(address, trust_env=False, auth=("ada", "x")).status_code == 401
    for page in ("/workers", "/tasks", "/cavendish/ids"):
        assert 'href="/cavendish"' in http.get(page).text


def test_our_pages_live_under_the_prefix_of_flower(server: Server, tmp_path: Path) -> None:
    """A proxy may serve Flower under a path."""
    with flower(server.url, tmp_path, "--url_prefix=f") as http:
        page = http.get("/f/cavendish/ids")
        assert page.status_code == 200
        assert http.get("/cavendish/ids").status_code == 404
        for link in re.findall(r'(?:href|src|action)="(/[^"]*cavendish[^"]*)"', page.text):
            assert http.get(link).status_code in (200, 400), link  # 400: a form posts there


def test_an_id_is_found_by_its_name_and_by_its_key_in_one_search(
    http: httpx.Client, client: Client
) -> None:
    """Whoever has an id in hand does not know its service."""
    client.submit([Task("one", key="order-7")], service="veo", account="other", producer="shop")
    client.submit(["two"], service=SERVICE)
    for wanted in ("one", "order-7"):
        found = http.get("/cavendish/ids", params={"q": wanted}, follow_redirects=True)
        assert found.url.path == "/cavendish/id/veo/one"
        assert found.url.params["account"] == "other"
        assert "Submitted by shop" in text(found)
    assert "No pending or ended id" in text(http.get("/cavendish/ids", params={"q": "three"}))


def test_the_ids_are_listed_page_by_page_as_the_url_says(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """A filter is a link that one may send to somebody."""
    client.submit([f"id-{n:03}" for n in range(150)], service=SERVICE, producer="shop")
    client.submit(["mine"], service=SERVICE, producer="other")
    settle(store, LANE, "mine")
    seen = list[str]()
    place = "/cavendish/ids?state=pending&producer=shop"
    while place:
        page = http.get(place).text
        seen += re.findall(r"/cavendish/id/nano-banana/(id-\d+)", page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        place = following[1].replace("&amp;", "&") if following else ""
    assert sorted(seen) == [f"id-{n:03}" for n in range(150)]
    assert len(re.findall("/cavendish/id/", http.get("/cavendish/ids?state=succeeded").text)) == 1
    assert "is no time" in text(http.get("/cavendish/ids?since=yesterday"))
    assert "There is no state" in text(http.get("/cavendish/ids?state=lost"))
    assert "cursor" in text(http.get("/cavendish/ids?cursor=x"))


def test_without_a_login_metadata_and_records_are_hidden(
    server: Server, client: Client, store: Store, tmp_path: Path
) -> None:
    """Flower on a port that all users of a machine reach shows no more than that."""
    client.submit(["one"], service=SERVICE, metadata={"note": "nobodys-business"})
    settle(store, LANE, "one")
    with flower(server.url, tmp_path, login=None) as http:
        page = http.get(f"/cavendish/id/{SERVICE}/one")
        assert page.status_code == 200
        assert "nobodys-business" not in page.text
        assert "Hidden" in text(page)
        assert "Access-Control-Allow-Origin" not in page.headers


def test_an_id_that_nobody_tracks_is_said_in_a_sentence(http: httpx.Client, store: Store) -> None:
    """Also one whose name would be something else in a page."""
    page = http.get(f"/cavendish/id/{SERVICE}/%3Cscript%3E")
    assert page.status_code == 400
    assert "is not tracked for the service" in text(page)
    assert "<script>&#x27;" not in page.text


def test_numbers_of_a_record_are_shown_as_they_came(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """A seed of twenty digits is no float."""
    client.submit(["one"], service=SERVICE)
    now = store.fleet.now()
    store.tasks.claim(LANE, now + 200, "t", store.tasks.candidates(LANE, now + 100, 10))
    task = store.tasks.load(LANE, ["one"]).tasks["one"]
    record = {"id": "one", "seed": 12345678901234567890123, "image": "https://a.example/b.png"}
    outcome = Outcome(task, State.SUCCEEDED, record=record)
    store.tasks.settle(LANE, "t", now, [(outcome, 0.0)], 3600, 10)
    page = http.get(f"/cavendish/id/{SERVICE}/one")
    assert "seed 12345678901234567890123" in text(page)
    assert '<img src="https' not in page.text
    assert "a.example" not in page.headers["Content-Security-Policy"]
    clicked = http.get(f"/cavendish/id/{SERVICE}/one?images=1")
    assert '<img src="https://a.example/b.png"' in clicked.text
    assert clicked.headers["Content-Security-Policy"].endswith("data: https://a.example")


EVERY_PAGE = (
    "/cavendish",
    "/cavendish/ids",
    "/cavendish/ids?q=one",
    f"/cavendish/id/{SERVICE}/one",
    "/cavendish/webhooks",
    "/cavendish/endpoint/shop",
    "/cavendish/account/default",
    "/cavendish/actions",
    "/cavendish/action/0123456789abcdef",
    "/cavendish/act?verb=cancel&until=9e9",
    "/cavendish/dead?verb=drop&until=9e9",
)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["silent", "gone", "slow"])
def test_each_page_says_that_redis_is_away_or_slow_and_waits_for_it_no_longer(
    how: str, server: Server, client: Client, tmp_path: Path
) -> None:
    """A Redis that takes the connection and never answers is the worst one: a page that waited for
    it would never come. A form is answered too, and says that what it was to do may have been done.
    """
    client.submit(["one"], service=SERVICE)
    client.add_endpoint("shop", "https://a.example/", unencrypted=True)
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        url = {
            "silent": f"redis://127.0.0.1:{silent.getsockname()[1]}/0",
            "gone": f"redis://127.0.0.1:{free_port()}/0",
            "slow": stack.enter_context(slow(server.url, 1.0)),
        }[how]
        http = stack.enter_context(flower(url, tmp_path, "--cookie_secret=known"))
        for place in EVERY_PAGE:
            page = http.get(place)
            assert page.status_code == 503 or how == "slow", (place, text(page))
            if page.status_code == 503:
                assert "Redis" in text(page)
        form = {"token": hmac.new(b"known", b"form ada", "sha256").hexdigest(), "verb": "disable"}
        done = http.post(
            "/cavendish/endpoint/shop", data=form, headers={"Sec-Fetch-Site": "same-origin"}
        )
        assert (done.status_code, "check before you repeat it" in text(done)) == (503, True)


def test_flower_starts_without_our_pages_where_their_seam_has_moved(
    server: Server, tmp_path: Path
) -> None:
    """Another version of Flower may keep its addresses elsewhere; its own pages must still work."""
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "flowerconfig.py").write_text(
        "from flower import urls\nurls.handlers = tuple(urls.handlers)\n"
    )
    with flower(server.url, tmp_path, f"--conf={moved}/flowerconfig.py") as http:
        assert http.get("/cavendish").status_code == 404
        page = http.get("/workers")
        assert page.status_code == 200
        assert "/cavendish" not in page.text
    assert "flower.pages_missing" in (tmp_path / "flower.log").read_text()


def test_a_key_that_cannot_be_read_is_one_sentence_and_no_traceback(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """Somebody has written into Redis by hand; other pages go on."""
    client.submit(["one"], service=SERVICE)
    store.connection.redis.set("cavendish:controls", "damaged")
    page = http.get(f"/cavendish/id/{SERVICE}/one")
    assert page.status_code == 200
    store.connection.redis.delete("cavendish:bulk-actions")
    store.connection.redis.set("cavendish:bulk-actions", "damaged")
    page = http.get("/cavendish/actions")
    assert (page.status_code, "Traceback" in page.text) == (500, False)
    assert "a key in Redis cannot be read" in text(page)
    assert http.get("/cavendish/ids").status_code == 200


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/cavendish/ids?since=nan", 400),
        ("/cavendish/ids?until=inf", 400),
        ("/cavendish/ids?since=" + "9" * 5000, 400),
        ("/cavendish/ids?q=" + "x" * 10_000, 200),
        ("/cavendish/webhooks?from=" + "9" * 5000, 200),
        ("/cavendish/webhooks?before=nan", 400),
        ("/cavendish/webhooks?since=-inf", 400),
    ],
)
def test_an_address_that_nobody_can_mean_is_answered_in_a_sentence(
    http: httpx.Client, store: Store, address: str, status: int
) -> None:
    """It is no fault of ours."""
    page = http.get(address)
    assert (page.status_code, len(page.text) < 40_000) == (status, True)


def test_a_form_from_an_address_that_is_none_is_refused(http: httpx.Client) -> None:
    assert http.post("/cavendish/act", headers={"Origin": "http://["}).status_code == 403
