"""Our pages inside Flower against whatever stands in an address, in a form and in the store."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest

from cavendish import Client, Task
from cavendish.endpoints.webhook_endpoint import Disabled, Endpoint
from cavendish.model import Lane, State
from cavendish.policy.bulk_actions import BulkAction, Note
from cavendish.policy.circuit import failed
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.deliveries import Attempt
from cavendish.store.keys import LaneKeys
from cavendish_worker.devstack.ports import free_port
from conftest import Server
from ending import settle
from flowering import flower
from servers import eventually

SERVICE = "nano-banana"
LANE = Lane("default", SERVICE)
OURS = {"Sec-Fetch-Site": "same-origin"}
#: Every page of ours, with what `filled` puts into the store.
PAGES = (
    "/cavendish",
    "/cavendish/ids",
    "/cavendish/ids?q=key-1",
    "/cavendish/ids?key=key-1&group=g&endpoint=shop",
    f"/cavendish/id/{SERVICE}/one",
    f"/cavendish/id?service={SERVICE}&id=pending",
    "/cavendish/webhooks",
    "/cavendish/webhooks?reason=http&endpoint=shop",
    "/cavendish/endpoint/shop?url=1",
    "/cavendish/account/default",
    "/cavendish/actions",
    f"/cavendish/action/{'0' * 16}",
    "/cavendish/act?verb=cancel&until=9e9",
    "/cavendish/dead?verb=drop&until=9e9&reason=http",
)


@pytest.fixture(scope="module")
def http(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """One Flower for the tests of this file, whose numbers are never older than the question."""
    folder = tmp_path_factory.mktemp("flower")
    conf = folder / "flowerconfig.py"
    conf.write_text(
        "from cavendish_worker.console import console_parts\nconsole_parts.FRESH_FOR = -1.0\n"
    )
    with flower(server.url, folder, f"--conf={conf}") as opened:
        yield opened


def text(answer: httpx.Response) -> str:
    """What a person reads of a page's own part."""
    page = answer.text.partition("<main")[2].partition(">")[2].partition("</main>")[0]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def links(page: str) -> list[str]:
    """Where the links, forms, scripts and styles of a page lead, on the same host."""
    found = re.findall(r'(?:href|src|action)="(/[^"]*)"', page)
    return [html.unescape(each) for each in dict.fromkeys(found)]


def filled(store: Store, client: Client) -> None:
    """Something for each page: ids, a dead letter, an endpoint, pauses, an action, a note."""
    client.add_endpoint("shop", "https://a.example/", unencrypted=True)
    one = Task("one", key="key-1", metadata={"a": 1})
    client.submit([one], service=SERVICE, webhook="shop", producer="p", model="m", group="g")
    client.submit(["pending"], service=SERVICE, producer="p", webhook="shop")
    settle(store, LANE, "one")
    now = store.fleet.now()
    store.deliveries.sort([LANE], now)
    names = store.deliveries.claim_delivery(LANE, now + 1, now + 60, "t", 9, {"shop": 9})
    met = json.dumps({"at": now, "outcome": "HTTP 500", "status": 500, "answer": "hm"})
    store.deliveries.bury(LANE, "t", now, [Attempt(name, "HTTP 500", met) for name in names], 3600)
    store.shared_state.change_circuit("shop", lambda known: failed(known, now, now, 0, 0, "HTTP 5"))
    store.attempt_counts.add({"shop": (3, 2)}, now)
    client.pause("default", service=SERVICE, reason="x", by="ada")
    client.disable_endpoint("shop")
    action = BulkAction("0" * 16, "cancel", "ada", now, 3, "{}", owner="x", seen_at=now + 9e5)
    note = Note(now, "ada", "Endpoint shop disabled")
    store.shared_state.change_bulk_actions(lambda known: (known.with_new(action).noted(note), None))


# --- addresses


def test_an_address_with_a_slash_at_its_end_leads_to_its_page(http: httpx.Client) -> None:
    """People type it so. An id may end with a slash."""
    for place, leads in (
        ("/cavendish/", "/cavendish"),
        ("/cavendish/ids/?state=pending&q=a/", "/cavendish/ids?state=pending&q=a/"),
        ("/cavendish/account/default/", "/cavendish/account/default"),
    ):
        answer = http.get(place)
        assert (answer.status_code, answer.headers["Location"]) == (302, leads)
    assert "'x/' is not tracked" in text(http.get(f"/cavendish/id/{SERVICE}/x/"))


ODD_WORDS = """.. %00 %FF %ED%A0%80 nan 1e308 -1e308 0001-01-01T00:00Z 9999-12-31T23:59-14:00 2h W1
http%3A%2F%2F[ [ https%3A%2F%2F[::1%2F %0A %E2%80%AE 999999999999999999999999999999 +groups"""


@pytest.mark.parametrize("value", [*ODD_WORDS.split(), "x" * 10_000])
def test_no_word_of_an_address_breaks_a_page(http: httpx.Client, store: Store, value: str) -> None:
    """What nobody can mean is said in a sentence, on a page like the others."""
    words = "q service account key endpoint group since until cursor from named reason before verb"
    for page in (*PAGES, "/cavendish/act", "/cavendish/dead", "/cavendish/id"):
        for word in (*words.split(), "state", "id", "json", "images", "url"):
            answer = http.get(f"{page}{'&' if '?' in page else '?'}{word}={value}")
            assert answer.status_code in (200, 302, 400), (answer.url, text(answer))
            assert answer.status_code == 302 or "<h1" in answer.text, answer.url
    for place in ("endpoint", "account", "id/x", f"id/{SERVICE}"):
        answer = http.get(f"/cavendish/{place}/{value.replace('..', 'a..')}")
        assert (answer.status_code in (200, 400), "<h1" in answer.text) == (True, True), answer.url


ODD_IDS = ("..", ".", "a/../b", "a//b", "/x", "x/", "it's", '"q"', "50%", "%2e%2e", "<b>", "{x}")
ODD_IDS += ("a?b#c&d=e+f", "\\", "a\\..\\b", "a b", "ü", "😀", "x" * 200)


def test_the_page_of_an_id_is_reached_by_its_link_whatever_its_name_is(
    http: httpx.Client, client: Client
) -> None:
    """Browsers and proxies take `..` for a step, and drop empty parts of a path."""
    client.submit([*ODD_IDS, Task("one", key="..")], service=SERVICE, account="other")
    page = http.get("/cavendish/ids").text
    ours = [link for link in links(page) if "/cavendish/id" in link and "account=other" in link]
    found = {text(http.get(link)).partition(" Pause ")[0] for link in ours}
    assert found == {f"Now Ids Webhooks Actions {name}" for name in (*ODD_IDS, "one")}
    for link in links(page):
        path = unquote(link.partition("?")[0])
        assert not re.search(r"//|/\.{1,2}(/|$)", path), link
    for name in ODD_IDS[1:]:
        answer = http.get("/cavendish/ids", params={"q": name})
        assert answer.status_code == 302, name
        assert "is in this state" in text(http.get(answer.headers["Location"])), name
    assert text(http.get("/cavendish/ids?q=..")).count("nano-banana other") == 2


def test_every_link_form_script_and_redirect_stays_under_the_prefix(
    server: Server, store: Store, client: Client, tmp_path: Path
) -> None:
    """A proxy that serves Flower under a path has other things beside it."""
    filled(store, client)
    client.submit([f"more-{n}" for n in range(150)] + [".."], service=SERVICE)
    with flower(server.url, tmp_path, "--url_prefix=f") as http:
        todo = ["/f/cavendish", f"/f/cavendish/action/{'0' * 16}", "/f/cavendish/ids?state=x"]
        todo += [f"/f{page}" for page in PAGES]
        seen, forms = dict[str, int](), 0
        while todo:
            place = todo.pop()
            if place in seen or len(seen) > 400:
                continue
            page = http.get(place)
            seen[place] = page.status_code
            if page.status_code == 302:
                todo.append(page.headers["Location"])
            if "/cavendish" in place:
                todo += [each for each in links(page.text) if not each.startswith("/f/static")]
                assert all(each.startswith("/f/") for each in links(page.text)), place
            forms += page.text.count("<form")
        ours = {place: status for place, status in seen.items() if "/cavendish" in place}
        assert {status for place, status in seen.items() if place not in ours} <= {200}
        wrong = {place for place, status in ours.items() if status not in (200, 302)}
        posts = {"/f/cavendish/act", "/f/cavendish/dead"}  # 400: forms post there
        assert wrong - posts == {"/f/cavendish/ids?state=x"}
        assert (len(ours) > 100, forms > 100) == (True, True)
        assert http.get("/f/cavendish/").headers["Location"] == "/f/cavendish"
        token = re.search(r'name="token" value="(\w+)"', http.get("/f/cavendish/webhooks").text)
        assert token
        for place, form in (
            ("act", {"verb": "forget", "producer": "p"}),
            ("act", {"verb": "replay", "id": f"default {SERVICE} one", "confirmed": "yes"}),
            ("dead", {"verb": "drop", "all": "yes"}),
            ("dead", {"verb": "revive", "all": "yes", "confirmed": "yes"}),
            (f"action/{'0' * 16}", {}),
        ):
            data = {"token": token[1], **form}
            answer = http.post(f"/f/cavendish/{place}", data=data, headers=OURS)
            assert answer.headers["Location"].startswith("/f/cavendish/"), place
            assert http.get(answer.headers["Location"]).status_code == 200


def test_the_pages_are_the_same_where_the_locale_knows_no_utf_8(
    server: Server, store: Store, client: Client, tmp_path: Path
) -> None:
    """As in a small container or under an old init script."""
    client.submit([Task("ü", metadata={"name": "Ünal"})], service=SERVICE)
    port = free_port()
    given = {name: word for name, word in os.environ.items() if not name.startswith("CAVENDISH_")}
    given |= {
        "LC_ALL": "POSIX",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "",
    }
    given |= {"CAVENDISH_REDIS_URL": server.url, "CAVENDISH_FLOWER_PORT": str(port)}
    given |= {"CAVENDISH_DATA_DIR": str(tmp_path), "CAVENDISH_FLOWER_BASIC_AUTH": "ada:x"}
    command = [sys.executable, "-m", "celery", "-A", "cavendish_worker", "flower"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=given, stdout=log, stderr=log)
    try:
        at = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=at, auth=("ada", "x"), trust_env=False) as http:

            def answers() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return http.get("/cavendish").status_code == 200
                return False

            eventually(answers, "Flower answers", 60)
            page = text(http.get(f"/cavendish/id/{SERVICE}/ü"))
            assert ("Ünal" in page, "Forget…" in page) == (True, True)
    finally:
        process.terminate()
        process.wait(30)


# --- what the store holds


def test_of_a_record_of_a_megabyte_the_beginning_is_shown_and_the_rest_is_one_link_away(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """The whole is JSON as it was stored, and only for those who have logged in."""
    client.submit([Task("big", metadata={"deep": [[[]]] * 1000})], service=SERVICE)
    now = store.fleet.now()
    store.tasks.claim(LANE, now + 200, "t", store.tasks.candidates(LANE, now + 100, 10))
    task = store.tasks.load(LANE, ["big"]).tasks["big"]
    record = {"id": "big", "long": "y" * 500_000, "many": [*range(10_000)]}
    outcome = Outcome(task, State.SUCCEEDED, record=record)
    store.tasks.settle(LANE, "t", now, [(outcome, 0.0)], 3600, 10)
    page = http.get(f"/cavendish/id/{SERVICE}/big")
    assert len(page.text) < 300_000
    assert "(and 498,000 more characters)" in text(page)
    assert "… and 8,004 more values" in text(page)
    whole = [link for link in links(page.text) if "json=" in link]
    assert len(whole) == 2
    metadata, found = (http.get(link) for link in whole)
    assert (found.json(), metadata.json()) == (record, task.metadata)
    assert found.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert "no such JSON" in text(http.get(f"/cavendish/id/{SERVICE}/big?json=x"))


def test_without_a_login_the_whole_record_is_as_hidden_as_its_beginning(
    server: Server, client: Client, store: Store, tmp_path: Path
) -> None:
    client.submit([Task("one", metadata={"note": "nobodys-business"})], service=SERVICE)
    settle(store, LANE, "one")
    with flower(server.url, tmp_path, login=None) as http:
        for part in ("record", "metadata"):
            page = http.get(f"/cavendish/id/{SERVICE}/one?json={part}")
            assert (page.status_code, "nobodys" in page.text) == (400, False)
            assert "hidden" in text(page)


def test_texts_that_no_encoding_can_write_are_shown_with_escapes(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """Half a smiley in metadata, and bytes that are no text in a name and a reason."""
    client.submit([Task("one", metadata={"half": "\ud83d"})], service=SERVICE)
    row = {b"submitted_at": b"1.5", b"deadline_at": b"9", b"reason": b"\xff!", b"state": b"failed"}
    store.connection.redis.hset(LaneKeys(LANE).task("two"), mapping=row)  # type: ignore[arg-type]
    assert "\\ud83d" in text(http.get(f"/cavendish/id/{SERVICE}/one"))
    assert "\\udcff!" in text(http.get(f"/cavendish/id/{SERVICE}/two"))


GARBAGE = (b"{", b"null", b"[]", b"nan", b"inf", b"\xff\xfe", b'{"at":1e999}', b"")
#: Keys without which nothing can be said, for all lanes.
OF_ALL = ("lanes", "endpoints", "disabled", "bulk-actions")


@pytest.mark.timeout(240)
def test_no_damaged_key_of_the_store_breaks_a_page(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """Each key in turn is of another type, and each field is garbage. Where the lists of all lanes,
    endpoints or actions are of another type, a page says so in a sentence.
    """
    filled(store, client)
    redis = store.connection.redis
    for key in sorted(map(str, redis.keys("*cavendish*"))):  # type: ignore[arg-type]
        saved, kind = redis.dump(key), redis.type(key)
        _damage(store, key, None, b"")
        fails = key.removeprefix("cavendish:") in OF_ALL
        for page in PAGES:
            _looked_at(http, page, f"{key} of another type", fails=fails)
        for number, garbage in enumerate(GARBAGE):
            redis.restore(key, 0, saved, replace=True)  # type: ignore[arg-type]
            fields = redis.hkeys(key) if kind == "hash" else [None]
            for field in fields:  # type: ignore[union-attr]
                _damage(store, key, field, garbage)
            _looked_at(http, PAGES[number % len(PAGES)], f"{key} {garbage!r}")
            for page in PAGES if number == 0 else ():
                _looked_at(http, page, f"{key} {garbage!r}")
        redis.restore(key, 0, saved, replace=True)  # type: ignore[arg-type]


def _damage(store: Store, key: str, field: str | None, garbage: bytes) -> None:
    """Garbage in place of a string, in a field of a hash, or beside the members of a set."""
    redis, kind = store.connection.redis, store.connection.redis.type(key)
    if field is not None:
        redis.hset(key, field, garbage)  # type: ignore[arg-type]
    elif kind == "zset":
        redis.zadd(key, {b"\xff odd/{} x": 1.0, garbage: 2.0, "a:b:c": float("inf")})
    elif kind == "set":
        redis.sadd(key, b"\xff odd/{} x", garbage)
    elif kind == "string":
        redis.set(key, garbage)


def _looked_at(http: httpx.Client, page: str, what: str, *, fails: bool = False) -> None:
    answer = http.get(page, follow_redirects=True)
    assert answer.status_code in ((200, 400, 500) if fails else (200, 400)), (page, what)
    assert "<h1" in answer.text
    assert answer.status_code != 500 or "a key in Redis cannot be read" in text(answer)


ODD_NAMES = ("o d'd", 'a"b', "<b>", "50%", "ü{x}", "..", "a#b?c=d", "\udcff", "x" * 300)


def test_accounts_endpoints_and_lanes_with_odd_names_are_shown_and_each_link_leads_to_a_page(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """No door lets such names in; somebody wrote them by hand, or another version did."""
    redis = store.connection.redis
    for number, name in enumerate(ODD_NAMES):
        redis.sadd("cavendish:lanes", f"{name}/{name}/0")
        store.endpoints.add(Endpoint(name, ("http://[::1", name, "")[number % 3], 1.0))
    store.endpoints.disable(ODD_NAMES[0], Disabled(1.0, "\udcff", "http://["))
    for page in ("/cavendish", "/cavendish/webhooks"):
        answer = http.get(page)
        assert answer.status_code == 200
        ours = [link for link in links(answer.text) if re.match("/cavendish/(?!static)", link)]
        assert len(ours) > len(ODD_NAMES)
        for link in ours:
            found = http.get(link)
            assert found.status_code in (200, 302, 400), (link, text(found))
            assert found.status_code == 302 or "<h1" in found.text


def test_an_id_whose_record_is_damaged_is_said_to_be_so(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """It is tracked: «not tracked» would send an operator the wrong way."""
    client.submit(["one"], service=SERVICE)
    store.connection.redis.hset(LaneKeys(LANE).task("one"), "submitted_at", "nan")
    page = http.get(f"/cavendish/id/{SERVICE}/one")
    assert "The record of 'one' in the store cannot be read" in text(page)


def test_an_action_that_cannot_be_read_is_told_beside_the_others(
    http: httpx.Client, client: Client, store: Store
) -> None:
    filled(store, client)
    key = "cavendish:bulk-actions"
    known = json.loads(str(store.connection.redis.hget(key, "value")))
    known["latest"].append({"id": 7})
    store.connection.redis.hset(key, "value", json.dumps(known))
    page = text(http.get("/cavendish/actions"))
    assert "1 entry of this list cannot be read" in page
    assert "0 of 3 cancelled" in page
    assert "Endpoint shop disabled" in page


# --- forms


def token_of(http: httpx.Client) -> str:
    """What the forms of this Flower carry."""
    page = http.get("/cavendish/account/default").text
    found = re.search(r'name="token" value="(\w+)"', page)
    assert found, page
    return found[1]


#: Each form of ours: where it is sent to, and what it does.
FORMS = (
    [("act", verb) for verb in ("cancel", "deadline", "forget", "replay")]
    + [("dead", verb) for verb in ("revive", "drop")]
    + [("endpoint/shop", verb) for verb in ("enable", "disable", "move", "rotate")]
    + [("account/default", verb) for verb in ("pause", "resume", "ceiling", "default")]
    + [("endpoint/gone", "disable"), ("account/a%20b", "pause"), (f"action/{'1' * 16}", "stop")]
)
ODD_FIELDS = ("", "\0", "nan", "1e308", "9" * 21 + "d", "http://[", "ü" * 300, "a b c", "/ :", "..")


@pytest.mark.parametrize(("place", "verb"), FORMS)
def test_no_field_of_a_form_breaks_its_answer(
    http: httpx.Client, client: Client, store: Store, place: str, verb: str
) -> None:
    """Missing, repeated, huge or of another form: each is answered by a page with a sentence."""
    client.add_endpoint("shop", "https://a.example/", unencrypted=True)
    client.submit(["one"], service=SERVICE, webhook="shop")
    form: dict[str, object] = {"token": token_of(http), "verb": verb}
    names = "id delivery reason for in calls service to state since until endpoint all".split()
    cases: list[dict[str, object]] = [{name: odd} for name in names for odd in ODD_FIELDS]
    cases += [{}, *({name: ["a b c"] * 300} for name in names), {"reason": "x" * 1_000_000}]
    cases += [{"id": [f"default {SERVICE} {n}" for n in range(5000)]}]
    for case in cases:
        for more in ({}, {"confirmed": "yes"}):
            data: dict[str, object] = form | case | more
            answer = http.post(f"/cavendish/{place}", data=data, headers=OURS)  # type: ignore[arg-type]
            assert answer.status_code in (200, 303, 400), (case, more, text(answer))
            assert answer.status_code == 303 or "<h1" in answer.text


def test_a_body_that_is_no_form_is_refused_on_a_page_like_the_others(http: httpx.Client) -> None:
    """Whoever sends it gets a sentence, and nothing is done."""
    form = OURS | {"Content-Type": "application/x-www-form-urlencoded"}
    for body in (b"verb=%FF", b"verb=cancel", b"", b"%FF=%FF"):
        answer = http.post("/cavendish/act", content=body, headers=form)
        assert (answer.status_code, "<h1" in answer.text) in ((403, True), (400, True)), body
    for method in ("PUT", "DELETE", "PATCH"):
        answer = http.request(method, "/cavendish/ids", headers=OURS)
        assert answer.status_code in (403, 405)
        assert "<h1" in answer.text


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_while_redis_takes_no_write_pages_show_and_forms_say_why_they_cannot(
    how: str, own_server: Server, tmp_path: Path
) -> None:
    """Its memory is full, or it has become a replica."""
    store, mine = Store(own_server.url), Settings.load({"CAVENDISH_REDIS_URL": own_server.url})
    redis = store.connection.redis
    with Client(settings=mine) as client, flower(own_server.url, tmp_path) as http:
        filled(store, client)
        token = token_of(http)
        if how == "full":
            redis.config_set("maxmemory", 1)
        else:
            redis.replicaof("127.0.0.1", "1")  # type: ignore[no-untyped-call]
        for page in PAGES:
            answer = http.get(page, follow_redirects=True)
            assert answer.status_code == 200, (page, text(answer))
        for place, verb in FORMS:
            data = {
                "token": token,
                "verb": verb,
                "confirmed": "yes",
                "id": f"default {SERVICE} one",
            }
            data |= {"in": "1h", "calls": "5", "to": "https://b.example/", "delivery": ""}
            data |= {"all": "yes"}
            answer = http.post(f"/cavendish/{place}", data=data, headers=OURS)
            assert answer.status_code in (200, 303, 400, 503), (place, verb, text(answer))
            if answer.status_code == 503:
                assert "Redis" in text(answer)
        assert store.shared_state.bulk_actions().latest[-1].id == "0" * 16
    store.close()


def test_ids_that_vanish_before_their_action_is_confirmed_are_left_and_counted(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """Two operators look at the same page: what one has done, the other one does not do again."""
    client.submit(["a", "b", "c"], service=SERVICE)
    ids = [f"default {SERVICE} {each}" for each in "abc"]
    form = {"token": token_of(http), "verb": "cancel", "id": ids, "confirmed": "yes"}
    client.cancel(["a"], service=SERVICE)
    client.forget(["a"], service=SERVICE)
    client.cancel(["b"], service=SERVICE)
    http.post("/cavendish/act", data=form, headers=OURS)
    http.post("/cavendish/act", data=form, headers=OURS)
    known = store.shared_state.bulk_actions
    eventually(lambda: all(one.state == "done" for one in known().latest), "both ended", 30)
    assert sorted((one.done, one.left) for one in known().latest) == [(0, 3), (1, 2)]


def test_a_count_that_a_restart_of_flower_has_lost_does_not_keep_its_action_from_being_done(
    server: Server, store: Store, client: Client, tmp_path: Path
) -> None:
    """With a secret of its own the form outlives Flower; without one it is said to be too old."""
    client.submit(["a", "b"], service=SERVICE, producer="p")
    with flower(server.url, tmp_path, "--cookie_secret=known") as http:
        form = {"token": token_of(http), "verb": "cancel", "producer": "p", "until": "9e9"}
        where = "/cavendish/act?verb=cancel&producer=p&until=9e9"
        eventually(lambda: "2 ids will be cancelled" in text(http.get(where)), "counted")
    form["confirmed"] = "yes"
    with flower(server.url, tmp_path) as http:
        old = http.post("/cavendish/act", data=form, headers=OURS)
        assert (old.status_code, "This form is too old" in text(old)) == (403, True)
        assert "<h1" in old.text
    with flower(server.url, tmp_path, "--cookie_secret=known") as http:
        done = http.post("/cavendish/act", data=form, headers=OURS, follow_redirects=True)
        eventually(lambda: "2 cancelled: done" in text(http.get(str(done.url))), "done", 30)
        assert "more than" not in text(http.get(str(done.url)))
