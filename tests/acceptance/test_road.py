"""The main job from end to end.

Ids go in, signed webhooks come out, and nothing is lost on the way.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from celery import Celery
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from acceptance.conftest import SERVICE, Stack, wait_until
from cavendish import Client
from cavendish.settings import Settings
from cavendish_worker.devstack.ports import is_free
from delivering import Served
from long_run import times

Start = Callable[..., Stack]
#: Ids that go through kills.
MANY = times(500, 2000)


class Verifier:
    """A receiver that believes the library of Standard Webhooks.

    `names` are the webhook-ids that each id came under.
    """

    def __init__(self, secret: str) -> None:
        self._webhook = Webhook(secret)
        self.names: dict[str, set[str]] = {}
        self.refused: list[str] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        try:
            said = self._webhook.verify(await request.aread(), dict(request.headers))
        except WebhookVerificationError as error:
            self.refused.append(str(error))
            return httpx.Response(401)
        self.names.setdefault(said["data"]["id"], set()).add(request.headers["webhook-id"])
        return httpx.Response(204)


def whole(stack: Stack, ids: list[str]) -> bool:
    return len(stack.ledger()["states"]) == len(ids)


def settled_early(stack: Stack, ids: list[str]) -> list[str]:
    """Ids that the store settled before they finished at the API."""
    finished = {
        task["id"]: task["finished_at"]
        for task in httpx.get(f"{stack.facts['api']}/emulator/ledger", trust_env=False).json()[
            "tasks"
        ]
    }
    with Client(settings=Settings.load({"CAVENDISH_REDIS_URL": stack.facts["store"]})) as client:
        tasks = client.get_many(ids, service=SERVICE, with_record=False)
    return [task_id for task_id in ids if (tasks[task_id].settled_at or 0.0) < finished[task_id]]


@pytest.mark.timeout(300)
def test_each_id_by_stdin_ends_in_one_verified_webhook_through_kills_and_a_restart(
    start: Start, served: Served
) -> None:
    """10 calls/s with 429 beyond, 5 % of calls fail, and every part is killed in the middle of it.

    Each id is announced to two receivers: the stack's own, and one that verifies with the library
    of Standard Webhooks.
    """
    soon = {
        "CAVENDISH_LEASE": "10",
        "CAVENDISH_CALL_TIMEOUT": "4",
    }  # what a killed worker held is due again after its lease
    config = ("--rate", "10", "--faults", "0.05", "--median", "5", "--sigma", "0.3")
    stack = start(*config, "--no-flower", **soon)
    ids, second = (
        stack.create(MANY),
        Verifier((stack.folder / "data" / "webhook-secret").read_text()),
    )
    hooks = ("--webhook", stack.facts["receiver"], "--webhook", served(second))
    said = stack.cavendish("submit", "--service", SERVICE, *hooks, "-", stdin="\n".join(ids))
    assert (said.returncode, said.stdout) == (0, f"{MANY} new\n")
    for part, share in (("worker", 0.1), ("beat", 0.25), ("redis", 0.4)):
        wait_until(
            lambda goal=share: len(stack.ledger()["states"]) > goal * len(ids),
            60,
            f"{share} announced",
        )
        stack.kill(part)
    wait_until(lambda: whole(stack, ids), 120, "all announced")
    ledger, tally = stack.ledger(), stack.tally()
    assert set(ledger["states"]) == set(ids)
    assert set(ledger["states"].values()) == {"succeeded", "failed"}
    assert ledger["under_two_ids"] == 0
    assert ledger["refused"] == []
    wait_until(
        lambda: [
            one
            for one in stack.status()["lanes"]
            if not (one["pending"] or one["deliveries_pending"])
        ],
        60,
        "all delivered",
    )
    (lane,) = stack.status()["lanes"]  # anew: the totals were read before what is pending
    counts = lane["counts"]
    assert (
        counts["succeeded"] + counts["failed"]
        == counts["submitted"]
        == counts["delivered"] / 2
        == MANY
    )
    assert {task_id: len(names) for task_id, names in second.names.items()} == dict.fromkeys(ids, 1)
    assert second.refused == []
    assert tally["tasks"] == tally["finished"] == MANY
    assert settled_early(stack, ids) == []
    # An id is asked about again only where an answer got lost between the API and the store: in a
    # killed worker.
    assert tally["repeated"] <= 100
    assert [line for line in stack.lines().splitlines() if "Traceback" in line] == []


@pytest.mark.timeout(300)
def test_no_call_asks_about_an_id_that_is_settled_though_two_beats_run(start: Start) -> None:
    stack = start(
        "--rate", "10", "--faults", "0.05", "--median", "2", "--sigma", "0.3", "--no-flower"
    )
    where = {
        "CAVENDISH_REDIS_URL": stack.facts["store"],
        "CAVENDISH_BROKER_URL": stack.facts["broker"],
    }
    second = subprocess.Popen(
        [sys.executable, "-m", "celery", "-q", "-A", "cavendish_worker", "beat"],
        env=stack.environment | where,
    )
    try:
        ids = stack.create(300)
        stack.cavendish(
            "submit",
            "--service",
            SERVICE,
            "--webhook",
            stack.facts["receiver"],
            "-",
            stdin="\n".join(ids),
        )
        wait_until(
            lambda: (
                sum(one["role"] == "beat" and one["alive"] for one in stack.status()["fleet"]) == 2
            ),
            60,
            "two beats",
        )
        wait_until(lambda: whole(stack, ids), 60, "all announced")
    finally:
        second.terminate()
        second.wait(10)
    assert stack.tally()["repeated"] == 0
    assert settled_early(stack, ids) == []
    assert stack.ledger()["repeats"] == 0


@pytest.mark.timeout(300)
def test_redis_away_for_a_while_is_waited_for_and_work_goes_on_with_the_same_processes(
    start: Start,
) -> None:
    """The server is stopped for eight seconds, long enough for every reconnect to have failed
    several times.
    """
    stack = start("--rate", "20", "--median", "2", "--no-flower")
    wait_until(
        lambda: any(one["role"] == "worker" for one in stack.status()["fleet"]),
        60,
        "the worker lives",
    )
    pids = stack.pids()
    os.kill(pids["redis"], signal.SIGSTOP)
    time.sleep(8)
    assert stack.cavendish("submit", "--service", SERVICE, "x").returncode == 1
    os.kill(pids["redis"], signal.SIGKILL)
    wait_until(lambda: stack.pids()["redis"] != pids["redis"], 60, "redis runs again")
    ids = stack.create(20)
    wait_until(
        lambda: (
            stack.cavendish("submit", "--service", SERVICE, "--deadline", "1", *ids).returncode == 0
        ),
        60,
        "submitted",
    )
    wait_until(lambda: stack.tally()["calls"] > 0, 60, "asked again")
    assert {part: pid for part, pid in stack.pids().items() if part != "redis"} == {
        p: pid for p, pid in pids.items() if p != "redis"
    }


@pytest.mark.timeout(300)
def test_a_producer_with_nothing_but_celery_and_the_states_that_end_otherwise(start: Start) -> None:
    """A message goes in.

    An id that the API never knew becomes unknown, and one that takes too long expires.
    """
    stack = start(
        "--rate", "20", "--median", "30", "--no-flower",
        CAVENDISH_ABSENT_GRACE="1", CAVENDISH_ABSENT_POLLS="2", CAVENDISH_ABSENT_OVER="1",
    )  # fmt: skip
    slow = stack.create(1)
    producer = Celery("a-producer", broker=stack.facts["broker"], set_as_current=False)
    hook = stack.facts["receiver"]
    for ids, deadline in ((["no-such-id"], 60), (slow, 4)):
        options = {
            "service": SERVICE,
            "webhook": hook,
            "deadline": deadline,
            "metadata": {"from": "celery"},
        }
        producer.send_task("cavendish.submit", args=[ids], kwargs=options, queue="cavendish.submit")
    producer.send_task(
        "cavendish.submit",
        args=[["x"]],
        kwargs={"service": "Not A Service"},
        queue="cavendish.submit",
    )
    producer.close()
    wait_until(lambda: len(stack.ledger()["states"]) == 2, 60, "both announced")
    assert stack.ledger()["states"] == {"no-such-id": "unknown", slow[0]: "expired"}
    shown = json.loads(stack.cavendish("show", "--service", SERVICE, "--json", "no-such-id").stdout)
    assert shown["metadata"] == {"from": "celery"}
    assert "reported the id as not found" in shown["reason"]
    wait_until(lambda: "submit.refused" in stack.lines(), 60, "the bad message is refused aloud")
    (refused,) = json.loads(stack.cavendish("refused", "list", "--json").stdout)
    assert (refused["kind"], refused["ids"], refused["service"]) == ("service", 1, "Not A Service")
    assert re.fullmatch(r"gen\d+@.+", refused["sender"])
    assert len(refused["task_id"]) == 36


@pytest.mark.timeout(300)
def test_flower_shows_readable_names_and_outcomes_and_no_secret_is_logged(start: Start) -> None:
    secret = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="
    stack = start(
        "--rate",
        "20",
        "--median",
        "1",
        CAVENDISH_WEBHOOK_SECRET=secret,
        FLOWER_UNAUTHENTICATED_API="true",
    )
    workers = f"{stack.facts['flower']}/api/workers?status=1"
    wait_until(
        lambda: any(httpx.get(workers, trust_env=False).json().values()),
        60,
        "Flower hears of the worker",
    )
    ids = stack.create(20)
    stack.cavendish("submit", "--service", SERVICE, "--webhook", stack.facts["receiver"], *ids)
    wait_until(lambda: whole(stack, ids), 60, "all announced")

    def retrieves() -> list[dict[str, str]]:
        tasks = httpx.get(
            f"{stack.facts['flower']}/api/tasks",
            params={"taskname": "cavendish.retrieve"},
            trust_env=False,
        ).json()
        return [task for task in tasks.values() if task["state"] == "SUCCESS"]

    done = wait_until(retrieves, 60, "Flower shows a retrieve")
    assert "asked" in done[0]["result"]
    assert "nano-banana/0" in done[0]["args"]
    assert "QUJDREVG" not in stack.lines()
    assert "Bearer" not in stack.lines()


@pytest.mark.timeout(120)
def test_up_with_several_workers_gives_each_metrics_of_its_own_and_starts_each_again(
    start: Callable[..., Stack],
) -> None:
    # Below the ports that the system gives to whoever asks for any.
    some = random.sample(range(20_000, 30_000, 2), 100)
    port = next(port for port in some if is_free(port) and is_free(port + 1))
    stack = start(
        "--no-flower", "--workers", "2", "--median", "1", CAVENDISH_METRICS_PORT=str(port)
    )
    for one in (port, port + 1):
        address = f"http://127.0.0.1:{one}/metrics"
        served = lambda where=address: "cavendish_" in httpx.get(where, trust_env=False).text  # noqa: E731
        wait_until(served, 40, "each worker serves its metrics")
    stack.kill("worker-2")
    ids = stack.create(50)
    stack.cavendish("submit", "--service", SERVICE, "--webhook", stack.facts["receiver"], *ids)
    wait_until(lambda: whole(stack, ids), 60, "all are announced")
    assert stack.pids().keys() >= {"worker", "worker-2"}
    assert "Traceback" not in stack.lines()


def test_up_without_a_token_says_how_to_begin() -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
    }
    said = subprocess.run(
        [sys.executable, "-m", "cavendish_worker.cli", "up"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1
    assert "CAVENDISH_API_TOKEN" in said.stderr
    assert "--emulate" in said.stderr


def test_a_data_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
    }
    for place in (tmp_path / "file", Path("/proc/nope")):
        command = [sys.executable, "-m", "cavendish_worker.cli", "up", "--emulate"]
        where = environment | {"CAVENDISH_DATA_DIR": str(place)}
        said = subprocess.run(command, env=where, capture_output=True, text=True, check=False)
        assert said.returncode == 1
        assert "cannot be used" in said.stderr
        assert "Traceback" not in said.stderr


def test_an_ill_formed_environment_ends_with_every_complaint_and_no_traceback() -> None:
    wrong = dict(os.environ) | {
        "CAVENDISH_TICK": "soon",
        "CAVENDISH_BATCH_SIZE": "0",
        "CAVENDISH_WEBHOOK_SECRET": "hunter2",
    }
    for command in (
        ["-m", "cavendish_worker.cli", "status"],
        ["-m", "celery", "-A", "cavendish_worker", "worker"],
    ):
        said = subprocess.run(
            [sys.executable, *command], env=wrong, capture_output=True, text=True, check=False
        )
        assert said.returncode == 2, said.stderr
        for name in ("CAVENDISH_TICK", "CAVENDISH_BATCH_SIZE", "CAVENDISH_WEBHOOK_SECRET"):
            assert name in said.stderr
        assert "Traceback" not in said.stderr
        assert "hunter2" not in said.stderr


def test_a_pool_without_threads_is_refused_in_one_sentence() -> None:
    command = [
        sys.executable,
        "-m",
        "celery",
        "-q",
        "-A",
        "cavendish_worker",
        "worker",
        "-P",
        "solo",
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1].startswith("Cavendish's workers run threads")
    assert "Traceback" not in said.stderr
