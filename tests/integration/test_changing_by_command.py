"""`cancel`, `deadline` and `forget`: ids or a filter, a count before it, what became of each."""

from __future__ import annotations

import json

import pytest

from cavendish import Client, Filter
from cavendish.store import Store
from shell import Run

SERVICE = "nano-banana"


@pytest.fixture
def some(client: Client) -> list[str]:
    ids = [f"id-{number}" for number in range(40)]
    client.submit(ids, service=SERVICE, producer="careless", webhook="https://example.com/hook")
    client.submit(["right"], service=SERVICE)
    return ids


def test_named_ids_are_cancelled_and_an_unknown_one_is_told(
    run: Run, client: Client, some: list[str]
) -> None:
    done = run("cancel", "--service", SERVICE, "id-1", "id-2", "nobody", "--reason", "wrong model")
    assert (done.exit_code, done.stdout) == (1, "2 cancelled · 1 unknown\n")
    assert done.stderr == "nobody: not tracked for the service nano-banana\n"
    task = client.get("id-1", service=SERVICE)
    assert task
    assert task.reason.startswith("cancelled by ")
    assert task.reason.endswith(": wrong model")
    again = json.loads(run("cancel", "--service", SERVICE, "id-1", "--json").stdout)
    assert (again["cancelled"], again["ended"], again["unknown"]) == (0, 1, 0)
    assert again["items"] == [
        {"id": "id-1", "service": SERVICE, "account": "default", "outcome": "ended"}
    ]


def test_a_filter_is_counted_first_and_asks_for_yes(
    run: Run, client: Client, some: list[str]
) -> None:
    asked = run("cancel", "--producer", "careless")
    assert asked.exit_code == 2
    assert "40 ids would be cancelled: add --yes." in asked.stderr
    assert client.count(Filter(state="pending")) == 41
    done = run("cancel", "--producer", "careless", "--yes")
    assert (done.exit_code, done.stdout) == (0, "40 cancelled\n")
    assert [task.id for task in client.iter(Filter(state="pending"))] == ["right"]
    assert run("cancel", "--producer", "careless", "--yes").stdout == "no such ids\n"


def test_ids_come_from_stdin(run: Run, client: Client, some: list[str]) -> None:
    done = run("cancel", "--service", SERVICE, "-", "--silent", stdin="id-1\nid-2\n")
    assert done.stdout == "2 cancelled\n"
    assert client.count(Filter(state="cancelled")) == 2


def test_a_deadline_is_a_duration_from_now_on(
    run: Run, client: Client, store: Store, some: list[str]
) -> None:
    assert run("deadline", "--service", SERVICE, "--in", "600", "id-1").stdout == "1 changed\n"
    assert run("deadline", "--in", "2h", "--producer", "careless", "--yes").exit_code == 0
    times = {task.deadline_at for task in client.iter(Filter(producer="careless"))}
    assert len(times) == 1
    assert times.pop() == pytest.approx(store.fleet.now() + 7200, abs=60)


def test_forgetting_asks_for_yes_even_for_named_ids(
    run: Run, client: Client, some: list[str]
) -> None:
    asked = run("forget", "--service", SERVICE, "id-1")
    assert asked.exit_code == 2
    assert "1 id would be forgotten: add --yes." in asked.stderr
    assert client.get("id-1", service=SERVICE)
    assert run("forget", "--service", SERVICE, "--yes", "id-1").stdout == "1 forgotten\n"
    assert client.get("id-1", service=SERVICE) is None
    assert run("forget", "--all", "--yes").stdout == "40 forgotten\n"
    assert client.count() == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cancel"], "Name ids, or options such as --producer; --all means all ids."),
        (["cancel", "id-1"], "Name the --service of the ids."),
        (["cancel", "--service", SERVICE, "--producer", "p", "id-1"], "--producer finds ids"),
        (["cancel", "--state", "failed", "--yes"], "Only pending ids can be changed"),
        (["deadline", "--in", "soon", "--all"], "must be a duration such as 600"),
        (["deadline", "--in", "60d", "--service", SERVICE, "id-1"], "A deadline must lie within"),
        (["forget", "--endpoint", "x y", "--yes"], "no such ids"),
    ],
)
def test_a_wrong_value_is_explained_in_one_sentence_and_changes_nothing(
    run: Run, client: Client, some: list[str], words: list[str], said: str
) -> None:
    done = run(*words)
    assert said in done.output + (done.stderr or "") + str(done.exception)
    assert client.count(Filter(state="pending")) == 41
