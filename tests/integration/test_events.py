"""The streams of what ended.

Read together, gone on with by position, followed, and waited on; with a real Redis.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest

from cavendish import (
    CavendishError,
    Client,
    Event,
    EventsMissed,
    State,
    StoreUnavailable,
    SubmissionError,
    TrackedTask,
)
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.events import KEPT, START, Entry, places_of, position_of
from cavendish.store.keys import LaneKeys
from conftest import Server
from ending import blocked, settle
from servers import eventually

NANO, FLUX = Lane("default", "nano-banana"), Lane("default", "flux")
SERVICES = {NANO: "nano-banana", FLUX: "flux"}


@pytest.fixture
def client(store: Store, settings: Settings) -> Iterator[Client]:
    with Client(settings=settings) as opened:
        yield opened


@pytest.fixture
def raw(store: Store) -> Callable[..., str]:
    """Write an entry as `settle` writes it, or a damaged one."""

    def write(lane: Lane, **fields: object) -> str:
        store.connection.redis.sadd("cavendish:lanes", str(lane))
        entry = fields or {"state": "succeeded", "at": 1.5}
        return str(store.connection.redis.xadd(LaneKeys(lane).events, entry))  # type: ignore[arg-type]

    return write


def end(
    client: Client, store: Store, lane: Lane, *ids: str, state: State = State.SUCCEEDED
) -> None:
    """Submit ids and settle them at once, in a millisecond of their own.

    Over lanes, time is known no better.
    """
    time.sleep(0.002)
    client.submit(ids, service=lane.service)
    settle(store, lane, *ids, state=state)


def ids(events: Iterator[Event]) -> list[str]:
    return [event.id for event in events]


def kept(client: Client, after: str = "0") -> list[Event]:
    return list(client.events(after=after, follow=False))


def test_every_end_is_an_event_in_the_order_of_time_over_all_lanes(
    client: Client, store: Store
) -> None:
    before = store.fleet.now()
    end(client, store, NANO, "a", "b")
    end(client, store, FLUX, "c", state=State.FAILED)
    end(client, store, NANO, "d", state=State.EXPIRED)
    events = kept(client)
    assert [(event.id, event.service, event.account, event.state) for event in events] == [
        ("a", "nano-banana", "default", State.SUCCEEDED),
        ("b", "nano-banana", "default", State.SUCCEEDED),
        ("c", "flux", "default", State.FAILED),
        ("d", "nano-banana", "default", State.EXPIRED),
    ]
    assert all(before <= event.at <= store.fleet.now() for event in events)
    assert ids(client.events("flux", after="", follow=False)) == ["c"]
    assert ids(client.events(account="nobody", after="0", follow=False)) == []
    assert list(client.events(follow=False)) == []


def test_the_order_holds_where_one_lane_has_much_more_to_read_than_another(
    client: Client, store: Store
) -> None:
    lanes = [NANO, FLUX, *(Lane("default", f"quiet-{number}") for number in range(40))]
    pipe = store.connection.pipeline()
    for lane in lanes:
        pipe.sadd("cavendish:lanes", str(lane))
    for number in range(3000):
        lane = lanes[number // 7 % len(lanes)] if number % 7 == 0 else NANO
        pipe.xadd(
            LaneKeys(lane).events,
            {"id": number, "state": "failed", "at": 1},
            id=f"{1000 + number}-0",
        )
    pipe.execute()
    events = kept(client)
    assert [event.id for event in events] == [f"{number}" for number in range(3000)]
    for index in range(0, 3000, 271):
        assert [event.id for event in kept(client, events[index].position)] == [
            f"{n}" for n in range(index + 1, 3000)
        ]
    assert [event.id for event in islice(client.events(after="0"), 3000)] == [
        f"{number}" for number in range(3000)
    ]


def test_a_reader_goes_on_behind_any_position_without_loss_or_repeat(
    client: Client, store: Store
) -> None:
    for number in range(30):
        end(client, store, (NANO, FLUX)[number % 3 == 0], f"{number}")
    events = kept(client)
    for index, event in enumerate(events):
        assert [one.id for one in kept(client, event.position)] == [
            one.id for one in events[index + 1 :]
        ]


def test_a_lane_that_appears_behind_the_position_is_read_from_its_beginning(
    client: Client, store: Store
) -> None:
    end(client, store, NANO, "a")
    (event,) = kept(client)
    end(client, store, FLUX, "b")
    end(client, store, NANO, "c")
    assert [one.id for one in kept(client, event.position)] == ["b", "c"]


def test_a_position_is_printable_and_small_even_with_many_lanes() -> None:
    places = {
        Lane("default", f"service-{n % 25}", n // 25): f"{1795387801123 + 977 * n}-{n % 50}"
        for n in range(200)
    }
    assert re.fullmatch(r"[A-Za-z0-9_-]+", position_of(places))
    assert places_of(position_of(places)) == places
    assert len(position_of(places)) < 4096
    assert len(position_of({NANO: "1795387801123-0"})) < 64
    assert places_of(position_of({NANO: START, FLUX: KEPT})) == {FLUX: KEPT}


@pytest.mark.parametrize(
    "position",
    [
        "1",
        "é",
        "!",
        "-",
        "eJw",
        "1795387801123-0",
        position_of({NANO: "1-1"})[:-3],
        position_of({NANO: "1-1"}) + "AAAA",
        "A" * 2**21,
    ]
    + [
        position_of({lane: place})
        for lane, place in ((NANO, "x"), (NANO, f"{2**64}-0"), (NANO, "1-1 2"), ("a/b", "1-1"))
    ],  # type: ignore[dict-item]
)
def test_a_position_that_is_none_is_refused_in_one_sentence_before_anything_is_read(
    client: Client, position: str
) -> None:
    with pytest.raises(SubmissionError, match=r"^This is no position in the events: .*\.$"):
        client.events(after=position)


def test_events_begin_when_they_are_asked_for_not_when_they_are_first_read(
    client: Client, store: Store
) -> None:
    end(client, store, NANO, "before")
    stream = client.events()
    end(client, store, NANO, "after")
    assert next(stream).id == "after"


def test_a_follower_sees_lanes_that_appear_later(
    client: Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cavendish.waiting.event_stream.LIST_AGAIN", 0.3)
    stream = client.events()
    timer = threading.Timer(0.2, end, (client, store, NANO, "a"))
    timer.start()
    assert next(stream).id == "a"
    timer = threading.Timer(0.2, end, (client, store, FLUX, "b"))
    timer.start()
    assert next(stream).id == "b"
    timer.join()


def test_a_follower_reads_what_is_kept_and_then_what_comes(client: Client, store: Store) -> None:
    end(client, store, NANO, "a", "b")
    client._store.events.longest_block = 0.2
    stream = client.events(after="0")
    assert ids(islice(stream, 2)) == ["a", "b"]
    timer = threading.Timer(0.6, end, (client, store, NANO, "c"))  # longer than a read blocks
    timer.start()
    assert next(stream).id == "c"
    timer.join()


def test_entries_that_cannot_be_read_are_passed_over(
    client: Client, store: Store, raw: Callable[..., str]
) -> None:
    for damage in (
        {"x": 1},
        {"id": "a", "state": "odd", "at": 1},
        {"id": "a", "state": "failed", "at": "nan"},
    ):
        for _ in range(700):
            raw(NANO, **damage)
    raw(NANO, id="good", state="failed", at=2.5)
    last = raw(NANO, id="a", state="failed")
    (event,) = kept(client)
    assert (event.id, event.state, event.at) == ("good", State.FAILED, 2.5)
    assert store.events.last([NANO, FLUX]) == {NANO: last, FLUX: START}
    stream = client.events(after=event.position)
    timer = threading.Timer(0.2, raw, (NANO,), {"id": "next", "state": "failed", "at": 3})
    timer.start()
    assert next(stream).id == "next"
    timer.join()


def test_a_reader_whose_place_was_trimmed_is_told_and_goes_on_with_what_is_kept(
    client: Client, store: Store
) -> None:
    end(client, store, FLUX, "x")
    end(client, store, NANO, "a", "b", "c", "d")
    positions = {event.id: event.position for event in kept(client)}
    end(client, store, FLUX, "y")
    store.connection.redis.xtrim(LaneKeys(NANO).events, maxlen=2, approximate=False)
    assert [one.id for one in kept(client)] == ["x", "c", "d", "y"]  # what is kept is never missed
    assert [one.id for one in kept(client, positions["c"])] == ["d", "y"]
    with pytest.raises(
        EventsMissed, match=r"^Events of default/nano-banana/0 were trimmed"
    ) as caught:
        client.events(after=positions["a"])
    assert caught.value.lanes == ("default/nano-banana/0",)
    assert isinstance(caught.value, CavendishError)
    assert [one.id for one in kept(client, caught.value.position)] == ["c", "d", "y"]


def test_a_slow_follower_that_is_overtaken_is_told(client: Client, store: Store) -> None:
    end(client, store, NANO, "a")
    stream = client.events(after="0")
    assert next(stream).id == "a"
    end(client, store, NANO, "b", "c")
    store.connection.redis.xtrim(LaneKeys(NANO).events, maxlen=1, approximate=False)
    with pytest.raises(EventsMissed) as caught:
        next(stream)
    assert [one.id for one in kept(client, caught.value.position)] == ["c"]


def test_a_new_lane_that_was_trimmed_before_it_was_read_is_told_where_redis_knows_it(
    client: Client, store: Store
) -> None:
    end(client, store, NANO, "a")
    (event,) = kept(client)
    end(client, store, FLUX, "b", "c")
    assert [one.id for one in kept(client, event.position)] == ["b", "c"]
    store.connection.redis.xtrim(LaneKeys(FLUX).events, maxlen=1, approximate=False)
    with pytest.raises(EventsMissed, match="default/flux/0"):
        client.events(after=event.position)


def test_the_streams_are_read_over_either_protocol_of_redis(
    store: Store, server: Server, raw: Callable[..., str]
) -> None:
    place = raw(NANO, id="a", state="failed", at=2.5)
    for protocol in (2, 3):
        other = Store(f"{server.url}&protocol={protocol}")
        assert other.events.read({NANO: START, FLUX: START}, 10) == [
            Entry(NANO, place, "a", State.FAILED, 2.5)
        ]
        assert (
            other.events.read({NANO: place}, 10) == other.events.read({NANO: place}, 10, 0.01) == []
        )
        assert other.events.last([NANO, FLUX]) == {NANO: place, FLUX: START}
        assert other.events.missed({NANO: START, FLUX: START}) == []
        other.close()


def test_a_read_never_blocks_as_long_as_the_socket_waits(store: Store, server: Server) -> None:
    hasty = Store(f"{server.url}&socket_timeout=2")
    assert hasty.events.read({NANO: START}, 10, 60) == []  # and no StoreUnavailable
    hasty.close()


class Waiting:
    """A `wait` in a thread of its own."""

    def __init__(self, client: Client, wanted: list[str], **options: object) -> None:
        self.result: dict[str, TrackedTask] | CavendishError = {}
        self.thread = threading.Thread(target=self._run, args=(client, wanted, options))
        self.thread.start()

    def _run(self, client: Client, wanted: list[str], options: dict[str, object]) -> None:
        try:
            self.result = client.wait(wanted, service=NANO.service, **options)  # type: ignore[arg-type]
        except CavendishError as error:
            self.result = error

    def end(self, seconds: float = 60) -> dict[str, TrackedTask] | CavendishError:
        self.thread.join(seconds)
        assert not self.thread.is_alive()
        return self.result


@pytest.fixture
def only_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `wait` polls again at nothing but what events tell of."""
    monkeypatch.setattr("cavendish.waiting.waits._CHECK_ALL", 3600.0)


def test_a_wait_wakes_when_its_ids_are_settled_and_not_later(
    client: Client, store: Store, only_events: None
) -> None:
    client.submit(["a", "b", "other"], service=NANO.service)
    seen: list[int] = []
    waiting = Waiting(client, ["a", "b"], timeout=60, progress=lambda done, _: seen.append(done))
    blocked(store)
    settle(store, NANO, "other")
    settle(store, NANO, "a")
    eventually(lambda: len(seen) > 1, "it is told of the first")
    assert seen == [0, 1]
    settle(store, NANO, "b", state=State.FAILED)
    ended = waiting.end()
    assert isinstance(ended, dict)
    assert {task.id: task.state for task in ended.values()} == {
        "a": State.SUCCEEDED,
        "b": State.FAILED,
    }
    assert ended["b"].record == {"id": "b"}
    assert seen == [0, 1, 2]


def test_a_wait_listens_to_all_shards_of_its_service(
    store: Store, server: Server, only_events: None
) -> None:
    settings = Settings.load({"CAVENDISH_REDIS_URL": server.url, "CAVENDISH_SHARDS": "4"})
    wanted = [f"id-{number}" for number in range(40)]
    with Client(settings=settings) as client:
        client.submit(wanted, service=NANO.service)
        waiting = Waiting(client, wanted, timeout=60)
        blocked(store)
        by_lane: dict[Lane, list[str]] = {}
        for task_id in wanted:
            by_lane.setdefault(Lane.of("default", NANO.service, task_id, 4), []).append(task_id)
        assert len(by_lane) == 4
        for lane, members in by_lane.items():
            settle(store, lane, *members)
        assert set(waiting.end()) == set(wanted)  # type: ignore[arg-type]
        assert sorted(ids(client.events(after="0", follow=False))) == sorted(wanted)


def test_a_wait_ends_although_its_event_was_lost(
    client: Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cavendish.waiting.waits._CHECK_ALL", 0.5)
    client.submit(["a"], service=NANO.service)
    waiting = Waiting(client, ["a"], timeout=60)
    blocked(store)
    store.connection.redis.hset(LaneKeys(NANO).task("a"), "state", "succeeded")
    assert "a" in waiting.end()  # type: ignore[operator]


def test_what_ended_before_the_wait_began_is_not_waited_for(client: Client, store: Store) -> None:
    end(client, store, NANO, "a")
    assert client.wait(["a"], service=NANO.service)["a"].state is State.SUCCEEDED
    assert client.wait([], service=NANO.service) == {}


def test_redis_that_dies_while_somebody_waits_or_follows_is_an_error_and_the_position_goes_on(
    own_server: Server,
) -> None:
    settings = Settings.load({"CAVENDISH_REDIS_URL": own_server.url})
    store = Store(own_server.url)
    with Client(settings=settings) as client:
        end(client, store, NANO, "a")
        client.submit(["b"], service=NANO.service)
        stream = client.events(after="0")
        position = next(stream).position
        waiting = Waiting(client, ["b"], timeout=60)
        blocked(store)
        own_server.kill(signal.SIGKILL)
        assert isinstance(waiting.end(), StoreUnavailable)
        with pytest.raises(StoreUnavailable):
            next(stream)
        own_server.start()
        waiting = Waiting(client, ["b"], timeout=30)
        settle(store, NANO, "b")
        assert set(waiting.end()) == {"b"}  # type: ignore[arg-type]
        assert [event.id for event in kept(client, position)] == ["b"]
    store.close()


@pytest.fixture
def command(store: Store, server: Server) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `cavendish events` as a process of its own, with the shared Redis."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "CAVENDISH_REDIS_URL": server.url}
        line = [sys.executable, "-m", "cavendish_worker.cli", "events", *words]
        process = subprocess.Popen(
            line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_cavendish_events_prints_what_is_kept_and_ends(
    client: Client, store: Store, command: Callable[..., Any]
) -> None:
    end(client, store, NANO, "a")
    end(client, store, FLUX, "b", state=State.FAILED)
    said, complaint = command().communicate(timeout=20)
    assert complaint == ""
    first, second = said.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  succeeded  default/nano-banana  a", first)
    assert re.fullmatch(r"\S+ \S+  failed     default/flux  b", second)
    process = command("--json", "--service", "flux")
    (line,) = process.communicate(timeout=20)[0].splitlines()
    said = json.loads(line)
    assert set(said) == {"id", "service", "account", "state", "at", "position"}
    assert (said["id"], said["state"], process.returncode) == ("b", "failed", 0)


def test_cavendish_events_follow_prints_each_end_at_once_until_ctrl_c(
    client: Client, store: Store, command: Callable[..., Any]
) -> None:
    end(client, store, NANO, "before")
    process = command("--follow", "--json")
    blocked(store)
    end(client, store, NANO, "a")
    first = json.loads(process.stdout.readline())
    assert first["id"] == "a"
    end(client, store, FLUX, "b")
    last = json.loads(process.stdout.readline())
    assert last["id"] == "b"
    process.send_signal(signal.SIGINT)
    said, complaint = process.communicate(timeout=20)
    # Amid the last line, whoever goes on has it once more.
    told = {f"Stopped; --after {each['position']} goes on there.\n" for each in (first, last)}
    assert (said, complaint in told) == ("", True), complaint
    assert process.returncode == 130
    restart = command("--json", "--after", first["position"])
    assert [json.loads(line)["id"] for line in restart.communicate(timeout=20)[0].splitlines()] == [
        "b"
    ]


def test_cavendish_events_ends_quietly_when_nobody_reads_it_any_more(
    client: Client, store: Store, command: Callable[..., Any]
) -> None:
    process = command("-f", "--after", "0")
    end(client, store, NANO, "a")
    assert process.stdout.readline().endswith("  a\n")
    process.stdout.close()
    blocked(store)
    end(client, store, NANO, "b")
    assert process.wait(20) == 0
    assert process.stderr.read() == ""


def test_cavendish_events_says_in_a_sentence_what_is_wrong(
    store: Store, command: Callable[..., Any]
) -> None:
    process = command("--after", "nonsense")
    said, complaint = process.communicate(timeout=20)
    assert (said, process.returncode) == ("", 1)
    assert complaint.count("\n") == 1
    assert "no position" in complaint
    assert "cavendish events --follow" in command("--help").communicate(timeout=20)[0]
