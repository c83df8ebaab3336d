"""Thousands of answers that no sane server gives, over real sockets, with a real Redis: none
raises, and no id is lost.

Both sides are asked: the remote API, through a whole retrieval, and receivers of webhooks, through
a whole round.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from cavendish import record_json
from cavendish.clock import Clock
from cavendish.endpoints import signing
from cavendish.endpoints.webhook_endpoint import subscription_of
from cavendish.model import State, TrackedTask, UpstreamError
from cavendish.policy.verdicts import AbsencePolicy, decide, match
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts
from cavendish.store.keys import delivery_of
from cavendish.store.task_record import stored
from cavendish.submission import SubmitOptions
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.http.transport import PooledTransport
from cavendish_worker.polling.answer_json import CONTAINERS, read_answer
from cavendish_worker.polling.retrieve import RetrieveConfig, Retriever
from cavendish_worker.polling.upstream import AT_ONCE, CallLimits, Upstream
from cavendish_worker.telemetry import logs
from cavendish_worker.webhooks import payload
from delivering import KEYS, LANE, SECRET, Delivering
from hostile import DEEP, bodies, cases, objects, values
from receiving import Peer, Receiver, receiving

LIMIT = 2**20
PIXELS = "https://x/y.png"


# --- what is said on the wire


@dataclass(frozen=True)
class Said:
    """One answer, byte for byte; `closes` tells its end where no length does."""

    head: bytes
    body: bytes = b""
    closes: bool = False

    def __repr__(self) -> str:
        return (
            f"Said({self.head!r}, {self.body[:300]!r} ({len(self.body)} bytes), "
            f"closes={self.closes})"
        )


def said(status: int, headers: list[tuple[bytes, bytes]], body: bytes, framing: str) -> Said:
    lines = [b"HTTP/1.1 %d Whatever" % status, *(name + b": " + value for name, value in headers)]
    match framing:
        case "chunked":
            lines.append(b"transfer-encoding: chunked")
            body = (
                b"%x;odd=1\r\n%b\r\n0\r\ntrailer: x\r\n\r\n" % (len(body), body)
                if body
                else b"0\r\n\r\n"
            )
        case "too short" | "right" | "too long":
            lines.append(
                b"content-length: %d"
                % max(len(body) + {"too short": -3, "right": 0, "too long": 7}[framing], 0)
            )
        case "both":
            lines += [b"content-length: %d" % len(body), b"transfer-encoding: chunked"]
        case "twice":
            lines += [b"content-length: %d" % len(body), b"content-length: 3"]
    return Said(b"\r\n".join([*lines, b"", b""]), body, closes=framing not in ("right", "chunked"))


NUMBERS = (
    "0 1 7.5 -1 1e3 1e308 1e999 nan inf -inf 99999999999999999999 9007199254740993 ٣ 1_0 "
    "0x10 , 120,5 -0"
).split()
DATES = (
    "Wed, 21 Oct 2015 07:28:00 GMT|Fri, 31 Dec 9999 23:59:59 GMT|Mon, 01 Jan 0001 00:00:00 "
    "+2359|21 Oct 99999999999 7:28|Wed,|"
    "Wed, 21 Oct 2015 07:28:00 -9999|Sunday, 06-Nov-94 08:49:37 GMT|2015-10-21T07:28:00Z"
).split("|")
ELSEWHERE = (
    "https://[::1 //xn--a/ http://xn--0x7f /x http://a:99999 \\ %zz javascript:1 //Ⅷ.com "
    "https://e.com/ ::::"
).split()
PLAIN = [
    *NUMBERS,
    *DATES,
    *ELSEWHERE,
    "gzip",
    "br",
    "identity",
    "gzip, deflate",
    "r=1;t=-5",
    '"d";r=9999999999;t=1',
    "a=b",
    "disable",
]
NAMED = (
    "retry-after date ratelimit ratelimit-remaining ratelimit-reset x-ratelimit-remaining "
    "x-ratelimit-reset content-encoding "
    "location set-cookie content-type connection trailer upgrade webhook-delivery "
    "transfer-encoding x-odd"
).split()
odd_values = st.sampled_from(PLAIN).map(str.encode) | st.binary(max_size=12).map(
    lambda b: b.translate(None, b"\r\n\0")
)
cookies = st.sampled_from(
    [
        b"a=b",
        b"a=\xe9",
        b"a=\xc3\xa9; Max-Age=-1",
        b"=; expires=Wed, 99",
        b"a=b; domain=.; path=\xff",
    ]
)
headers = st.lists(
    st.tuples(st.sampled_from(NAMED).map(str.encode), odd_values)
    | st.tuples(st.just(b"set-cookie"), cookies),
    max_size=4,
)
statuses = st.sampled_from(
    [200] * 12
    + [204, 206, 301, 304, 307, 400, 401, 402, 403, 404, 408, 410, 413, 422, 429, 500, 502, 503]
)
statuses |= st.integers(100, 999)
framings = st.sampled_from(
    ["right"] * 8 + ["chunked", "chunked", "too short", "too long", "none", "both", "twice"]
)
junk = st.builds(Said, st.binary(max_size=60) | st.just(b""), closes=st.just(True))
interim = st.sampled_from(
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" * 3,
        b"HTTP/1.1 199 \r\n\r\n",
    ]
)
OPENING = b"HTTP/1.1 200 OK\r\n"
flood = st.sampled_from([10, 5_000, 100_000]).map(
    lambda count: Said(OPENING + b"a: b\r\n" * count + b"\r\n", closes=True)
)

# --- what it means


SOUND_IDS = ['"a"', '"b"', '"c"']


@st.composite
def records(draw: st.DrawFn) -> str:
    """Something like the record of an id, with anything in any place."""
    task_id = draw(
        st.sampled_from(
            [
                '"a"',
                '"b"',
                '"c"',
                '"a"',
                '"b"',
                '"c"',
                "7",
                '["a"]',
                '"\\u0061"',
                '"ａ"',
                '"a\\u0000"',
                "null",
            ]
        )
    )
    finished = (
        f'"finished_at":{draw(values | st.just("1.7e9"))},'
        f'"response":{{"success":true,"data":[{{"image_url":"{PIXELS}"}}]}}'
    )
    shapes = st.sampled_from(
        [
            "",
            f',"response":{draw(values)}',
            f",{finished}",
            f',{finished},"response":{draw(values)}',
        ]
    )
    more = draw(objects)[1:-1]
    name = draw(st.sampled_from(["id", "id", "task_id"]))
    return f'{{"{name}":{task_id}{draw(shapes)}{"," + more if more else ""}}}'


envelopes = st.lists(records() | records() | values, max_size=5).map(
    lambda parts: f'{{"items":[{",".join(parts)}],"count":1}}'
)
codes = st.sampled_from(
    "used_up forbidden bad_request not_found too_many_requests api_error too_many_ids nope".split()
)
errors = st.builds(
    lambda code, more: f'{{"error":{{"code":"{code}","message":{more}}}}}', codes, values
)
texts = envelopes | envelopes | records() | errors | values
answers = st.builds(said, statuses, headers, bodies(texts), framings) | st.builds(
    said, st.just(200), headers, bodies(envelopes), framings
)
answers |= st.builds(lambda first, then: replace(then, head=first + then.head), interim, answers)
upstream_answers = st.lists(answers | answers | answers | junk | flood, min_size=1, max_size=2)


def huge(size: int) -> bytes:
    start = b'{"items":[{"id":"a","pad":"'
    return start + b"x" * (size - len(start) - 4) + b'"}]}'


def ok(body: bytes, *more: tuple[bytes, bytes]) -> Said:
    return said(200, list(more), body, "right")


DONE = f'"finished_at":1.7e9,"response":{{"success":true,"data":[{{"image_url":"{PIXELS}"}}]}}'
SOUND = ok(b'{"items":[%b]}' % ",".join(f'{{"id":"{name}",{DONE}}}' for name in "abc").encode())
LARGE = {
    "exactly the limit": ok(huge(LIMIT)),
    "one byte more": ok(huge(LIMIT + 1)),
    "a gzip bomb": ok(gzip.compress(b" " * 50_000_000), (b"content-encoding", b"gzip")),
    "a gzip bomb of sound JSON": ok(
        gzip.compress(huge(20_000_000)), (b"content-encoding", b"gzip")
    ),
    "nested 100,000 deep": ok(DEEP.encode()),
    "a record nested 100,000 deep": ok(
        f'{{"items":[{{"id":"a","request":{DEEP},{DONE}}}]}}'.encode()
    ),
    "an error nested 100,000 deep": said(
        500, [], f'{{"error":{{"message":{DEEP}}}}}'.encode(), "right"
    ),
    "a number of 1,000,000 digits": ok(
        b'{"items":[{"id":"a","finished_at":%b}]}' % (b"9" * 1_000_000)
    ),
    "a status word of 1 MB": ok(
        b'{"items":[{"id":"a","response":{"status":"%b"}}]}' % (b"w" * 1_000_000)
    ),
    "200,000 items": ok(b'{"items":[%b{"id":"a"}]}' % (b"{}," * 200_000)),
    "100,000 headers": Said(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000 + b"\r\n", closes=True),
    "one header of 1 MB": Said(
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 1_000_000 + b"\r\n\r\n", closes=True
    ),
    "nothing but interim answers": Said(b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000, closes=True),
    "30,000 small chunks": Said(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"1\r\n \r\n" * 30_000
        + b"0\r\n\r\n"
    ),
}


class Stranger:
    """A server that answers byte for byte what a test wants, one answer after another and from the
    start again.
    """

    def __init__(self) -> None:
        self.said: Iterator[Said] = iter(())

    def will_say(self, *some: Said) -> None:
        self.said = itertools.cycle(some)

    def __call__(self, peer: Peer) -> None:
        answer = next(self.said)
        peer.link.write(answer.head + answer.body)
        if answer.closes:
            peer.link.close()


@pytest.fixture
def stranger() -> Stranger:
    return Stranger()


@pytest.fixture
def address(stranger: Stranger) -> Iterator[str]:
    """Where the stranger listens."""
    thread = LoopThread()

    async def opened() -> tuple[contextlib.AsyncExitStack, Receiver]:
        stack = contextlib.AsyncExitStack()
        return stack, await stack.enter_async_context(receiving(stranger))

    stack, receiver = thread.run(opened(), timeout=5)
    yield receiver.url
    thread.run(stack.aclose(), timeout=5)
    thread.close()


# --- the remote API


class Asking:
    """One worker process, and what must hold after each batch that it asks about."""

    IDS = ("a", "b", "c")

    def __init__(self, store: Store, loop: LoopThread, url: str) -> None:
        self.store = store
        self.url = url.removesuffix("/hook")
        self.transport = PooledTransport()
        self.loop = loop
        self.upstream = Upstream(
            self.transport, self.url, {"default": "secret-token"}, CallLimits(0.4, 0.4, LIMIT)
        )
        self.retriever = Retriever(
            store,
            Forecasts(store.shared_state),
            self.upstream,
            loop,
            RetrieveConfig(1.0, 0.4, 0.0, AbsencePolicy(10.0, 2, 0.0), 3600.0, 100),
        )

    def begin(self, deadline: float = 1000.0) -> None:
        """Three ids in an empty store, and a rate limit that nobody has to wait for."""
        self.store.connection.redis.flushall()
        self.now = self.store.fleet.now()
        options = SubmitOptions(
            "nano-banana",
            "default",
            ("https://example.com/hook",),
            deadline,
            "",
            "",
            "",
            restart=False,
        )
        self.store.tasks.add(self.IDS, options, self.now - 100, self.now - 100)

    def run(self) -> None:
        self.store.shared_state.change_rate_limit(
            "default", lambda rate_limit: (replace(rate_limit, rate=1000.0, paused_until=0.0), None)
        )
        clock = Clock(self.store.fleet.now())
        ids = self.store.tasks.claim(
            LANE, clock.now() + 60, "t1", self.store.tasks.candidates(LANE, clock.now(), 50)
        )
        self.retriever.retrieve(clock, LANE, ids, "t1")

    def poll(self) -> dict[str, TrackedTask]:
        """Every id is pending, due and nobody's, or has ended with what can be read, announced and
        signed.
        """
        raw = self.store.connection.redis
        loaded = self.store.tasks.load(LANE, self.IDS, with_record=True)
        assert loaded.unreadable == {}
        assert set(loaded.tasks) == set(self.IDS)
        assert raw.hlen(KEYS.leases) == 0
        due = dict(raw.zrange(KEYS.due(""), 0, -1, withscores=True))  # type: ignore[arg-type]
        pending = {name for name, task in loaded.tasks.items() if task.state is State.PENDING}
        lists = [KEYS.deadline(float(at)) for at in raw.zrange(KEYS.deadlines, 0, -1)]
        assert set(due) == pending <= {each for key in lists for each in raw.lrange(key, 0, -1)}
        assert all(math.isfinite(at) and at < self.now + 2000 for at in due.values())
        for task in loaded.tasks.values():
            assert task.reason.isprintable()
            assert len(task.reason) <= 500
            if task.state.terminal:
                self.announced(task)
        return loaded.tasks

    def announced(self, task: TrackedTask) -> None:
        body = payload.body(task)
        told = Webhook(SECRET).verify(
            body, signing.headers((SECRET,), "msg_1", int(self.store.fleet.now()), body)
        )
        again = record_json.reader().decode(body.decode())["data"]
        assert again["task"] == task.record or told["data"]["truncated"]
        json.loads(body, parse_constant=pytest.fail)

    def settles_what_is_pending(self, stranger: Stranger) -> None:
        """Whatever was said before, a sound answer is understood.

        Bytes too many of the last one may cost one call.
        """
        stranger.will_say(SOUND)
        self.run()
        if not all(task.state.terminal for task in self.poll().values()):
            self.run()
        assert all(task.state.terminal for task in self.poll().values())


@pytest.fixture
def asking(store: Store, loop: LoopThread, address: str) -> Iterator[Asking]:
    logs.set_up("console", "critical")  # some thousand held accounts
    one = Asking(store, loop, address)
    yield one
    loop.run(one.transport.aclose(), timeout=5)


LONG = pytest.mark.timeout(0 if "FUZZ_CASES" in os.environ else 120)


@LONG
def test_whatever_the_api_answers_it_is_a_verdict_for_each_id_or_a_refusal(
    asking: Asking, stranger: Stranger
) -> None:
    """All but the store.

    Asked over the wire, matched, judged, and made into what would be stored, announced and signed.
    """
    asking.begin()
    tasks = asking.store.tasks.load(LANE, asking.IDS).tasks

    @cases(150)
    @given(some=upstream_answers)
    def prove(some: list[Said]) -> None:
        stranger.will_say(*some)
        for work in (
            asking.upstream.retrieve_batch(LANE, asking.IDS),
            asking.upstream.retrieve(LANE, "a"),
        ):
            answer = asking.loop.run(work, timeout=5)
            if isinstance(answer, UpstreamError):
                assert answer.detail.isprintable()
                assert len(answer.detail) <= 200
                continue
            for task_id, (reading, record) in match(answer.items, asking.IDS).items():
                outcome = decide(
                    tasks[task_id], reading, record, asking.now, AbsencePolicy(10.0, 2, 0.0)
                )
                kept = stored(outcome.record) or None
                ended = replace(
                    tasks[task_id],
                    state=outcome.state,
                    reason=outcome.reason,
                    record=record_json.read_record(kept) if kept else None,
                    record_json=kept,
                )
                asking.announced(ended)

    prove()


@LONG
def test_whatever_the_api_answers_no_id_is_lost_and_a_sound_answer_settles_it(
    asking: Asking, stranger: Stranger
) -> None:
    @cases(30)
    @given(some=upstream_answers, deadline=st.sampled_from([1000.0, 1000.0, 1000.0, 50.0]))
    def prove(some: list[Said], deadline: float) -> None:
        asking.begin(deadline)
        stranger.will_say(*some)
        asking.run()
        asking.poll()
        asking.settles_what_is_pending(stranger)

    prove()


@pytest.mark.parametrize("kind", LARGE)
def test_an_answer_of_absurd_size_is_an_answer_like_any_other(
    asking: Asking, stranger: Stranger, kind: str
) -> None:
    asking.begin()
    stranger.will_say(LARGE[kind])
    asking.run()
    asking.poll()
    asking.settles_what_is_pending(stranger)


# --- receivers of webhooks


@LONG
def test_whatever_a_receiver_answers_the_delivery_has_a_state_and_a_readable_log(
    endpoint_index: Delivering, stranger: Stranger, address: str
) -> None:
    logs.set_up("console", "critical")
    delivery_name = delivery_of(subscription_of(address), "a")

    @cases(30)
    @given(some=answers | junk | flood)
    def prove(some: Said) -> None:
        endpoint_index.store.connection.redis.flushall()
        endpoint_index.end("a", webhook=address)
        stranger.will_say(some)
        done = endpoint_index.deliver(timeout=0.4)
        assert done.delivered + done.retries + done.buried == 1
        (delivery,) = endpoint_index.store.deliveries.load(LANE, [delivery_name])
        assert delivery.outcome.isprintable()
        assert len(delivery.outcome) <= 300
        (line,) = delivery.log.splitlines()
        entry = json.loads(line)
        assert entry["outcome"].isprintable()
        assert len(entry.get("answer", "")) <= 1024
        assert (done.delivered == 1) == (200 <= entry.get("status", 0) < 300)

    prove()


# --- one test for each bug that was found here, named after it


def asked_again(asking: Asking, stranger: Stranger, first: Said) -> dict[str, str]:
    """The states after one odd answer; whatever is open then must settle by a sound one."""
    asking.begin()
    stranger.will_say(first)
    asking.run()
    states = {name: str(task.state) for name, task in asking.poll().items()}
    asking.settles_what_is_pending(stranger)
    return states


@pytest.mark.parametrize("cookie", [b"a=\xe9", b"a=\xc3\xa9; Max-Age=99", b"a=" + b"x" * 60_000])
def test_a_cookie_that_no_header_can_carry_does_not_break_every_later_call(
    asking: Asking, stranger: Stranger, cookie: bytes
) -> None:
    asked_again(
        asking,
        stranger,
        replace(SOUND, head=SOUND.head.replace(b"\r\n", b"\r\nset-cookie: " + cookie + b"\r\n", 1)),
    )


@pytest.mark.parametrize(
    "place",
    [
        b"https://[v1.x]\xe2\x84\xaa",
        b":https://K]\xef\xac\x80K",
        b"//xn--aa?:99999",
        b"http://xn--//b.c",
    ],
)
def test_an_ill_formed_location_of_a_redirect_is_no_answer_rather_than_an_exception(
    asking: Asking, stranger: Stranger, place: bytes
) -> None:
    assert set(
        asked_again(asking, stranger, said(307, [(b"location", place)], b"", "right")).values()
    ) == {"pending"}


@pytest.mark.parametrize(
    "odd", ["9" * 5000, DEEP, '"a\nb\0"'], ids=["digits", "depth", "control characters"]
)
def test_one_record_that_no_reader_takes_does_not_cost_the_others_of_its_batch_their_answer(
    asking: Asking, stranger: Stranger, odd: str
) -> None:
    body = (
        f'{{"items":[{{"id":"a","request":{odd},{DONE}}},{{"id":"b",{DONE}}},{{"id":"c",{DONE}}}]}}'
    )
    states = asked_again(asking, stranger, ok(body.encode(errors="surrogateescape")))
    assert states == {"a": "succeeded", "b": "succeeded", "c": "succeeded"}


def test_cuts_at_depth_keep_what_lies_around_them() -> None:
    nested = "[" * 2000 + "1" + "]" * 2000
    read = read_answer(f'{{"a":"]]}}\\"[[","deep":{nested},"b":[{{}},{nested}],"c":2}}'.encode())
    assert (read["a"], read["b"][0], read["c"]) == (']]}"[[', {}, 2)
    assert json.dumps(read["deep"]) == "[" * 99 + "null" + "]" * 99


MUCH = {
    "lists": (b"[]", CONTAINERS + 1),
    "objects": (b"{}", CONTAINERS + 1),
    "a list in each list": (b"[[1.5e999,[]]]", CONTAINERS // 2),
    "numbers": (b"17", AT_ONCE),
    "texts": (b'"\\ud83d\\ude00"', AT_ONCE // 8),
}


@pytest.mark.parametrize("kind", MUCH)
def test_a_large_answer_is_read_beside_the_event_loop_and_means_what_a_small_one_means(
    asking: Asking, stranger: Stranger, kind: str
) -> None:
    piece, count = MUCH[kind]
    stranger.will_say(ok(b'{"items":[{"id":"a","pad":[%b]}]}' % b",".join([piece] * count)))
    wide = Upstream(asking.transport, asking.url, {"default": "t"}, CallLimits(30.0, 30.0, 2**24))
    answer = asking.loop.run(wide.retrieve_batch(LANE, ["a"]), timeout=60)
    (record,) = answer.items  # type: ignore[union-attr]
    assert record["pad"] == [read_answer(piece)] * count


def test_the_event_loop_turns_while_a_large_answer_is_read(
    asking: Asking, stranger: Stranger
) -> None:
    """While `read_answer` is under way, the loop does other work.

    It would do none if it read the answer itself.
    """
    turns = list[bool]()

    class Watched(Upstream):
        async def _post(self, *words: Any) -> Any:
            turning = asyncio.create_task(turn())
            try:
                return await super()._post(*words)
            finally:
                turning.cancel()

    async def turn() -> None:
        while True:
            turns.append(
                any("read_answer" in _names(frame) for frame in sys._current_frames().values())
            )
            await asyncio.sleep(0)

    stranger.will_say(ok(b'{"items":[{"id":"a","pad":[%b]}]}' % b",".join([b"[]"] * 300_000)))
    wide = Watched(asking.transport, asking.url, {"default": "t"}, CallLimits(30.0, 30.0, 2**24))
    asking.loop.run(wide.retrieve_batch(LANE, ["a"]), timeout=60)
    assert sum(turns) > 3


def _names(frame: FrameType | None) -> list[str]:
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names
