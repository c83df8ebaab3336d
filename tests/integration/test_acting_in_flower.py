"""What operators do to ids on our pages inside Flower: confirmed, watched, stopped, taken up again;
and what nobody else can make them do.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from cavendish import Client
from cavendish.endpoints.webhook_endpoint import endpoint_in
from cavendish.filter import Filter
from cavendish.model import Lane
from cavendish.policy.bulk_actions import BulkAction, BulkActions, fields_of
from cavendish.replay import Replay
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.deliveries import Attempt
from cavendish.store.keys import LaneKeys
from cavendish_worker.console.bulk_runner import BulkRunner
from conftest import Server
from delivering import Delivering
from ending import settle
from flowering import flower, process_of_flower
from servers import eventually
from shell import Run

SERVICE = "nano-banana"
LANE = Lane("default", SERVICE)
OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def http(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """One Flower for the tests of this file."""
    with flower(server.url, tmp_path_factory.mktemp("flower")) as opened:
        yield opened


def fields(page: str) -> dict[str, Any]:
    """What the last form of a page that names a token sends, by name."""
    form = page.rpartition('name="token"')
    form_text = form[0].rpartition("<form")[2] + form[1] + form[2].partition("</form>")[0]
    found: dict[str, Any] = {}
    for tag in re.findall(r"<input[^>]*>", form_text):
        name, value = re.search(r'name="([^"]*)"', tag), re.search(r'value="([^"]*)"', tag)
        if name and 'type="checkbox"' not in tag:
            found.setdefault(name[1], []).append(value[1] if value else "")
    return found


def asked(http: httpx.Client, verb: str, **said: Any) -> httpx.Response:
    """The page that asks to confirm."""
    token = fields(http.get("/cavendish/ids?q=nobody-has-it").text).get("token")
    token = token or fields(http.get(f"/cavendish/id/{SERVICE}/a").text)["token"]
    data = {"token": token, "verb": verb, **said}
    return http.post("/cavendish/act", data=data, headers=OURS, follow_redirects=True)


def confirmed(http: httpx.Client, page: httpx.Response, **more: str) -> httpx.Response:
    """The page of the action, once it was confirmed."""
    answer = http.post(
        "/cavendish/act", data=fields(page.text) | more, headers=OURS, follow_redirects=True
    )
    assert answer.status_code == 200, answer.text
    return answer


def ended(store: Store) -> BulkAction:
    """The latest action, once it has ended."""
    eventually(
        lambda: store.shared_state.bulk_actions().latest[0].state != "running", "it has ended", 60
    )
    return store.shared_state.bulk_actions().latest[0]


def test_a_thousand_wrong_ids_are_counted_and_cancelled_and_each_says_by_whom(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """Those of another producer, and those that come later, stay."""
    client.submit(["a"], service=SERVICE)
    client.submit([f"w-{n}" for n in range(1000)], service=SERVICE, producer="careless")
    page = asked(http, "cancel", producer="careless")
    counted, where = "1,000 ids</strong> will be cancelled", str(page.url)
    eventually(lambda: counted in http.get(where).text, "counted")
    client.submit(["later"], service=SERVICE, producer="careless")
    confirmed(http, page, reason="wrong model")
    action = ended(store)
    assert (action.state, action.done, action.left) == ("done", 1000, 0)
    assert client.count(Filter(state="cancelled")) == 1000
    one = client.get("w-7", service=SERVICE)
    assert one is not None
    assert one.reason == "cancelled by ada in Flower: wrong model"
    assert {task.id for task in client.list(Filter(state="pending")).items} == {"a", "later"}


def test_named_ids_get_a_deadline_are_forgotten_and_each_page_tells_who_did_it(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """The ids that a person has selected, of whatever service."""
    client.submit(["a", "b c"], service=SERVICE)
    ids = [f"default {SERVICE} a", f"default {SERVICE} b c"]
    confirmed(http, asked(http, "deadline", id=ids), **{"in": "2h"})
    assert ended(store).done == 2
    one = client.get("b c", service=SERVICE)
    assert one is not None
    assert abs(one.deadline_at - store.fleet.now() - 7200) < 60
    page = http.get(f"/cavendish/id/{SERVICE}/b%20c").text
    assert "Deadline moved" in page
    assert "by ada in Flower, to 20" in page
    confirmed(http, asked(http, "forget", id=ids[1:]))
    assert ended(store).done == 1
    assert client.get("b c", service=SERVICE) is None
    assert "2 ids" not in http.get("/cavendish/actions").text
    assert "1 of 1 forgotten" in " ".join(http.get("/cavendish/actions").text.split())


def test_an_id_tells_who_moved_its_deadline_by_a_filter_and_who_had_its_webhooks_sent_again(
    http: httpx.Client, client: Client, store: Store, endpoint_index: Delivering, run: Run
) -> None:
    """Whatever door they came through; the latest of many are kept."""
    client.submit(["a", "b"], service=SERVICE, producer="shop", webhook="http://127.0.0.1:1/x")
    confirmed(http, asked(http, "deadline", producer="shop"), **{"in": "3h"})
    assert ended(store).done == 2
    client.set_deadline(["a"], 7200, service=SERVICE, by="grace")
    run("deadline", "--service", SERVICE, "--in", "2h", "--by", "linus", "a")
    page = http.get(f"/cavendish/id/{SERVICE}/a").text
    for name in ("ada in Flower", "grace", "linus"):
        assert f"by {name}, to 20" in page
    assert "grace" not in http.get(f"/cavendish/id/{SERVICE}/b").text
    assert "by linus" in run("show", "a").stdout
    for number in range(50):
        client.set_deadline(["b"], 7200, service=SERVICE, by=f"operator {number}")
    kept = [act.by for act in client.get("b", service=SERVICE).acts]  # type: ignore[union-attr]
    assert 5 < len(kept) < 40
    assert kept[-1] == "operator 49"
    settle(store, LANE, "b")
    buried = bury(store, client, "a", "b")
    assert run("dead", "revive", "--all").exit_code == 0
    page = http.get(f"/cavendish/id/{SERVICE}/{buried[0]}").text
    assert "Dead letter revived" in page


def bury(store: Store, client: Client, *ids: str) -> list[str]:
    """Make dead letters of the webhooks of ids; which ids had any."""
    now = store.fleet.now()
    store.deliveries.sort([LANE], now)
    rooms = {endpoint_in(name): 9999 for task_id in ids for name in names_of(client, task_id)}
    names = store.deliveries.claim_delivery(LANE, now + 1, now + 60, "t", 20_000, rooms)
    for start in range(0, len(names), 1000):
        attempts = [Attempt(name, "HTTP 500") for name in names[start : start + 1000]]
        store.deliveries.bury(LANE, "t", now, attempts, 3600)
    return [name.partition(":")[2] for name in names]


def names_of(client: Client, task_id: str) -> list[str]:
    """The deliveries of an id."""
    task = client.get(task_id, service=SERVICE)
    return [f"{each}:{task_id}" for each in task.webhooks] if task else []


@pytest.mark.timeout(240)
def test_all_dead_letters_are_revived_once_each_although_flower_is_killed_in_between(
    own_server: Server, tmp_path: Path
) -> None:
    """More than one command takes; they are counted first, and the page shows how far it is."""
    store, mine = Store(own_server.url), Settings.load({"CAVENDISH_REDIS_URL": own_server.url})
    many = 12_000
    with Client(settings=mine) as client:
        for start in range(0, many, 1000):
            ids = [f"id-{n}" for n in range(start, start + 1000)]
            client.submit(ids, service=SERVICE, webhook="https://a.example/x")
            settle(store, LANE, *ids)
            bury(store, client, ids[0])
        known = store.shared_state.bulk_actions
        with process_of_flower(own_server.url, tmp_path) as (http, process):
            token = fields(http.get("/cavendish/webhooks").text)["token"]
            form = {"token": token, "verb": "revive", "reason": "http 5"}

            def page() -> httpx.Response:
                return http.post("/cavendish/dead", data=form, headers=OURS, follow_redirects=True)

            where = str(page().url)
            eventually(
                lambda: f"{many:,} dead letters</strong> will be" in http.get(where).text, "counted"
            )
            confirm = fields(http.get(where).text)
            with contextlib.suppress(httpx.TransportError):
                http.post("/cavendish/dead", data=confirm, headers=OURS, timeout=0.1)
            eventually(lambda: known().latest and known().latest[0].done, "it has begun", 60)
            process.kill()
            process.wait(30)
        begun = known().latest[0]
        assert (begun.state, begun.counted, begun.whole) == ("running", many, True)
        assert 0 < begun.done < many
        assert begun.began_at < store.fleet.now()
        name = next(iter(names_of(client, "id-0")), "")
        store.connection.redis.zadd(LaneKeys(LANE).dead, {name: store.fleet.now()})
        with flower(own_server.url, tmp_path) as http:
            eventually(lambda: known().latest[0].state == "done", "another one has done it", 90)
            shown = http.get(f"/cavendish/action/{begun.id}").text
            assert "revived" in shown
        left = store.closed.dead(LANE)
        assert [one.name for one in left] in ([name], [])  # what died again since is left alone
    store.close()


def test_selected_dead_letters_are_dropped_and_a_running_drop_is_stopped(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """By their names they are found without a look at all others."""
    ids = [f"id-{n}" for n in range(5)]
    client.submit(ids, service=SERVICE, webhook="https://a.example/x")
    settle(store, LANE, *ids)
    bury(store, client, "id-0")
    page = http.get("/cavendish/webhooks").text
    chosen = re.findall(r'name="delivery" value="([^"]*:id-[12])"', page)
    assert len(chosen) == 2
    token = fields(page)["token"]
    form = {"token": token, "verb": "drop", "delivery": chosen}
    preview = http.post("/cavendish/dead", data=form, headers=OURS)
    assert "2 dead letters</strong> will be forgotten for good" in preview.text
    done = http.post(
        "/cavendish/dead", data=fields(preview.text), headers=OURS, follow_redirects=True
    )
    assert "2</strong> of 2 dropped" in " ".join(done.text.split())
    assert sorted(one.task_id for one in store.closed.dead(LANE)) == ["id-0", "id-3", "id-4"]
    for bad in ("x", "default/nano-banana/0 x", "nothing x:y"):
        refused = http.post("/cavendish/dead", data=form | {"delivery": bad}, headers=OURS)
        assert (refused.status_code, "with its lane" in refused.text) == (400, True), bad
    now = store.fleet.now()
    running = BulkAction("2" * 16, "drop", "ada", now, 3, "{}", owner="x", seen_at=now, whole=False)
    store.shared_state.change_bulk_actions(lambda known: (known.with_new(running), None))
    shown = http.get(f"/cavendish/action/{running.id}").text
    assert "more than 3 dropped" in " ".join(shown.split())
    http.post(f"/cavendish/action/{running.id}", data=fields(shown), headers=OURS)
    assert ended(store).said == "stopped by ada"
    assert len(store.closed.dead(LANE)) == 3


def test_a_count_that_takes_long_goes_on_while_its_page_is_open(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """And somebody in a hurry need not wait for its end."""
    for start in range(0, 60_000, 10_000):
        ids = [f"id-{n}" for n in range(start, start + 10_000)]
        client.submit(ids, service=SERVICE, producer="shop" if start else "other")
    client.submit(["a"], service=SERVICE)
    page = asked(http, "forget", producer="other")
    seen = re.findall(r"(More than )?([\d,]+) ids</strong> will be forgotten", page.text)
    assert "Yes, go on" in page.text
    eventually(
        lambda: "10,000 ids</strong> will be forgotten" in http.get(str(page.url)).text, "counted"
    )
    assert seen
    assert "More than" not in http.get(str(page.url)).text


def test_webhooks_are_replayed_once_however_often_the_replay_runs(
    store: Store, client: Client, endpoint_index: Delivering
) -> None:
    """A process may die after it has reopened some, and before it has noted it."""
    client.submit(["a"], service=SERVICE, webhook="http://127.0.0.1:1/x")
    settle(store, LANE, "a")
    names = [f"{client.get('a', service=SERVICE).webhooks[0]}:a"]  # type: ignore[union-attr]
    store.deliveries.sort([LANE], store.fleet.now())
    now = store.fleet.now()
    endpoint = names[0].partition(":")[0]
    store.deliveries.claim_delivery(LANE, now + 1, now + 60, "t", 9, {endpoint: 9})
    before = f'{{"at":{now - 5},"outcome":"HTTP 500"}}'
    store.deliveries.bury(LANE, "t", now, [Attempt(names[0], "HTTP 500", before)], 3600)
    replay = Replay(store, now, "ada")
    assert [one.outcome for one in replay.of(LANE, ["a", "gone"])] == ["done", "unknown"]
    assert [one.outcome for one in replay.of(LANE, ["a"])] == ["ended"]  # it is pending
    store.deliveries.claim_delivery(LANE, now + 60, now + 90, "t", 9, {endpoint: 9})
    after = f'{before}\n{{"at":{now + 5},"outcome":"HTTP 204"}}'
    assert store.deliveries.delivered(LANE, "t", now, [Attempt(names[0], "HTTP 204", after)], 3600)
    assert [one.outcome for one in replay.of(LANE, ["a"])] == ["ended"]
    assert [one.outcome for one in Replay(store, now + 10, "ada").of(LANE, ["a"])] == ["done"]


def test_an_action_whose_process_died_is_taken_up_and_acts_on_none_twice(
    store: Store, client: Client, settings: Settings
) -> None:
    """What it had done stays counted, and the rest is done."""
    client.submit([f"w-{n}" for n in range(700)], service=SERVICE)
    now = store.fleet.now()
    client.cancel([f"w-{n}" for n in range(200)], service=SERVICE, by="ada in Flower")
    chosen = fields_of(Filter(state="pending"))
    action = BulkAction("0" * 16, "cancel", "ada in Flower", now, 700, chosen)
    action = replace(action, owner="dead", seen_at=now - 60, done=200)
    store.shared_state.change_bulk_actions(lambda known: (known.with_new(action), None))
    BulkRunner(store, settings).wake()
    assert (ended(store).done, ended(store).left) == (700, 0)
    assert client.count(Filter(state="cancelled")) == 700
    counts = store.statistics([LANE]).lanes[0].counts
    assert counts["cancelled"] == 700


@pytest.mark.timeout(180)
def test_an_action_goes_on_after_flower_was_killed_and_is_stopped_by_a_button(
    own_server: Server, tmp_path: Path
) -> None:
    """It lies in the store; any Flower carries it out, and any page stops it."""
    store, mine = Store(own_server.url), Settings.load({"CAVENDISH_REDIS_URL": own_server.url})
    with Client(settings=mine) as client:
        client.submit([f"w-{n}" for n in range(3000)], service=SERVICE)
        now = store.fleet.now()
        chosen = fields_of(Filter(service=SERVICE))
        action = BulkAction("0" * 16, "cancel", "ada", now, 3000, chosen, owner="x", seen_at=now)
        store.shared_state.change_bulk_actions(lambda known: (known.with_new(action), None))
        with flower(own_server.url, tmp_path) as http:  # the first process is taken for alive
            page = http.get(f"/cavendish/action/{action.id}").text
            assert "Stop it" in page
            where = f"/cavendish/action/{action.id}"
            http.post(where, data=fields(page), headers=OURS)
            assert "stopped by ada" in http.get(where).text
        assert client.count(Filter(state="cancelled")) == 0
        running = replace(action, id="1" * 16, owner="x", seen_at=now - 60)
        store.shared_state.change_bulk_actions(lambda known: (known.with_new(running), None))
        with flower(own_server.url, tmp_path):
            eventually(lambda: ended(store).state == "done", "another Flower has done it", 60)
        assert client.count(Filter(state="cancelled")) == 3000
    store.close()


@pytest.mark.timeout(240)
def test_ten_thousand_ids_are_cancelled_once_each_although_flower_is_killed_in_between(
    own_server: Server, tmp_path: Path
) -> None:
    """The next Flower waits until the first one has been silent for a while."""
    store, mine = Store(own_server.url), Settings.load({"CAVENDISH_REDIS_URL": own_server.url})
    with Client(settings=mine) as client:
        client.submit(["a"], service=SERVICE)
        client.submit([f"w-{n}" for n in range(10_000)], service=SERVICE, producer="careless")
        with process_of_flower(own_server.url, tmp_path) as (http, process):
            page = asked(http, "cancel", producer="careless")
            counted, confirm = "10,000 ids</strong> will be cancelled", str(page.url)
            eventually(lambda: counted in http.get(confirm).text, "counted", 30)
            page = http.get(confirm)
            with contextlib.suppress(httpx.TransportError):
                http.post("/cavendish/act", data=fields(page.text), headers=OURS, timeout=0.1)
            known = store.shared_state.bulk_actions
            eventually(lambda: known().latest and known().latest[0].done, "it has begun", 60)
            process.kill()
            process.wait(30)
        begun = known().latest[0]
        assert begun.state == "running"
        assert 0 < begun.done < 10_000
        with flower(own_server.url, tmp_path) as http:
            eventually(lambda: known().latest[0].state == "done", "another one has done it", 90)
            assert "done" in http.get(f"/cavendish/action/{begun.id}").text
        assert client.count(Filter(state="cancelled")) == 10_000
        ended_ids = [event.id for event in client.events(after="0", follow=False)]
        assert len(ended_ids) == len(set(ended_ids)) == 10_000
        assert store.statistics([LANE]).lanes[0].counts["cancelled"] == 10_000
    store.close()


def test_a_form_counts_only_from_this_site_with_its_token_and_a_login(
    http: httpx.Client, client: Client, store: Store, server: Server, tmp_path: Path
) -> None:
    """A foreign page can make a browser post, with the login that the browser knows."""
    client.submit(["a"], service=SERVICE)
    page = asked(http, "cancel", id=f"default {SERVICE} a")
    form = fields(page.text)
    here = str(http.base_url).rstrip("/")
    refused: list[tuple[dict[str, str], dict[str, Any]]] = [
        ({"Sec-Fetch-Site": "cross-site"}, form),
        ({"Sec-Fetch-Site": "same-site"}, form),
        ({"Origin": "https://evil.example"}, form),
        ({"Origin": "null"}, form),
        ({}, form),
        (OURS, form | {"token": "0" * 64}),
        (OURS, {name: value for name, value in form.items() if name != "token"}),
        (OURS, form | {"token": "ü"}),
    ]
    for headers, data in refused:
        assert http.post("/cavendish/act", data=data, headers=headers).status_code == 403
    assert http.request("OPTIONS", "/cavendish/act").status_code == 405
    for words in ("", "?verb=forget", "?verb=forget&confirmed=yes&all=yes"):
        assert http.get(f"/cavendish/act{words}").status_code == 400
    with flower(server.url, tmp_path, login=None) as open_one:
        data = form | {"token": fields(open_one.get("/cavendish/ids").text).get("token", "")}
        assert open_one.post("/cavendish/act", data=data, headers=OURS).status_code == 403
        assert open_one.get("/cavendish/act?verb=forget&until=9e9").status_code == 403
        assert 'name="verb"' not in open_one.get("/cavendish/ids").text
    assert store.shared_state.bulk_actions().latest == ()
    answer = http.post("/cavendish/act", data=form, headers={"Origin": here})
    assert answer.status_code == 303
    assert ended(store).done == 1


def test_a_wrong_value_is_refused_in_a_sentence(http: httpx.Client, client: Client) -> None:
    """A form may come from an old page, or from a hand."""
    client.submit(["a"], service=SERVICE)
    for said, words in (
        ({"verb": "x"}, "Choose what to do"),
        ({"verb": "cancel"}, "Choose ids, or a filter"),
        ({"verb": "cancel", "id": "a"}, "each with its account and service"),
        ({"verb": "cancel", "state": "failed"}, "Only pending ids"),
        ({"verb": "deadline", "confirmed": "yes", "all": "yes"}, "Enter the new deadline"),
        ({"verb": "cancel", "since": "soon"}, "is no time"),
        ({"verb": "cancel", "since": "nan"}, "is no time"),
    ):
        answer = asked(http, **said)  # type: ignore[arg-type]
        assert (answer.status_code, words in answer.text) == (400, True), said


def test_the_latest_actions_are_kept_and_none_that_still_runs_is_dropped() -> None:
    """However many there are."""
    known = BulkActions()
    for number in range(100):
        state = "running" if number % 10 == 0 else "done"
        one = BulkAction(str(number), "cancel", "ada", number, 1, state=state)
        known = known.with_new(one)
    assert BulkActions.from_json(known.to_json()) == known
    assert len(known.latest) == 30
    assert sum(one.state == "running" for one in known.latest) == 10
    assert BulkActions.from_json("[").latest == ()


@pytest.mark.parametrize("digits", [13, 400, 5000])
def test_a_count_that_nobody_can_have_counted_harms_no_action(
    http: httpx.Client, client: Client, store: Store, digits: int
) -> None:
    """What a form says of it is not believed: one that the store cannot read hid all actions."""
    client.submit(["a", "b"], service=SERVICE)
    confirmed(http, asked(http, "cancel", id=f"default {SERVICE} a"))
    confirmed(http, asked(http, "cancel", id=f"default {SERVICE} b"), counted="9" * digits)
    known = store.shared_state.bulk_actions().latest
    assert [(one.counted, one.done) for one in known] == [(1, 1)] * 2


def test_a_deadline_of_one_second_is_one_and_a_deadline_of_a_year_is_refused(
    http: httpx.Client, client: Client, store: Store
) -> None:
    """Before anything begins: an action that had to fail was begun."""
    client.submit(["a"], service=SERVICE)
    page = asked(http, "deadline", id=f"default {SERVICE} a")
    late = http.post("/cavendish/act", data=fields(page.text) | {"in": "365d"}, headers=OURS)
    assert (late.status_code, "within 1 s and 30 days" in late.text) == (400, True)
    assert store.shared_state.bulk_actions().latest == ()
    confirmed(http, page, **{"in": "1s"})
    assert ended(store).done == 1
