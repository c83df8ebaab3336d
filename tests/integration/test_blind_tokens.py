"""A token for which the API knows nothing: nothing becomes unknown, everybody is told, and it ends
by itself. With a real Redis, and an API over real HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from cavendish.clock import Clock
from cavendish.model import Lane, State
from cavendish.policy.verdicts import AbsencePolicy
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts
from cavendish.store.keys import LaneKeys, visibility
from cavendish.submission import SubmitOptions
from cavendish_worker import doctor
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.polling.expire import ExpiryConfig, expire_overdue
from cavendish_worker.polling.retrieve import RetrieveConfig, Retriever
from cavendish_worker.polling.upstream import upstream_for
from cavendish_worker.telemetry import logs
from cavendish_worker.telemetry.snapshot import gather
from cavendish_worker.webhooks.reconcile import reconcile
from cavendish_worker.wording.notes import lane_notes
from delivering import Delivering
from shell import Run

LANE = Lane("default", "nano-banana")
IDS = [f"id-{number}" for number in range(60)]
Served = Callable[[Callable[[httpx.Request], object]], str]


class Api:
    """An API that knows some ids, as of one owner, and answers that there is nothing else."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.forbidden: set[str] = set()
        self.strangers = [{"id": "of-another-owner", "response": {"success": True}}]
        self.calls = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        question = json.loads(request.content)
        ids = question.get("ids") or [question["id"]]
        if self.forbidden & set(ids):
            return httpx.Response(403, json={"error": {"code": "forbidden"}})
        records: list[dict[str, Any]] = [{"id": one} for one in ids if one in self.known]
        if "ids" in question:
            items = records + self.strangers
            return httpx.Response(200, json={"items": items, "count": len(items)})
        return httpx.Response(200, json=records[0] if records else {})


class Polling:
    """A store with ids, and retrieves that ask about all of them as often as a test wants."""

    def __init__(self, store: Store, settings: Settings, loop: LoopThread, url: str) -> None:
        self.store, self.loop = store, loop
        self.settings = replace(settings, api_url=url)
        self.now = store.fleet.now()

    def add(self, *ids: str, ago: float = 100.0, deadline: float = 1000.0) -> None:
        options = SubmitOptions("nano-banana", "default", (), deadline, "", "", "", restart=False)
        self.store.tasks.add(ids, options, self.now - ago, self.now - ago)

    def poll(self, *, rounds: int = 1, owner: str = "emulated", polls: int = 2) -> None:
        """Ask about every pending id in batches of 50, whenever its next poll is due."""
        upstream = upstream_for(self.settings, {"default": owner})
        absence = AbsencePolicy(10.0, polls, 0.0)
        config = RetrieveConfig(60.0, 5.0, 0.0, absence, 3600.0, 100)
        forecasts = Forecasts(self.store.shared_state)
        retriever = Retriever(self.store, forecasts, upstream, self.loop, config)
        for number in range(rounds):
            due, redis = LaneKeys(LANE).due(""), self.store.connection.redis
            names = sorted(map(str, redis.zrange(due, 0, -1)))  # type: ignore[arg-type]
            names = names[2 * number :] + names[: 2 * number]  # each is confirmed in its turn
            redis.zadd(due, {name: place for place, name in enumerate(names)})
            for start in range(0, len(names), 50):
                now = self.store.fleet.now()
                batch = self.store.tasks.candidates(LANE, now, 1000)
                chosen = [one for one in batch if one.id in names[start : start + 50]]
                ids = self.store.tasks.claim(LANE, now + 60, "t1", chosen)
                retriever.retrieve(Clock(now), LANE, ids, "t1", now + 60)
        self.loop.run(upstream.close(), timeout=5)

    def states(self, ids: list[str]) -> set[State]:
        return {task.state for task in self.store.tasks.load(LANE, ids).tasks.values()}

    def ill(self) -> list[doctor.Finding]:
        found = doctor.examine(self.store, self.settings, offline=True)
        return [one for one in found if "service" in one.what and not one.ok]

    def blind_ids(self) -> int:
        (found,) = self.store.shared_state.visibilities([LANE])
        return found.absent if found.blind else 0


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def polling(
    store: Store, settings: Settings, loop: LoopThread, served: Served, api: Api
) -> Polling:
    polling = Polling(store, settings, loop, served(api))
    store.shared_state.change_rate_limit("default", lambda known: (replace(known, rate=1e6), None))
    return polling


def test_under_a_token_that_knows_nothing_no_id_of_sixty_becomes_unknown(
    polling: Polling, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.set_up("json", "info")
    polling.add(*IDS)
    polling.poll(rounds=4)
    assert polling.states(IDS) == {State.PENDING}
    assert polling.blind_ids() == 60
    lines = [line for line in capsys.readouterr().err.splitlines() if "account.blind" in line]
    assert len(lines) == 1
    assert "compare the token" in lines[0]


def test_show_says_how_often_the_api_did_not_find_a_pending_id(
    polling: Polling, api: Api, run: Run
) -> None:
    api.known = {"a"}
    polling.add("a", "b")
    polling.poll(rounds=2, polls=5)
    assert "not found  by the API, in the last 2 polls" in run("show", "b").stdout
    assert "not found" not in run("show", "a").stdout


def test_doctor_and_status_say_why(polling: Polling, run: Run) -> None:
    polling.add(*IDS)
    polling.poll()
    (finding,) = polling.ill()
    assert finding.what == "account default, service nano-banana"
    assert finding.found == "the API answers, but knows none of 60 ids under this token"
    assert "hides the tasks of other owners" in finding.advice
    done = run("doctor", "--offline")
    assert done.exit_code == 1
    assert "knows none of 60 ids" in done.output
    (lane,) = gather(polling.store, polling.settings)["lanes"]
    assert "default/nano-banana/0: the API answers, but knows none of 60 ids" in lane_notes(lane)[0]
    assert "knows none of 60 ids" in run("status").output
    metric = 'cavendish_service_blind_ids{account="default",service="nano-banana"} 60.0'
    assert metric in run("metrics").output


def test_operators_get_one_alert_for_each_time_that_a_token_is_blind(
    polling: Polling, served: Served, endpoint_index: Delivering
) -> None:
    got: list[dict[str, Any]] = []

    async def operations(request: httpx.Request) -> httpx.Response:
        got.append(json.loads(await request.aread()))
        return httpx.Response(204)

    url = served(operations)
    polling.add(*IDS)
    polling.poll()
    for _ in range(3):
        reconcile(polling.store, url, 3600, 3600)
    assert endpoint_index.deliver(operations=url).delivered == 1
    (told,) = got
    assert told["type"] == "account.blind"
    assert (told["data"]["account"], told["data"]["service"]) == ("default", "nano-banana")
    assert (told["data"]["ids"], told["data"]["reason"]) == (
        60,
        "the API answers, but knows none of 60 ids under this token",
    )


def test_one_gone_id_of_a_new_account_waits_and_is_reported_without_an_alert(
    polling: Polling,
) -> None:
    polling.add("gone")
    polling.poll(rounds=4)
    assert polling.states(["gone"]) == {State.PENDING}
    assert len(polling.ill()) == 1
    reconcile(polling.store, "https://example.com/operations", 3600, 3600)
    assert not polling.store.connection.redis.keys("cavendish:{cavendish/operations/0}:task:*")


def test_it_ends_by_itself_at_the_first_known_id_and_absences_count_again(
    polling: Polling, api: Api
) -> None:
    polling.add(*IDS)
    polling.poll(rounds=4)
    api.known = {IDS[0]}
    polling.poll()
    assert polling.states(IDS) == {State.PENDING}
    assert polling.ill() == []
    polling.poll(rounds=4, polls=1)
    assert polling.states(IDS[1:]) == {State.PENDING, State.UNKNOWN}


def test_after_twenty_absent_ids_without_a_known_one_nothing_becomes_unknown_either(
    polling: Polling, api: Api
) -> None:
    api.known = {"known"}
    polling.add("known")
    polling.poll()
    api.known = set()
    polling.add(*IDS)
    polling.poll(rounds=20, polls=60)
    assert polling.states(IDS) == {State.PENDING}
    assert polling.blind_ids() >= 20
    polling.poll(rounds=4, polls=1)
    assert polling.states(IDS) == {State.PENDING}
    assert "none of the last" in polling.ill()[0].found


def test_another_token_begins_anew(polling: Polling, api: Api) -> None:
    api.known = {"known"}
    polling.add("known")
    polling.poll()
    polling.add("gone")
    polling.poll(owner="another")
    assert polling.ill() == []  # `known` was known under it
    api.known = set()
    polling.poll(owner="a third", polls=1)
    assert polling.states(["gone", "known"]) == {State.PENDING}
    assert "none of 2 ids" in polling.ill()[0].found


def test_ids_that_the_account_may_not_ask_about_still_fail(polling: Polling, api: Api) -> None:
    api.forbidden = {"theirs"}
    polling.add("theirs")
    polling.poll(rounds=2)
    assert polling.states(["theirs"]) == {State.FAILED}
    assert polling.ill() == []


def test_the_reason_of_the_deadline_names_the_token(polling: Polling) -> None:
    polling.add(*IDS[:5])
    polling.poll()
    polling.add("late", ago=100.0, deadline=50.0)
    polling.add("later", ago=500.0, deadline=100.0)
    polling.store.connection.redis.zadd(LaneKeys(LANE).due(""), {"later": polling.now + 900})
    expire_overdue(polling.store, LANE, Clock(polling.now), ExpiryConfig(30.0, 3600.0, 100))
    polling.poll()
    tasks = polling.store.tasks.load(LANE, ["late", "later"]).tasks
    assert {task.state for task in tasks.values()} == {State.EXPIRED}
    assert all("knows none of" in task.reason for task in tasks.values())


def test_nothing_is_written_while_ids_are_known_and_the_token_is_not_stored(
    polling: Polling, api: Api
) -> None:
    api.known = set(IDS)
    polling.add(*IDS)
    polling.poll()
    redis = polling.store.connection.redis
    before = redis.hget(visibility(LANE), "version")
    polling.poll(rounds=3)
    assert redis.hget(visibility(LANE), "version") == before
    assert "emulated" not in str(redis.hgetall(visibility(LANE)))


def test_an_absent_id_under_a_blind_token_is_polled_less_and_less(polling: Polling) -> None:
    polling.add("gone")
    waits = []
    for _ in range(4):
        polling.poll()
        due = polling.store.connection.redis.zscore(LaneKeys(LANE).due(""), "gone")
        waits.append(round(due - polling.store.fleet.now()))  # type: ignore[operator]
    assert waits == sorted(set(waits))
