"""One trace from the submit of an id to its webhook.

Over real HTTP, with a real Redis, and the SDK's own exporter.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import httpx
import pytest
from click.testing import CliRunner
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from cavendish.client import Client
from cavendish.clock import Clock
from cavendish.policy.verdicts import AbsencePolicy
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts
from cavendish_worker.celeryapp.submit_message import take_in
from cavendish_worker.cli import cli
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.http.transport import PooledTransport
from cavendish_worker.polling.expire import ExpiryConfig, expire_overdue
from cavendish_worker.polling.retrieve import RetrieveConfig, Retriever
from cavendish_worker.polling.upstream import CallLimits, Upstream
from cavendish_worker.telemetry import logs, tracing
from conftest import Server
from delivering import LANE, Delivering, Receiver, Served
from serving import caller, new_key, service

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{PARENT}-01"


class Api:
    """An emulated API that keeps the headers of what it was asked, and answers about every id with
    the same word.
    """

    def __init__(self, *, success: bool = True, status: int = 200) -> None:
        self.success, self.status = success, status
        self.headers: list[httpx.Headers] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        question = json.loads(await request.aread())
        self.headers.append(request.headers)
        said = {
            "finished_at": 1.7e9,
            "response": {
                "success": self.success,
                "error": {"code": "no"},
                "data": [{"url": "https://x/y"}],
            },
        }
        if self.success:
            said["response"].pop("error")  # type: ignore[attr-defined]
        return httpx.Response(
            self.status, json={"items": [{"id": one, **said} for one in question["ids"]]}
        )


class Road:
    """The way of an id in one process: submitted by a message, asked about, and announced."""

    def __init__(
        self, store: Store, loop: LoopThread, endpoint_index: Delivering, client: Client
    ) -> None:
        self.store, self.loop, self.endpoint_index, self.client = (
            store,
            loop,
            endpoint_index,
            client,
        )

    def submit(self, *ids: str, webhook: str, header: str | None = None, **options: object) -> None:
        take_in(
            self.client,
            list(ids),
            {"service": "nano-banana", "webhook": webhook, **options},
            header,
        )

    def poll(self, url: str) -> None:
        upstream = Upstream(
            PooledTransport(),
            url,
            {"default": "t"},
            CallLimits(5, 5, 2**20),
        )
        retriever = Retriever(
            self.store,
            Forecasts(self.store.shared_state),
            upstream,
            self.loop,
            RetrieveConfig(60, 5, 0, AbsencePolicy(10, 1, 0), 3600, 100),
        )
        clock = Clock(self.store.fleet.now())
        ids = self.store.tasks.claim(
            LANE, clock.now() + 60, "t1", self.store.tasks.candidates(LANE, clock.now(), 50)
        )
        retriever.retrieve(clock, LANE, ids, "t1")
        self.loop.run(upstream.close(), timeout=5)


@pytest.fixture
def road(
    store: Store, loop: LoopThread, endpoint_index: Delivering, settings: Settings
) -> Iterator[Road]:
    with Client(settings=settings) as client:
        yield Road(store, loop, endpoint_index, client)


@pytest.fixture
def spans() -> Iterator[Callable[[], dict[str, ReadableSpan]]]:
    """Trace into memory; the spans so far by the first word of their name, the last of each."""
    exporter = InMemorySpanExporter()
    tracing.use(tracing.exporting(exporter, {}, at_once=True))
    yield lambda: {span.name.partition(" ")[0]: span for span in exporter.get_finished_spans()}
    tracing.use(None)


def hexed(number: int, digits: int) -> str:
    return format(number, f"0{digits}x")


def trace_of(span: ReadableSpan) -> str:
    return hexed(span.get_span_context().trace_id, 32)  # type: ignore[union-attr]


def id_of(span: ReadableSpan) -> str:
    return hexed(span.get_span_context().span_id, 16)  # type: ignore[union-attr]


def header_of(span: ReadableSpan) -> str:
    return f"00-{trace_of(span)}-{id_of(span)}-{hexed(span.get_span_context().trace_flags, 2)}"  # type: ignore[union-attr]


def parent_of(span: ReadableSpan) -> str:
    return hexed(span.parent.span_id, 16) if span.parent else ""


def test_submit_poll_and_webhook_are_one_trace_and_the_poll_names_the_call_that_saw_it(
    road: Road, served: Served, spans: Callable[[], dict[str, ReadableSpan]]
) -> None:
    api, receiver = Api(), Receiver()
    road.submit("a", webhook=served(receiver), header=GIVEN)
    road.poll(served(api))
    assert road.endpoint_index.deliver().delivered == 1
    found = spans()
    assert set(found) == {"submit", "retrieve", "poll", "webhook"}
    submit, call, poll, webhook = (
        found[name] for name in ("submit", "retrieve", "poll", "webhook")
    )
    assert {trace_of(span) for span in (submit, poll, webhook)} == {TRACE}
    assert parent_of(submit) == PARENT
    assert parent_of(poll) == parent_of(webhook) == id_of(submit)
    assert trace_of(call) != TRACE
    assert parent_of(call) == ""
    assert [link.context for link in poll.links] == [call.get_span_context()]
    assert [headers["traceparent"] for headers in api.headers] == [header_of(call)]
    assert [one.headers["traceparent"] for one in receiver.got] == [header_of(webhook)]
    assert (
        (poll.attributes or {})["cavendish.id"] == (webhook.attributes or {})["cavendish.id"] == "a"
    )
    assert (webhook.attributes or {})["http.response.status_code"] == 200
    assert poll.start_time <= poll.end_time  # type: ignore[operator]


def test_a_submit_over_http_and_one_through_the_gateway_begin_a_trace_too(
    store: Store,
    settings: Settings,
    served: Served,
    spans: Callable[[], dict[str, ReadableSpan]],
) -> None:
    """The header of W3C; the API gets the span of the gateway. A header that is none is dropped."""
    asked = list[httpx.Headers]()

    async def api(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers)
        return httpx.Response(200, json={"task_id": f"bought-{len(asked)}"})

    def stored(task_id: str) -> str:
        return store.tasks.load(LANE, [task_id]).tasks[task_id].trace

    with (
        service(replace(settings, api_url=served(api))) as address,
        caller(address, new_key(store, "shop")) as http,
    ):
        told = {"service": "nano-banana", "ids": ["a"]}
        http.post("/v1/tasks", json=told, headers={"traceparent": GIVEN}).raise_for_status()
        assert parent_of(spans()["submit"]) == PARENT
        assert stored("a") == header_of(spans()["submit"])
        buy = {"json": {"prompt": "p", "async": True}, "headers": {"traceparent": GIVEN}}
        http.post("/nano-banana/images", **buy).raise_for_status()  # type: ignore[arg-type]
        bought = header_of(spans()["submit"])
        assert (stored("bought-1"), asked[0]["traceparent"]) == (bought, bought)
        assert parent_of(spans()["submit"]) == PARENT
        buy["headers"] = {"traceparent": "nonsense"}
        http.post("/nano-banana/images", **buy).raise_for_status()  # type: ignore[arg-type]
        assert stored("bought-2") == header_of(spans()["submit"])


def test_what_fails_is_marked_in_its_span(
    road: Road, served: Served, spans: Callable[[], dict[str, ReadableSpan]]
) -> None:
    road.submit("a", webhook=served(Receiver(httpx.Response(500))), header=GIVEN)
    road.poll(served(Api(success=False)))
    assert road.endpoint_index.deliver().retries == 1
    found = spans()
    assert (
        found["submit"].status.status_code
        is found["retrieve"].status.status_code
        is StatusCode.UNSET
    )
    assert found["poll"].status.description == "no"
    assert found["webhook"].status.description == "HTTP 500"


def test_a_call_that_is_refused_says_so_and_ends_nobody(
    road: Road, served: Served, spans: Callable[[], dict[str, ReadableSpan]]
) -> None:
    road.submit("a", webhook="https://example.com/hook", header=GIVEN)
    road.poll(served(Api(status=503)))
    found = spans()
    assert set(found) == {"submit", "retrieve"}
    assert (found["retrieve"].attributes or {})["error.type"] == "down"


def test_an_id_that_expires_unasked_ends_its_trace_too(
    road: Road, store: Store, spans: Callable[[], dict[str, ReadableSpan]]
) -> None:
    road.submit("a", webhook="https://example.com/hook", header=GIVEN, deadline=1)
    late = Clock(store.fleet.now() + 1000)
    assert expire_overdue(store, LANE, late, ExpiryConfig(60.0, 3600.0, 100))[0] == 1
    expire = spans()["expire"]
    assert trace_of(expire) == TRACE
    assert not expire.links


def test_an_unsampled_trace_stays_unsampled_and_is_still_handed_on(
    road: Road, served: Served, spans: Callable[[], dict[str, ReadableSpan]]
) -> None:
    receiver = Receiver()
    road.submit("a", webhook=served(receiver), header=f"00-{TRACE}-{PARENT}-00")
    road.poll(served(Api()))
    road.endpoint_index.deliver()
    assert set(spans()) == {"retrieve"}
    assert receiver.got[0].headers["traceparent"].startswith(f"00-{TRACE}-")
    assert receiver.got[0].headers["traceparent"].endswith("-00")


def test_without_traces_of_our_own_the_receiver_gets_what_the_producer_gave_and_the_api_none(
    road: Road, served: Served
) -> None:
    api, receiver = Api(), Receiver()
    road.submit("a", webhook=served(receiver), traceparent=GIVEN)
    road.submit("b", webhook=served(receiver))
    road.poll(served(api))
    assert road.endpoint_index.deliver().delivered == 2
    assert {one.headers.get("traceparent") for one in receiver.got} == {GIVEN, None}
    assert all("traceparent" not in headers for headers in api.headers)


def test_a_header_that_is_no_context_is_passed_over_and_a_keyword_that_is_none_is_refused(
    road: Road, store: Store
) -> None:
    road.submit("a", webhook="https://example.com/hook", header="nonsense")
    assert store.tasks.load(LANE, ["a"]).tasks["a"].trace == ""
    with pytest.raises(ValueError, match="a traceparent looks like 00-"):
        road.submit("b", webhook="https://example.com/hook", header=GIVEN, traceparent="nonsense")


def test_a_second_submit_keeps_the_trace_of_the_first_and_a_new_round_has_its_own(
    road: Road, store: Store
) -> None:
    other = GIVEN.replace("b7ad", "aaaa")
    road.client.submit(["a"], service="nano-banana", traceparent=GIVEN)
    road.client.submit(["a"], service="nano-banana", traceparent=other)
    assert store.tasks.load(LANE, ["a"]).tasks["a"].trace == GIVEN
    late = Clock(store.fleet.now() + 1e6)
    assert expire_overdue(store, LANE, late, ExpiryConfig(60.0, 3600.0, 100))[0] == 1
    road.client.submit(["a"], service="nano-banana", traceparent=other, restart=True)
    assert store.tasks.load(LANE, ["a"]).tasks["a"].trace == other


def test_the_shell_takes_the_context_of_its_option_or_of_its_environment(
    server: Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAVENDISH_REDIS_URL", server.url)
    for task_id, environment, options in (
        ("by-option", "", ["--traceparent", GIVEN]),
        ("by-environment", GIVEN, []),
        ("by-nobody", "nonsense", []),
    ):
        monkeypatch.setenv("TRACEPARENT", environment)
        done = CliRunner().invoke(cli, ["submit", "--service", "nano-banana", *options, task_id])
        assert done.exit_code == 0, done.output
    tasks = store.tasks.load(LANE, ["by-option", "by-environment", "by-nobody"]).tasks
    assert [task.trace for task in tasks.values()] == [GIVEN, GIVEN, ""]


def test_a_submit_that_is_refused_cannot_spoil_the_spans_of_others(
    road: Road, spans: Callable[[], dict[str, ReadableSpan]]
) -> None:
    """OTLP is Unicode, and the exporter gives up a whole batch for one text that is none."""
    with pytest.raises(ValueError, match="must be a name of 1 to 40"):
        take_in(road.client, ["a"], {"service": "bad\ud800" + "x" * 100})
    submit = spans()["submit"]
    texts = [
        submit.name,
        str(submit.attributes),
        str(submit.status.description),
        *(str(one.attributes) for one in submit.events),
    ]
    assert all(text.encode() for text in texts)
    assert len(submit.name) < 50


# --- what the environment asks for


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_unless_it_is_asked_for_nothing_of_opentelemetry_is_imported() -> None:
    """The client of Redis imports its interface for itself, where that is there."""
    code = "\n".join(
        [
            "import sys, redis",
            "before = {name for name in sys.modules if name.startswith('opentelemetry')}",
            "import cavendish_worker.tasks, cavendish_worker.cli",
            "from cavendish_worker.telemetry.tracing import traces",
            "print(traces().headers(), {name for name in sys.modules if "
            "name.startswith('opentelemetry')} - before)",
        ]
    )
    assert python(code).endswith("{} set()\n")
    assert python(
        code, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_SDK_DISABLED="true"
    ).endswith("{} set()\n")
    assert python(
        code, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_TRACES_EXPORTER="none"
    ).endswith("{} set()\n")


def test_asked_for_without_the_extra_it_says_what_to_install_and_goes_on() -> None:
    code = (
        "import sys\nsys.modules['opentelemetry'] = None\nfrom "
        "cavendish_worker.telemetry.tracing import traces\nprint(type(traces()).__name__)"
    )
    said = python(code, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert "install cavendish[otel]" in said
    assert "Traces\n" in said


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({}, "Traces"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "_OtelTraces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}, "_OtelTraces"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "Traces"),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            },
            "Traces",
        ),
    ],
)
def test_only_what_can_be_had_is_traced(environ: dict[str, str], kind: str) -> None:
    assert type(tracing.set_up(environ)).__name__ == kind


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1"),
    ],
)
def test_a_variable_that_the_sdk_cannot_use_costs_the_traces_and_no_submit(
    road: Road,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
) -> None:
    logs.set_up("console", "warning")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    tracing.use(None)
    try:
        road.submit("a", webhook="https://example.com/hook", header=GIVEN)
    finally:
        tracing.use(None)
    assert store.tasks.load(LANE, ["a"]).tasks["a"].trace == GIVEN
    assert "an OTEL_* variable cannot be used: ValueError" in capsys.readouterr().err


def test_a_collector_that_hangs_holds_up_the_end_of_a_process_once_and_not_for_each_batch() -> None:
    code = "\n".join(
        [
            "from cavendish_worker.telemetry import tracing",
            "from cavendish_worker.telemetry.tracing import traces",
            "tracing.PATIENCE = 1.0",
            "for _ in range(2000):",
            "    with traces().submit('s', 1, ''): pass",
        ]
    )
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        python(code, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{hanging.getsockname()[1]}")
        hanging.settimeout(0)
        attempts = 0
        with suppress(BlockingIOError):
            while True:
                hanging.accept()[0].close()
                attempts += 1
    assert 0 < attempts < 4  # it ended before each of the four batches was tried


def test_spans_for_the_console_are_not_mixed_into_what_a_command_answers(
    server: Server, store: Store
) -> None:
    command = [
        sys.executable,
        "-m",
        "cavendish_worker.cli",
        "submit",
        "--service",
        "nano-banana",
        "--json",
        "a",
    ]
    environment = os.environ | {
        "CAVENDISH_REDIS_URL": server.url,
        "OTEL_TRACES_EXPORTER": "console",
    }
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout)[0]["outcome"] == "new"
    assert "submit nano-banana" in done.stderr
