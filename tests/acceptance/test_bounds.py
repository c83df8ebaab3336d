"""Nothing grows without end.

What has expired is gone, a Redis that is full refuses in one sentence, and loses nothing.
"""

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
from celery import Celery

from acceptance.conftest import SERVICE, wait_until
from acceptance.parts import Parts
from cavendish import Client
from cavendish.errors import StoreUnavailable
from cavendish.model import State
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.deliveries import Attempt
from cavendish.submission import SubmitOptions
from cavendish_worker.devstack import embedded_redis as embedded
from cavendish_worker.devstack.emulator.tasks_api import EmulatorConfig
from cavendish_worker.webhooks.reconcile import reconcile
from conftest import Server
from delivering import KEYS, LANE, Delivering, Served

#: What may stay in the store for ever: its size does not depend on how many ids there were.
PERMANENT = {"lanes", "fleet", "tick", "counts", "events", "service-health", "reconciled", "dead"}
#: Nor does the size of the due indices: a lane leaves them with the next look at it.
PERMANENT |= {"due", "noted"}
FULL = "command not allowed when used memory > 'maxmemory'"


def shapes(store: Store) -> set[str]:
    """The kinds of keys that there are."""
    keys = list(store.connection.redis.scan_iter(count=1000))
    return {re.sub(r"^cavendish:(\{.*?\}:)?", "", str(key)).partition(":")[0] for key in keys}


def client_of(server: Server) -> Client:
    return Client(
        settings=Settings.load(
            {"CAVENDISH_REDIS_URL": server.url, "CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8"}
        )
    )


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


def test_what_has_expired_leaves_nothing_but_totals(
    store: Store, endpoint_index: Delivering
) -> None:
    """Retention is two seconds here.

    Settled and never announced, delivered, and dead. Leases, lists and duration models go too.
    """
    now, url = store.fleet.now(), "http://127.0.0.1:9/hook"
    endpoint_index.end("paid-1", "paid-2", "dead-1", webhook=url)
    options = SubmitOptions(SERVICE, "default", (), 1000.0, "", "", "", restart=False)
    store.tasks.add(["quiet"], options, now - 10, now - 10)
    store.tasks.claim(LANE, now + 60, "t2", store.tasks.candidates(LANE, now, 10))
    quiet = store.tasks.load(LANE, ["quiet"]).tasks["quiet"]
    store.tasks.settle(
        LANE, "t2", now, [(Outcome(quiet, State.FAILED, record={"id": "quiet"}), 0.0)], 2, 100
    )
    (endpoint,) = store.deliveries.sort([LANE], now + 1).worth[LANE]
    taken = store.deliveries.claim_delivery(LANE, now + 1, now + 60, "t3", 10, {endpoint: 10})
    dead = [name for name in taken if "dead" in name]
    assert (
        store.deliveries.delivered(
            LANE,
            "t3",
            now,
            [Attempt(name, "HTTP 200", "log") for name in taken if name not in dead],
            2,
        )
        == 2
    )
    assert (
        store.deliveries.bury(
            LANE, "t3", now, [Attempt(name, "HTTP 500", "log") for name in dead], 2
        )
        == 1
    )
    assert {"task", "result", "delivery", "dead", "ended", "counts", "events"} <= shapes(store)
    store.deliveries.claim_delivery(
        LANE, now + 100, now + 160, "t4", 10, {endpoint: 10}
    )  # a visit that finds nothing
    time.sleep(2.2)
    reconcile(store, "", 2, 2)
    assert shapes(store) <= PERMANENT
    redis_ = store.connection.redis
    assert [
        redis_.exists(key)
        for key in (
            KEYS.due(""),
            KEYS.ended,
            KEYS.dead,
            KEYS.leases,
            KEYS.delivery_leases,
            KEYS.deadlines,
            KEYS.endpoint_index,
        )
    ] == [0] * 7


def test_a_reconcile_run_forgets_as_fast_as_two_hundred_ids_a_second_end(
    store: Store, endpoint_index: Delivering
) -> None:
    """It runs each half minute, so 6,000 ids whose records are gone must be struck off the list by
    one.
    """
    store.connection.redis.sadd("cavendish:lanes", str(LANE))
    store.connection.redis.zadd(KEYS.ended, {f"gone-{number}": number for number in range(6000)})
    reconcile(store, "", 2, 2)
    assert store.connection.redis.zcard(KEYS.ended) == 0


def test_a_full_redis_refuses_a_submit_in_one_sentence_and_writes_nothing_of_it(
    own_server: Server,
) -> None:
    with client_of(own_server) as client:
        client.submit(["first"], service=SERVICE)
        store = Store(own_server.url)
        fill(store.connection.redis)
        for ids in (["one"], [f"many-{number}" for number in range(1200)]):
            with pytest.raises(StoreUnavailable) as upstream_error:
                client.submit(ids, service=SERVICE, webhook="http://127.0.0.1:9/hook")
            assert str(upstream_error.value) == f"Redis at {own_server.url} refuses ({FULL})."
            assert client.get_many(ids, service=SERVICE) == {}
        with pytest.raises(StoreUnavailable):
            client.submit(["of a new lane"], service="veo")
        command = [
            sys.executable,
            "-m",
            "cavendish_worker.cli",
            "submit",
            "--service",
            SERVICE,
            "--webhook",
            "http://127.0.0.1:9/x",
            "two",
        ]
        environment = {
            "CAVENDISH_REDIS_URL": own_server.url,
            "CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8",
            "PATH": "/usr/bin:/bin",
        }
        # Buffers of this connection count, and are freed at some time: that must leave no room.
        redis_ = store.connection.redis
        redis_.config_set("maxmemory", redis_.info()["used_memory"] - 200_000)
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=30
        )
        assert (done.returncode, done.stdout, done.stderr.strip()) == (
            1,
            "",
            f"Redis at {own_server.url} refuses ({FULL}).",
        )
        assert [str(lane) for lane in store.tasks.lanes()] == [str(LANE)]
        assert store.connection.redis.zcard(KEYS.due("")) == 1
        store.connection.redis.config_set("maxmemory", 0)
        assert [one.outcome for one in client.submit(["one"], service=SERVICE)] == ["new"]
        store.close()


def test_with_memory_full_what_was_tried_of_a_delivery_is_not_forgotten(
    store: Store, endpoint_index: Delivering
) -> None:
    """`later` counts the attempts of a delivery.

    An error of a full Redis must not read as «what was tried is unreadable».
    """
    endpoint_index.end("a", webhook="http://127.0.0.1:9/hook")
    now = store.fleet.now()
    store.connection.redis.hset(
        KEYS.delivery(f"{_endpoint(store, now)}:a"),
        mapping={"attempts": 4, "state": "pending"},
    )
    (name,) = store.deliveries.claim_delivery(
        LANE, now + 1, now + 60, "t3", 10, {_endpoint(store, now): 10}
    )
    fill(store.connection.redis)
    try:
        assert store.deliveries.bury(LANE, "t3", now, [Attempt(name, "HTTP 500", "log")], 60) == 1
        assert store.deliveries.load(LANE, [name])[0].attempts == 5
    finally:
        store.connection.redis.config_set("maxmemory", 0)


def _endpoint(store: Store, now: float) -> str:
    return store.deliveries.sort([LANE], now + 1).worth.get(LANE, [""])[0] or str(
        store.connection.redis.zrange(KEYS.endpoint_index, 0, 0)[0]
    )


@pytest.fixture
def parts(own_server: Server, served: Served) -> Iterator[Callable[..., Parts]]:
    """Workers and beats around one Redis."""
    running: list[Parts] = []

    def begin(**settings: str) -> Parts:
        running.append(
            Parts(own_server.url, served, EmulatorConfig(rate=0, median=2, sigma=0.1), **settings)
        )
        return running[-1]

    yield begin
    for each in running:
        each.close()


def settled(parts: Parts, ids: list[str]) -> int:
    return sum(task.state.terminal for task in parts.tasks(ids).values())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("brokers", ["one", "two"])
def test_with_memory_full_what_was_accepted_ends_and_is_announced_and_no_message_is_lost(
    own_server: Server, server: Server, parts: Callable[..., Parts], brokers: str
) -> None:
    """The broker in the same Redis, then in one of its own.

    A message of Celery waits in its queue until there is memory.
    """
    where = own_server if brokers == "one" else server
    here = parts(
        BROKER_URL=f"redis+socket://{where.socket}?virtual_host=5", LEASE="10", CALL_TIMEOUT="5"
    )
    worker, beat = here.celery("worker"), here.celery("beat")
    client, queue = client_of(own_server), redis.Redis(unix_socket_path=str(where.socket), db=5)
    producer = Celery(broker=f"redis+socket://{where.socket}?virtual_host=5")

    def send(task_id: str) -> None:
        producer.send_task(
            "cavendish.submit",
            args=[[task_id]],
            kwargs={"service": SERVICE},
            queue="cavendish.submit",
            retry=False,
        )

    first, accepted, sent = (
        here.emulator.create(20),
        here.emulator.create(30),
        here.emulator.create(10),
    )
    client.submit(first, service=SERVICE, webhook=here.receiver, deadline=30)
    wait_until(
        lambda: here.announced()["announced"] == len(first), 60, "the duration model is learned"
    )
    client.submit(accepted, service=SERVICE, webhook=here.receiver)
    worker.send_signal(signal.SIGSTOP)
    for task_id in sent:
        send(task_id)
    fill(here.store.connection.redis)
    worker.send_signal(signal.SIGCONT)
    wait_until(
        lambda: here.announced()["announced"] == 50,
        60,
        "what was accepted is announced although memory is full",
    )
    assert settled(here, accepted) == len(accepted)
    assert (worker.poll(), beat.poll()) == (None, None)
    assert here.store.connection.redis.info()["maxmemory"] > 0
    here.store.connection.redis.config_set("maxmemory", 0)
    wait_until(
        lambda: len(here.tasks(sent)) == len(sent), 60, "the messages that waited were taken in"
    )
    wait_until(
        lambda: queue.llen("cavendish.submit") == queue.hlen("unacked") == 0,
        60,
        "no message is left",
    )
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

        self.process = subprocess.Popen(
            command,
            env=embedded.environment(),
            process_group=0,
            preexec_fn=cramp,  # noqa: PLW1509 (it only sets limits)
        )
        embedded.wait_for(self.url, self.process, self.folder / "redis" / "server.log")

    def room(self, size: int | None) -> None:
        """So much more may be written from now on (Linux); None: anything."""
        assert self.process is not None
        grown = max(path.stat().st_size for path in (self.folder / "redis").rglob("*.aof"))
        soft = resource.RLIM_INFINITY if size is None else grown + size
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_with_the_disk_full_a_submit_is_refused_and_with_space_everything_accepted_is_announced(
    served: Served, fsync: str, request: pytest.FixtureRequest
) -> None:
    """`everysec`: the server refuses writes until there is space. `always`: it ends rather than
    break its word; whoever keeps it alive starts it again, and the write that was cut in its middle
    does not keep it from loading."""
    server = Cramped(fsync)
    request.addfinalizer(server.close)
    server.start()
    here = Parts(
        server.url,
        served,
        EmulatorConfig(rate=0, median=2, sigma=0.1),
        LEASE="10",
        CALL_TIMEOUT="5",
    )
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
        except StoreUnavailable as upstream_error:
            said = str(upstream_error)
            break
        taken += some
        time.sleep(0.2)
    assert said is not None
    assert len(said.splitlines()) == 1
    assert re.fullmatch(
        r"Redis at unix://\S+ (refuses|does not answer) \(.*\)\.( Does `cavendish up` run, here or "
        r".*\?)?",
        said,
    )
    time.sleep(6)  # long enough for every part to have noticed
    assert (worker.poll(), beat.poll()) == (None, None)
    assert server.process is not None
    assert (server.process.poll() is None) == (fsync == "everysec")
    if fsync == "always":
        server.start()
    else:
        server.room(None)
    wait_until(
        lambda: client.submit(more[-1:], service=SERVICE, webhook=here.receiver, deadline=60),
        60,
        "submits are taken again",
    )
    accepted = {*ids, *taken, *more[-1:]}
    wait_until(
        lambda: accepted <= set(here.announced()["states"]),
        60,
        "everything that was accepted is announced",
    )
    assert (worker.poll(), beat.poll()) == (None, None)
    client.close()


def test_an_append_only_file_that_ends_in_the_middle_of_a_write_is_loaded(
    own_server: Server,
) -> None:
    with client_of(own_server) as client:
        client.submit([f"id-{number}" for number in range(100)], service=SERVICE)
        own_server.kill()
        (path,) = Path(own_server.folder / "redis" / "appendonlydir").glob("*.incr.aof")
        whole = path.read_bytes()
        path.write_bytes(whole[:-7] if whole.endswith(b"\r\n") else whole)
        own_server.start()
        client.submit(["after"], service=SERVICE)
        assert set(client.get_many(["id-0", "after"], service=SERVICE)) >= {"after"}
