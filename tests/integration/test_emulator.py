"""The emulated API's accounts: what one token sees and spends is nothing to another."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from cavendish_worker.cli import cli
from cavendish_worker.devstack.emulator.limits import Bucket, steps
from cavendish_worker.devstack.emulator.tasks_api import Emulator, EmulatorConfig, transport


class Api:
    """An emulated API with two tokens, asked at moments that the test decides."""

    def __init__(self, **config: Any) -> None:
        self.now = 1000.0
        self.emulator = Emulator(
            EmulatorConfig(tokens=("one", "two"), latency=0.0, visible_after=0.0, **config),
            lambda: self.now,
        )

    def ask(
        self, method: str, path: str, token: str = "", body: dict[str, Any] | None = None
    ) -> httpx.Response:
        async def once() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=transport(self.emulator.handle), base_url="http://api"
            ) as client:
                return await client.request(
                    method, path, json=body, headers={"authorization": f"Bearer {token}"}
                )

        return asyncio.run(once())

    def create(self, count: int, token: str) -> list[str]:
        ids: list[str] = self.ask(
            "POST", f"/emulator/tasks?token={token}", body={"count": count}
        ).json()["ids"]
        return ids

    def batch(self, token: str, ids: list[str]) -> httpx.Response:
        question = {"action": "retrieve_batch", "ids": ids, "limit": len(ids)}
        return self.ask("POST", "/nano-banana/tasks", token, question)


def test_the_tasks_of_another_token_poll_unknown() -> None:
    api = Api(rate=0.0)
    ids = api.create(2, "one")
    assert len(api.batch("one", ids).json()["items"]) == 2
    assert api.batch("two", ids).json() == {"items": [], "count": 0}
    assert (
        api.ask("POST", "/nano-banana/tasks", "two", {"action": "retrieve", "id": ids[0]}).json()
        == {}
    )


def test_a_token_spends_its_own_limit_only() -> None:
    api = Api(rate=1.0, burst=2.0)
    assert [api.batch("one", ["a"]).status_code for _ in range(3)] == [200, 200, 429]
    assert api.batch("two", ["a"]).status_code == 200
    assert api.ask("GET", "/emulator/tally?token=one").json()["answers"] == {
        "retrieve_batch": 2,
        "429": 1,
    }
    assert api.ask("GET", "/emulator/tally?token=two").json()["calls"] == 1


def test_equal_accounts_get_tasks_that_take_equally_long() -> None:
    api = Api()
    api.create(5, "one"), api.create(5, "two")
    one, two = (
        [job.finished_at for job in account.jobs.values()]
        for account in api.emulator.accounts.values()
    )
    assert one == two


def test_the_ledger_keeps_the_first_answer_that_told_that_a_task_is_finished() -> None:
    api = Api(rate=0.0, median=10.0, sigma=0.0)
    (task_id,) = api.create(1, "two")
    api.batch("two", [task_id])
    api.now = 1012.0
    untold = api.ask("GET", "/emulator/ledger?token=two").json()["tasks"]
    assert untold == [{"id": task_id, "created_at": 1000.0, "finished_at": 1010.0, "told_at": None}]
    for api.now in (1013.0, 1014.0):
        api.batch("two", [task_id])
    assert [
        task["told_at"] for task in api.ask("GET", "/emulator/ledger?token=two").json()["tasks"]
    ] == [1013.0]
    assert api.ask("GET", "/emulator/ledger?token=one").json() == {"tasks": []}


@pytest.mark.parametrize("path", ["/emulator/tally?token=three", "/emulator/nothing"])
def test_what_does_not_exist_is_not_found(path: str) -> None:
    assert Api().ask("GET", path).status_code == 404


@pytest.mark.parametrize("authorization", ["one", "Basic one", "Bearer three", "Bearer ", ""])
def test_only_a_bearer_of_a_known_token_is_let_in(authorization: str) -> None:
    async def once() -> int:
        async with httpx.AsyncClient(
            transport=transport(Api().emulator.handle), base_url="http://api"
        ) as client:
            said = await client.post(
                "/nano-banana/tasks", json={}, headers={"authorization": authorization}
            )
            return said.status_code

    assert asyncio.run(once()) == 401


def test_a_limit_steps_at_its_moments_counted_from_the_begin() -> None:
    bucket = Bucket(6.0, 5.0, ((120.0, 3.0), (240.0, 6.0)))
    assert bucket.rate_at(5000.0) == 6.0
    bucket.begin(1000.0)
    bucket.begin(1100.0)
    assert [bucket.rate_at(1000.0 + age) for age in (0, 119, 120, 239, 240, 999)] == [
        6,
        6,
        3,
        3,
        6,
        6,
    ]


def test_a_bucket_lets_its_rate_through_and_its_burst_after_a_rest() -> None:
    bucket = Bucket(3.0, 5.0)
    assert sum(bucket.take(now / 128) for now in range(1281)) == 5 + 30
    assert sum(bucket.take(100.0) for _ in range(20)) == 5


def test_steps_are_written_as_seconds_and_rate() -> None:
    assert steps(("240:6", "120:3")) == ((120.0, 3.0), (240.0, 6.0))
    for text in ("120", "x:3", "120:-1", "nan:3", "120:nan"):
        with pytest.raises(ValueError, match=r"."):
            steps((text,))


@pytest.mark.parametrize(
    "words",
    ["--port 99999", "--port -1", "--rate nan", "--burst 0", "--most-ids 0", "--faults nan"],
)
def test_an_option_that_cannot_be_meant_is_refused(words: str) -> None:
    """A port beyond the last one was another port."""
    done = CliRunner().invoke(cli, ["emulate", *words.split()])
    assert (done.exit_code, "Invalid value" in done.output) == (2, True)


def test_a_service_that_is_not_served_has_no_route() -> None:
    def status(api: Api, service: str) -> int:
        return api.ask("POST", f"/{service}/tasks", "one", {"id": "a"}).status_code

    assert status(Api(rate=0.0), "kickart") == 200
    assert status(Api(rate=0.0), "kikart") == 404
    assert status(Api(rate=0.0, services=("kikart",)), "kikart") == 200
