"""Paid submits through the gateway: the vendor's own SDK, and an API that loses answers."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
from acedatacloud import AceDataCloud, AceDataCloudError

from cavendish import Client, State
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.devstack.ports import free_port
from cavendish_worker.telemetry import logs
from conftest import Server
from ending import blocked, settle
from servers import eventually
from serving import caller, new_key, service

SERVICE, LANE = "nano-banana", Lane("default", "nano-banana")
IMAGES = f"/{SERVICE}/images"
ASKED = {"action": "generate", "prompt": "a banana", "async": True}
Serve = Callable[[Callable[[httpx.Request], object]], str]


@dataclass
class Api:
    """An API that answers as it is told to, and keeps what it was asked."""

    answer: Callable[[httpx.Request], httpx.Response] | None = None
    asked: list[httpx.Request] = field(default_factory=list)
    task_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    async def handle(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.asked.append(request)
        if self.answer is not None:
            return self.answer(request)
        return httpx.Response(200, json={"success": True, "task_id": self.task_id})


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def address(api: Api, store: Store, settings: Settings, served: Serve) -> Iterator[str]:
    """Where the gateway of this API listens."""
    with service(replace(settings, api_url=served(api.handle))) as where:
        yield where


@pytest.fixture
def http(address: str) -> Iterator[httpx.Client]:
    with caller(address, "emulated") as opened:
        yield opened


@pytest.fixture
def sdk(address: str) -> Iterator[AceDataCloud]:
    with AceDataCloud(api_token="emulated", base_url=address) as opened:
        yield opened


def generate(sdk: AceDataCloud) -> Any:
    return sdk.nano_banana.generate(action="generate", prompt="a banana")


def test_a_submit_is_sent_on_byte_for_byte(http: httpx.Client, api: Api) -> None:
    """White space, the order of keys and keys that nobody knows are its caller's business."""
    body = b'{"prompt" : "\\u00e9 \xc3\xa9",  "seed": 1.50, "seed": 12345678901234567890,'
    body += b' "async":true}'
    headers = {
        "model": "speech-1",
        "idempotency-key": "k",
        "x-mine": "yes",
        "x-record-exempt": "true",
        "x-forwarded-for": "10.0.0.1",
        "cookie": "a=b",
        "content-type": "application/json; charset=utf-8",
    }
    answer = http.post(f"{IMAGES}?a=%2Fb&c", content=body, headers=headers)
    assert answer.json() == {"success": True, "task_id": api.task_id}
    (asked,) = api.asked
    assert asked.content == body
    assert asked.url.raw_path == f"{IMAGES}?a=%2Fb&c".encode()
    kept = {"model", "idempotency-key", "x-mine", "content-type"}
    assert {name: asked.headers[name] for name in kept} == {name: headers[name] for name in kept}
    assert asked.headers["authorization"] == "Bearer emulated"
    assert kept & asked.headers.keys() == kept
    assert not asked.headers.keys() & {"x-record-exempt", "x-forwarded-for", "cookie"}


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_number_that_is_no_json_is_refused_and_nothing_is_sent(
    http: httpx.Client, api: Api, number: str
) -> None:
    """Python writes NaN. After a 500 the vendor's SDK would send the submit twice more."""
    answer = http.post(IMAGES, content=b'{"prompt": "p", "seed": ' + number.encode() + b"}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    assert api.asked == []


def test_headers_are_passed_on_byte_for_byte_both_ways(http: httpx.Client, api: Api) -> None:
    """One that is no ASCII made a 500 of a submit that was paid for."""
    told = {"success": True, "task_id": api.task_id}
    api.answer = lambda _: httpx.Response(
        200, json=told, headers=[(b"x-note", "\u20ac 5".encode()), (b"x-old", b"\xa4 5")]
    )
    headers = {b"x-name": "Zo\u00eb \u20ac".encode(), b"content-encoding": b"br"}
    answer = http.post("/suno/lyrics", content=b"zipped", headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 200
    found = dict(answer.headers.raw)
    assert (found[b"x-note"], found[b"x-old"]) == ("\u20ac 5".encode(), b"\xa4 5")
    sent = {name.lower(): value for name, value in api.asked[0].headers.raw}
    assert {name: sent[name] for name in headers} == headers
    assert len(api.asked) == 1


def test_the_id_is_in_the_store_before_its_caller_has_it(
    sdk: AceDataCloud, api: Api, client: Client
) -> None:
    handle = sdk.nano_banana.generate(action="generate", prompt="p", model="nano-banana-pro")
    assert handle.id == api.task_id
    task = client.get(handle.id, service=SERVICE)
    assert task is not None
    assert (task.model, task.producer, task.state) == ("nano-banana-pro", "gateway", State.PENDING)


def test_a_key_buys_with_the_token_of_its_account(
    address: str, api: Api, store: Store, client: Client
) -> None:
    """The producer never sees the token."""
    with AceDataCloud(api_token=new_key(store, "app"), base_url=address) as sdk:
        generate(sdk)
    assert api.asked[0].headers["authorization"] == "Bearer emulated"
    task = client.get(api.task_id, service=SERVICE)
    assert task is not None
    assert task.producer == "app"


def broken(_: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("closed")


LOST: dict[str, Callable[[httpx.Request], httpx.Response]] = {
    **{
        str(status): lambda _, status=status: httpx.Response(  # type: ignore[misc]
            status, json={"error": {"code": "api_error", "message": "no"}}
        )
        for status in (408, 500, 502, 503, 504, 520)
    },
    "a page of a gateway": lambda _: httpx.Response(502, html="<h1>Bad gateway</h1>"),
    "no answer": broken,
    "no JSON": lambda _: httpx.Response(500, content=b'{"task_id": "'),
}


@pytest.mark.parametrize("answer", LOST.values(), ids=list(LOST))
def test_a_submit_of_uncertain_fate_is_sent_to_the_api_once(
    answer: Callable[[httpx.Request], httpx.Response], sdk: AceDataCloud, api: Api
) -> None:
    """Without us, one `generate` of the SDK pays three times."""
    api.answer = answer
    with pytest.raises(AceDataCloudError) as told:
        generate(sdk)
    assert (told.value.status_code, told.value.code) == (424, "submit_uncertain")
    assert len(api.asked) == 1


@pytest.mark.parametrize("path", [IMAGES, "/serp/google"])
def test_an_answer_that_does_not_come_in_time_has_no_submit_sent_again(
    path: str,
    store: Store,
    settings: Settings,
    slow: Slow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The API has all of it, and keeps silent."""
    monkeypatch.setattr("cavendish_worker.service.gateway.gateway._SILENCE", 0.3)
    with (
        service(replace(settings, api_url=slow.url)) as address,
        caller(address, "emulated") as http,
    ):
        answer = http.post(path, json=ASKED)
        assert (answer.status_code, answer.json()["error"]["code"]) == (424, "submit_uncertain")
        slow.read(100)
        assert slow.ended()
        assert slow.got.count(b"POST ") == 1


@pytest.mark.parametrize("path", [IMAGES, "/serp/google"])
def test_an_answer_that_breaks_off_at_any_byte_has_no_submit_sent_again(
    path: str, store: Store, settings: Settings
) -> None:
    told = json.dumps({"success": True, "task_id": str(uuid.uuid4())}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    whole = head % len(told) + told
    with cutting(whole) as (url, cuts):
        with (
            service(replace(settings, api_url=url)) as address,
            caller(address, "emulated") as http,
        ):
            for number in range(len(whole) + 1):
                cuts.append(number)
                answer = http.post(path, json=ASKED)
                expected = 200 if number == len(whole) else 424
                assert answer.status_code == expected, number
        assert cuts == []  # each was asked for once


@contextmanager
def cutting(answer: bytes) -> Iterator[tuple[str, list[int]]]:
    """A server that takes a request, and sends so many bytes of its answer, from a list."""
    listener, cuts = socket.create_server(("127.0.0.1", 0)), list[int]()

    def run() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                asked = b""
                while b"banana" not in asked and (some := peer.recv(65536)):
                    asked += some
                peer.sendall(answer[: cuts.pop()])

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", cuts
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def test_a_failure_of_the_api_that_names_a_task_is_a_task(
    sdk: AceDataCloud, api: Api, client: Client
) -> None:
    """Such answers were seen: the job had been made."""
    api.answer = lambda _: httpx.Response(500, json={"task_id": api.task_id, "error": "late"})
    assert generate(sdk).id == api.task_id
    assert client.get(api.task_id, service=SERVICE) is not None


def test_a_lost_submit_is_found_by_its_trace_id(
    http: httpx.Client, api: Api, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the service can be asked for one; it is not sent again."""
    monkeypatch.setattr("cavendish_worker.service.gateway.submitting._SEARCHES", (0.01, 0.01))

    def answer(request: httpx.Request) -> httpx.Response:
        told = json.loads(request.content)
        if request.url.path != "/veo/tasks":
            raise httpx.ReadError("closed")
        known = told == {"action": "retrieve", "trace_id": traces()[0]} and len(api.asked) > 2
        return httpx.Response(200, json={"id": api.task_id} if known else {})

    def traces() -> list[str]:
        submits = [each for each in api.asked if each.url.path == "/veo/videos"]
        return [json.loads(each.content)["trace_id"] for each in submits]

    api.answer = answer
    told = http.post("/veo/videos", json=ASKED)
    assert (told.status_code, told.json()["task_id"]) == (200, api.task_id)
    assert len(traces()) == 1
    assert client.get(api.task_id, service="veo") is not None


@pytest.mark.parametrize(
    ("status", "code", "shown"),
    [(400, "bad_request", 400), (403, "used_up", 403), (429, "too_many_requests", 429)],
)
def test_a_clear_refusal_is_passed_on_as_it_came(
    status: int, code: str, shown: int, http: httpx.Client, api: Api, client: Client
) -> None:
    """Nothing was made: its client may try again."""
    refusal = {"error": {"code": code, "message": "no"}, "trace_id": "t", "task_id": "a-task"}
    api.answer = lambda _: httpx.Response(
        status, json=refusal, headers={"retry-after": "7", "set-cookie": "a=b", "x-trace-id": "t"}
    )
    answer = http.post(IMAGES, json=ASKED)
    assert (answer.status_code, answer.json()) == (shown, refusal)
    assert (answer.headers["retry-after"], answer.headers["x-trace-id"]) == ("7", "t")
    assert "set-cookie" not in answer.headers
    assert client.count() == 0


@pytest.mark.parametrize("path", [IMAGES, "/serp/google"])
@pytest.mark.parametrize(
    ("status", "shown", "code"), [(402, 403, "used_up"), (307, 424, "api_error")]
)
def test_no_client_is_told_to_pay_or_to_go_elsewhere(
    status: int, shown: int, code: str, path: str, http: httpx.Client, api: Api
) -> None:
    """An SDK with a wallet answers a 402 by a payment; none follows a redirect."""
    api.answer = lambda _: httpx.Response(status, json={}, headers={"location": "http://x.example"})
    answer = http.post(path, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (shown, code)
    assert len(api.asked) == 1


def test_what_was_never_sent_may_be_sent_again(store: Store, settings: Settings) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with (
        service(replace(settings, api_url=nobody)) as address,
        caller(address, "emulated") as http,
    ):
        for path in (IMAGES, "/serp/google"):
            answer = http.post(path, json=ASKED)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "api_error")


def test_nothing_is_bought_whose_id_could_not_be_kept(
    own_server: Server, settings: Settings, api: Api, served: Serve
) -> None:
    here = replace(settings, redis_url=own_server.url, api_url=served(api.handle))
    with service(here) as address, caller(address, "emulated") as http:
        assert http.post(IMAGES, json=ASKED).status_code == 200
        own_server.kill()
        assert http.post(IMAGES, json=ASKED).status_code == 503
    assert len(api.asked) == 1


def test_an_id_is_kept_although_redis_goes_away_while_the_api_answers(
    own_server: Server, settings: Settings, api: Api, served: Serve
) -> None:
    """The caller waits for it."""

    def answer(_: httpx.Request) -> httpx.Response:
        own_server.kill()
        threading.Timer(1, own_server.start).start()
        return httpx.Response(200, json={"task_id": api.task_id})

    api.answer = answer
    here = replace(settings, redis_url=own_server.url, api_url=served(api.handle))
    with service(here) as address, caller(address, "emulated") as http:
        assert http.post(IMAGES, json=ASKED).json()["task_id"] == api.task_id
        with Client(settings=here) as client:
            assert client.get(api.task_id, service=SERVICE) is not None
    assert len(api.asked) == 1


SYNCHRONOUS = {"prompt": "a banana", "seed": 7}


def test_a_synchronous_submit_is_made_asynchronous_and_its_caller_gets_the_result(
    sdk: AceDataCloud, api: Api, client: Client, store: Store
) -> None:
    """No timeout of the API or of a proxy before it can lose what was paid for."""
    data = [{"image_url": "https://cdn.example.com/a.png"}]
    record = {"id": api.task_id, "response": {"success": True, "trace_id": "t", "data": data}}
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(sdk.images.generate, **SYNCHRONOUS)  # type: ignore[arg-type]
        blocked(store)
        settle(store, LANE, api.task_id, record=record)
        answer = waiting.result(60)
    assert answer == {"task_id": api.task_id, "success": True, "trace_id": "t", "data": data}
    (asked,) = api.asked
    assert json.loads(asked.content) == SYNCHRONOUS | {"async": True}


@pytest.mark.parametrize(
    ("state", "error", "status"),
    [
        (State.FAILED, {"code": "api_error", "message": "no channel"}, 424),
        (State.FAILED, {"code": "forbidden", "message": "moderated"}, 403),
        (State.EXPIRED, None, 424),
    ],
)
def test_a_held_caller_whose_task_fails_buys_no_second_one(
    state: State, error: Any, status: int, sdk: AceDataCloud, api: Api, store: Store
) -> None:
    record = {"id": api.task_id, "response": {"success": False, "error": error}} if error else None
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(sdk.images.generate, **SYNCHRONOUS)  # type: ignore[arg-type]
        blocked(store)
        settle(store, LANE, api.task_id, state=state, record=record)
        with pytest.raises(AceDataCloudError) as told:
            waiting.result(60)
    assert told.value.status_code == status
    assert told.value.code == (error["code"] if error else "timeout")
    assert len(api.asked) == 1


def test_a_held_caller_gets_the_id_when_the_service_ends(
    store: Store, settings: Settings, api: Api, served: Serve
) -> None:
    """By it the SDK goes on asking, at the service that takes its place."""
    here = replace(settings, api_url=served(api.handle))
    with ThreadPoolExecutor() as pool:
        with service(here) as address:
            waiting = pool.submit(_post, address, IMAGES, SYNCHRONOUS)
            blocked(store)
        answer = waiting.result(60)
    assert (answer.status_code, answer.json()["task_id"]) == (200, api.task_id)
    assert len(api.asked) == 1


def _post(address: str, path: str, told: Any) -> httpx.Response:
    with caller(address, "emulated") as http:
        return http.post(path, json=told)


def test_pictures_of_many_megabytes_are_sent_on_and_more_is_refused(
    http: httpx.Client, api: Api
) -> None:
    body = json.dumps(ASKED | {"image_urls": ["data:image/png;base64," + "A" * 2**24]}).encode()
    assert http.post(IMAGES, content=body).status_code == 200
    assert api.asked[0].content == body
    large = http.post(IMAGES, content=b"x" * (64 * 2**20 + 1))
    assert (large.status_code, len(api.asked)) == (413, 1)
    assert large.json()["error"]["code"] == "request_too_large"
    many = http.post(IMAGES, content=b'{"a":[' + b"{}," * 100_000 + b"{}]}")
    assert (many.status_code, len(api.asked)) == (400, 1)


def test_paths_that_make_no_task_are_passed_through(
    http: httpx.Client, api: Api, client: Client
) -> None:
    """Nothing is added to a chat, and nothing of it is tracked."""
    told = {"id": "chatcmpl-1", "choices": []}
    api.answer = lambda _: httpx.Response(200, json=told)
    for path in ("/openai/chat/completions", "/serp/google", "/suno/lyrics"):
        assert http.post(path, json={"a": 1}).json() == told
        assert json.loads(api.asked[-1].content) == {"a": 1}
    assert client.count() == 0


def test_a_stream_comes_piece_by_piece(store: Store, settings: Settings) -> None:
    """The first words are read before the last ones are sent."""
    with (
        streaming() as (url, go_on),
        service(replace(settings, api_url=url)) as address,
        caller(address, "emulated") as http,
        http.stream("POST", "/openai/chat/completions", json={"stream": True}) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines) == "data: one"
        go_on.set()
        assert list(lines) == ["", "data: [DONE]", ""]


def test_a_stream_that_breaks_off_breaks_off_at_the_caller_and_leaves_no_traceback(
    store: Store, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    """The API has promised more than it sends."""
    logs.set_up("console", "info")
    with (
        streaming(b"content-length: 9999\r\n") as (url, go_on),
        service(replace(settings, api_url=url)) as address,
        caller(address, "emulated") as http,
        http.stream("POST", "/openai/chat/completions", json={"stream": True}) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines) == "data: one"
        go_on.set()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    said = capfd.readouterr().err
    assert "gateway.stream_broken" in said
    assert "Traceback" not in said


@contextmanager
def streaming(more: bytes = b"") -> Iterator[tuple[str, threading.Event]]:
    """A server of events: the second one is sent when the event is set. `more`: header lines."""
    listener, go_on = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def run() -> None:
        peer, _ = listener.accept()
        with peer:
            asked = b""
            while b"stream" not in asked:
                asked += peer.recv(65536)
            peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%b\r\n" % more)
            peer.sendall(b"data: one\n\n")
            assert go_on.wait(30)
            peer.sendall(b"data: [DONE]\n\n")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", go_on
    thread.join(10)
    listener.close()


def test_what_only_the_api_knows_is_asked_there(http: httpx.Client, api: Api) -> None:
    """History, trace ids, deletions, and services whose tasks have another form."""
    api.answer = lambda _: httpx.Response(200, json={"items": [], "count": 7})
    asked = {
        f"/{SERVICE}/tasks": {"action": "retrieve_batch", "limit": 20, "type": "images"},
        "/veo/tasks": {"action": "retrieve", "trace_id": "t"},
        "/flux/tasks": {"action": "delete", "id": "a"},
        "/captcha/tasks": {"task_id": "a"},
    }
    for path, told in asked.items():
        assert http.post(path, json=told).json()["count"] == 7
        assert api.asked[-1].url.path == path
        assert json.loads(api.asked[-1].content) == told


class Slow:
    """An API that takes a connection, and reads and answers as it is told to."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._peer: socket.socket | None = None
        self.got = b""

    def read(self, size: int) -> None:
        """Read until so many bytes have come, from the same connection."""
        if self._peer is None:
            self._peer, _ = self._listener.accept()
            self._peer.settimeout(30)
        while len(self.got) < size:
            some = self._peer.recv(65536)
            assert some, "it was closed"
            self.got += some

    def ended(self) -> bool:
        """True once the connection is closed; whatever still comes is no whole request."""
        assert self._peer is not None
        with suppress(ConnectionError):
            while some := self._peer.recv(65536):
                self.got += some
        return len(self.got) < 2 * HALF

    def answer(self, status: bytes, body: bytes = b"{}") -> None:
        assert self._peer is not None
        head = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
        self._peer.sendall(head + body)

    def close(self) -> None:
        if self._peer is not None:
            self._peer.close()
        self._listener.close()


@pytest.fixture
def slow() -> Iterator[Slow]:
    api = Slow()
    yield api
    api.close()


@contextmanager
def uploading(address: str, size: int) -> Iterator[socket.socket]:
    """A caller who has said that so many bytes will come to a path that makes no task."""
    where = httpx.URL(address)
    head = "POST /openai/audio/transcriptions HTTP/1.1\r\nhost: a\r\ncontent-type: audio/mpeg\r\n"
    head += f"authorization: Bearer emulated\r\ncontent-length: {size}\r\n\r\n"
    with socket.create_connection((where.host, where.port or 0), timeout=30) as caller:
        caller.sendall(head.encode())
        yield caller


def received(caller: socket.socket, end: bytes) -> bytes:
    """An answer, up to its last bytes."""
    answer = b""
    while not answer.endswith(end):
        some = caller.recv(65536)
        assert some, answer
        answer += some
    return answer


HALF = 300_000


@pytest.fixture
def half_sent(store: Store, settings: Settings, slow: Slow) -> Iterator[socket.socket]:
    """A caller of whose body the API has the first half."""
    with (
        service(replace(settings, api_url=slow.url)) as address,
        uploading(address, 2 * HALF) as caller_,
    ):
        caller_.sendall(b"a" * HALF)
        slow.read(HALF)
        yield caller_


def test_what_makes_no_task_is_handed_on_while_it_still_comes(
    half_sent: socket.socket, slow: Slow
) -> None:
    """The API has half of it before the caller has sent the other half."""
    half_sent.sendall(b"b" * HALF)
    slow.read(2 * HALF + slow.got.index(b"\r\n\r\n") + 4)
    head, _, body = slow.got.partition(b"\r\n\r\n")
    assert body == b"a" * HALF + b"b" * HALF
    assert f"content-length: {2 * HALF}".encode() in head.lower()
    assert b"content-type: audio/mpeg" in head.lower()
    slow.answer(b"200 OK", b'{"text": "hello"}')
    assert received(half_sent, b"}").endswith(b'{"text": "hello"}')


def test_a_length_that_the_chunks_of_a_body_contradict_reaches_no_api(
    http: httpx.Client, api: Api
) -> None:
    """Else what is beyond the length would be the beginning of another request there."""
    where = http.base_url
    head = "POST /serp/google HTTP/1.1\r\nhost: a\r\nauthorization: Bearer emulated\r\n"
    head += "content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n"
    with socket.create_connection((where.host, where.port or 0), timeout=30) as peer:
        peer.sendall(head.encode() + b'a\r\n{"a":12345\r\n1\r\n}\r\n0\r\n\r\n')
        answer = peer.recv(65536)
    asked = [each.content for each in api.asked]
    assert asked == [b'{"a":12345}'] or answer.startswith(b"HTTP/1.1 400")


def test_a_caller_who_breaks_off_ends_the_call_of_the_api_before_it_is_whole(
    store: Store, settings: Settings, slow: Slow
) -> None:
    """So nothing is bought that nobody waits for, and nothing is uncertain."""
    with service(replace(settings, api_url=slow.url)) as address:
        with uploading(address, 2 * HALF) as caller_:
            caller_.sendall(b"a" * HALF)
            slow.read(HALF)
        slow.read(HALF + slow.got.index(b"\r\n\r\n") + 4)
        assert slow.ended()
    assert store.uncertain.all(store.fleet.now()) == []


def test_an_api_that_closes_before_it_has_all_has_not_got_it(
    half_sent: socket.socket, slow: Slow
) -> None:
    """The caller may send it again."""
    slow.close()
    with suppress(OSError):
        half_sent.sendall(b"b" * HALF)
    assert half_sent.recv(65536).startswith(b"HTTP/1.1 503")


def test_an_api_that_refuses_before_it_has_all_is_heard_and_its_connection_ends(
    half_sent: socket.socket, slow: Slow
) -> None:
    """What is left of the body must not be read as the beginning of another request."""
    slow.answer(b"403 Forbidden", b'{"error": {"code": "used_up"}}')
    with suppress(OSError):
        half_sent.sendall(b"b" * HALF)
    assert b"used_up" in received(half_sent, b"}}")
    assert slow.ended()


@pytest.mark.parametrize("whole", [False, True])
def test_a_5xx_leaves_the_fate_uncertain_only_of_what_the_api_has_whole(
    half_sent: socket.socket, slow: Slow, store: Store, *, whole: bool
) -> None:
    """What it has only a part of was not bought: the caller may send it again."""
    if whole:
        half_sent.sendall(b"b" * HALF)
        slow.read(2 * HALF + slow.got.index(b"\r\n\r\n") + 4)
    slow.answer(b"502 Bad Gateway")
    with suppress(OSError):
        half_sent.sendall(b"b" * HALF * (not whole))
    answer = received(half_sent, b"}")
    assert answer.startswith(b"HTTP/1.1 424" if whole else b"HTTP/1.1 503")
    assert len(store.uncertain.all(store.fleet.now())) == whole


def test_a_large_submit_that_is_read_whole_is_no_more_uncertain_than_one_that_streams(
    store: Store, settings: Settings, slow: Slow
) -> None:
    """A picture of many megabytes, of which the API has read a part when it answers."""
    told = {"prompt": "p", "async": True, "image_urls": ["a" * 20_000_000]}
    with (
        service(replace(settings, api_url=slow.url)) as address,
        caller(address, "emulated") as http,
        ThreadPoolExecutor() as threads,
    ):
        answer = threads.submit(http.post, "/nano-banana/images", json=told)
        slow.read(HALF)
        slow.answer(b"503 Service Unavailable")
        assert answer.result().status_code == 503
        assert "before all of the request was sent" in answer.result().text
    assert store.uncertain.all(store.fleet.now()) == []


def test_a_free_look_is_passed_through(
    sdk: AceDataCloud, http: httpx.Client, api: Api, store: Store, address: str
) -> None:
    """The voices of a service; what the API says of it is told, and its errors are no 402."""
    api.answer = lambda _: httpx.Response(200, json={"items": [], "total": 7})
    assert sdk.audio.list_fish_models(title="a voice")["total"] == 7
    (asked,) = api.asked
    assert (asked.method, asked.url.raw_path) == ("GET", b"/fish/model?title=a+voice")
    assert asked.headers["authorization"] == "Bearer emulated"
    assert not asked.content
    api.answer = lambda _: httpx.Response(402, json={})
    assert http.get("/fish/model/a").status_code == 403
    for path in ("/fish/", "/fish/a//b", "/v1/nothing", "/a_b/x"):
        assert http.get(path).status_code == 404, path
    own_key, submit_key = new_key(store, "own", "read", own=True), new_key(store, "s", "submit")
    with caller(address, own_key) as own:
        assert own.get("/fish/model").status_code == 401
    with caller(address, submit_key) as submits:
        assert submits.get("/fish/model").status_code == 403
    assert len(api.asked) == 2


def test_a_caller_who_has_gone_has_its_task_tracked(
    store: Store, settings: Settings, client: Client, api: Api, served: Serve
) -> None:
    """What was paid for is waited for all the same."""
    came, go_on = threading.Event(), threading.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        came.set()
        await asyncio.to_thread(go_on.wait, 30)
        return await api.handle(request)

    with service(replace(settings, api_url=served(slow))) as address:
        _leave(address, came)
        go_on.set()
        eventually(lambda: client.get(api.task_id, service=SERVICE), "it is tracked")


def _leave(address: str, came: threading.Event) -> None:
    host, _, port = address.removeprefix("http://").partition(":")
    body = json.dumps(ASKED).encode()
    head = f"POST {IMAGES} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer emulated\r\n"
    with socket.create_connection((host, int(port))) as peer:
        peer.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        assert came.wait(30)


def test_a_submit_that_the_end_of_the_service_cuts_off_is_not_sent_again(
    api: Api, store: Store, settings: Settings, served: Serve
) -> None:
    """The API has it and says nothing yet. A 500 would let the vendor's SDK buy it twice more."""

    def silent(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("no answer comes")

    api.answer = silent
    told = replace(settings, api_url=served(api.handle), shutdown_timeout=6.0)
    with ThreadPoolExecutor(2) as pool:
        with service(told) as address:
            paths = (IMAGES, "/openai/chat/completions")
            posts = [pool.submit(_post, address, path, ASKED) for path in paths]
            eventually(lambda: len(api.asked) == 2, "the API has both")
        answers = [each.result() for each in posts]
    assert [each.status_code for each in answers] == [424, 424]
    assert {each.json()["error"]["code"] for each in answers} == {"submit_uncertain"}
    assert len(api.asked) == 2
