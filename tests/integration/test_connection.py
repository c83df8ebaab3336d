"""Where the store may lie.

Behind Sentinels or in a cluster, with replicas to wait for; servers stop, die and change places.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import redis

from cavendish import Client
from cavendish.endpoints.webhook_endpoint import Endpoint
from cavendish.errors import SettingsError, StoreUnavailable
from cavendish.model import Lane, State
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings
from cavendish.store import Store, redis_clients
from cavendish.store.fleet import FORMAT
from cavendish.store.keys import FLEET, LANES, IndexKeys, LaneKeys, waited
from cavendish.submission import SubmitOptions
from conftest import Server
from ending import settle
from servers import PASSWORD, Cluster, Node, Watched, eventually, started

LANE = Lane("default", "nano-banana", 0)
SHARDS = [Lane("default", "nano-banana", shard) for shard in range(1, 8)]
IDS = [f"id-{number}" for number in range(40)]


@pytest.fixture
def watched() -> Iterator[Watched]:
    with started(Watched) as servers:
        yield servers


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with started(Cluster) as servers:
        yield servers


def client(url: str, **more: str) -> Client:
    return Client(
        settings=Settings.load(
            {"CAVENDISH_REDIS_URL": url, "CAVENDISH_WAIT_TIMEOUT": "0.2", **more}
        )
    )


def stop(nodes: list[Node]) -> None:
    for node in nodes:
        node.kill(signal.SIGSTOP)


def go_on(nodes: list[Node]) -> None:
    for node in nodes:
        node.kill(signal.SIGCONT)


def there(store: Store) -> bool:
    """True if the store takes a write now."""
    with suppress(StoreUnavailable):
        store.fleet.leave("nobody")
        return True
    return False


def followed(store: Store) -> None:
    """Wait until the store is there again."""
    eventually(lambda: there(store), "the store is there again", 60)


# --- Sentinel


def test_the_store_follows_a_primary_that_dies_or_steps_down(watched: Watched) -> None:
    store, sentinel = Store(watched.url), watched.sentinels[-1].redis
    assert there(store)
    watched.primary.kill()
    followed(store)
    first = sentinel.sentinel_get_master_addr_by_name("store")
    watched.primary.start()
    eventually(
        lambda: sentinel.sentinel_master("store")["num-slaves"] == 2 and _all_up(watched),
        "the dead one is back",
    )
    eventually(
        lambda: sentinel.execute_command("SENTINEL FAILOVER store"),
        "the Sentinels let it step down",
    )
    eventually(
        lambda: sentinel.sentinel_get_master_addr_by_name("store") != first, "another one took over"
    )
    followed(store)  # its connections were to the one that is a replica now
    eventually(
        lambda: store.connection.redis.info("replication")["role"] == "master",
        "it is a primary",
        60,
    )


def test_the_store_follows_though_the_primary_only_freezes(
    watched: Watched, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one silence of the socket, and not one for each connection that is open."""
    monkeypatch.setitem(redis_clients._OPTIONS, "socket_timeout", 1.5)
    frozen_ones = (
        (watched.url, watched.primary, watched.promoted),
        (cluster.url, cluster.owner(FLEET), None),
    )
    for url, frozen, promoted in frozen_ones:
        store = Store(url)
        with ThreadPoolExecutor(
            6
        ) as several:  # that many connections, all of them to the one that freezes
            assert all(several.map(lambda _, store=store: there(store), range(60)))
        stop([frozen])
        eventually(
            promoted or (lambda one=frozen: cluster.owner(FLEET) is not one),
            "another one took over",
            60,
        )
        assert sum(not there(store) for _ in range(10)) <= 1
        go_on([frozen])
        eventually(
            lambda one=frozen: one.redis.info("replication")["role"] == "slave",
            "it comes back as a replica",
            60,
        )
        assert there(store)


def _all_up(watched: Watched) -> bool:
    return all(
        one["flags"] == {"slave"} or one["flags"] == "slave"
        for one in watched.sentinels[-1].redis.sentinel_slaves("store")
    )


def test_a_submit_that_no_replica_has_is_refused_and_refused_again_until_one_has_it(
    watched: Watched,
) -> None:
    careful = client(watched.url, CAVENDISH_WAIT_REPLICAS="1")
    stop(watched.replicas)
    for _ in range(2):  # the second one changes nothing, and must be waited for all the same
        with pytest.raises(StoreUnavailable, match=r"only 0 of 1 replicas have it\.$"):
            careful.submit(IDS, service="nano-banana")
    go_on(watched.replicas)
    assert {answer.outcome for answer in careful.submit(IDS, service="nano-banana")} == {"known"}
    for replica in watched.replicas[:1]:
        assert eventually(
            lambda one=replica: one.redis.zcard(LaneKeys(LANE).due("")) == len(IDS), "it is there"
        )


def test_without_waiting_what_was_acknowledged_can_die_with_its_primary(watched: Watched) -> None:
    """So the setting is what keeps the promise, and not luck."""
    careless = client(watched.url)
    stop(watched.replicas)
    watched.primary.redis.client_kill_filter(_type="replica")
    assert {answer.outcome for answer in careless.submit(IDS, service="nano-banana")} == {"new"}
    watched.primary.kill()
    go_on(watched.replicas)
    followed(careless._store)
    assert careless.get_many(IDS, service="nano-banana") == {}


def test_a_settle_that_no_replica_has_is_an_error_and_terminal_all_the_same(
    watched: Watched,
) -> None:
    careful = client(watched.url, CAVENDISH_WAIT_REPLICAS="1")
    store = careful._store
    careful.submit(["a"], service="nano-banana", deadline=60)
    now = store.fleet.now()
    assert store.deadlines.overdue(LANE, now + 100, "token", 10) == ["a"]
    task = store.tasks.load(LANE, ["a"]).tasks["a"]
    outcome = [(Outcome(task, State.SUCCEEDED, record={"id": "a"}), now)]
    stop(watched.replicas)
    with pytest.raises(StoreUnavailable, match="only 0 of 1 replicas have it"):
        store.tasks.settle(LANE, "token", now, outcome, 60, 100)
    go_on(watched.replicas)
    assert [one.verdict for one in store.tasks.settle(LANE, "token", now, outcome, 60, 100)] == [
        "stale"
    ]
    found = careful.get("a", service="nano-banana")
    assert found is not None
    assert found.state is State.SUCCEEDED


# --- a cluster


def test_a_cluster_keeps_many_lanes_and_runs_every_kind_of_command(cluster: Cluster) -> None:
    shared = client(cluster.url, CAVENDISH_SHARDS="8", CAVENDISH_WAIT_REPLICAS="1")
    store = shared._store
    assert {
        answer.outcome for answer in shared.submit(IDS, service="nano-banana", deadline=60)
    } == {"new"}
    lanes = store.tasks.lanes()
    assert len({cluster.owner(LaneKeys(lane).events).port for lane in lanes}) == 3
    now = store.fleet.now()
    for lane in lanes:
        ids = store.deadlines.overdue(lane, now + 100, "token", 100)
        tasks = store.tasks.load(lane, ids, token="token").tasks
        outcomes = [
            (Outcome(tasks[task_id], State.SUCCEEDED, record={"id": task_id}), now)
            for task_id in ids
        ]
        assert {
            one.verdict for one in store.tasks.settle(lane, "token", now, outcomes, 60, 100)
        } == {"succeeded"}
    assert {event.id for event in shared.events(after="0", follow=False)} == set(IDS)
    assert set(shared.wait(IDS, service="nano-banana", timeout=5)) == set(IDS)
    assert store.endpoints.add(Endpoint("shop", "https://shop.example/hook", now))
    assert store.endpoints.change("shop", lambda endpoint: endpoint) is not None
    found = store.statistics(lanes, ends=5, models=5)
    assert [one.counts["succeeded"] > 0 and one.pending for one in found.lanes] == [0] * len(lanes)
    assert {task.id for task in shared.iter()} == set(IDS)
    assert (store.server().policy, store.fleet.format()) == ("noeviction", None)
    store.fleet.found(store.fleet.now())
    assert store.fleet.format() == str(FORMAT)
    assert Store(cluster.url).fleet.now() > now


def test_waits_in_a_cluster_wake_by_events_and_fail_only_where_its_primary_is_away(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cavendish.waiting.waits._CHECK_ALL", 3600.0)
    monkeypatch.setitem(redis_clients._OPTIONS, "socket_timeout", 0.5)
    for node in cluster.nodes:
        node.redis.config_set("cluster-require-full-coverage", "no")
    lanes = [Lane("waits", f"flux-{number}") for number in range(20)]
    owner = cluster.owner(LaneKeys(lanes[0]).events)
    others = [each for each in lanes if cluster.owner(LaneKeys(each).events) is not owner][:4]
    pair = [owner, cluster.replicas[cluster.primaries.index(owner)]]
    store, ended = Store(cluster.url), dict[tuple[str, str], object]()

    def wait(lane: Lane, task_id: str) -> None:
        where = {"service": lane.service, "account": lane.account}
        try:
            ended[lane.service, task_id] = shared.wait([task_id], timeout=100, **where)
        except StoreUnavailable as error:
            ended[lane.service, task_id] = error

    with client(cluster.url, CAVENDISH_SERVICES=",".join(each.service for each in lanes)) as shared:
        for lane in (*others, lanes[0]):
            shared.submit(["a", "b"], service=lane.service, account=lane.account)
        pairs = [(lane, task_id) for lane in (*others, lanes[0]) for task_id in "ab"]
        threads = [threading.Thread(target=wait, args=each) for each in pairs]
        for thread in threads:
            thread.start()
        settle(store, others[0], "b")
        eventually(lambda: [*ended] == [(others[0].service, "b")], "it wakes")
        stop(pair)
        eventually(lambda: len(ended) == 3, "those in its lane fail", 60)
        assert isinstance(ended[lanes[0].service, "a"], StoreUnavailable)
        for lane in others:
            settle(store, lane, *("a" if lane is others[0] else "ab"))
        for thread in threads:
            thread.join(60)
        assert all(isinstance(ended[lane.service, "a"], dict) for lane in others)
        go_on(pair)
    store.close()


def test_a_cluster_stores_no_id_before_its_lane_stands_in_the_indices(cluster: Cluster) -> None:
    store, first = Store(cluster.url), cluster.owner(LANES)
    accounts = (Lane(f"a{number}", "flux") for number in range(100))
    account = next(  # whose ids lie at the primary that a submit writes to first, its index not
        lane.account
        for lane in accounts
        if cluster.owner(LaneKeys(lane).deadlines) is first
        and cluster.owner(IndexKeys(lane.account).groups) is not first
    )
    index, now = IndexKeys(account).groups, store.fleet.now()
    cluster.owner(index).redis.set(index, "?")  # its primary refuses to write
    options = SubmitOptions("flux", account, (), 100.0, "", "", "", restart=False)
    with pytest.raises(redis.ResponseError):
        store.tasks.add(["a"], options, now, now)
    assert store.tasks.get(account, "flux", ["a"]) == {}


def test_a_server_that_forgot_the_scripts_is_given_them_again(cluster: Cluster) -> None:
    store = Store(cluster.url)
    for _ in range(2):
        for node in cluster.primaries:
            node.redis.script_flush()
        assert store.deadlines.overdue(LANE, 0.0, "token", 1) == []


def test_a_cluster_has_one_clock_that_of_the_primary_with_the_heartbeats(cluster: Cluster) -> None:
    store, owner = Store(cluster.url), cluster.owner(FLEET)
    before = owner.redis.info("commandstats").get("cmdstat_time", {"calls": 0})["calls"]
    for _ in range(5):
        store.fleet.now()
    assert owner.redis.info("commandstats")["cmdstat_time"]["calls"] == before + 5


def test_what_is_waited_for_lies_in_the_slot_of_what_was_written(cluster: Cluster) -> None:
    ask = cluster.nodes[0].redis
    for key in (LaneKeys(LANE).events, LANES, FLEET):
        assert ask.execute_command("CLUSTER KEYSLOT", key) == ask.execute_command(
            "CLUSTER KEYSLOT", waited(key)
        )


def test_a_cluster_and_a_single_server_that_are_taken_for_each_other_are_one_sentence(
    cluster: Cluster,
) -> None:
    with (
        started(lambda begin: begin()) as single,
        pytest.raises(StoreUnavailable, match="Cluster mode is not enabled"),
    ):
        Store(f"redis+cluster://127.0.0.1:{single.port}").fleet.now()
    node = cluster.primaries[0]
    lane = next(
        lane for lane in (LANE, *SHARDS) if cluster.owner(LaneKeys(lane).deadlines) is not node
    )
    with pytest.raises(StoreUnavailable, match=r"must begin with redis\+cluster://"):
        Store(f"redis://127.0.0.1:{node.port}").deadlines.overdue(lane, 0.0, "token", 1)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:{}@127.0.0.1:1,127.0.0.1:2/store",
        "redis+cluster://:{}@127.0.0.1:1,127.0.0.1:2",
    ],
)
def test_servers_that_are_all_away_are_one_sentence_without_the_password(url: str) -> None:
    with pytest.raises(StoreUnavailable) as away:
        Store(url.format(PASSWORD)).fleet.now()
    assert str(away.value).count("\n") == 0
    assert "127.0.0.1:1,127.0.0.1:2" in str(away.value)
    assert PASSWORD not in str(away.value)


def test_a_url_that_cannot_be_used_is_a_complaint_about_the_setting() -> None:
    for url in ("redis+sentinel://a,b", "redis+cluster://a:x", "redis://a/0?wait_replicas=x"):
        with pytest.raises(SettingsError, match="CAVENDISH_REDIS_URL cannot be used"):
            Store(url)


def test_a_server_that_is_no_redis_is_named_in_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    with server.accept()[0] as peer:
                        peer.recv(1000)
                        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        store = Store(f"redis://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(
            StoreUnavailable, match=r"What answers at redis://127\.0\.0\.1:\d+ is no Redis"
        ):
            store.fleet.now()
        store.close()


def test_a_name_that_is_no_text_is_read_and_written_back_byte_by_byte(
    server: Server, watched: Watched, cluster: Cluster
) -> None:
    for url in (server.url, watched.url, cluster.url):
        redis = Store(url).connection.redis
        redis.hset("cavendish:{odd}", b"\xff\xfe", b"\xe9")  # type: ignore[arg-type]
        ((name, value),) = redis.hgetall("cavendish:{odd}").items()
        assert redis.hget("cavendish:{odd}", name) == value
        assert redis.hdel("cavendish:{odd}", name) == 1
        redis.close()


def test_a_signal_at_any_moment_of_a_command_ends_no_process() -> None:
    """hiredis read an absent text where Ctrl-C came while it wrote a number."""
    code = """
import signal
from cavendish.store.redis_clients import PACKING
packing, hits, pack = False, 0, PACKING["command_packer"].pack

def handle(*_):
    global packing
    if packing:
        packing = False
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.0002)
while hits < 2000:
    try:
        packing = True
        while True:
            pack("HELLO", 3, 4, 5, 6, 7.5, 8, 9)
    except KeyboardInterrupt:
        hits += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print(hits)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert done.stdout == "2000\n"
