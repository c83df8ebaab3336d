"""top, status, list, wait and doctor on a real store, some of them in a real terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
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

from cavendish import Client, State
from cavendish.endpoints.webhook_endpoint import Endpoint, endpoint_of
from cavendish.errors import StoreFormatError
from cavendish.model import Lane
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings, env_name
from cavendish.store import Store
from cavendish.store.deliveries import Attempt
from cavendish.store.fleet import Member
from cavendish.store.keys import FLEET, FORMAT, LaneKeys
from cavendish.submission import SubmitOptions
from cavendish_worker.cli import cli
from cavendish_worker.cli.estimate import Waited, in_words
from cavendish_worker.cli.output import print_json
from cavendish_worker.cli.tables import STATE_STYLES, table
from cavendish_worker.telemetry.snapshot import Memory, gather
from conftest import Server
from delivering import RoundTrips, Served
from shell import Run

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
    """Settle ids `delay` seconds after they finished."""
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
    """Submit ids `ago` seconds ago."""
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
def terminal(server: Server, *words: str, columns: int = 100) -> Iterator[Terminal]:
    opened = Terminal(server, *words, columns=columns)
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
    ("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 130)]
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


def test_top_prints_one_screen_without_a_terminal_and_json_for_programs(
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
        assert process.wait(10) == 130
    assert times == sorted(set(times))


def test_status_is_shown_again_and_again(store: Store, client: Client, server: Server) -> None:
    client.submit(["a"], service=SERVICE)
    with terminal(server, "status", "--watch", "0.2") as seen:
        seen.until("1 \x1b[0m\x1b[2mpending")
        seen.until("0.0/s")  # a rate needs two polls
        client.submit(["b", "c"], service=SERVICE)
        seen.until("3 \x1b[0m\x1b[2mpending")
        seen.process.send_signal(signal.SIGINT)
        assert seen.ended() == 130


def printed(server: Server, *words: str, columns: int) -> list[str]:
    """The lines of a command at a terminal of so many columns, without colours."""
    with terminal(server, *words, columns=columns) as seen:
        assert seen.ended() == 0
        return re.sub(r"\x1b\[[0-9;]*m", "", seen.seen).splitlines()


UUIDS = [f"1c4dd0f1-6b0e-4b6f-9f36-0a9e1f3c7a{number:02}" for number in range(3)]


@pytest.mark.parametrize("columns", [30, 60, 80, 120, 200])
def test_a_list_has_one_line_per_id_and_no_id_or_date_is_ever_broken(
    store: Store, server: Server, columns: int
) -> None:
    track(store, *UUIDS)
    end(store, *UUIDS, state=State.FAILED)
    head, *rows = printed(server, "list", columns=columns)
    assert sorted(row.split()[0] for row in rows) == UUIDS
    assert all(len(row) <= max(columns, len(UUIDS[0]) + len("  failed   ")) for row in rows)
    dates = re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d)?")
    assert all(found[1] for row in rows for found in dates.finditer(row[len(UUIDS[0]) :]))
    assert ("ended" in head, "submitted" in head) == (columns >= 80, columns >= 120)


def test_what_is_cut_off_at_a_terminal_is_the_end_of_the_reason(
    store: Store, client: Client, server: Server
) -> None:
    client.submit([UUIDS[0]], service=SERVICE)
    now, reason = store.fleet.now(), "the model refused: " + "x" * 300
    (task,) = store.tasks.load(LANE, UUIDS[:1]).tasks.values()
    store.tasks.claim(LANE, now + 200, "t1", store.tasks.candidates(LANE, now + 100, 10))
    outcome = Outcome(task, State.FAILED, record={"id": task.id}, reason=reason)
    store.tasks.settle(LANE, "t1", now, [(outcome, 0.0)], 3600, 100)
    head, row = printed(server, "list", columns=130)
    assert (len(row), row[-1]) == (130, "…")
    assert row[head.index("reason") :].startswith("the model")


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_dead_letters_of_a_registered_endpoint_are_listed_with_its_name_on_one_line_each(
    store: Store, server: Server, columns: int
) -> None:
    store.endpoints.add(Endpoint("shop", HOOK, 1.0))
    for task_id, webhook in zip(UUIDS, ("shop", HOOK, "shop"), strict=True):
        track(store, task_id, webhook=webhook)
    end(store, *UUIDS)
    now = store.fleet.now()
    worth = store.deliveries.sort([LANE], now + 1).worth[LANE]
    taken = store.deliveries.claim_delivery(
        LANE, now + 1, now + 60, "d1", 10, dict.fromkeys(worth, 10)
    )
    attempts = [Attempt(name, "HTTP 410") for name in taken]
    assert store.deliveries.bury(LANE, "d1", now, attempts, 9e6) == 3
    head, *rows = printed(server, "dead", "list", columns=columns)
    assert {row.split()[0] for row in rows} == set(taken)
    if columns == 200:
        start = head.index("endpoint")
        assert sorted(row[start:].split()[0] for row in rows) == [HOOK, "shop", "shop"]
    assert columns == 60 or all("HTTP 410" in row for row in rows)


def test_each_state_has_a_colour() -> None:
    assert STATE_STYLES.keys() == {state.value for state in State}


def test_status_shows_all_lanes_and_the_first_page_of_top_alike(run: Run, store: Store) -> None:
    lanes = ten_lanes(store)
    shown = run("status").output
    assert all(str(lane) in shown for lane in lanes)
    assert (
        shown.splitlines()[0]
        == run("top", "--once", "--every", "0.1").output.splitlines()[2].rstrip()
    )


def ten_lanes(store: Store) -> list[Lane]:
    lanes = [Lane(f"account-{n % 2}", f"service-{n}") for n in range(10)]
    for lane in lanes:
        for producer in ("one", "two"):
            track(store, *(f"{producer}-{n}" for n in range(20)), lane=lane, producer=producer)
        end(store, "one-1", "one-2", lane=lane, delay=2.0)
    return lanes


def test_ten_lanes_are_read_in_a_few_round_trips_and_what_was_read_is_remembered(
    store: Store, settings: Settings
) -> None:
    ten_lanes(store)
    memory = Memory()
    first = gather(store, settings, memory)
    assert [lane["pending"] for lane in first["lanes"]] == [38] * 10
    assert [lane["due"] for lane in first["lanes"]] == [38] * 10
    assert first["delay"] == {"of": 20, "p50": 2.0, "p95": 2.0, "p99": 2.0}
    assert {lane["deliveries_pending"] for lane in first["lanes"]} == {2}
    asked = RoundTrips(store)
    gather(store, settings, memory)
    assert asked.count <= 10
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


@pytest.mark.parametrize("option", ["--since", "--until"])
def test_a_text_that_is_no_time_is_refused_under_the_name_of_its_option(
    run: Run, option: str
) -> None:
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
def test_a_number_that_makes_no_sense_is_refused(run: Run, words: tuple[str, ...]) -> None:
    done = run(*words)
    assert (done.exit_code, done.stderr.startswith("Usage:")) == (2, True)


def test_what_looks_like_markup_is_shown_as_it_is(run: Run, client: Client) -> None:
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
    table(("name",), [(acting,)])
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


def test_an_estimate_never_uses_half_a_poll(
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
        "forecast",
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
    assert in_words((30.2, 200.0)) == "about 30 s more, at most 3 min"


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
    later = threading.Timer(0.2, end, (store, "a"))
    later.start()
    done: Any = run("wait", "--service", SERVICE, "a")
    later.join()  # the wait may be over before the thread has read Redis' answer
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


def test_an_account_without_a_token_at_any_living_worker_is_shown_while_its_ids_wait(
    run: Run, store: Store, client: Client
) -> None:
    client.submit(["a"], service="nano-banana", account="second")
    pause = "no token at any worker"
    assert pause not in run("status").output  # no worker is alive that could say
    store.fleet.beat(Member("worker@x:1", "worker", "0", store.fleet.now(), accounts=("default",)))
    for words in (("status",), ("top", "--once", "--every", "0.1")):
        assert pause in run(*words).output
    store.fleet.beat(Member("worker@x:2", "worker", "0", store.fleet.now(), accounts=("second",)))
    assert pause not in run("status").output
