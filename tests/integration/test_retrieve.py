"""One batch against every kind of answer, with a real Redis.

Whatever comes, no id is lost and none ends early.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from cavendish.clock import Clock
from cavendish.model import Lane, State
from cavendish.policy.durations import bin_of
from cavendish.policy.rate_limit import RateLimit
from cavendish.policy.verdicts import AbsencePolicy
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts
from cavendish.store.keys import LaneKeys
from cavendish.submission import SubmitOptions
from cavendish_worker.devstack.emulator.tasks_api import transport
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.polling.retrieve import RetrieveConfig, Retrieved, Retriever
from cavendish_worker.polling.upstream import CallLimits, Upstream
from cavendish_worker.telemetry import logs

LANE = Lane("default", "nano-banana")
KEYS = LaneKeys(LANE)
Handler = Callable[[dict[str, Any]], httpx.Response | Awaitable[httpx.Response]]


def done(task_id: str) -> dict[str, Any]:
    return {
        "id": task_id,
        "finished_at": 1.7e9,
        "response": {"success": True, "data": [{"image_url": "https://x/y.png"}]},
    }


def items(*records: Any, count: int = 0) -> httpx.Response:
    return httpx.Response(200, json={"items": list(records), "count": count})


def error(
    status: int, code: str, message: str = "", headers: dict[str, str] | None = None
) -> httpx.Response:
    return httpx.Response(
        status, json={"error": {"code": code, "message": message}, "trace_id": "t"}, headers=headers
    )


class Bench:
    """A store, an API whose answers a test decides, and one retrieval at a time."""

    def __init__(self, store: Store, loop: LoopThread) -> None:
        self.store, self.loop = store, loop
        self.asked: list[dict[str, Any]] = []
        self.now = store.fleet.now()

    def add(self, *ids: str, ago: float = 100.0, deadline: float = 1000.0) -> None:
        options = SubmitOptions(
            "nano-banana", "default", ("https://example.com/hook",), deadline, "", "", "", False
        )
        self.store.tasks.add(ids, options, self.now - ago, self.now - ago)

    def run(
        self,
        handler: Handler,
        *,
        attempts: int = 1,
        over: float = 0.0,
        limit: int = 2**20,
        timeout: float = 5.0,
        late: float = 0.0,
        prepare: Callable[[Upstream], None] = lambda _: None,
    ) -> Retrieved:
        """Claim whatever is due and ask about it once.

        The message of it comes so many seconds `late`.
        """

        async def answer(request: httpx.Request) -> httpx.Response:
            question = json.loads(await request.aread())
            self.asked.append(question)
            said = handler(question)
            return said if isinstance(said, httpx.Response) else await said

        upstream = Upstream(
            transport(answer),
            "https://api.example.com",
            {"default": "secret-token"},
            CallLimits(timeout, timeout, limit),
        )
        config = RetrieveConfig(
            60.0, timeout, 0.0, AbsencePolicy(10.0, attempts, over), 3600.0, 100
        )
        clock = Clock(self.store.fleet.now())
        ids = self.store.tasks.claim(
            LANE, clock.now() + 60, "t1", self.store.tasks.candidates(LANE, clock.now(), 50)
        )
        retriever = Retriever(
            self.store, Forecasts(self.store.shared_state), upstream, self.loop, config
        )
        prepare(upstream)
        return retriever.retrieve(clock, LANE, ids, "t1", clock.now() + 60 - late)

    def states(self) -> dict[str, str]:
        ids = ["a", "b", "c", "d"]
        return {
            name: str(task.state) for name, task in self.store.tasks.load(LANE, ids).tasks.items()
        }

    def due(self) -> dict[str, float]:
        return dict(self.store.connection.redis.zrange(KEYS.due(""), 0, -1, withscores=True))  # type: ignore[arg-type]

    def due_now(self, task_id: str) -> None:
        """Its next poll has come."""
        self.store.connection.redis.zadd(KEYS.due(""), {task_id: 0})

    def all_still_tracked(self, *ids: str) -> bool:
        """Pending, waiting for another look, and nobody's."""
        free = self.store.connection.redis.hlen(KEYS.leases) == 0
        return (
            free
            and set(self.due()) == set(ids)
            and all(self.states()[name] == "pending" for name in ids)
        )


@pytest.fixture
def bench(store: Store, loop: LoopThread) -> Bench:
    return Bench(store, loop)


def test_a_batch_is_asked_with_its_ids_and_its_own_limit(bench: Bench) -> None:
    bench.add("a", "b", "c")
    bench.run(lambda q: items(*map(done, q["ids"])))
    (question,) = bench.asked
    assert sorted(question["ids"]) == ["a", "b", "c"]
    assert (question["action"], question["limit"]) == ("retrieve_batch", 3)


def test_items_are_matched_by_id_whatever_their_order_and_count(bench: Bench) -> None:
    bench.add("a", "b", "c")
    said = bench.run(lambda _: items({"id": "b"}, done("c"), done("a"), count=9999))
    assert bench.states() == {"a": "succeeded", "b": "pending", "c": "succeeded"}
    assert (said.settled, said.pending, len(said.deliveries)) == (2, 1, 2)
    assert set(bench.due()) == {"b"}


def test_duplicates_and_foreign_items_settle_nothing_twice_and_nobody_else(bench: Bench) -> None:
    bench.add("a", "b")
    bench.run(
        lambda _: items(
            {"id": "a"},
            done("a"),
            done("stranger"),
            done("a"),
            {"no": "id"},
            "x",
            None,
            {"id": 7},
            {"id": "b"},
        )
    )
    assert bench.states() == {"a": "succeeded", "b": "pending"}
    assert bench.store.connection.redis.xlen(KEYS.events) == 1


def test_the_record_is_kept_as_it_came(bench: Bench) -> None:
    bench.add("a")
    record = done("a") | {
        "created_at": 1721651036.787,
        "emoji": "水彩 🍌",
        "big": 2**70,
        "broken": "\ud800",
        "deep": [[[{}]]],
    }
    raw = json.dumps({"items": [record]})[:-1] + ', "extra": NaN, "huge": 1e999}'
    bench.run(lambda _: httpx.Response(200, content=raw.encode()))
    assert bench.store.tasks.get("default", "nano-banana", ["a"])["a"].record == record


DOWN: dict[str, Callable[[], httpx.Response]] = {
    "500": lambda: error(500, "api_error"),
    "502 html": lambda: httpx.Response(502, html="<h1>Bad Gateway</h1>"),
    "504": lambda: error(504, "timeout"),
    "html with 200": lambda: httpx.Response(200, html="<html>maintenance</html>"),
    "no json": lambda: httpx.Response(200, content=b'{"items": [{"id": "a"'),
    "empty": lambda: httpx.Response(200, content=b""),
    "null": lambda: httpx.Response(200, content=b"null"),
    "a list": lambda: httpx.Response(200, json=[done("a")]),
    "items no list": lambda: httpx.Response(200, json={"items": {"a": done("a")}, "count": 1}),
    "no items": lambda: httpx.Response(200, json={"count": 2}),
    "a count without items": lambda: httpx.Response(200, json={"items": [], "count": 2}),
    "broken utf-8": lambda: httpx.Response(200, content=b'{"items": [{"id": "\xff\xfe"}]}'),
    "too deep": lambda: httpx.Response(200, content=b"[" * 100_000),
    "plain 400": lambda: error(400, "bad_request", "malformed"),
    "bare 403": lambda: httpx.Response(403, html="<h1>blocked</h1>"),
    "unknown encoding": lambda: httpx.Response(
        200, content=b"x", headers={"content-encoding": "zstd-magic"}
    ),
    "redirect": lambda: httpx.Response(302, headers={"location": "https://elsewhere.example/"}),
}


@pytest.mark.parametrize("kind", DOWN)
def test_an_answer_that_is_none_backs_the_service_off_and_loses_nothing(
    bench: Bench, kind: str
) -> None:
    bench.add("a", "b")
    said = bench.run(lambda _: DOWN[kind]())
    assert bench.all_still_tracked("a", "b")
    assert said.released == 2
    assert bench.store.shared_state.service_health(LANE).failures == 1
    assert bench.store.shared_state.service_health(LANE).down_until > bench.now
    assert not bench.store.shared_state.rate_limit("default").paused(bench.now)
    assert all(task.polls == 0 for task in bench.store.tasks.load(LANE, ["a", "b"]).tasks.values())


NOT_SERVED: dict[str, Callable[[], httpx.Response]] = {
    "bare 404": lambda: httpx.Response(404, text="not found"),
    "no route": lambda: httpx.Response(404, json={"message": "no Route matched"}),
    "no_api": lambda: error(404, "no_api"),
    "501": lambda: httpx.Response(501, html="<h1>Not Implemented</h1>"),
    "not implemented": lambda: error(400, "api_not_implemented"),
}


@pytest.mark.parametrize("kind", NOT_SERVED)
def test_a_service_that_is_not_served_is_paused_and_goes_on_by_itself(
    bench: Bench, kind: str
) -> None:
    bench.add("a", "b")
    for _ in range(4):  # more often than an absent id may be asked about
        bench.run(lambda _: NOT_SERVED[kind](), attempts=1, over=0.0)
        bench.due_now("a")
        bench.due_now("b")
    assert bench.all_still_tracked("a", "b")
    paused = bench.store.shared_state.service_health(LANE)
    assert paused.paused_since > 0
    assert paused.batch_size(50) == 1
    assert not bench.store.shared_state.rate_limit("default").paused(bench.now)
    bench.run(lambda q: items(*map(done, q["ids"])))
    assert set(bench.states().values()) == {"succeeded"}
    assert not bench.store.shared_state.service_health(LANE).paused_since


def test_a_404_about_one_id_alone_does_not_pause_the_service(bench: Bench) -> None:
    bench.add("a")
    bench.run(lambda q: items() if "ids" in q else httpx.Response(404, text="not found"))
    assert bench.all_still_tracked("a")
    assert not bench.store.shared_state.service_health(LANE).paused_since


def test_an_answer_past_the_size_limit_is_not_read(bench: Bench) -> None:
    bench.add("a")
    said = bench.run(lambda _: httpx.Response(200, content=b" " * 5000), limit=4096)
    assert "larger than 4096 bytes" in said.failure
    assert bench.all_still_tracked("a")


def test_an_api_that_never_answers_is_left_at_the_deadline_of_the_call(bench: Bench) -> None:
    async def stall(_: dict[str, Any]) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError

    bench.add("a")
    said = bench.run(stall, timeout=0.2)
    assert said.failure == "no answer within 0.2 s"
    assert bench.all_still_tracked("a")


def test_a_reset_connection_loses_nothing(bench: Bench) -> None:
    def reset(_: dict[str, Any]) -> httpx.Response:
        raise httpx.ReadError("connection reset by peer")

    bench.add("a")
    bench.run(reset)
    assert bench.all_still_tracked("a")


def test_a_failing_service_is_waited_for_ever_longer_and_one_answer_ends_it(bench: Bench) -> None:
    bench.add("a")
    waits = []
    for _ in range(4):
        bench.run(lambda _: error(500, "api_error"))
        known = bench.store.shared_state.service_health(LANE)
        waits.append(known.down_until - known.failed_at)
        bench.due_now("a")
    assert waits == sorted(waits)
    assert waits[3] > 2 * waits[0]
    bench.run(lambda _: items({"id": "a"}))
    assert bench.store.shared_state.service_health(LANE).failures == 0


def test_a_429_pauses_the_account_and_gives_the_ids_back_at_their_old_due_time(
    bench: Bench,
) -> None:
    bench.add("a", "b")
    before = bench.due()
    bench.run(lambda _: error(429, "too_many_requests", headers={"retry-after": "7"}))
    assert bench.due() == before
    assert bench.all_still_tracked("a", "b")
    rate_limit = bench.store.shared_state.rate_limit("default")
    assert 6 < rate_limit.paused_until - bench.store.fleet.now() <= 7.1
    assert bench.store.shared_state.service_health(LANE).failures == 0


def test_a_retry_after_as_a_date_is_read_against_the_servers_clock_and_capped(bench: Bench) -> None:
    bench.add("a")
    headers = {
        "date": "Wed, 21 Oct 2015 07:28:00 GMT",
        "retry-after": "Wed, 21 Oct 2015 07:28:30 GMT",
    }
    bench.run(lambda _: error(429, "too_many_requests", headers=headers))
    assert (
        29
        < bench.store.shared_state.rate_limit("default").paused_until - bench.store.fleet.now()
        <= 30.1
    )
    bench.due_now("a")
    bench.run(lambda _: error(429, "too_many_requests", headers={"retry-after": "86400"}))
    assert (
        110
        < bench.store.shared_state.rate_limit("default").paused_until - bench.store.fleet.now()
        <= 120.1
    )


ACCOUNT = {
    "401": (401, "invalid_token"),
    "expired": (401, "token_expired"),
    "used up": (403, "used_up"),
    "disabled": (403, "disabled"),
    "disabled as 400": (400, "disabled"),
    "withdrawn code": (402, "insufficient_balance"),
}


@pytest.mark.parametrize("kind", ACCOUNT)
def test_a_refused_credential_pauses_the_whole_account_and_fails_no_id(
    bench: Bench, kind: str
) -> None:
    status, code = ACCOUNT[kind]
    bench.add("a", "b")
    bench.run(lambda _: error(status, code, "sorry"))
    assert bench.all_still_tracked("a", "b")
    rate_limit = bench.store.shared_state.rate_limit("default")
    assert rate_limit.paused(bench.store.fleet.now())
    assert code in rate_limit.pause_reason


def test_the_pause_of_an_account_grows_while_it_is_refused(bench: Bench) -> None:
    bench.add("a")
    waits = []
    for _ in range(3):
        bench.run(lambda _: error(403, "used_up"))
        held = bench.store.shared_state.rate_limit("default")
        waits.append(held.paused_until - bench.store.fleet.now())
        bench.store.shared_state.change_rate_limit(
            "default", lambda rate_limit: (replace(rate_limit, paused_until=1.0), None)
        )  # the time has passed
    assert waits[1] > 1.5 * waits[0]
    assert waits[2] > 1.5 * waits[1]


def test_a_batch_that_is_too_large_is_halved_and_the_limit_is_remembered(bench: Bench) -> None:
    def at_most_two(question: dict[str, Any]) -> httpx.Response:
        if len(question["ids"]) > 2:
            return error(400, "bad_request", "too many ids: at most 2")
        return items(*map(done, question["ids"]))

    bench.add("a", "b", "c", "d")
    bench.run(at_most_two)
    assert set(bench.states().values()) == {"succeeded"}
    assert bench.store.shared_state.service_health(LANE).batch_size(50) == 2


def test_a_forbidden_id_is_found_and_the_others_are_answered(bench: Bench) -> None:
    def refuse_c(question: dict[str, Any]) -> httpx.Response:
        if "c" in question.get("ids", [question.get("id")]):
            return error(403, "forbidden", "moderation")
        return items(*map(done, question["ids"]))

    bench.add("a", "b", "c", "d")
    bench.run(refuse_c, attempts=2)
    assert bench.states() == {"a": "succeeded", "b": "succeeded", "c": "pending", "d": "succeeded"}
    bench.due_now("c")
    bench.run(refuse_c, attempts=2)
    failed = bench.store.tasks.load(LANE, ["c"]).tasks["c"]
    assert failed.state is State.FAILED
    assert "forbidden" in failed.reason
    assert not bench.store.shared_state.rate_limit("default").pause_reason


def test_an_id_missing_from_a_batch_is_confirmed_alone_before_it_counts_as_absent(
    bench: Bench,
) -> None:
    bench.add("a", "b")
    bench.run(lambda q: items({"id": "a"}) if "ids" in q else httpx.Response(200, json=done("b")))
    assert bench.states() == {"a": "pending", "b": "succeeded"}
    assert [question["action"] for question in bench.asked] == ["retrieve_batch", "retrieve"]


ABSENT = {
    "{}": lambda: httpx.Response(200, json={}),
    "null": lambda: httpx.Response(200, content=b"null"),
    "404": lambda: error(404, "not_found"),
    "withdrawn": lambda: error(404, "task_not_found"),
}


@pytest.mark.parametrize("kind", ABSENT)
def test_an_absent_id_is_unknown_only_after_n_absences_over_t_seconds(
    bench: Bench, kind: str
) -> None:
    bench.add("b")
    bench.run(lambda _: items({"id": "b"}))  # so that the token is not blind
    bench.add("a")
    answer: Handler = lambda q: items({"id": "b"}) if "ids" in q else ABSENT[kind]()  # noqa: E731
    bench.run(answer, attempts=2, over=0.05)
    assert bench.states()["a"] == "pending"
    bench.due_now("a")
    bench.run(answer, attempts=2, over=600.0)
    assert bench.states()["a"] == "pending"
    bench.due_now("a")
    bench.run(answer, attempts=3, over=0.0)
    assert bench.states()["a"] == "unknown"


def test_an_id_that_shows_up_again_is_no_longer_absent(bench: Bench) -> None:
    bench.add("a")
    bench.run(lambda q: items() if "ids" in q else httpx.Response(200, json={}), attempts=5)
    assert bench.store.tasks.load(LANE, ["a"]).tasks["a"].absences == 1
    bench.due_now("a")
    bench.run(lambda _: items({"id": "a"}), attempts=5)
    assert bench.store.tasks.load(LANE, ["a"]).tasks["a"].absences == 0


def test_a_record_that_is_only_late_costs_no_call_of_its_own(bench: Bench) -> None:
    bench.add("a", ago=3.0)
    bench.run(lambda _: items())
    assert len(bench.asked) == 1
    assert bench.store.tasks.load(LANE, ["a"]).tasks["a"].absences == 0


def test_an_id_pending_at_its_deadline_gets_one_last_poll_and_expires_with_its_delivery(
    bench: Bench,
) -> None:
    bench.add("a", ago=100.0, deadline=50.0)
    said = bench.run(lambda _: items({"id": "a"}))
    assert bench.states() == {"a": "expired"}
    assert len(said.deliveries) == 1


def test_a_success_seen_at_the_deadline_still_wins(bench: Bench) -> None:
    bench.add("a", ago=100.0, deadline=50.0)
    bench.run(lambda _: items(done("a")))
    assert bench.states() == {"a": "succeeded"}


def test_ids_that_ended_meanwhile_are_not_asked_about(bench: Bench) -> None:
    bench.add("a", "b")
    bench.store.connection.redis.hset(KEYS.task("a"), "state", "succeeded")
    bench.run(lambda q: items(*map(done, q["ids"])))
    assert bench.asked[0]["ids"] == ["b"]


def test_an_unknown_status_word_is_pending_and_logged(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.set_up("json", "warning")
    bench.add("a")
    bench.run(
        lambda _: items(
            {
                "id": "a",
                "response": {
                    "state": "marinating",
                    "success": True,
                    "data": [{"image_url": "https://x/y"}],
                },
            }
        )
    )
    assert bench.states() == {"a": "pending"}
    assert "marinating" in capsys.readouterr().err


def test_each_poll_teaches_the_duration_model_of_its_model_and_of_the_service(bench: Bench) -> None:
    bench.add("a", "b", "c")
    stamped = done("a") | {"request": {"model": "nano-banana-pro"}}
    bench.run(
        lambda _: items(stamped, done("b"), {"id": "c", "request": {"model": "nano-banana-pro"}})
    )
    assert bench.store.shared_state.durations(LANE, "nano-banana-pro").seen == 1
    assert bench.store.shared_state.durations(LANE, "").seen == 2
    assert bench.store.tasks.load(LANE, ["c"]).tasks["c"].model == "nano-banana-pro"


def test_a_finish_counts_from_the_submit_though_the_task_began_long_before_it(
    bench: Bench,
) -> None:
    """When an id is polled counts from its submit too, and a producer may submit late."""
    bench.add("a", ago=100.0)
    bench.run(
        lambda _: items(
            done("a") | {"created_at": bench.now - 103.0, "finished_at": bench.now - 88.0}
        )
    )
    finished = bench.store.shared_state.durations(LANE, "").finished
    assert [count for count in finished if count] == [1.0]
    assert finished[bin_of(12.0)] == 1.0


def test_a_refused_call_teaches_the_duration_model_nothing(bench: Bench) -> None:
    bench.add("a")
    bench.run(lambda _: error(500, "api_error"))
    assert (
        bench.store.shared_state.durations(LANE, "").running
        == type(bench.store.shared_state.durations(LANE, ""))().running
    )


def test_what_ratelimit_headers_say_is_believed(bench: Bench) -> None:
    bench.add("a")
    headers = {"ratelimit-remaining": "30", "ratelimit-reset": "10"}
    bench.run(lambda _: httpx.Response(200, json={"items": [{"id": "a"}]}, headers=headers))
    assert bench.store.shared_state.rate_limit("default").rate_at(
        bench.store.fleet.now()
    ) == pytest.approx(3.0, rel=0.4)


def test_a_batch_that_nobody_has_a_seat_for_is_given_back_unasked(bench: Bench) -> None:
    bench.add("a", "b")
    clock = bench.store.clock()
    ids = bench.store.tasks.claim(
        LANE, clock.now() + 60, "t1", bench.store.tasks.candidates(LANE, clock.now(), 50)
    )
    config = RetrieveConfig(60.0, 5.0, 0.0, AbsencePolicy(1.0, 1, 1.0), 60.0, 100)
    nobody = Upstream(
        httpx.AsyncHTTPTransport(), "https://api.example.com", {}, CallLimits(1.0, 1.0, 1)
    )
    retriever = Retriever(
        bench.store, Forecasts(bench.store.shared_state), nobody, bench.loop, config
    )
    assert retriever.give_back(clock, LANE, ids, "t1").released == 2
    assert bench.all_still_tracked("a", "b")


def test_a_message_that_comes_after_its_leases_ran_out_costs_no_call_and_only_asks_the_time(
    bench: Bench,
) -> None:
    bench.add("a", "b")
    redis = bench.store.connection.redis
    done_ = bench.run(
        lambda _: items(done("a")), late=61, prepare=lambda _: redis.config_resetstat()
    )
    used = set(redis.info("commandstats")) - {"cmdstat_config|resetstat", "cmdstat_info"}
    assert (done_.stale, done_.calls, bench.asked, used) == (
        2,
        0,
        [],
        set(),
    )  # the time was read before


def test_a_worker_that_is_to_end_gives_a_batch_that_it_has_not_begun_back_at_its_old_due_time(
    bench: Bench,
) -> None:
    bench.add("a", "b")
    due = bench.due()
    done_ = bench.run(lambda _: items(done("a")), prepare=lambda upstream: upstream.stopping.set())
    assert (done_.released, bench.asked) == (2, [])
    assert bench.all_still_tracked("a", "b")
    assert bench.due() == due


def test_what_waits_for_its_turn_when_the_worker_is_to_end_is_given_back_at_once(
    bench: Bench,
) -> None:
    bench.add("a", "b", "c", "d")
    bench.store.shared_state.change_rate_limit(
        "default", lambda _: (RateLimit(rate=0.2, limited=True, next_at=bench.now + 30), None)
    )
    upstreams: list[Upstream] = []

    def too_many(_: dict[str, Any]) -> httpx.Response:
        threading.Timer(0.3, upstreams[0].stopping.set).start()
        return error(400, "bad_request", "too many ids: at most 2")

    done_ = bench.run(too_many, prepare=upstreams.append)
    assert bench.store.fleet.now() < bench.now + 30  # when its turn would have come
    assert (done_.calls, done_.released) == (1, 4)
    assert bench.all_still_tracked("a", "b", "c", "d")


def test_a_call_that_would_outlast_the_worker_is_left_and_nobody_is_blamed(bench: Bench) -> None:
    bench.add("a", "b")

    async def never(_: dict[str, Any]) -> httpx.Response:
        await asyncio.sleep(60)
        return items()

    def end(upstream: Upstream) -> None:
        upstream.stopping.set()
        bench.loop.run(upstream.shut_down(0.3), timeout=5)

    done_ = bench.run(
        never, prepare=lambda upstream: threading.Timer(0.3, end, (upstream,)).start()
    )
    assert (done_.calls, done_.released) == (1, 2)
    assert bench.all_still_tracked("a", "b")
    assert bench.store.shared_state.service_health(LANE).failures == 0


def test_one_id_that_the_api_answers_with_400_does_not_hold_up_its_lane(bench: Bench) -> None:
    def refuse_c(question: dict[str, Any]) -> httpx.Response:
        if "c" in question["ids"]:
            return error(400, "bad_request", "id is not a uuid")
        return items(*map(done, question["ids"]))

    bench.add("a", "b", "c", "d")
    bench.run(refuse_c)
    assert bench.states() == {"a": "succeeded", "b": "succeeded", "c": "pending", "d": "succeeded"}
    assert bench.due()["c"] > bench.store.fleet.now() + 30
    assert bench.store.shared_state.service_health(LANE).failures == 0


def test_one_id_that_is_too_long_for_the_api_does_not_shrink_the_batches(bench: Bench) -> None:
    def refuse_c(question: dict[str, Any]) -> httpx.Response:
        if "c" in question["ids"]:
            return error(400, "bad_request", "id exceeds 64 characters")
        return items(*map(done, question["ids"]))

    bench.add("a", "b", "c", "d")
    bench.run(refuse_c)
    assert bench.states()["a"] == bench.states()["d"] == "succeeded"
    assert bench.store.shared_state.service_health(LANE).batch_size(50) == 50


def test_a_question_that_the_api_refuses_as_such_backs_the_service_off_after_a_few_calls(
    bench: Bench,
) -> None:
    bench.add(*(f"id-{number}" for number in range(50)))
    bench.store.shared_state.change_rate_limit("default", lambda _: (RateLimit(rate=1000.0), None))
    bench.run(lambda _: error(400, "bad_request", "unknown action"))
    assert len(bench.asked) < 25
    assert bench.store.shared_state.service_health(LANE).failures == 1
    assert bench.store.connection.redis.hlen(KEYS.leases) == 0


def test_a_batch_of_nothing_but_forbidden_ids_leaves_none_of_them_leased(bench: Bench) -> None:
    bench.add(*(f"id-{number}" for number in range(12)))
    bench.store.shared_state.change_rate_limit("default", lambda _: (RateLimit(rate=1000.0), None))
    bench.run(lambda _: error(403, "forbidden", "moderation"), attempts=3)
    assert bench.store.connection.redis.hlen(KEYS.leases) == 0
    assert len(bench.due()) == 12


def test_an_absent_id_that_the_api_refuses_alone_does_not_put_the_service_out_of_order(
    bench: Bench,
) -> None:
    bench.add("a", "b")
    bench.run(
        lambda q: (
            items({"id": "a"}) if "ids" in q else error(400, "bad_request", "id is not a uuid")
        )
    )
    assert bench.all_still_tracked("a", "b")
    assert bench.store.shared_state.service_health(LANE).failures == 0
