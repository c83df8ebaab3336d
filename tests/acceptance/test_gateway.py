"""The vendor's own SDK, unmodified, against `cavendish up` and the emulated API: nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from acedatacloud import AceDataCloud, AsyncAceDataCloud
from acedatacloud._runtime.tasks import task_status

from acceptance.conftest import SERVICE, Stack, wait_until
from cavendish import Client
from programs import CLIENTS, need

ROOT = Path(__file__).parents[2]
ENDS = {"succeeded", "failed"}


async def generate(address: str, count: int, done: Callable[[], None] | None = None) -> list[Any]:
    """Buy so many pictures with the SDK, and wait for all of them at once."""
    async with AsyncAceDataCloud(api_token="emulated", base_url=address) as sdk:
        handles = [
            await sdk.nano_banana.generate(action="generate", prompt=f"banana {number}")
            for number in range(count)
        ]
        waits = [asyncio.create_task(each.wait(max_wait=100)) for each in handles]
        await asyncio.sleep(0.5)
        if done:
            await asyncio.to_thread(done)
        return await asyncio.gather(*waits)


def verdicts(states: list[Any]) -> set[str]:
    return {task_status(state) for state in states}


def test_the_sdk_generates_waits_and_asks_for_many_at_once(start: Callable[..., Stack]) -> None:
    """Synchronously and asynchronously; a caller who wants the result itself is held for it."""
    stack = start("--median", "2")
    address = stack.facts["http"]
    with AceDataCloud(api_token="emulated", base_url=address) as sdk:
        handle = sdk.nano_banana.generate(action="generate", prompt="a banana", wait=True)
        assert task_status(handle.result()) in ENDS
        state = sdk.tasks.wait(handle.id, service=SERVICE)
        assert state == handle.result()
    states = asyncio.run(generate(address, 20))
    assert verdicts(states) <= ENDS
    assert len({state["id"] for state in states}) == 20
    asked = {"action": "retrieve_batch", "ids": [state["id"] for state in states]}
    headers = {"authorization": "Bearer emulated"}
    batch = httpx.post(f"{address}/{SERVICE}/tasks", json=asked, headers=headers, trust_env=False)
    assert batch.json() == {"items": states, "count": 20}
    with Client(stack.facts["store"]) as client:
        assert client.count() == 21


def test_no_wait_is_lost_while_the_api_refuses_and_fails(start: Callable[..., Stack]) -> None:
    """It takes two calls a second, and answers half of them with 500, 502, or not at all. A third
    429 in a row would end the wait of an SDK that asks it directly.
    """
    stack = start("--median", "4", "--rate", "2", "--faults", "0.5")
    states = asyncio.run(generate(stack.facts["http"], 60))
    assert len(states) == 60
    assert verdicts(states) <= ENDS


def test_no_wait_is_lost_when_redis_and_the_worker_are_killed(start: Callable[..., Stack]) -> None:
    stack = start("--median", "6")

    def mischief() -> None:
        stack.kill("redis")
        stack.kill("worker")

    states = asyncio.run(generate(stack.facts["http"], 20, mischief))
    assert len(states) == 20
    assert verdicts(states) <= ENDS


def test_no_wait_is_lost_in_an_outage_of_the_api(start: Callable[..., Stack]) -> None:
    """It refuses all calls, and then fails at all, for longer than an SDK bears that asks it
    directly: that is 3.3 s.
    """
    stack = start("--median", "3")

    def outage() -> None:
        for status in (429, 500):
            told = {"status": status, "seconds": 5}
            httpx.post(f"{stack.facts['api']}/emulator/outage", json=told, trust_env=False)
            time.sleep(5)

    states = asyncio.run(generate(stack.facts["http"], 20, outage))
    assert len(states) == 20
    assert verdicts(states) <= ENDS
    assert stack.tally()["answers"]["500"]
    assert stack.tally()["answers"]["429"]


def test_no_wait_is_lost_when_the_service_is_killed(start: Callable[..., Stack]) -> None:
    """Its socket lives on: whoever connects meanwhile waits for the next process."""
    stack = start("--median", "6")
    states = asyncio.run(generate(stack.facts["http"], 20, lambda: stack.kill("http")))
    assert len(states) == 20
    assert verdicts(states) <= ENDS


def test_an_id_bought_elsewhere_is_waited_for_as_well(start: Callable[..., Stack]) -> None:
    """Nobody submitted it to us: the first question lets it be tracked."""
    stack = start("--median", "1")
    ids = stack.create(5)

    def wait(task_id: str) -> Any:
        with AceDataCloud(api_token="emulated", base_url=stack.facts["http"]) as sdk:
            return sdk.tasks.wait(task_id, service=SERVICE, max_wait=60)

    with ThreadPoolExecutor(5) as pool:
        states = list(pool.map(wait, ids))
    assert [state["id"] for state in states] == ids
    assert verdicts(states) <= ENDS
    with Client(stack.facts["store"]) as client:
        assert client.count() == 5


def test_the_api_calls_back_and_each_end_is_still_what_a_poll_says(
    start: Callable[..., Stack],
) -> None:
    """Who buys through the gateway gets callbacks by itself; no line of the log shows a URL."""
    stack = start("--median", "4", "--callbacks", "1")
    states = asyncio.run(generate(stack.facts["http"], 20))
    assert verdicts(states) <= ENDS
    calls = [json.loads(line) for line in stack.lines().splitlines() if "/callbacks/" in line]
    assert [call["status"] for call in calls if call["event"] == "http.request"] == [204] * 20
    assert stack.facts["http"] not in json.dumps(calls)


@pytest.mark.skipif(find_spec("nanobanana_cli") is None, reason="`make setup` installs it")
def test_the_command_line_of_the_vendor_waits_and_asks_for_many(
    start: Callable[..., Stack],
) -> None:
    """Unmodified. It opens a connection for each poll."""
    stack = start("--median", "2")
    ready = f"{stack.facts['http']}/readyz"
    wait_until(lambda: httpx.get(ready, trust_env=False).is_success, 30, "the service listens")
    environment = os.environ | {
        "ACEDATACLOUD_API_BASE_URL": stack.facts["http"],
        "ACEDATACLOUD_API_TOKEN": "emulated",
    }

    def run(*words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "nanobanana_cli", *words, "--json"]
        said: dict[str, Any] = json.loads(subprocess.check_output(command, env=environment))
        return said

    ids = stack.create(3)
    states = [run("wait", task_id, "--interval", "1") for task_id in ids]
    assert [state["id"] for state in states] == ids
    assert verdicts(states) <= ENDS
    assert run("tasks", *ids) == {"items": states, "count": 3}


def test_the_mcp_server_of_the_vendor_buys_waits_and_asks_for_many(
    start: Callable[..., Stack],
) -> None:
    """Unmodified, over its standard input and output, as a model has it."""
    need("clients")
    stack = start("--median", "2")
    command = [sys.executable, str(ROOT / "tests/clients/mcp_session.py"), stack.facts["http"], "3"]
    environment = os.environ | {"PYTHONPATH": str(CLIENTS)}
    said = json.loads(subprocess.check_output(command, env=environment, timeout=100))
    assert all(end["is_complete"] != end["is_failed"] for end in said["polling"])
    assert said["batch"].startswith("Total Tasks: 3\n")
    assert all(f"=== Task: {task_id} ===" in said["batch"] for task_id in said["ids"])
    with Client(stack.facts["store"]) as client:
        assert client.count() == 3
