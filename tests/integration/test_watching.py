"""Looking at a real store.

Top in a real terminal, status again and again, lists, and waits with an estimate.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.shell_completion import ShellComplete
from click.testing import Result
from endpoint_index import Served

from cavendish import Client, State
from cavendish.errors import StoreFormatError
from cavendish.model import Lane
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings, env_name
from cavendish.store import Store
from cavendish.store.fleet import Member
from cavendish.store.keys import FLEET, FORMAT, LaneKeys
from cavendish.store.listing import PAGE
from cavendish.submission import SubmitOptions
from cavendish.webhook_endpoint import Endpoint, endpoint_of
from cavendish_worker.cli import cli
from cavendish_worker.cli.list import Filter, Search
from cavendish_worker.cli.output import print_json, table
from cavendish_worker.cli.status import Memory, gather
from cavendish_worker.cli.wait import Outcome as Waited
from cavendish_worker.cli.wait import said as estimate
from conftest import Server
from shell import Run, said

SERVICE = "nano-banana"
LANE = Lane("default", SERVICE)
HOOK = "https://example.com/hook"


def end(
    store: Store,
    *ids: str,
    lane: Lane = LANE,
    state: State = State.SUCCEEDED,
    delay: float | None = None,
) -> None:
    """Settle ids, `delay` seconds after their finish."""
    now = store.fleet.now()
    chosen = [one for one in store.tasks.candidates(lane, now + 100, 1000) if one.id in ids]
    store.tasks.claim(lane, now + 200, "t1", chosen)
    tasks = store.tasks.load(lane, ids).tasks.values()
    finished = None if delay is None else now - delay
    outcomes = [
        (Outcome(task, state, record={"id": task.id}, finished_at=finished), 0.0) for task in tasks
    ]
    store.tasks.settle(lane, "t1", now, outcomes, 3600, 100)


def track(
    store: Store,
    *ids: str,
    ago: float = 10.0,
    lane: Lane = LANE,
    producer: str = "",
    webhook: str = HOOK,
) -> None:
    """Submit ids so many seconds ago."""
    now = store.fleet.now() - ago
    options = SubmitOptions(
        lane.service,
        lane.account,
        (webhook,) if webhook else (),
        1000.0,
        "",
        "",
        producer,
        restart=False,
    )
    store.tasks.add(ids, options, now, now)


class Terminal:
    """A pseudo terminal with a command in it."""

    def __init__(self, server: Server, *words: str, rows: int = 24, columns: int = 100) -> None:
        self.ours, theirs = pty.openpty()
        self.theirs = theirs
        self.resize(rows, columns)
        self.before = termios.tcgetattr(theirs)
        environment = os.environ | {"CAVENDISH_REDIS_URL": server.url, "TERM": "xterm-256color"}
        environment = {
            name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")
        }
        command = [sys.executable, "-m", "cavendish_worker.cli", *words]
        self.process = subprocess.Popen(
            command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
        )
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        self.seen = ""
        os.write(self.ours, keys.encode())

    def until(self, word: str, seconds: float = 10.0) -> str:
        """Read on until the word has come."""
        until = time.monotonic() + seconds
        while word not in self.seen:
            left = until - time.monotonic()
            assert left > 0, f"{word!r} did not come: {self.seen[-2000:]!r}"
            if select.select([self.ours], [], [], left)[0]:
                self.seen += os.read(self.ours, 65536).decode(errors="replace")
        return self.seen

    def ended(self) -> int:
        """The exit code, once all that it wrote is read."""
        until = time.monotonic() + 10
        while self.process.poll() is None and time.monotonic() < until:
            if select.select([self.ours], [], [], 0.05)[0]:
                self.seen += os.read(self.ours, 65536).decode(errors="replace")
        while select.select([self.ours], [], [], 0)[0]:
            self.seen += os.read(self.ours, 65536).decode(errors="replace")
        return self.process.wait(1)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        os.close(self.ours)
        os.close(self.theirs)


@contextmanager
def terminal(server: Server, *words: str) -> Iterator[Terminal]:
    opened = Terminal(server, *words)
    try:
        yield opened
    finally:
        opened.close()


def test_top_lives_in_a_terminal_obeys_keys_and_leaves_it_as_it_was(
    store: Store, server: Server
) -> None:
    track(store, "a", "b", "c")
    end(store, "a", delay=1.5)
    with terminal(server, "top", "--every", "0.2") as seen:
        seen.until("pending")
        assert "\x1b[?1049h" in seen.seen  # a screen of its own
        seen.until("1.50 s")
        seen.press("\x1b[C")
        seen.until("settled/s")
        seen.press("3")
        seen.until("https://example.com/hook")
        seen.press("?")
        seen.until("stay as they are")
        seen.resize(30, 70)
        seen.process.send_signal(signal.SIGWINCH)
        seen.press("q")
        assert seen.ended() == 0
        assert "\x1b[?1049l" in seen.seen
        assert termios.tcgetattr(seen.theirs) == seen.before


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 0)]
)
def test_top_that_is_ended_by_a_signal_leaves_the_terminal_as_it_was(
    store: Store, server: Server, number: signal.Signals, code: int
) -> None:
    with terminal(server, "top") as seen:
        seen.until("q end")
        seen.process.send_signal(number)
        assert seen.ended() == code
        assert "\x1b[?1049l" in seen.seen
        assert "Traceback" not in seen.seen
        assert termios.tcgetattr(seen.theirs) == seen.before


def test_top_says_that_redis_is_away_and_still_obeys(own_server: Server) -> None:
    with terminal(own_server, "top", "--every", "0.2") as seen:
        seen.until("no ids yet")
        own_server.kill()
        seen.until("does not answer")
        seen.press("q")
        assert seen.ended() == 0


def test_top_prints_one_screen_where_nobody_polls_and_json_for_programs(
    run: Run, client: Client
) -> None:
    client.submit(["a", "b"], service=SERVICE)
    shown = run("top", "--every", "0.1")
    assert (shown.exit_code, "2  pending" in shown.output, "\x1b" in shown.output) == (
        0,
        True,
        False,
    )
    assert (
        "default/nano-banana/0" in run("top", "--once", "--page", "lanes", "--every", "0.1").output
    )
    said = json.loads(run("top", "--json", "--once", "--every", "0.1").stdout)
    assert (said["lanes"][0]["pending"], said["rates"]["calls"]) == (2, 0.0)


def test_top_prints_json_until_it_is_ended(store: Store, server: Server) -> None:
    command = [sys.executable, "-m", "cavendish_worker.cli", "top", "--json", "--every", "0.1"]
    environment = os.environ | {"CAVENDISH_REDIS_URL": server.url}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        times = [json.loads(process.stdout.readline())["now"] for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert times == sorted(set(times))


def test_status_is_shown_again_and_again(store: Store, client: Client, server: Server) -> None:
    client.submit(["a"], service=SERVICE)
    with terminal(server, "status", "--watch", "0.2") as seen:
        seen.until("Fleet")
        client.submit(["b", "c"], service=SERVICE)
        seen.seen = ""
        seen.until("      3")
        seen.process.send_signal(signal.SIGINT)
        assert seen.ended() == 0


def ten_lanes(store: Store) -> list[Lane]:
    lanes = [Lane(f"account-{n % 2}", f"service-{n}") for n in range(10)]
    for lane in lanes:
        for producer in ("one", "two"):
            track(store, *(f"{producer}-{n}" for n in range(20)), lane=lane, producer=producer)
        end(store, "one-1", "one-2", lane=lane, delay=2.0)
    return lanes


def test_a_poll_at_ten_lanes_costs_fewer_than_forty_commands_and_remembers_what_it_saw(
    store: Store, settings: Settings
) -> None:
    ten_lanes(store)
    memory = Memory()
    first = gather(store, settings, memory)
    assert [lane["pending"] for lane in first["lanes"]] == [38] * 10
    assert [lane["due"] for lane in first["lanes"]] == [38] * 10
    assert first["delay"] == {"of": 20, "p50": 2.0, "p95": 2.0, "p99": 2.0}
    assert {lane["pending_deliveries"] for lane in first["lanes"]} == {2}
    calls = sent(store, lambda: gather(store, settings, memory))
    assert len(calls) < 40, calls
    assert gather(store, settings, memory)["delay"]["of"] == 20  # ends are told once
    end(store, "two-1", lane=Lane("account-1", "service-1"), delay=0.5)
    assert gather(store, settings, memory)["delay"]["of"] == 21


def sent(store: Store, do: Callable[[], object]) -> list[str]:
    """The commands that clients send meanwhile; what scripts do within is not counted."""
    redis = store.connection.redis
    heard: list[str] = []
    with redis.monitor() as monitor:
        do()
        redis.echo("enough")
        for said in monitor.listen():
            if said["command"].startswith("ECHO"):
                return heard
            if said["client_type"] != "lua":
                heard.append(said["command"].split()[0])
    return heard


def test_a_delay_begins_with_the_finish_or_with_a_later_submit(
    store: Store, settings: Settings
) -> None:
    track(store, "late", "odd", "ahead", ago=1.0)
    end(store, "late", delay=3600.0)  # it had finished long before anybody asked us
    end(store, "odd")
    end(store, "ahead", delay=-5.0)  # the API's clock is ahead
    delay = gather(store, settings)["lanes"][0]["delay"]
    assert delay["of"] == 2
    assert 0 <= delay["p50"] <= delay["p99"] < 5.0


def test_ends_of_an_older_version_tell_no_delay(
    store: Store, client: Client, settings: Settings
) -> None:
    client.submit(["a"], service=SERVICE)
    store.connection.redis.xadd(LaneKeys(LANE).events, {"id": "a", "state": "failed", "at": "1.0"})
    store.connection.redis.xadd(
        LaneKeys(LANE).events, {"id": "a", "state": "failed", "at": "1.0", "delay": "nan"}
    )
    assert gather(store, settings)["lanes"][0]["delay"]["of"] == 0


def test_a_heartbeat_of_an_older_and_of_a_newer_version_is_read(store: Store) -> None:
    now = store.fleet.now()
    old = {
        "name": "worker@a:1",
        "role": "worker",
        "version": "0.1",
        "at": now,
        "accounts": ["x"],
        "signs": True,
    }
    store.connection.redis.hset(FLEET, "worker@a:1", json.dumps(old))
    store.connection.redis.hset(
        FLEET,
        "worker@b:1",
        json.dumps(old | {"name": "worker@b:1", "moods": ["good"], "queues": ["q"]}),
    )
    store.connection.redis.hset(FLEET, "worker@c:1", json.dumps({"name": "worker@c:1"}))
    store.connection.redis.hset(FLEET, "worker@d:1", "[1]")
    older, newer = store.fleet.members(now)
    assert older == Member("worker@a:1", "worker", "0.1", now, ("x",), signs=True)
    assert (newer.queues, newer.name) == (("q",), "worker@b:1")


def listed(done: Result) -> list[str]:
    return [task["id"] for task in said(done)]


def test_a_list_tells_the_pending_by_due_and_the_ended_by_their_end(
    run: Run, store: Store, client: Client
) -> None:
    now = store.fleet.now()
    for number, task_id in enumerate("abcde"):
        store.tasks.add(
            [task_id],
            SubmitOptions(SERVICE, "default", (), 1000.0, "", "", f"p{number % 2}", restart=False),
            now,
            now + number,
        )
    end(store, "c")
    end(store, "b", state=State.FAILED)
    assert listed(run("list", "--json"))[-2:] == ["b", "c"]
    client.submit(["f"], service="veo", model="veo-3", webhook=HOOK)
    assert listed(run("list", "--json", "--service", SERVICE)) == ["a", "d", "e", "b", "c"]
    assert listed(
        run("list", "--json", "--service", SERVICE, "--state", "failed", "--state", "expired")
    ) == ["b"]
    assert listed(run("list", "--json", "--model", "veo-3")) == ["f"]
    assert listed(run("list", "--json", "--endpoint", HOOK)) == ["f"]
    assert listed(run("list", "--json", "--producer", "p1", "--state", "pending")) == ["d"]
    assert listed(run("list", "--json", "--since", "1h", "--until", "1m")) == []
    assert listed(run("list", "--json", "--account", "other")) == []
    some = run("list", "--limit", "2")
    assert "There are more than 2" in some.stderr
    assert run("list", "--account", "other").output == "no such ids\n"


def test_a_list_goes_on_behind_the_stream_with_what_had_webhooks(
    run: Run, store: Store, client: Client
) -> None:
    for task_id in "abc":
        client.submit([task_id], service=SERVICE, webhook=HOOK)
        end(store, task_id)
    store.connection.redis.xtrim(LaneKeys(LANE).events, maxlen=1, approximate=False)
    assert listed(run("list", "--json")) == ["c", "b", "a"]


def test_an_id_that_was_tracked_anew_is_listed_once(run: Run, store: Store, client: Client) -> None:
    client.submit(["a"], service=SERVICE)
    end(store, "a", state=State.FAILED)
    client.submit(["a"], service=SERVICE, restart=True)
    assert listed(run("list", "--json")) == ["a"]
    end(store, "a")
    assert listed(run("list", "--json")) == ["a"]


def test_many_ids_are_read_page_by_page_and_none_is_left_out(store: Store, client: Client) -> None:
    client.submit([f"id-{n}" for n in range(2 * PAGE + 7)], service=SERVICE)
    assert len({one.id for one in store.listing.pending(LANE)}) == 2 * PAGE + 7
    taken = [next(store.listing.pending(LANE)).id]
    assert (
        sent(store, lambda: taken.append(next(store.listing.pending(LANE)).id)).count(
            "ZRANGEBYSCORE"
        )
        == 1
    )


@pytest.mark.parametrize("newest_first", [False, True])
def test_no_id_of_one_moment_is_passed_over_while_others_go(
    store: Store, *, newest_first: bool
) -> None:
    """What was handed in at once is due at once.

    Pages of the same score, from which ids go that were told already.
    """
    redis, names = store.connection.redis, [f"id-{n:04}" for n in range(3 * PAGE)]
    if newest_first:
        redis.zadd(LaneKeys(LANE).ended, dict.fromkeys(names, 7.0))
        listed, key = store.listing.ended(LANE), LaneKeys(LANE).ended
    else:
        redis.sadd(LaneKeys(LANE).producers, "")
        redis.zadd(LaneKeys(LANE).due(""), dict.fromkeys(names, 7.0))
        listed, key = store.listing.pending(LANE), LaneKeys(LANE).due("")
    found = []
    for one in listed:
        found.append(one.id)
        if len(found) % PAGE == PAGE - 100:
            redis.zrem(key, *found[-300:])  # they settle
            redis.zadd(
                key, {f"{'zz' if newest_first else 'aa'}-{len(found)}": 7.0}
            )  # and one comes that is due before
    assert found == sorted(names, reverse=newest_first)


def test_an_id_that_ends_while_it_is_listed_is_listed_once(store: Store) -> None:
    track(store, "a", "b", ago=20.0)
    every = Filter(frozenset(State), None, None, None, float("-inf"), float("inf"))
    listed = Search(store, every).all([LANE])
    first = next(listed)
    end(store, "a", "b")
    assert [first.id, *(task.id for task in listed)] in (["a", "b"], ["b", "a"])


@pytest.mark.parametrize("option", ["--since", "--until"])
def test_a_time_that_is_none_is_refused_under_the_name_of_its_option(run: Run, option: str) -> None:
    done = run("list", option, "soon")
    assert (done.exit_code, f"Invalid value for {option}" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        ("list", "--limit", "99999999999999999999"),
        ("top", "--every", "nan"),
        ("top", "--every", "inf"),
        ("status", "--watch", "nan"),
        ("status", "--watch", "inf"),
        ("wait", "--service", SERVICE, "--timeout", "nan", "a"),
    ],
)
def test_a_number_with_which_nothing_can_be_done_is_refused(
    run: Run, words: tuple[str, ...]
) -> None:
    done = run(*words)
    assert (done.exit_code, done.stderr.startswith("Usage:")) == (2, True)


def test_what_polls_like_markup_is_shown_as_it_is(run: Run, client: Client) -> None:
    client.submit(
        ["[/x] :x: [red]"],
        service=SERVICE,
        metadata={"a": "[/nope]"},
        producer="[/p]",
        model=":warning:",
    )
    listed = run("list")
    assert (
        listed.exit_code,
        "[/x] :x: [red]" in listed.stdout,
        ":warning: [/p]" in listed.stdout,
    ) == (0, True, True)
    shown = run("show", "[/x] :x: [red]")
    assert (shown.exit_code, '{"a": "[/nope]"}' in shown.stdout) == (0, True)


def test_nothing_that_acts_on_a_terminal_comes_out_of_a_command(
    run: Run, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    acting = "\x1b\x9b\u202e\r\x07\x7f"
    table("", ("name",), [(acting,)])
    print_json({"a": acting})
    told = capsys.readouterr().out
    assert not {*told} & {*acting}
    assert json.loads(told[told.index("{") :]) == {"a": acting}
    store.fleet.beat(Member(f"worker@{acting}", "worker", f"[/x]{acting}", store.fleet.now()))
    for words in (
        ("top", "--once", "--every", "0.1", "--page", "fleet"),
        ("status",),
        ("doctor", "--offline"),
    ):
        done = run(*words)
        assert not {*done.stdout} & {*acting}, words
        assert done.exception is None or isinstance(done.exception, SystemExit)


def test_an_estimate_is_never_made_of_half_a_poll(
    store: Store, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread polls and another one asks.

    Between the ids and their duration models it said that all would be over in 0 s.
    """
    client.submit(["a"], service=SERVICE, deadline=900)
    waited, between = Waited(store, ["a"], LANE), []
    forecast = waited.forecasts.forecast
    monkeypatch.setattr(
        waited.forecasts,
        "outlook",
        lambda *asked: (between.append(waited.eta()), forecast(*asked))[1],
    )
    waited.poll()
    assert between == [None]
    assert (waited.eta() or (0.0, 0.0))[0] > 1.0


def test_a_new_store_that_becomes_one_of_another_version_is_foreign(store: Store) -> None:
    """Two versions come to an empty store at once, or it is emptied.

    Whoever is later must see whose it has become.
    """
    assert store.fleet.now() > 0
    store.connection.redis.set(FORMAT, "2000")
    with pytest.raises(StoreFormatError):
        store.fleet.now()


def test_the_doctor_asks_all_that_may_be_away_at_once(
    run: Run, settings: Settings, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three accounts at an API that answers only when all three have asked.

    One after the other each would wait in vain.
    """
    all_three = threading.Barrier(3, timeout=8.0)

    async def together(_: httpx.Request) -> httpx.Response:
        await asyncio.to_thread(all_three.wait)
        return httpx.Response(200, json={"items": [], "count": 0})

    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"b": "two", "c": "three"}))
    for name, value in {
        "api_url": served(together),
        "api_token": "one",
        "api_tokens_file": str(tokens),
    }.items():
        monkeypatch.setenv(env_name(name), value)
    findings = {finding["what"]: finding for finding in json.loads(run("doctor", "--json").stdout)}
    assert [findings[f"api, account {name}"]["ok"] for name in ("b", "c", "default")] == [True] * 3
    assert not all_three.broken


def test_a_wrong_password_is_not_called_a_server_that_is_away(
    run: Run, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(env_name("redis_url"), f"{server.url}&username=nobody&password=hunter2")
    (finding,) = json.loads(run("doctor", "--json").stdout)
    assert ("refuses" in finding["found"], "does not answer" in finding["found"]) == (True, False)
    assert "hunter2" not in str(finding)
    assert "password" in finding["advice"]


def test_the_json_of_top_goes_on_when_redis_is_back(own_server: Server) -> None:
    command = [sys.executable, "-m", "cavendish_worker.cli", "top", "--json", "--every", "0.1"]
    environment = os.environ | {"CAVENDISH_REDIS_URL": own_server.url}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            began = json.loads(process.stdout.readline())["now"]
            own_server.kill()
            assert "does not answer" in process.stderr.readline()
            back = time.time()
            own_server.start()
            while json.loads(process.stdout.readline())["now"] < back:
                pass
            assert began < back
        finally:
            process.kill()


def test_a_wait_knows_about_how_long_it_will_take(store: Store, client: Client) -> None:
    client.submit(["a", "b"], service=SERVICE, deadline=900)
    waited = Waited(store, ["a", "b"], LANE)
    assert waited.eta() is None
    assert waited.poll() == []
    even, most = waited.eta() or (0.0, 0.0)
    assert 10.0 < even < most <= 900.0
    end(store, "a")
    assert [task.id for task in waited.poll()] == ["a"]
    assert (waited.eta() or (0.0, 0.0))[0] < even
    assert estimate((30.2, 200.0)) == "about 30 s more, at most 3 min"


def test_a_wait_at_a_terminal_tells_of_each_end_and_of_the_time_left(
    store: Store, client: Client, server: Server
) -> None:
    client.submit(["first", "second"], service=SERVICE)
    with terminal(server, "wait", "--service", SERVICE, "first", "second") as seen:
        seen.until("more, at most")
        end(store, "first", state=State.FAILED)
        seen.until("1/2")
        end(store, "second")
        assert seen.ended() == 1
        for word in ("failed", "first", "second", "1 failed · 1 succeeded"):
            assert word in seen.seen


def test_a_wait_whose_output_goes_elsewhere_prints_the_table_alone(
    run: Run, store: Store, client: Client
) -> None:
    client.submit(["a"], service=SERVICE)
    threading.Timer(0.2, end, (store, "a")).start()
    done: Any = run("wait", "--service", SERVICE, "a")
    assert (done.exit_code, "succeeded" in done.stdout, done.stderr) == (0, True, "")
    assert endpoint_of(HOOK) not in done.stdout


def test_names_of_endpoints_are_completed_and_nothing_while_redis_is_away(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("shop", "shelf", "other"):
        store.endpoints.add(Endpoint(name, HOOK, 1.0))
    completes = ShellComplete(cli, {}, "cavendish", "_CAVENDISH_COMPLETE")
    for words in (["endpoint", "rotate"], ["dead", "list", "--endpoint"], ["list", "--endpoint"]):
        assert [item.value for item in completes.get_completions(words, "sh")] == ["shelf", "shop"]
    monkeypatch.setenv(env_name("redis_url"), "redis://127.0.0.1:1/0")
    assert completes.get_completions(["endpoint", "rotate"], "sh") == []


def test_an_account_that_no_living_worker_has_a_token_for_is_told_of_while_ids_wait_there(
    run: Run, store: Store, client: Client
) -> None:
    client.submit(["a"], service="nano-banana", account="second")
    pause = "no token at any worker"
    assert pause not in run("status").output  # nobody lives who could say
    store.fleet.beat(Member("worker@x:1", "worker", "0", store.fleet.now(), accounts=("default",)))
    for words in (("status",), ("top", "--once", "--every", "0.1")):
        assert pause in run(*words).output
    store.fleet.beat(Member("worker@x:2", "worker", "0", store.fleet.now(), accounts=("second",)))
    assert pause not in run("status").output
