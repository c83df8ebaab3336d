"""Nothing grows without end: what has expired is gone, a Redis that is full refuses in one sentence, and loses nothing."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from acceptance.conftest import SERVICE, wait_until
from acceptance.parts import Parts
from celery import Celery
from conftest import Server
from owing import KEYS, LANE, Owing, Served

from scheduler import Client
from scheduler.errors import BookUnavailable
from scheduler.settings import Settings
from scheduler.store import Book
from scheduler.store.debts import Try
from scheduler.submission import Wishes
from scheduler.tracking import State
from scheduler.verdicts import Outcome
from worker import embedded
from worker.emulator.api import Knobs
from worker.webhooks.sweep import sweep

#: What may stay in the book for ever: its size does not depend on how many ids there were.
PERMANENT = {"lanes", "fleet", "tick", "counts", "events", "condition", "swept", "dead"}
FULL = "command not allowed when used memory > 'maxmemory'"


def shapes(book: Book) -> set[str]:
    """The kinds of keys that there are."""
    keys = list(book.connection.redis.scan_iter(count=1000))
    return {re.sub(r"^cavendish:(\{.*?\}:)?", "", str(key)).partition(":")[0] for key in keys}


def client_of(server: Server) -> Client:
    return Client(settings=Settings.load({"CAVENDISH_REDIS_URL": server.url, "CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8"}))


def fill(client: redis.Redis, *, spare: int = 100_000) -> None:
    """Let the server be full, and a little more: nothing that takes memory is taken any more."""
    client.config_set("maxmemory", client.info()["used_memory"] + spare)
    refused = number = 0
    while refused < 200:
        number += 1
        try:
            client.set(f"filling:{number}", "x" * 1000)
        except redis.ResponseError:
            refused += 1


def test_what_has_expired_leaves_nothing_but_totals(book: Book, owing: Owing) -> None:
    """Retention is two seconds here: settled and never announced, paid, and dead. Leases, lists and laws go too."""
    now, url = book.fleet.now(), "http://127.0.0.1:9/hook"
    owing.end("paid-1", "paid-2", "dead-1", webhook=url)
    wishes = Wishes(SERVICE, "default", (), 1000.0, "", "", "", again=False)
    book.tasks.add(["quiet"], wishes, now - 10, now - 10)
    book.tasks.claim(LANE, now + 60, "t2", book.tasks.candidates(LANE, now, 10))
    quiet = book.tasks.load(LANE, ["quiet"]).tasks["quiet"]
    book.tasks.settle(LANE, "t2", now, [(Outcome(quiet, State.FAILED, record={"id": "quiet"}), 0.0)], 2, 100)
    (endpoint,) = book.debts.sort([LANE], now + 1).worth[LANE]
    taken = book.debts.claim_delivery(LANE, now + 1, now + 60, "t3", 10, {endpoint: 10})
    dead = [name for name in taken if "dead" in name]
    assert book.debts.paid(LANE, "t3", now, [Try(name, "HTTP 200", "log") for name in taken if name not in dead], 2) == 2
    assert book.debts.bury(LANE, "t3", now, [Try(name, "HTTP 500", "log") for name in dead], 2) == 1
    assert {"task", "result", "delivery", "dead", "ended", "counts", "events"} <= shapes(book)
    book.debts.claim_delivery(LANE, now + 100, now + 160, "t4", 10, {endpoint: 10})  # a visit that finds nothing
    time.sleep(2.2)
    sweep(book, "", 2)
    assert shapes(book) <= PERMANENT
    redis_ = book.connection.redis
    assert [redis_.exists(key) for key in (KEYS.ended, KEYS.dead, KEYS.leases, KEYS.debt_leases, KEYS.deadlines, KEYS.owing)] == [
        0
    ] * 6


def test_a_sweep_forgets_as_fast_as_two_hundred_ids_a_second_end(book: Book, owing: Owing) -> None:
    """It runs each half minute, so 6,000 ids whose records are gone must be struck off the list by one."""
    book.connection.redis.sadd("cavendish:lanes", str(LANE))
    book.connection.redis.zadd(KEYS.ended, {f"gone-{number}": number for number in range(6000)})
    sweep(book, "", 2)
    assert book.connection.redis.zcard(KEYS.ended) == 0


def test_a_full_redis_refuses_a_submit_in_one_sentence_and_writes_nothing_of_it(own_server: Server) -> None:
    with client_of(own_server) as client:
        client.submit(["first"], service=SERVICE)
        book = Book(own_server.url)
        fill(book.connection.redis)
        for ids in (["one"], [f"many-{number}" for number in range(1200)]):
            with pytest.raises(BookUnavailable) as refusal:
                client.submit(ids, service=SERVICE, webhook="http://127.0.0.1:9/hook")
            assert str(refusal.value) == f"Redis at {own_server.url} refuses ({FULL})."
            assert client.get_many(ids, service=SERVICE) == {}
        with pytest.raises(BookUnavailable):
            client.submit(["of a new lane"], service="veo")
        command = [sys.executable, "-m", "worker.cli", "submit", "--service", SERVICE, "--webhook", "http://127.0.0.1:9/x", "two"]
        environment = {"CAVENDISH_REDIS_URL": own_server.url, "CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8", "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
        assert (done.returncode, done.stdout, done.stderr.strip()) == (1, "", f"Redis at {own_server.url} refuses ({FULL}).")
        assert [str(lane) for lane in book.tasks.lanes()] == [str(LANE)]
        assert book.connection.redis.zcard(KEYS.deadlines) == 1
        book.connection.redis.config_set("maxmemory", 0)
        assert [one.outcome for one in client.submit(["one"], service=SERVICE)] == ["new"]
        book.close()


def test_with_memory_full_what_was_tried_of_a_debt_is_not_forgotten(book: Book, owing: Owing) -> None:
    """`later` counts the tries of a debt; an error of a full Redis must not read as «what was tried is unreadable»."""
    owing.end("a", webhook="http://127.0.0.1:9/hook")
    now = book.fleet.now()
    book.connection.redis.hset(KEYS.delivery(f"{_endpoint(book, now)}:a"), mapping={"tries": 4, "state": "owed"})
    (name,) = book.debts.claim_delivery(LANE, now + 1, now + 60, "t3", 10, {_endpoint(book, now): 10})
    fill(book.connection.redis)
    try:
        assert book.debts.bury(LANE, "t3", now, [Try(name, "HTTP 500", "log")], 60) == 1
        assert book.debts.load(LANE, [name])[0].tries == 5
    finally:
        book.connection.redis.config_set("maxmemory", 0)


def _endpoint(book: Book, now: float) -> str:
    return book.debts.sort([LANE], now + 1).worth.get(LANE, [""])[0] or str(book.connection.redis.zrange(KEYS.owing, 0, 0)[0])


@pytest.fixture
def parts(own_server: Server, served: Served) -> Iterator[Callable[..., Parts]]:
    """Workers and beats around one Redis."""
    running: list[Parts] = []

    def begin(**settings: str) -> Parts:
        running.append(Parts(own_server.url, served, Knobs(rate=0, median=2, sigma=0.1), **settings))
        return running[-1]

    yield begin
    for each in running:
        each.close()


def settled(parts: Parts, ids: list[str]) -> int:
    return sum(task.state.terminal for task in parts.tasks(ids).values())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("brokers", ["one", "two"])
def test_with_memory_full_what_was_accepted_ends_and_is_announced_and_no_message_is_lost(
    own_server: Server, server: Server, parts: Callable[..., Parts], brokers: str
) -> None:
    """The broker in the same Redis, then in one of its own. A message of Celery waits in its queue until there is memory."""
    where = own_server if brokers == "one" else server
    here = parts(BROKER_URL=f"redis+socket://{where.socket}?virtual_host=5", LEASE="10", CALL_TIMEOUT="5")
    worker, beat = here.celery("worker"), here.celery("beat")
    client, queue = client_of(own_server), redis.Redis(unix_socket_path=str(where.socket), db=5)
    producer = Celery(broker=f"redis+socket://{where.socket}?virtual_host=5")

    def send(task_id: str) -> None:
        producer.send_task(
            "cavendish.submit", args=[[task_id]], kwargs={"service": SERVICE}, queue="cavendish.submit", retry=False
        )

    first, accepted, sent = here.emulator.create(20), here.emulator.create(30), here.emulator.create(10)
    client.submit(first, service=SERVICE, webhook=here.receiver, deadline=30)
    wait_until(lambda: here.announced()["announced"] == len(first), 30, "the law is learned")
    client.submit(accepted, service=SERVICE, webhook=here.receiver)
    worker.send_signal(signal.SIGSTOP)
    for task_id in sent:
        send(task_id)
    fill(here.book.connection.redis)
    worker.send_signal(signal.SIGCONT)
    wait_until(lambda: here.announced()["announced"] == 50, 30, "what was accepted is announced although memory is full")
    assert settled(here, accepted) == len(accepted)
    assert (worker.poll(), beat.poll()) == (None, None)
    assert here.book.connection.redis.info()["maxmemory"] > 0
    here.book.connection.redis.config_set("maxmemory", 0)
    wait_until(lambda: len(here.tasks(sent)) == len(sent), 60, "the messages that waited were taken in")
    wait_until(lambda: queue.llen("cavendish.submit") == queue.hlen("unacked") == 0, 40, "no message is left")
    client.close()


class Cramped(Server):
    """A Redis whose files may not grow beyond some size: to it the disk is full."""

    def __init__(self, fsync: str) -> None:
        super().__init__()
        self.fsync, self.bytes = fsync, -1

    def start(self) -> None:
        command = embedded.arguments(self.folder, self.socket)
        command[command.index("--appendfsync") + 1] = self.fsync
        limit = self.bytes

        def cramp() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

        self.process = subprocess.Popen(command, env=embedded.environment(), process_group=0, preexec_fn=cramp)  # noqa: PLW1509 (it only sets limits)
        embedded.wait_for(self.url, self.process, self.folder / "redis" / "server.log")

    def room(self, size: int | None) -> None:
        """So much more may be written from now on (Linux); None: anything."""
        assert self.process is not None
        grown = max(path.stat().st_size for path in (self.folder / "redis").rglob("*.aof"))
        soft = resource.RLIM_INFINITY if size is None else grown + size
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_with_the_disk_full_a_submit_is_refused_in_one_sentence_and_with_space_again_everything_accepted_is_announced(
    served: Served, fsync: str, request: pytest.FixtureRequest
) -> None:
    """`everysec`: the server refuses writes until there is space. `always`: it ends rather than break its word; whoever keeps it
    alive starts it again, and the write that was cut in its middle does not keep it from loading."""
    server = Cramped(fsync)
    request.addfinalizer(server.close)
    server.start()
    here = Parts(server.url, served, Knobs(rate=0, median=2, sigma=0.1), LEASE="10", CALL_TIMEOUT="5")
    request.addfinalizer(here.close)
    worker, beat = here.celery("worker"), here.celery("beat")
    client, ids, more = client_of(server), here.emulator.create(30), here.emulator.create(2000)
    client.submit(ids, service=SERVICE, webhook=here.receiver, deadline=60)
    server.room(3000)
    said, taken = None, list[str]()
    for start in range(0, len(more), 100):
        some = more[start : start + 100]
        try:
            client.submit(some, service=SERVICE, webhook=here.receiver, deadline=60)
        except BookUnavailable as refusal:
            said = str(refusal)
            break
        taken += some
        time.sleep(0.2)
    assert said is not None
    assert len(said.splitlines()) == 1
    assert re.fullmatch(r"Redis at unix://\S+ (refuses|does not answer) \(.*\)\.( Does `cavendish up` run, here or .*\?)?", said)
    time.sleep(6)  # long enough for every part to have noticed
    assert (worker.poll(), beat.poll()) == (None, None)
    assert server.process is not None
    assert (server.process.poll() is None) == (fsync == "everysec")
    if fsync == "always":
        server.start()
    else:
        server.room(None)
    wait_until(
        lambda: client.submit(more[-1:], service=SERVICE, webhook=here.receiver, deadline=60), 20, "submits are taken again"
    )
    accepted = {*ids, *taken, *more[-1:]}
    wait_until(lambda: accepted <= set(here.announced()["states"]), 60, "everything that was accepted is announced")
    assert (worker.poll(), beat.poll()) == (None, None)
    client.close()


def test_an_append_only_file_that_ends_in_the_middle_of_a_write_is_loaded(own_server: Server) -> None:
    with client_of(own_server) as client:
        client.submit([f"id-{number}" for number in range(100)], service=SERVICE)
        own_server.kill()
        (path,) = Path(own_server.folder / "redis" / "appendonlydir").glob("*.incr.aof")
        whole = path.read_bytes()
        path.write_bytes(whole[:-7] if whole.endswith(b"\r\n") else whole)
        own_server.start()
        client.submit(["after"], service=SERVICE)
        assert set(client.get_many(["id-0", "after"], service=SERVICE)) >= {"after"}
