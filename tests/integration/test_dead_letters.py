"""`cavendish dead` and `cavendish replay`, with a real Redis.

The last tests also have a real receiver and a real delivery worker.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from cavendish import Client, State
from cavendish.endpoints.webhook_endpoint import FRESH_FOR, endpoint_of
from cavendish.errors import CavendishError, EndpointError
from cavendish.model import OPERATIONS, Lane
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store import closed as chapter
from cavendish.store.deliveries import Attempt
from cavendish.store.fleet import Member
from cavendish.store.keys import LaneKeys
from cavendish_worker.runtime import Runtime
from shell import Run, said

LANE = Lane("default", "nano-banana")
SERVICE = "nano-banana"
HOOK, OTHER = "https://example.com/hook", "https://other.example/x"


def submit_and_end(
    store: Store, webhook: str, *ids: str, at: float | None = None, service: str = SERVICE
) -> None:
    """Submit ids that end now (or at a time), so that their deliveries are pending."""
    lane, now = Lane("default", service), at or store.fleet.now()
    with Client(
        settings=Settings.load(
            {
                "CAVENDISH_REDIS_URL": store.connection.where,
                "CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8",
            }
        )
    ) as client:
        client.submit(ids, service=service, webhook=webhook)
    store.tasks.claim(lane, 9e9, "t1", store.tasks.candidates(lane, 9e9, 10_000))
    tasks = store.tasks.load(lane, ids).tasks.values()
    store.tasks.settle(
        lane,
        "t1",
        now,
        [(Outcome(task, State.SUCCEEDED, record={"id": task.id}), 0.0) for task in tasks],
        3600,
        100,
    )


def close(
    store: Store, *, dead: str = "", at: float | None = None, lane: Lane = LANE, kept: float = 9e6
) -> list[str]:
    """Deliver all that is due, or bury it for a reason."""
    now = at or store.fleet.now()
    endpoints = store.deliveries.sort([lane], 9e9).worth.get(lane, [])
    taken = store.deliveries.claim_delivery(
        lane, 9e9, 9.1e9, "d1", 100_000, dict.fromkeys(endpoints, 100_000)
    )
    log = json.dumps(
        {
            "at": now,
            "outcome": dead or "HTTP 200",
            "seconds": 0.5,
            "address": "192.0.2.7",
            "answer": "hm",
        }
    )
    attempts = [Attempt(name, dead or "HTTP 200", log) for name in taken]
    closed = (
        store.deliveries.bury(lane, "d1", now, attempts, kept)
        if dead
        else store.deliveries.delivered(lane, "d1", now, attempts, 3600)
    )
    assert closed == len(taken)
    return taken + (close(store, dead=dead, at=at, lane=lane, kept=kept) if taken else [])


def waiting(store: Store, lane: Lane = LANE) -> dict[str, float]:
    """The deliveries that wait for another attempt, and when they are due."""
    keys, found = LaneKeys(lane), {}
    for endpoint in store.statistics([lane]).pending_by_endpoint:
        found |= dict(store.connection.redis.zrange(keys.retries(endpoint), 0, -1, withscores=True))
    return found


# --- dead letters


def test_dead_letters_are_listed_shown_and_revived(run: Run, store: Store) -> None:
    assert run("dead", "list").output == "no dead letters\n"
    submit_and_end(store, HOOK, "a")
    (name,) = close(store, dead="HTTP 410")
    (listed,) = said(run("dead", "list", "--json"))
    assert (listed["name"], listed["outcome"], listed["endpoint"], listed["lane"]) == (
        name,
        "HTTP 410",
        endpoint_of(HOOK),
        str(LANE),
    )
    for word in ("HTTP 410", "192.0.2.7", "hm"):
        assert word in run("dead", "show", "a").output
    (shown,) = said(run("dead", "show", name, "--json"))
    assert shown["log"][0]["answer"] == "hm"
    assert run("dead", "revive", "a").output == "1 revived\n"
    assert set(waiting(store)) == {name}
    assert run("dead", "revive", "a").exit_code == 1
    assert isinstance(run("dead", "show", "a").exception, CavendishError)


def test_dead_letters_are_found_by_endpoint_reason_and_time_over_all_lanes(
    run: Run, store: Store, client: Client
) -> None:
    now = store.fleet.now()
    submit_and_end(store, HOOK, "old")
    close(store, dead="HTTP 500; all attempts are used up", at=now - 7200)
    submit_and_end(store, f"{HOOK}?job=1", "new")
    close(store, dead="HTTP 410", at=now - 60)
    submit_and_end(store, OTHER, "flux-1", service="flux")
    close(
        store, dead="HTTP 500; all attempts are used up", at=now - 600, lane=Lane("default", "flux")
    )
    store.deliveries.notify("msg_1", OTHER, "{}", now)
    close(store, dead="ConnectTimeout", at=now - 5, lane=OPERATIONS)

    def ids(*words: str) -> list[str]:
        return [
            one["name"].partition(":")[2] for one in said(run("dead", "list", "--json", *words))
        ]

    assert ids() == ["msg_1", "new", "flux-1", "old"]
    assert ids("--endpoint", HOOK) == ["new", "old"]
    assert ids("--endpoint", endpoint_of(OTHER)) == ["msg_1", "flux-1"]
    assert ids("--reason", "http 500") == ["flux-1", "old"]
    assert ids("--since", "30m") == ["msg_1", "new", "flux-1"]
    assert ids("--since", "30s") == ["msg_1"]
    assert ids("--since", datetime.fromtimestamp(now - 100, UTC).isoformat()) == ["msg_1", "new"]
    assert ids("--since", datetime.fromtimestamp(now - 100, UTC).strftime("%Y-%m-%d %H:%M:%S")) == [
        "msg_1",
        "new",
    ]
    assert ids("--reason", "500", "--endpoint", HOOK) == ["old"]
    assert ids("--limit", "2") == ["msg_1", "new"]
    assert ids("--endpoint", endpoint_of("https://nobody.example/")) == []
    assert isinstance(run("dead", "list", "--endpoint", "nobody").exception, EndpointError)


@pytest.mark.parametrize("since", ["yesterday", "5", "5w", "-1h", "2026-13-01", ""])
def test_a_text_that_is_no_time_is_refused(run: Run, since: str) -> None:
    assert run("dead", "list", f"--since={since}").exit_code == 2
    assert run("replay", "--endpoint", HOOK, f"--since={since}").exit_code == 2


def test_all_pages_of_dead_letters_are_read_while_others_are_added(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cavendish_worker.webhooks.dead_letters.PAGE", 10)
    now, ids = store.fleet.now(), [f"id-{n}" for n in range(35)]
    for place, task_id in enumerate(ids):
        submit_and_end(store, HOOK, task_id)
        close(store, dead="HTTP 500", at=now - 100 + place)
    listed = [one["name"].partition(":")[2] for one in said(run("dead", "list", "--json"))]
    assert listed == ids[::-1]
    ask, added = chapter.Closed.dead, iter(range(3))

    def dead(self: Any, lane: Lane, *place: Any) -> Any:
        page = ask(self, lane, *place)
        if page and (number := next(added, None)) is not None:
            submit_and_end(store, HOOK, f"late-{number}")
            close(store, dead="HTTP 500")
        return page

    monkeypatch.setattr(chapter.Closed, "dead", dead)
    listed = [one["name"].partition(":")[2] for one in said(run("dead", "list", "--json"))]
    assert listed == ids[::-1]


def test_the_revived_are_spread_over_time_the_oldest_first(run: Run, store: Store) -> None:
    now = store.fleet.now()
    for place, task_id in enumerate(["a", "b", "c"]):
        submit_and_end(store, HOOK, task_id)
        close(store, dead="HTTP 500", at=now - 100 + place)
    assert (
        run("dead", "revive", "--endpoint", HOOK, "--rate", "0.1").output
        == "3 revived, spread over 30 s\n"
    )
    times = waiting(store)
    first, *others = (times[f"{endpoint_of(HOOK)}:{task_id}"] for task_id in ("a", "b", "c"))
    assert abs(first - now) < 5
    assert [round(at - first) for at in others] == [10, 20]


def test_one_run_has_a_limit_and_says_that_there_are_more(run: Run, store: Store) -> None:
    submit_and_end(store, HOOK, *(f"id-{n}" for n in range(1200)))
    close(store, dead="HTTP 500")
    done = run("dead", "revive", "--all", "--limit", "1100", "--rate", "10000", "--json")
    assert len(said(done)) == 1100
    assert "There are more" in done.stderr
    assert len(waiting(store)) == 1100
    assert run("dead", "revive", "--all", "--limit", "10001").exit_code == 2
    done = run("dead", "revive", "--all")
    assert (done.stdout, done.stderr) == ("100 revived, spread over 2 s\n", "")
    assert run("dead", "list").output == "no dead letters\n"


def test_what_announces_an_expired_record_is_not_revived_and_that_is_said(
    run: Run, store: Store
) -> None:
    submit_and_end(store, HOOK, "a", "b")
    close(store, dead="HTTP 500")
    store.connection.redis.delete(LaneKeys(LANE).task("a"))
    done = run("dead", "revive", "--all")
    assert done.stdout == "1 revived\n"
    assert "1 could not be revived: the task record expired" in done.stderr


@pytest.mark.parametrize("command", ["revive", "drop"])
def test_which_dead_letters_must_be_said(run: Run, store: Store, command: str) -> None:
    assert run("dead", command).exit_code == 2
    assert run("dead", command, "--reason", "").exit_code == 2
    submit_and_end(store, HOOK, "a")
    close(store, dead="HTTP 500")
    assert isinstance(run("dead", command, "--endpoint", "").exception, EndpointError)
    assert run("dead", command, "--since", "").exit_code == 2
    assert len(store.closed.dead(LANE)) == 1


def test_the_dropped_may_be_tracked_anew(run: Run, store: Store, client: Client) -> None:
    submit_and_end(store, HOOK, "a", "b")
    close(store, dead="HTTP 500")
    assert client.submit(["a"], service=SERVICE, restart=True)[0].outcome == "known"
    assert run("dead", "drop", "a").output == "1 dropped\n"
    assert run("dead", "drop", "a").exit_code == 1
    assert client.submit(["a"], service=SERVICE, restart=True)[0].outcome == "new"
    assert said(run("dead", "drop", "--endpoint", HOOK, "--json")) == {"dropped": 1}
    assert run("dead", "list").output == "no dead letters\n"


def test_dropping_asks_at_a_terminal(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_and_end(store, HOOK, "a")
    close(store, dead="HTTP 500")
    monkeypatch.setattr("cavendish_worker.cli.options.at_a_terminal", lambda: True)
    assert run("dead", "drop", "--all", stdin="n\n").exit_code == 1
    assert len(store.closed.dead(LANE)) == 1
    assert run("dead", "drop", "--all", "--yes").output == "1 dropped\n"


# --- replay


def test_what_was_delivered_since_is_pending_again_to_that_endpoint_alone(
    run: Run, store: Store
) -> None:
    now = store.fleet.now()
    submit_and_end(store, HOOK, "early", at=now - 7200)
    submit_and_end(store, f"{HOOK}?job=1", "late", at=now - 600)
    submit_and_end(store, OTHER, "theirs", at=now - 500)
    close(store)
    submit_and_end(store, HOOK, "dead", at=now - 400)
    close(store, dead="HTTP 410")
    submit_and_end(store, HOOK, "pending", at=now - 300)
    submit_and_end(store, HOOK, "flux-1", at=now - 200, service="flux")
    close(store, lane=Lane("default", "flux"))
    assert said(run("replay", "--endpoint", HOOK, "--since", "1h", "--json")) == {
        "endpoint": endpoint_of(HOOK), "replayed": 2, "since": None
    }  # fmt: skip
    assert {name.partition(":")[2] for name in waiting(store)} == {"late"}
    assert {name.partition(":")[2] for name in waiting(store, Lane("default", "flux"))} == {
        "flux-1"
    }
    assert run("replay", "--endpoint", HOOK, "--since", "3h").output == "1 are sent again\n"
    assert run("replay", "--endpoint", HOOK, "--since", "3h").output == "0 are sent again\n"
    assert isinstance(
        run("replay", "--endpoint", "nobody", "--since", "1h").exception, CavendishError
    )


def test_a_replay_pages_through_everything_and_goes_on_where_its_limit_cut_it_off(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cavendish_worker.webhooks.replaying.PAGE", 7)
    monkeypatch.setattr("cavendish_worker.webhooks.replaying.CHUNK", 5)
    start = int(store.fleet.now()) - 3600
    for lane_service in (SERVICE, "flux"):
        for second in range(12):
            submit_and_end(
                store,
                HOOK,
                *(f"{lane_service}-{second}-{n}" for n in range(3)),
                at=start + second + 0.25,
                service=lane_service,
            )
    lanes = [LANE, Lane("default", "flux")]
    for lane in lanes:
        close(store, lane=lane)
    since, runs = "2h", []
    while since:
        done = run(
            "replay",
            "--endpoint",
            HOOK,
            "--since",
            since,
            "--limit",
            "20",
            "--rate",
            "1000",
            "--json",
        )
        answer = said(done)
        since = answer["since"]
        assert bool(since) == ("go on with --since" in done.stderr)
        runs.append(answer["replayed"])
        if len(runs) == 1:
            names = sorted(
                (at, int(name.split("-")[-2]))
                for lane in lanes
                for name, at in waiting(store, lane).items()
            )
            assert [second for _, second in names] == [
                second for second in range(4) for _ in range(6)
            ]
    assert runs == [24, 24, 24]
    assert [len(waiting(store, lane)) for lane in lanes] == [36, 36]


def test_a_replay_is_spread_over_time(run: Run, store: Store) -> None:
    now = store.fleet.now()
    for place in range(4):
        submit_and_end(store, HOOK, f"id-{place}", at=now - 100 + place)
    close(store)
    assert (
        run("replay", "--endpoint", HOOK, "--since", "1h", "--rate", "0.5").output
        == "4 are sent again, spread over 8 s\n"
    )
    times = sorted(waiting(store).values())
    assert [round(at - times[0]) for at in times] == [0, 2, 4, 6]
    assert abs(times[0] - now) < 5


# --- the whole way


@pytest.fixture
def runtime(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    monkeypatch.setattr(
        "cavendish_worker.webhooks.delivery_loop.PATIENCE", 2 * FRESH_FOR
    )  # what was enabled is visited then
    runtime = Runtime(settings)
    yield runtime
    runtime.delivery_worker.stop()
    runtime.loop.close(runtime.delivery_worker._parts[1].aclose())
    runtime.store.close()


def test_revived_and_replayed_payloads_arrive_under_their_old_names(
    run: Run, store: Store, runtime: Runtime, served: Callable[..., str]
) -> None:
    heard: list[tuple[str, str]] = []
    answer = 410

    async def handle(request: httpx.Request) -> httpx.Response:
        heard.append(
            (json.loads(await request.aread())["data"]["id"], request.headers["webhook-id"])
        )
        return httpx.Response(
            answer, headers={"webhook-delivery": "abort-message"} if answer == 500 else {}
        )

    url = served(handle)
    submit_and_end(store, url, "a")
    runtime.delivery_worker.deliver(lambda: None)
    assert list(store.endpoints.disabled()) == [endpoint_of(url)]
    answer = 500
    assert "1 delivery waits" in run("endpoint", "enable", url).output
    runtime.delivery_worker.deliver(lambda: None)
    assert [one["outcome"] for one in said(run("dead", "list", "--json"))] == [
        "HTTP 500; the receiver aborts the message"
    ]
    answer = 200
    assert run("dead", "revive", "--endpoint", url).output == "1 revived\n"
    runtime.delivery_worker.deliver(lambda: None)
    assert run("replay", "--endpoint", url, "--since", "1h").output == "1 are sent again\n"
    runtime.delivery_worker.deliver(lambda: None)
    assert len(heard) == 4
    assert len(set(heard)) == 1
    shown = said(run("show", "--service", SERVICE, "--json", "a"))["deliveries"][0]
    assert (shown["state"], shown["url"]) == ("delivered", url)
    assert [one["outcome"] for one in shown["log"]] == [
        "HTTP 410",
        "HTTP 500; the receiver aborts the message",
        "HTTP 200",
        "HTTP 200",
    ]


def test_deliveries_of_a_removed_endpoint_die_and_are_revived_when_it_is_back(
    run: Run, store: Store, runtime: Runtime, served: Callable[..., str]
) -> None:
    heard: list[str] = []

    async def handle(request: httpx.Request) -> httpx.Response:
        heard.append(json.loads(await request.aread())["type"])
        return httpx.Response(204)

    url = served(handle)

    def add() -> None:
        store.fleet.beat(
            Member("worker@x:1", "worker", "0", store.fleet.now(), allow=("127.0.0.0/8",))
        )
        assert run("endpoint", "add", "shop", url).exit_code == 0

    add()
    submit_and_end(store, "shop", "a")
    assert run("endpoint", "remove", "shop").exit_code == 0
    runtime.delivery_worker.deliver(lambda: None)
    assert (
        "no endpoint is registered as 'shop'"
        in said(run("dead", "list", "--endpoint", "shop", "--json"))[0]["outcome"]
    )
    add()
    assert run("dead", "revive", "--endpoint", "shop").output == "1 revived\n"
    time.sleep(1.1)  # for so long a worker believes what it has read
    runtime.delivery_worker.deliver(lambda: None)
    assert heard == ["task.succeeded"]


@pytest.mark.parametrize(
    "command", ["dead", "dead list", "dead show", "dead revive", "dead drop", "replay"]
)
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.exit_code == 0
    assert command == "dead" or f"cavendish {command}" in done.output
