"""Messages that would end a worker: compressed ones, Celery's own tasks, and what killed three."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import json
import lzma
import signal
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cavendish.environment.local_paths import quarantine_url
from cavendish.settings import Settings
from cavendish.store.quarantine import DEATHS, MOST_DEATHS, Quarantine
from cavendish.task_names import EXPIRE
from cavendish_worker.celeryapp import redis_transport
from cavendish_worker.celeryapp.envelope import KEPT
from cavendish_worker.celeryapp.redis_transport import NOTED_DEATHS, POPPED
from consuming import DIES, Broker, tracked
from messages import GOOD, envelope, message
from servers import eventually

#: The most memory that a worker may ever have had, MB; it has about 85 at work.
PEAK = 200
#: A worker with so many bytes of address space, beyond which it gets no memory.
BOUNDED = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
from cavendish_worker import app
app.worker_main(["-q", "worker", "-P", "threads"])
"""
#: A worker that is killed by the submit of the id `poison`.
KILLED = """
import os, signal
from cavendish_worker.celeryapp import submit_message
real = submit_message.take_in
def take_in(client, ids, *more):
    if ids == ["poison"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(client, ids, *more)
submit_message.take_in = take_in
from cavendish_worker import app
app.worker_main(["-q", "worker", "-P", "threads"])
"""
POISON = json.dumps([[["poison"]], {"service": "nano-banana"}, {}]).encode()


@pytest.fixture
def kept(lists: Broker) -> Iterator[Quarantine]:
    opened = Quarantine(str(quarantine_url(lists.settings)))
    yield opened
    opened.close()


def lines(lists: Broker, word: str) -> list[str]:
    return [line for line in Path(lists.log.name).read_text().splitlines() if word in line]


def push(lists: Broker, body: bytes = GOOD, **odd: object) -> None:
    lists.redis.lpush(KEPT, envelope(body=base64.b64encode(body).decode(), **odd))


def drained(lists: Broker) -> None:
    """Wait until no message waits and none is in hand."""
    redis = lists.redis
    waiting = lambda: redis.llen(KEPT) + redis.hlen("unacked") + redis.zcard(POPPED)  # noqa: E731
    eventually(lambda: not waiting(), f"nothing is in hand; {lists.log.name} says why not", 30)


def peak(process: subprocess.Popen[bytes]) -> float:
    """The most memory that a process ever had, MB."""
    (line,) = [
        one
        for one in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if one.startswith("VmHWM")
    ]
    return int(line.split()[1]) / 1024


# --- nothing is inflated

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": gzip.compress,
    "gzip": gzip.compress,
    "application/x-bz2": bz2.compress,
    "bzip2": bz2.compress,
    "zlib": zlib.compress,
    "application/x-lzma": lzma.compress,
    "lzma": lzma.compress,
    "application/zstd": bytes,
    "zstandard": bytes,
    "application/x-brotli": bytes,
    "nobody's": bytes,
}


@pytest.mark.timeout(60)
def test_a_compressed_message_is_refused_in_one_line_and_quarantined_however_it_is_packed(
    lists: Broker, kept: Quarantine
) -> None:
    process = lists.program(BOUNDED)
    for name, pack in PACKED.items():
        push(lists, pack(GOOD), headers={**message()[1], "compression": name})  # type: ignore[dict-item]
    for charset in ("zlib", "zlib_codec", "zip", "bz2", "hex", "rot13", "punycode", "no-such", 7):
        push(lists, zlib.compress(GOOD), **{"content-encoding": charset})
    push(lists)
    tracked(lists)
    said = lines(lists, "message.refused")
    assert sum("it is compressed, and compressed" in line for line in said) == len(PACKED)
    assert sum("its content-encoding is not accepted" in line for line in said) == 9
    assert not lines(lists, "Traceback")
    assert process.poll() is None
    drained(lists)
    found = kept.list()
    assert len(found) == len(PACKED) + 9
    assert all(any(one.id in line for line in said) for one in found)
    assert {(one.queue, one.deaths) for one in found} == {(KEPT, 0)}
    bodies = [json.loads(whole.message)["body"] for one in found if (whole := kept.show(one.id))]
    assert base64.b64encode(bz2.compress(GOOD)).decode() in bodies


@pytest.mark.timeout(60)
def test_two_megabytes_that_would_inflate_to_two_gigabytes_cost_a_worker_nothing(
    lists: Broker, kept: Quarantine
) -> None:
    process = lists.program(BOUNDED)
    push(lists)
    tracked(lists)
    before = peak(process)
    piece = bytes(2**24)
    for name, pack in (("application/x-gzip", gzip.compress), ("application/x-bz2", bz2.compress)):
        packed = pack(piece) * 128  # both formats take several streams, one behind the other
        push(lists, packed, headers={**message()[1], "compression": name})  # type: ignore[dict-item]
    push(lists, zlib.compress(piece * 8), **{"content-encoding": "zlib"})
    push(lists, json.dumps([[["y"]], {"service": "nano-banana"}, {}]).encode())
    tracked(lists, "y")
    assert process.poll() is None
    assert peak(process) < PEAK, f"it was {before:.0f} MB before"
    assert len(kept.list()) == 3


# --- Celery's own tasks

THEIRS = [
    "celery.chord_unlock",
    "celery.backend_cleanup",
    "celery.accumulate",
    "celery.map",
    "celery.group",
    "no.such",
    "x" * 500,
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("protocol", [1, 2])
def test_a_message_that_calls_no_task_of_ours_is_refused_in_one_line_and_does_not_come_back(
    lists: Broker, protocol: int
) -> None:
    process = lists.worker()
    for name in THEIRS:
        old = json.dumps({"task": name, "id": "i", "args": [], "kwargs": {}}).encode()
        headers = {} if protocol == 1 else {**message()[1], "task": name}  # type: ignore[dict-item]
        push(lists, old if protocol == 1 else GOOD, headers=headers)
    push(lists)
    tracked(lists)
    refused = lines(lists, "message.refused")
    said = [line for line in refused if "which is no task of Cavendish" in line]
    assert len(said) == len(THEIRS)
    assert all(any(name[:50] in line for line in said) for name in THEIRS)
    assert all(len(line) < 300 for line in said)
    assert not lines(lists, "Traceback")
    assert process.poll() is None
    drained(lists)


# --- messages that were in hand when a worker died


def age(lists: Broker) -> None:
    """Make everything that is in hand or has a note look old."""
    for key in ("unacked_index", POPPED):
        for member, at in lists.redis.zrange(key, 0, -1, withscores=True):
            lists.redis.zadd(key, {member: at - 1000})


@pytest.mark.timeout(120)
def test_a_message_that_killed_three_workers_is_quarantined_and_can_be_retried(
    lists: Broker, kept: Quarantine
) -> None:
    push(lists, POISON)
    for _ in range(MOST_DEATHS):
        assert lists.program(KILLED).wait(40) == -signal.SIGKILL
        age(lists)
    push(lists)
    last = lists.program(KILLED)
    tracked(lists)
    end = time.monotonic() + 40
    while not kept.list():
        assert time.monotonic() < end, Path(lists.log.name).read_text()
        time.sleep(0.1)
    assert last.poll() is None
    (one,) = kept.list()
    assert (one.queue, one.deaths, one.reason) == (
        KEPT,
        3,
        "it was in hand when a worker died, 3 times",
    )
    (said,) = lines(lists, "message.quarantined")
    assert one.id in said
    drained(lists)
    last.terminate()
    last.wait(30)
    lists.worker()  # a worker that it does not kill
    assert kept.retry(one.id)
    tracked(lists, "poison")
    assert kept.list() == []
    assert not kept.retry(one.id)


@pytest.mark.timeout(120)
def test_a_message_that_kills_as_it_is_popped_is_quarantined_unread(
    lists: Broker, kept: Quarantine
) -> None:
    lists.redis.lpush(KEPT, envelope())
    for _ in range(MOST_DEATHS):
        assert lists.program(DIES).wait(40) == -signal.SIGKILL
        age(lists)
    lists.push(KEPT, "good")
    assert lists.consume([KEPT], 1) == ["good"]
    (one,) = kept.list()
    assert (one.queue, one.deaths, one.size) == (KEPT, MOST_DEATHS, len(envelope()))
    shown = kept.show(one.id)
    assert shown is not None
    assert json.loads(shown.message) == json.loads(envelope())
    assert lists.redis.zcard(POPPED) == lists.redis.hlen(NOTED_DEATHS) == 0


def test_what_was_in_hand_at_two_deaths_is_handed_out_and_its_count_goes_with_it(
    lists: Broker, kept: Quarantine
) -> None:
    lists.push(KEPT, "x")
    lists.redis.zadd(POPPED, {lists.redis.lpop(KEPT): 0})  # type: ignore[dict-item]
    assert lists.consume([KEPT], 1, done=False) == [
        "x"
    ]  # one death, and then it is given back by a worker that ends
    (text,) = lists.redis.lrange(KEPT, 0, -1)
    assert json.loads(text)["headers"][DEATHS] == 1
    assert lists.consume([KEPT], 1) == ["x"]
    assert lists.redis.hlen(NOTED_DEATHS) == 0
    assert kept.list() == []


def test_a_message_that_workers_give_back_many_times_as_they_end_well_is_not_quarantined(
    lists: Broker, kept: Quarantine
) -> None:
    lists.push(KEPT, "x")
    for _ in range(2 * MOST_DEATHS):
        assert lists.consume([KEPT], 1, done=False) == ["x"]
    assert lists.consume([KEPT], 1) == ["x"]
    assert kept.list() == []


@pytest.mark.parametrize("odd", [True, "3", -7, 2, None, [3], 1e9])
def test_a_stranger_who_writes_deaths_into_a_message_harms_nobody_else(
    lists: Broker, odd: object, kept: Quarantine
) -> None:
    lists.redis.lpush(KEPT, envelope(headers={"id": "x", DEATHS: odd}))
    assert lists.consume([KEPT], 1) == ["x"]
    assert kept.list() == []


def test_the_newest_hundred_are_kept_and_one_can_be_shown_or_dropped(
    lists: Broker, kept: Quarantine
) -> None:
    for number in range(105):
        lists.redis.lpush(KEPT, envelope(headers={"id": f"{number}", DEATHS: MOST_DEATHS}))
    lists.push(KEPT, "good")
    assert lists.consume([KEPT], 1) == ["good"]
    found = kept.list()
    assert len(found) == 100
    assert not any(one.message for one in found)
    ids = {
        json.loads(shown.message)["headers"]["id"] for one in found if (shown := kept.show(one.id))
    }
    assert ids == {f"{number}" for number in range(5, 105)}
    assert kept.drop(found[0].id)
    assert not kept.drop(found[0].id)
    assert kept.show(found[0].id) is None
    assert len(kept.list()) == lists.redis.llen("cavendish.quarantine") == 99


def test_what_no_text_can_show_is_kept_and_goes_back_byte_by_byte(
    lists: Broker, kept: Quarantine
) -> None:
    broken = b'{"headers": "\xff\xfe'
    lists.redis.zadd(POPPED, {broken: 0})
    lists.redis.hset(
        NOTED_DEATHS, hashlib.sha1(broken, usedforsecurity=False).hexdigest(), str(MOST_DEATHS - 1)
    )
    assert lists.consume([KEPT], 1, seconds=1) == []
    (one,) = kept.list()
    assert kept.retry(one.id)
    assert lists.redis.lrange(KEPT, 0, -1) == [broken]


NO_MESSAGES = [
    b"\xff\xfe", b"{", b"7", b'{"headers": {}}', b"[" * 200_000,
    json.dumps({"body": "abc", "properties": {"body_encoding": "base64"}}).encode(),
]  # fmt: skip


@pytest.mark.timeout(60)
def test_what_no_worker_can_read_is_quarantined_as_it_came_and_can_be_put_back(
    lists: Broker, kept: Quarantine
) -> None:
    for text in NO_MESSAGES:
        lists.redis.lpush(KEPT, text)
        lists.redis.lpush(EXPIRE, text)  # a hint is worth nothing
    lists.push(KEPT, "good")
    assert lists.consume([KEPT, EXPIRE], 1) == ["good"]
    found = kept.list()
    assert sorted(one.size for one in found) == sorted(map(len, NO_MESSAGES))
    assert {(one.queue, one.deaths) for one in found} == {(KEPT, 0)}
    drained(lists)
    assert all(kept.retry(one.id) for one in found)
    assert sorted(lists.redis.lrange(KEPT, 0, -1)) == sorted(NO_MESSAGES)
    assert kept.list() == []
    assert not lists.redis.exists("cavendish.unreadable")


def test_what_is_no_message_of_ours_does_not_push_out_what_killed_workers(
    lists: Broker, kept: Quarantine
) -> None:
    lists.redis.lpush(KEPT, envelope(headers={"id": "x", DEATHS: MOST_DEATHS}))
    for number in range(105):
        lists.redis.lpush(KEPT, f"{number}")
    lists.push(KEPT, "good")
    assert lists.consume([KEPT], 1) == ["good"]
    assert sorted(one.deaths for one in kept.list()) == [0] * 100 + [MOST_DEATHS]
    newest = {whole.message for one in kept.list() if (whole := kept.show(one.id))}
    assert {f"{number}" for number in range(5, 105)} < newest


def test_large_ones_that_no_worker_can_read_make_room_for_each_other(
    lists: Broker, kept: Quarantine
) -> None:
    for letter in "abc":
        lists.redis.lpush(KEPT, letter * 30_000_000)
    lists.push(KEPT, "good")
    assert lists.consume([KEPT], 1) == ["good"]
    assert [one.reason for one in kept.list()] != []
    assert {one.size for one in kept.list()} == {30_000_000}
    assert len(kept.list()) == lists.redis.llen("cavendish.unreadable") == 2


def test_a_note_that_was_left_for_want_of_memory_is_not_taken_for_that_of_the_next_message(
    lists: Broker, kept: Quarantine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = redis_transport.Channel._hand_over

    def short(channel: redis_transport.Channel, message: bytes, queue: str, deaths: int) -> None:
        if queue == KEPT:
            raise MemoryError
        real(channel, message, queue, deaths)

    monkeypatch.setattr(redis_transport.Channel, "_hand_over", short)
    lists.push(KEPT, "x")
    lists.redis.lpush(EXPIRE, "no message")
    lists.push(EXPIRE, "hint")
    assert lists.consume([KEPT, EXPIRE], 1) == ["hint"]
    assert lists.redis.zcard(POPPED) == 1
    assert kept.list() == []


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"REDIS_URL": "rediss://r:1/2"}, "rediss://r:1/2"),
        (
            {
                "REDIS_URL": "redis://r/0?wait_replicas=1",
                "BROKER_URL": "redis+socket:///b?virtual_host=3",
            },
            "redis+socket:///b?virtual_host=3",
        ),
        ({"REDIS_URL": "redis://r", "BROKER_URL": "amqp://b"}, None),
    ],
)
def test_quarantined_messages_are_kept_in_the_redis_of_the_broker(
    environment: dict[str, str], url: str | None
) -> None:
    assert (
        quarantine_url(
            Settings.load({f"CAVENDISH_{name}": text for name, text in environment.items()})
        )
        == url
    )
