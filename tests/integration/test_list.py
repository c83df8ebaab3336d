"""`list`: every id that is tracked or kept, page by page, each once, whatever comes and goes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

import pytest

from cavendish import Client, Filter, SubmissionError
from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish.store.keys import LaneKeys
from shell import Run

SERVICE, HOOK = "nano-banana", "https://example.com/hook"
LANE = Lane("default", SERVICE)


def end(store: Store, *ids: str, lane: Lane = LANE, state: State = State.SUCCEEDED) -> None:
    """End pending ids, each with a record."""
    now = store.fleet.now()
    chosen = [one for one in store.tasks.candidates(lane, now + 9e9, 10**6) if one.id in set(ids)]
    for start in range(0, len(chosen), 500):
        some = chosen[start : start + 500]
        store.tasks.claim(lane, now + 60, "t", some)
        tasks = store.tasks.load(lane, [one.id for one in some], token="t").tasks.values()
        outcomes = [(Outcome(task, state, record={"of": task.id}), now) for task in tasks]
        store.tasks.settle(lane, "t", now, outcomes, 3600.0, 100)


def pages(client: Client, limit: int, found: Filter | None = None) -> Iterator[list[str]]:
    cursor, first = None, True
    while first or cursor:
        page = client.list(found, cursor=cursor, limit=limit)
        yield [task.id for task in page.items]
        cursor, first = page.next, False


def test_ended_ids_without_webhooks_are_listed_with_their_records_beyond_the_events(
    client: Client, store: Store
) -> None:
    """The stream of events holds 100 of them; each is there, once, with its record."""
    ids = [f"id-{number}" for number in range(3000)]
    client.submit(ids, service=SERVICE)
    end(store, *ids)
    found = list(client.iter(with_record=True))
    assert {task.id: task.record for task in found} == {each: {"of": each} for each in ids}
    assert len(found) == client.count() == 3000


def test_pages_hold_each_id_once_while_others_come_end_and_go(client: Client, store: Store) -> None:
    """A thousand ids share the time of one submit."""
    ids = [f"old-{number}" for number in range(1200)]
    client.submit(ids[:1000], service=SERVICE)
    client.submit(ids[1000:], service=SERVICE, webhook=HOOK)
    seen: list[str] = []
    for number, page in enumerate(pages(client, 100)):
        seen += page
        client.submit([f"new-{number}-{nth}" for nth in range(50)], service=SERVICE)
        end(store, *ids[number * 40 : number * 40 + 80])
    assert sorted(seen) == sorted(ids)
    assert seen[0] == "old-1199"  # the newest submit first


def test_a_cursor_stays_right_when_ids_around_it_are_forgotten(
    client: Client, store: Store
) -> None:
    client.submit([f"id-{number}" for number in range(30)], service=SERVICE)
    page = client.list(limit=10)
    for task_id in ("id-20", "id-19", "id-21", "id-5"):
        assert [one.outcome for one in client.forget([task_id], service=SERVICE)] == ["done"]
    rest = [task.id for task in client.list(cursor=page.next, limit=100).items]
    assert rest == [f"id-{number}" for number in range(18, -1, -1) if number != 5]


@pytest.mark.parametrize(
    ("found", "ids"),
    [
        (Filter(), "fedcba"),
        (Filter(state="failed"), "b"),
        (Filter(state=["failed", "succeeded"]), "cb"),
        (Filter(state="pending", producer="p1"), "d"),
        (Filter(producer=""), "f"),
        (Filter(model="veo-3"), "f"),
        (Filter(service="veo"), "f"),
        (Filter(account="other"), ""),
        (Filter(endpoint=HOOK), "fe"),
        (Filter(endpoint=HOOK, state="succeeded"), ""),
        (Filter(since=0.0, until=1.0), ""),
    ],
)
def test_a_filter_finds_what_matches_all_of_it(
    client: Client, store: Store, found: Filter, ids: str
) -> None:
    for number, task_id in enumerate("abcd"):
        client.submit([task_id], service=SERVICE, producer=f"p{number % 2}")
    client.submit(["e"], service=SERVICE, producer="p0", webhook=f"{HOOK}?order=7")
    client.submit(["f"], service="veo", model="veo-3", webhook=HOOK)
    end(store, "c")
    end(store, "b", state=State.FAILED)
    listed = [task.id for task in client.list(found).items]
    assert sorted(listed) == sorted(ids)
    assert client.count(found) == len(ids)


def test_times_compare_with_the_end_or_with_the_submit_while_an_id_is_pending(
    client: Client, store: Store
) -> None:
    client.submit(["a", "b"], service=SERVICE)
    end(store, "a")
    task = client.get("a", service=SERVICE)
    assert task
    assert task.settled_at
    at = task.settled_at
    assert [one.id for one in client.list(Filter(since=at, until=at)).items] == ["a"]
    assert {one.id for one in client.list(Filter(since=task.submitted_at)).items} == {"a", "b"}


def test_an_id_that_was_tracked_anew_is_listed_once(client: Client, store: Store) -> None:
    client.submit(["a", "b"], service=SERVICE)
    end(store, "a", state=State.FAILED)
    client.submit(["a"], service=SERVICE, restart=True)
    assert sorted(task.id for task in client.iter()) == ["a", "b"]
    assert list(pages(client, 2)) == [["a", "b"]]


def test_where_few_of_many_match_a_page_ends_before_it_took_too_long(
    client: Client, store: Store
) -> None:
    ids = [f"id-{number}" for number in range(3000)]
    client.submit(ids, service=SERVICE)
    end(store, "id-3")
    wanted = Filter(state="succeeded")
    first = store.search.page(wanted, None, 50, looked_at_most=2000)
    assert (first.items, bool(first.next)) == ((), True)
    assert [task.id for task in client.list(wanted, cursor=first.next).items] == ["id-3"]
    assert [task.id for task in client.iter(wanted)] == ["id-3"]


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "é", "MTIz"])
def test_a_cursor_that_no_page_ended_with_is_refused(client: Client, cursor: str) -> None:
    with pytest.raises(SubmissionError, match="not one that a page ended with"):
        client.list(cursor=cursor)


def test_a_cursor_of_another_filter_is_refused(client: Client) -> None:
    client.submit(["a", "b"], service=SERVICE)
    cursor = client.list(limit=1).next
    with pytest.raises(SubmissionError, match="another filter"):
        client.list(Filter(state="failed"), cursor=cursor)


@pytest.mark.parametrize(
    "wrong",
    [{"state": "done"}, {"state": ["failed", ""]}, {"since": "1h"}, {"until": float("nan")}],
)
def test_a_filter_with_wrong_values_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SubmissionError):
        Filter(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [0, 1001])
def test_a_page_has_a_bounded_size(client: Client, limit: int) -> None:
    with pytest.raises(SubmissionError, match="1 to 1000"):
        client.list(limit=limit)


def test_a_minute_of_which_nothing_is_kept_leaves_the_journal(client: Client, store: Store) -> None:
    client.submit([f"id-{number}" for number in range(600)], service=SERVICE)
    end(store, "id-7")
    redis, keys = store.connection.redis, LaneKeys(LANE)
    store.journal.forget(LANE, float("inf"))
    assert client.count() == 600
    redis.delete(*(keys.task(f"id-{number}") for number in range(600) if number != 599))
    store.journal.forget(LANE, float("inf"))
    assert client.count() == 1
    redis.delete(keys.task("id-599"))
    store.journal.forget(LANE, 0.0)  # it is not old enough
    assert redis.zcard(keys.minutes) == 1
    store.journal.forget(LANE, float("inf"))
    assert redis.keys(f"{keys.minutes[:-1]}*") == []


@pytest.fixture
def some(client: Client, store: Store) -> list[str]:
    ids = [f"id-{number:03}" for number in range(120)]
    client.submit(ids, service=SERVICE, metadata={"order": 7, "name": "größe, „x“"})
    end(store, *ids[:60])
    return ids


def test_the_command_says_what_was_cut_and_goes_on_by_cursor(run: Run, some: list[str]) -> None:
    seen: list[str] = []
    words: list[str] = []
    while True:
        done = run("list", "--json", "--limit", "50", *words)
        page = json.loads(done.stdout)
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        assert f"There are more: --cursor {page['next']} goes on" in done.stderr
        words = ["--cursor", page["next"]]
    assert sorted(seen) == some
    assert done.stderr == ""


def test_each_format_has_all_ids_with_their_records(run: Run, some: list[str]) -> None:
    lines = [
        json.loads(line)
        for line in run("list", "--all", "--records", "--format", "jsonl").stdout.splitlines()
    ]
    page = json.loads(run("list", "--all", "--records", "--format", "json").stdout)
    rows = list(
        csv.DictReader(io.StringIO(run("list", "--all", "--records", "--format", "csv").stdout))
    )
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert page == {"items": lines, "next": None}
    assert sorted(row["id"] for row in rows) == some
    for line, row in zip(lines, rows, strict=True):
        record = {"of": line["id"]} if line["state"] == "succeeded" else None
        assert line["record"] == (json.loads(row["record"]) if row["record"] else None) == record
        assert json.loads(row["metadata"]) == line["metadata"] == {"order": 7, "name": "größe, „x“"}


def test_without_records_an_item_does_not_look_as_if_it_had_none(run: Run, some: list[str]) -> None:
    page = json.loads(run("list", "--json").stdout)
    assert len(page["items"]) == 50
    assert all("record" not in item for item in page["items"])


def test_a_table_of_all_has_one_head_and_each_id_whole(run: Run, some: list[str]) -> None:
    lines = run("list", "--all").stdout.splitlines()
    assert lines[0].split()[:3] == ["id", "state", "lane"]
    assert sorted(line.split()[0] for line in lines[1:]) == some


def test_the_own_times_of_json_can_be_given_back(run: Run, some: list[str]) -> None:
    settled_at = json.loads(run("list", "--json", "--state", "succeeded").stdout)["items"][0][
        "settled_at"
    ]
    page = json.loads(
        run(
            "list", "--json", "--limit", "100", "--since", repr(settled_at), "--state", "succeeded"
        ).stdout
    )
    assert len(page["items"]) == 60


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--records"], "A table has no room for --records"),
        (["--json", "--format", "csv"], "--json is --format json"),
        (["--cursor", "nonsense"], "not one that a page ended with"),
        (["--endpoint", "nobody"], "No endpoint is registered as 'nobody'"),
    ],
)
def test_a_wrong_list_is_refused_in_one_sentence(
    run: Run, some: list[str], words: list[str], said: str
) -> None:
    done = run("list", *words)
    assert done.exit_code != 0
    assert said in (done.stderr or str(done.exception))
