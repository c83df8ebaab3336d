"""What operators do while workers run: pause and resume, other rate ceilings, other tokens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import forked
from acceptance.conftest import SERVICE, wait_until
from acceptance.parts import Parts
from cavendish import State
from cavendish.store.fleet import Member
from cavendish_worker.devstack.emulator.tasks_api import EmulatorConfig
from conftest import Server
from delivering import Served

Begin = Callable[..., Parts]
#: An emulated API without a rate limit, whose tasks take a moment.
QUICK = EmulatorConfig(rate=0.0, median=0.2, latency=0.01, visible_after=0.0)
#: Seconds in which every worker has seen what an operator did, and calls under way are over.
OBEYED = 1.5


@pytest.fixture
def begin(own_server: Server, served: Served) -> Iterator[Begin]:
    """Start a beat and workers around a Redis of their own."""
    running: list[Parts] = []

    def start(config: EmulatorConfig = QUICK, workers: int = 1, **settings: str) -> Parts:
        parts = Parts(own_server.url, served, config, **settings)
        running.append(parts)
        begun = [parts.begin("worker") for _ in range(workers)]
        parts.live("worker", *begun)
        parts.celery("beat")
        return parts

    yield start
    for parts in running:
        parts.close()


def give(link: Path, tokens: object) -> None:
    """Let the link point to a new file, as Kubernetes does with a Secret."""
    new = link.with_name(f"tokens-{time.monotonic_ns()}")
    new.write_text(tokens if isinstance(tokens, str) else json.dumps(tokens))
    between = link.with_name("between")
    between.symlink_to(new)
    between.rename(link)


def workers_of(parts: Parts) -> list[Member]:
    members = parts.store.fleet.members(parts.store.fleet.now())
    return [member for member in members if member.role == "worker"]


def accounts(parts: Parts) -> set[str]:
    """The accounts that workers say they have tokens for."""
    return {account for member in workers_of(parts) for account in member.accounts}


def submit(parts: Parts, count: int = 5, **options: float) -> list[str]:
    ids = parts.emulator.create(count)
    parts.client.submit(ids, service=SERVICE, webhook=parts.receiver, **options)  # type: ignore[arg-type]
    return ids


@pytest.mark.timeout(120)
def test_two_workers_make_no_call_while_an_account_is_paused_and_go_on_when_it_is_resumed(
    begin: Begin,
) -> None:
    """What ended before is still announced, and what is submitted meanwhile waits."""
    parts = begin(workers=2)
    before = submit(parts)
    wait_until(lambda: parts.settled(before), 40, "ids end before the pause")
    parts.client.pause("default", by="ada", reason="the provider migrates")
    time.sleep(OBEYED)
    calls = parts.tally()["calls"]
    ids = submit(parts, 20)
    time.sleep(3.0)
    assert parts.tally()["calls"] == calls
    assert {task.state for task in parts.tasks(ids).values()} == {State.PENDING}
    assert set(parts.announced()["states"]) == set(before)
    parts.client.resume("default")
    wait_until(lambda: parts.settled(ids), 40, "they end after the resume")
    for event in ("operator.paused", "operator.resumed"):
        wait_until(lambda name=event: len(parts.logged(name)) == 2, 20, f"both logged {event}")


@pytest.mark.timeout(120)
def test_a_paused_service_waits_while_another_one_of_its_account_goes_on(begin: Begin) -> None:
    parts = begin()
    parts.client.pause("default", "flux")
    ids, others = parts.emulator.create(3), submit(parts, 3)
    parts.client.submit(ids, service="flux")
    wait_until(lambda: parts.settled(others), 40, "the other service goes on")
    time.sleep(OBEYED)
    assert not any(task.polls for task in parts.client.get_many(ids, service="flux").values())
    parts.client.resume("default", "flux")
    assert len(parts.client.wait(ids, service="flux", timeout=40)) == 3


@pytest.mark.timeout(120)
def test_a_pause_with_a_time_ends_by_itself_and_a_deadline_within_it_wins(begin: Begin) -> None:
    parts = begin(CALL_TIMEOUT="0.5", LAST_POLL="1", LEASE="10")
    until = parts.store.fleet.now() + 12.0
    parts.client.pause("default", until=until, reason="a dispute", by="ada")
    late, ids = submit(parts, 1, deadline=2.0), submit(parts)
    wait_until(lambda: parts.settled(late), 11, "the deadline wins")
    (task,) = parts.tasks(late).values()
    assert task.state is State.EXPIRED
    assert "the account default is paused by operator ada since" in task.reason
    assert task.reason.endswith(": a dispute")
    wait_until(lambda: parts.settled(ids), 40, "the pause ends by itself")
    assert min(task.settled_at or 0.0 for task in parts.tasks(ids).values()) >= until


@pytest.mark.timeout(120)
def test_the_doctor_makes_no_call_for_a_paused_account(begin: Begin) -> None:
    parts = begin()
    parts.client.pause("default", by="ada")
    time.sleep(OBEYED)
    calls = parts.tally()["calls"]
    (done,) = forked.shared().run([(("doctor", "--json"), parts.environment)])
    findings = json.loads(done.stdout)
    (found,) = [one for one in findings if one["what"] == "api, account default"]
    assert "the account default is paused by operator ada" in found["found"]
    assert parts.tally()["calls"] == calls


@pytest.mark.timeout(120)
def test_all_workers_obey_a_ceiling_that_is_set_and_removed_under_load(begin: Begin) -> None:
    """Two thousand ids that take long are asked about in batches of five."""
    config = EmulatorConfig(rate=0.0, median=5000.0, latency=0.01)
    parts = begin(config, workers=2, BATCH_SIZE="5")
    parts.start_rate(50.0)
    submit(parts, 2000)
    wait_until(lambda: parts.tally()["calls"] > 50, 40, "it is asked as fast as it takes")

    def rate() -> float:
        """Calls per second over a few seconds."""
        began, calls = time.monotonic(), parts.tally()["calls"]
        time.sleep(3.0)
        return float(parts.tally()["calls"] - calls) / (time.monotonic() - began)

    parts.client.set_rate_ceiling("default", 2.0)
    time.sleep(OBEYED)
    assert rate() < 4.0
    parts.client.set_rate_ceiling("default", None)
    wait_until(lambda: rate() > 6.0, 40, "it is asked faster again")


@pytest.mark.timeout(180)
def test_a_token_that_is_replaced_under_a_running_worker_is_used_at_once(
    begin: Begin, tmp_path: Path
) -> None:
    """A refused token, a broken file, the right token, and a file without the account."""
    link = tmp_path / "tokens"
    give(link, {"shop": "wrong"})
    config = EmulatorConfig(
        rate=0.0, median=0.2, latency=0.01, visible_after=0.0, tokens=("emulated", "right")
    )
    parts = begin(config, API_TOKENS_FILE=str(link))
    owner = parts.emulator.accounts["right"]

    def ask(count: int) -> list[str]:
        ids = parts.emulator.create(count, account=owner)
        parts.client.submit(ids, service=SERVICE, account="shop")
        return ids

    ids = ask(3)
    wait_until(lambda: parts.logged("account.paused"), 40, "the token is refused")
    give(link, "{")
    wait_until(lambda: parts.logged("tokens.unreadable"), 20, "the file is broken")
    wait_until(lambda: any(one.token_fault for one in workers_of(parts)), 20, "doctor can show it")
    until = parts.store.fleet.now() + 600  # as if it had been refused for long
    parts.store.shared_state.change_rate_limit(
        "shop", lambda known: (replace(known, paused_until=until), None)
    )
    give(link, {"shop": "right", "new": "emulated"})
    parts.client.wait(ids, service=SERVICE, account="shop", timeout=40)
    assert parts.logged("account.token_renewed")
    assert parts.logged("account.resumed")
    wait_until(lambda: accounts(parts) == {"default", "new", "shop"}, 20, "heartbeats tell it")
    more = parts.emulator.create(2)
    parts.client.submit(more, service=SERVICE, account="new")
    parts.client.wait(more, service=SERVICE, account="new", timeout=40)
    give(link, {"new": "emulated"})
    wait_until(lambda: accounts(parts) == {"default", "new"}, 20, "it is served no more")
    calls = owner.tally.calls
    ask(1)
    time.sleep(2.0)
    assert owner.tally.calls == calls
    assert "right" not in parts.lines()
