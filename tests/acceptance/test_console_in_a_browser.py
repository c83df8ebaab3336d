"""Our pages inside Flower as operators use them: in a real browser, with the whole stack."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from acceptance.conftest import SERVICE, Stack, wait_until
from browser import Browser, browser
from cavendish import Client, Task
from cavendish.model import Lane, State
from cavendish.policy.bulk_actions import BulkAction, Note
from cavendish.policy.circuit import failed
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish.store.deliveries import Attempt
from conftest import Server
from delivering import Served
from flowering import LOGIN, flower
from programs import need

PASSWORD = "not: for, everyone"
LANE = Lane("default", SERVICE)
#: What would run if any page took a text for HTML, or an address for a harmless one.
EVIL = "<img src=x onerror=hacked=1><script>hacked=1</script>'\"{{7*7}}"


@pytest.fixture
def operator(start: Callable[..., Stack]) -> Iterator[tuple[Stack, Browser, str]]:
    """A stack, a browser that has logged in, and the address of the pages."""
    need("chromium", "chromedriver")
    stack = start("--rate", "20", "--median", "1", CAVENDISH_FLOWER_BASIC_AUTH=f"ada:{PASSWORD}")
    address = stack.facts["flower"]
    inside = address.replace("http://", f"http://ada:{quote(PASSWORD)}@")
    wait_until(lambda: httpx.get(address, trust_env=False).status_code == 401, 60, "it answers")
    with browser() as window:
        window.open(f"{inside}/cavendish")  # from then on the browser knows the login
        yield stack, window, f"{address}/cavendish"


def seen(window: Browser, words: str, what: str = "") -> str:
    """Wait until the page, which is live, shows the words."""
    try:
        wait_until(lambda: re.search(words, window.text()), 60, what or words)
    except AssertionError as error:
        raise AssertionError(f"{error}, but {window.text()}") from None
    return window.text()


@pytest.mark.timeout(300)
def test_whoever_has_the_id_of_a_lost_order_finds_why_repairs_the_endpoint_and_sees_it_delivered(
    operator: tuple[Stack, Browser, str], served: Served
) -> None:
    """One search and one page from the id to the reason; then two clicks and a new address."""
    stack, window, pages = operator
    heard = list[bytes]()

    async def shop(request: httpx.Request) -> httpx.Response:
        heard.append(request.content)
        return httpx.Response(204)

    stack.cavendish("endpoint", "add", "shop", "http://127.0.0.1:9/gone")
    (task_id,) = stack.create(1)
    words = ["--service", SERVICE, "--webhook", "shop", "--key", "order-7"]
    assert stack.cavendish("submit", *words, task_id).code == 0
    window.open(f"{pages}/ids")
    window.type("#q", "order-7")
    window.click("[role=search] button")
    seen(window, r"Its webhook to shop is tried again in|shop failed \d+ times")
    seen(window, "ConnectError")
    assert task_id in window.run("return location.pathname")
    window.open(f"{pages}/endpoint/shop")
    window.type("[name=to]", served(shop))
    window.click("[value=move]")
    seen(window, "shop is now at http://127.0.0.1")
    window.open(f"{pages}/id/{SERVICE}/{task_id}")
    seen(window, "shop has acknowledged its webhook", "it is delivered")
    window.click("[value=replay]")
    seen(window, "1 id will be replayed")
    window.click(".btn-danger")
    seen(window, "1 of 1 replayed.*done")
    window.open(f"{pages}/id/{SERVICE}/{task_id}")
    seen(window, r"To be replayed\s+by ada in Flower")
    wait_until(lambda: len(heard) == 2, 60, "the shop has heard of it twice")


@pytest.mark.timeout(300)
def test_a_thousand_wrong_ids_are_cancelled_by_keyboard_alone_at_the_width_of_a_phone(
    operator: tuple[Stack, Browser, str],
) -> None:
    """No page is wider than the phone, and each control is reached by the tabulator."""
    stack, window, pages = operator
    ids = "\n".join(f"wrong-{n}" for n in range(1000))
    words = ["submit", "--service", SERVICE, "--producer", "careless", "-"]
    assert stack.cavendish(*words, stdin=ids).code == 0
    window.narrow(400)
    tab, enter = "\ue004", "\ue007"
    window.open(f"{pages}/ids?producer=careless")

    def reach(value: str, form: str) -> None:
        """Press the tabulator until the button of a form has the focus, and then enter."""
        for _ in range(400):
            window.press(tab)
            here = "document.activeElement"
            mine = f"{here}.value === '{value}' && {here}.closest('fieldset')?.innerText"
            if form in str(window.run(f"return {mine} || ''")):
                break
        window.press(enter)

    window.click("tbody [type=checkbox]")
    window.click("main [value=deadline]")
    seen(window, "1 id will be given another deadline")
    window.run("window.still = true; return 1")
    time.sleep(2.5)  # a page that a form led to is not asked for again
    assert window.run("return window.still")
    window.open(f"{pages}/ids?producer=careless")
    reach("cancel", "With all that match")
    seen(window, "1,000 ids will be cancelled")
    assert window.run("return document.documentElement.scrollWidth <= innerWidth")
    for _ in range(40):
        window.press(tab)
        if window.run("return document.activeElement.innerText === 'Yes, go on'"):
            break
    window.press(enter)
    seen(window, r"1,000 of 1,000 cancelled: done")
    for page in (
        "",
        "/ids",
        f"/id/{SERVICE}/wrong-7",
        "/webhooks",
        "/actions",
        "/account/default",
        "/act?verb=deadline&producer=careless&until=9e9",
        "/dead?verb=revive&until=9e9",
    ):
        window.open(f"{pages}{page}")
        assert window.run("return document.documentElement.scrollWidth <= innerWidth"), page
    window.open(f"{pages}/id/{SERVICE}/wrong-7")
    assert "cancelled by ada in Flower" in window.text()


@pytest.mark.timeout(300)
def test_on_a_phone_somebody_sees_a_disabled_endpoint_enables_it_and_revives_its_dead_letters(
    operator: tuple[Stack, Browser, str], served: Served
) -> None:
    """From the first page on by links and buttons alone, as one does who was woken by an alert."""
    stack, window, pages = operator
    heard = list[bytes]()

    async def shop(request: httpx.Request) -> httpx.Response:
        heard.append(request.content)
        gone = len(heard) <= 3
        return httpx.Response(500, headers={"webhook-delivery": "abort-message"} if gone else {})

    async def repaired(request: httpx.Request) -> httpx.Response:
        heard.append(request.content)
        return httpx.Response(204)

    stack.cavendish("endpoint", "add", "shop", served(shop))
    words = ["--service", SERVICE, "--webhook", "shop"]
    assert stack.cavendish("submit", *words, *stack.create(3)).code == 0
    wait_until(lambda: len(heard) == 3, 60, "the shop has refused all")
    stack.cavendish("endpoint", "update", "shop", "--url", served(repaired))
    stack.cavendish("endpoint", "disable", "shop", "--reason", "it refuses all")
    window.narrow(400)
    window.open(pages)
    seen(window, "endpoint shop: is disabled[\\s\\S]*it refuses all")
    window.click("a[href$='/cavendish/webhooks']")
    seen(window, "3 failed|0 %")
    window.click("a[href$='/cavendish/endpoint/shop']")
    seen(window, "0 % of 3 attempts in the last 24 hours succeeded, 3 failed")
    window.click("[value=enable]")
    seen(window, "shop is enabled")
    window.click("main p a")
    seen(window, "Its latest dead letters")
    window.click("a[href*='/cavendish/webhooks?endpoint=shop']")
    window.click("form:last-of-type [value=revive]")
    seen(window, "3 dead letters will be sent again")
    window.click(".btn-danger")
    seen(window, "3 of 3 revived: done")
    assert window.run("return document.documentElement.scrollWidth <= innerWidth")
    wait_until(lambda: len(heard) == 6, 60, "the shop has heard of all")


@pytest.mark.timeout(300)
def test_a_batch_on_flowers_own_page_of_a_task_links_to_its_ids(
    operator: tuple[Stack, Browser, str],
) -> None:
    """Flower shows batches; whoever looks at one wants its ids."""
    stack, window, pages = operator
    ids = stack.create(5)
    assert stack.cavendish("submit", "--service", SERVICE, *ids).code == 0
    rows = "/tasks/datatable?draw=1&start=0&length=50&order[0][column]=0&search[value]="

    def batch() -> str | None:
        answer = httpx.get(
            stack.facts["flower"] + rows, auth=("ada", PASSWORD), trust_env=False
        ).json()["data"]
        settled = [one["uuid"] for one in answer if re.search(r"[1-9] settled", str(one["result"]))]
        return settled[0] if settled else None

    task = wait_until(batch, 60, "a batch has settled some")
    window.open(f"{stack.facts['flower']}/task/{task}")
    link = window.run("return document.querySelector('.detail-actions a').href")
    assert any(each in window.open(link) for each in ids)
    assert pages in link


def spoiled(store: Store, client: Client, hook: str) -> None:
    """An id of which each text that a stranger may choose would be a script."""
    client.submit(
        [Task(EVIL, key=EVIL, metadata={EVIL: EVIL, "x": "</script>"})],
        service=SERVICE,
        producer=EVIL,
        model=EVIL,
        webhook=hook,
        group="g" + EVIL[:60],
    )
    now = store.fleet.now()
    store.tasks.claim(LANE, now + 200, "t", store.tasks.candidates(LANE, now + 100, 10))
    task = store.tasks.load(LANE, [EVIL]).tasks[EVIL]
    record = {"id": EVIL, EVIL: [EVIL, "javascript:hacked=1", "https://x.example/a.png?\"'><b>"]}
    outcome = Outcome(task, State.FAILED, EVIL, record=record)
    store.tasks.settle(LANE, "t", now, [(outcome, 0.0)], 3600, 10)
    store.deliveries.sort([LANE], now)
    (name,) = (f"{each}:{EVIL}" for each in task.webhooks if not each.startswith("+"))
    endpoint = name.partition(":")[0].partition(".")[0]
    store.deliveries.claim_delivery(LANE, now + 1, now + 60, "t", 9, {endpoint: 9})
    met = {"at": now, "outcome": "HTTP 500", "status": 500, "answer": EVIL, "address": "<b>"}
    store.deliveries.bury(LANE, "t", now, [Attempt(name, EVIL, json.dumps(met))], 3600)
    store.shared_state.change_circuit(endpoint, lambda known: failed(known, now, now, 0, 0, EVIL))
    client.submit([f"pending {EVIL}"], service=SERVICE)
    client.set_deadline([f"pending {EVIL}"], 3600, service=SERVICE, by=EVIL)


@pytest.mark.timeout(300)
def test_no_text_of_a_stranger_runs_as_a_script(
    server: Server, store: Store, client: Client, tmp_path: Path
) -> None:
    """In an id, a key, a producer, a model, metadata, a record, a reason, an answer, an address."""
    need("chromium", "chromedriver")
    spoiled(store, client, f"https://a.example/{quote(EVIL)}")
    client.pause("default", reason=EVIL, by=EVIL)
    with flower(server.url, tmp_path) as http, browser() as window:
        base = str(http.base_url).replace("http://", f"http://ada:{quote(LOGIN[1])}@")
        window.open(f"{base}/cavendish")
        (subscription,) = (
            each
            for each in client.get(EVIL, service=SERVICE).webhooks  # type: ignore[union-attr]
            if not each.startswith("+")
        )
        endpoint = subscription.partition(".")[0]
        found = http.get("/cavendish/ids", params={"q": EVIL}).headers["Location"]
        for place in (
            "/cavendish",
            "/cavendish/ids",
            f"/cavendish/ids?q={quote(EVIL)}x",
            f"/cavendish/ids?producer={quote(EVIL)}&since={quote(EVIL)}",
            found,
            f"{found}?images=1",
            "/cavendish/webhooks",
            f"/cavendish/webhooks?reason={quote(EVIL[:10])}&endpoint={quote(EVIL)}",
            f"/cavendish/webhooks?named={quote(EVIL)}",
            f"/cavendish/endpoint/{endpoint}?url=1",
            f"/cavendish/id/{SERVICE}/{quote(f'pending {EVIL}', safe='')}",
            f"/cavendish/act?verb=forget&until=9e9&producer={quote(EVIL)}&model={quote(EVIL)}",
            f"/cavendish/act?verb={quote(EVIL)}",
            "/cavendish/dead?verb=revive&until=9e9",
            f"/cavendish/dead?verb=drop&until=9e9&reason={quote(EVIL[:10])}",
            f"/cavendish/account/{quote(EVIL, safe='')}",
            "/cavendish/account/default",
            "/cavendish/actions",
            f"/cavendish/id/{quote(EVIL, safe='')}/{quote(EVIL, safe='')}",
        ):
            text = window.open(str(http.base_url) + place)
            assert window.run("return typeof hacked") == "undefined", place
            assert window.run("return document.querySelectorAll('main script').length") == 0
            assert "49" not in re.findall(r"\"(\d+)$", text), place
        page = window.open(str(http.base_url) + found)
        assert page.count(EVIL) >= 6  # it is shown as the text that it is


@pytest.mark.timeout(300)
def test_a_foreign_page_neither_reads_nor_does_anything_with_the_login_of_a_browser(
    server: Server, store: Store, client: Client, served: Served, tmp_path: Path
) -> None:
    """A browser sends its login along wherever a page makes it go."""
    need("chromium", "chromedriver")
    client.submit(["secret-id"], service=SERVICE)
    with flower(server.url, tmp_path) as http, browser() as window:
        here = str(http.base_url).rstrip("/")
        form = (
            f'<form id=f method=post action="{here}/cavendish/act" target=w>'
            "<input name=verb value=forget><input name=confirmed value=yes>"
            f'<input name=id value="default {SERVICE} secret-id"></form><iframe name=w></iframe>'
            f'<iframe src="{here}/cavendish/ids"></iframe>'
        )

        async def foreign(_request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, html=f"<!doctype html><body>{form}</body>")

        evil = served(foreign).replace("127.0.0.1", "localhost")
        assert "secret-id" in window.open(
            f"{here.replace('http://', f'http://ada:{quote(LOGIN[1])}@')}/cavendish/ids"
        )
        window.open(evil)
        read = (
            "var done = arguments[arguments.length - 1], all = [];"
            f"fetch('{here}/cavendish/ids', {{credentials: 'include'}})"
            ".then(a => a.text(), e => 'refused').then(t => { all.push(t);"
            f"return fetch('{here}/cavendish/ids', {{mode: 'no-cors', credentials: 'include'}})"
            ".then(a => a.text(), e => 'refused') }).then(t => { all.push(t); done(all) });"
        )
        for answer in window.wait_for(read):
            assert "secret-id" not in answer
        window.run("document.getElementById('f').submit()")
        window.run(
            f"fetch('{here}/cavendish/act', {{method: 'POST', mode: 'no-cors',"
            "credentials: 'include', body: new URLSearchParams("
            f"{{verb: 'forget', confirmed: 'yes', id: 'default {SERVICE} secret-id'}})}})"
        )
        http.get("/cavendish")  # the others have been answered by then, or nothing will
        assert store.shared_state.bulk_actions().latest == ()
        assert client.get("secret-id", service=SERVICE) is not None


@pytest.mark.timeout(300)
def test_axe_finds_no_fault_on_any_page_in_light_and_dark(
    server: Server, store: Store, client: Client, tmp_path: Path
) -> None:
    """Needs axe-core: `make axe` fetches it once; AXE names the file."""
    need("chromium", "chromedriver")
    place = Path(os.environ.get("AXE", Path(__file__).parents[1] / ".axe" / "axe.min.js"))
    if not place.exists():
        pytest.skip("axe-core is not there: make axe")
    axe = place.read_text()
    client.add_endpoint("shop", "https://a.example/", unencrypted=True)
    spoiled(store, client, "https://a.example/hook")
    client.submit(["one"], service=SERVICE, webhook="shop")
    client.disable_endpoint("shop")
    client.pause("default", service=SERVICE, reason="new token", by="ada")
    now = store.fleet.now()
    store.attempt_counts.add({"shop": (97, 3)}, now)
    action = BulkAction("0" * 16, "cancel", "ada", now, 3, "{}", owner="x", seen_at=now)
    note = Note(now, "ada", "Endpoint shop disabled")
    store.shared_state.change_bulk_actions(lambda known: (known.with_new(action).noted(note), None))
    check = (
        "var done = arguments[arguments.length - 1];"
        "axe.run().then(r => done(r.violations.map(v => [v.id, v.nodes[0].html])))"
    )
    with flower(server.url, tmp_path) as http, browser() as window:
        base = str(http.base_url)
        window.open(base.replace("http://", f"http://ada:{quote(LOGIN[1])}@") + "/cavendish")
        found = http.get("/cavendish/ids", params={"q": EVIL}).headers["Location"]
        faults: list[Any] = []
        for theme in ("light", "dark"):
            window.run(f"localStorage.setItem('flower-theme', '{theme}')")
            for page in (
                "/cavendish",
                "/cavendish/ids",
                "/cavendish/ids?since=x",
                found,
                "/cavendish/webhooks",
                "/cavendish/endpoint/shop",
                "/cavendish/account/default",
                "/cavendish/actions",
                f"/cavendish/action/{action.id}",
                "/cavendish/act?verb=deadline&until=9e9",
                "/cavendish/act?verb=cancel&until=9e9",
                "/cavendish/dead?verb=drop&until=9e9",
            ):
                window.open(base + page)
                window.run(f"{axe};window.axe = axe")
                faults += [(theme, page, *one) for one in window.wait_for(check)]
            window.open(f"{base}/cavendish/ids")
            window.click("main [value=cancel]")
            window.run(f"{axe};window.axe = axe")
            faults += [(theme, "confirm", *one) for one in window.wait_for(check)]
        assert faults == []
