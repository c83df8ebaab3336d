"""OpenTelemetry: one trace from the submit of an id over the look that ended it to its webhook.

Spans are made where the extra `cavendish[otel]` is installed and the standard OTEL_* variables say
where they go; without, nothing of it is imported, and a `traceparent` that a producer gave is
handed on to the receiver as it is. The context of a tracked task lies in its record, so it outlives
every process. A batch call asks about ids of many traces, so its span has a trace of its own, and
the look of each id that ended is linked to it.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from cavendish.model import Answer, Lane, State, TrackedTask, UpstreamError, printable
from cavendish.policy.verdicts import Outcome
from cavendish.store.tasks import Settled
from cavendish.submission import traceparent_complaint
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

#: Where OTLP spans go; one of them, or OTEL_TRACES_EXPORTER, is what turns tracing on.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TIMEOUTS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
#: Seconds that a command or a worker that ends waits for a collector, attempts again included,
#: unless OTEL_* say otherwise.
PATIENCE = 3.0
#: Characters of what a stranger calls a service.
SHOWN = 40
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class Polls:
    """The traces of one retrieval. This kind, where nothing is traced, does nothing."""

    def call(self, ids: Sequence[str]) -> AbstractContextManager[Callable[[Answer], None]]:
        """Around one call to the API; what it yields is told the answer."""
        del ids
        return nullcontext(lambda _answer: None)

    def settled(self, written: Sequence[Settled], outcomes: Sequence[Outcome]) -> None:
        """Outcomes were written down."""


class Traces:
    """What the seams call. This kind, where nothing is traced, runtime on what it is given."""

    def submit(self, service: str, ids: int, given: str) -> AbstractContextManager[str]:
        """Around one submit; yields the context that the tracked tasks keep."""
        del service, ids
        return nullcontext(given)

    def polls(self, lane: Lane) -> Polls:
        """For one retrieval, or one round of the net under the deadlines."""
        del lane
        return _NO_POLLS

    def headers(self) -> dict[str, str]:
        """What a call to the API carries of the span that it is made in."""
        return {}

    def delivery(
        self, task: TrackedTask
    ) -> AbstractContextManager[tuple[str, Callable[[AttemptResult], None]]]:
        """Around one webhook call.

        Yields its `traceparent` ('' for none), and whom to tell what came of it.
        """
        return nullcontext((task.trace, _told_nobody))


def _told_nobody(_result: AttemptResult) -> None:
    pass


_NO_POLLS = Polls()


class _OtelTraces(Traces):
    def __init__(self, tracer: Tracer) -> None:
        from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415 (only where it is wanted)

        self.tracer = tracer
        self._propagator = tracecontext.TraceContextTextMapPropagator()

    def context_of(self, trace: str) -> Context:
        """The context that a `traceparent` names; that of a new trace where it is empty."""
        from opentelemetry.context import Context  # noqa: PLC0415

        return self._propagator.extract({"traceparent": trace}, Context())

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        carrier.pop("tracestate", None)  # what is not in the store is not half handed on
        return carrier

    @contextmanager
    def submit(self, service: str, ids: int, given: str) -> Iterator[str]:
        if given and traceparent_complaint(given):
            yield given  # refused in a moment
            return
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        service = printable(
            service, SHOWN
        )  # not checked yet, and what is no Unicode costs all spans of a batch
        about: dict[str, str | int] = {"cavendish.service": service, "cavendish.ids": ids}
        parent = self.context_of(given)
        with self.tracer.start_as_current_span(
            f"submit {service}", parent, kind=SpanKind.CONSUMER, attributes=about
        ):
            yield self.headers().get("traceparent", given)

    def polls(self, lane: Lane) -> Polls:
        return _OtelPolls(self, lane)

    @contextmanager
    def delivery(self, task: TrackedTask) -> Iterator[tuple[str, Callable[[AttemptResult], None]]]:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        about = _about(task) | {"http.request.method": "POST"}
        parent = self.context_of(task.trace)
        with self.tracer.start_as_current_span(
            f"webhook {task.service}", parent, kind=SpanKind.CLIENT, attributes=about
        ) as span:

            def told(result: AttemptResult) -> None:
                span.set_attribute("cavendish.fate", result.kind.value)
                if result.status:
                    span.set_attribute("http.response.status_code", result.status)
                if result.kind is not ResultKind.DELIVERED:
                    _fail(span, result.outcome)

            yield self.headers().get("traceparent", task.trace), told


class _OtelPolls(Polls):
    def __init__(self, traces: _OtelTraces, lane: Lane) -> None:
        self._traces, self._lane = traces, lane
        self._asked: dict[
            str, tuple[Any, int]
        ] = {}  # id -> the span of the call that last asked about it, and when it began

    @contextmanager
    def call(self, ids: Sequence[str]) -> Iterator[Callable[[Answer], None]]:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        about: dict[str, str | int] = {
            "cavendish.service": self._lane.service,
            "cavendish.account": self._lane.account,
        }
        about["cavendish.ids"] = len(ids)
        began, root = time.time_ns(), self._traces.context_of("")
        with self._traces.tracer.start_as_current_span(
            f"retrieve {self._lane.service}",
            root,
            kind=SpanKind.CLIENT,
            attributes=about,
            start_time=began,
        ) as span:

            def told(answer: Answer) -> None:
                if isinstance(answer, UpstreamError):
                    span.set_attribute("error.type", answer.why.name.lower())
                    _fail(span, answer.detail)

            self._asked |= dict.fromkeys(ids, (span.get_span_context(), began))
            yield told

    def settled(self, written: Sequence[Settled], outcomes: Sequence[Outcome]) -> None:
        from opentelemetry.trace import Link  # noqa: PLC0415

        for one, outcome in zip(written, outcomes, strict=True):
            task = outcome.task
            if not (one.ended and task.trace):
                continue
            call, began = self._asked.get(task.id, (None, time.time_ns()))
            about = _about(task) | {
                "cavendish.state": outcome.state.value,
                "cavendish.looks": task.polls + 1,
            }
            span = self._traces.tracer.start_span(
                f"{'poll' if call else 'expire'} {task.service}",
                self._traces.context_of(task.trace),
                attributes=about,
                links=[Link(call)] if call else [],
                start_time=began,
            )
            if outcome.state is not State.SUCCEEDED:
                _fail(span, outcome.reason)
            span.end()


def _about(task: TrackedTask) -> dict[str, str]:
    return {
        "cavendish.id": task.id,
        "cavendish.service": task.service,
        "cavendish.account": task.account,
    }


def _fail(span: Span, why: str) -> None:
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

    span.set_status(Status(StatusCode.ERROR, why[:200]))


_lock = threading.Lock()
_traces: Traces | None = None


def _after_fork() -> None:
    """What exports is a thread, which a fork does not take along."""
    global _lock, _traces
    _lock, _traces = threading.Lock(), None


os.register_at_fork(after_in_child=_after_fork)


def traces() -> Traces:
    """The traces of this process, set up at their first use from the standard OTEL_* variables."""
    global _traces  # noqa: PLW0603 (one per process)
    if _traces is None:
        with _lock:
            _traces = _traces or set_up(os.environ)
    return _traces


def use(these: Traces | None) -> None:
    """Let this process use these, for who has an exporter of their own.

    None: set up anew at the next use.
    """
    global _traces  # noqa: PLW0603
    _traces = these


def set_up(environ: Mapping[str, str]) -> Traces:
    """What these variables ask for.

    Where it cannot be had, that is logged, and nothing is traced.
    """
    wanted = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or (
        "otlp" if any(map(environ.get, _ENDPOINTS)) else "none"
    )
    if wanted == "none" or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Traces()
    protocol = next((value for value in map(environ.get, _PROTOCOLS) if value), "http/protobuf")
    if wanted not in ("otlp", "console") or (wanted == "otlp" and protocol != "http/protobuf"):
        logger().warning(
            "tracing.off",
            outcome=f"{wanted} by {protocol} is not known here: otlp by http/protobuf, or console",
        )
        return Traces()
    try:
        return exporting(_exporter(wanted, environ), environ)
    except ImportError:
        logger().warning(
            "tracing.off",
            outcome="OTEL_* variables ask for traces; install cavendish[otel] for them",
        )
    except Exception as error:  # the SDK raises what it likes for an OTEL_* that it cannot use; no look may fail for that
        logger().warning(
            "tracing.off",
            outcome=f"an OTEL_* variable cannot be used: {type(error).__name__}: {error}"[:200],
        )
    return Traces()


def _exporter(wanted: str, environ: Mapping[str, str]) -> SpanExporter:
    if wanted == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415

        return ConsoleSpanExporter(out=sys.stderr)  # stdout is what a command answers
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter(timeout=None if any(map(environ.get, _TIMEOUTS)) else PATIENCE)


def exporting(
    exporter: SpanExporter, environ: Mapping[str, str], *, at_once: bool = False
) -> Traces:
    """Traces that go to an exporter.

    In batches from a thread of its own, or `at_once`. Sampled as OTEL_TRACES_SAMPLER says.
    """
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor  # noqa: PLC0415

    named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    patient = any(map(environ.get, _TIMEOUTS))
    resource = Resource.create({} if named else {"service.name": "cavendish"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=patient)
    provider.add_span_processor(
        SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter)
    )
    if not patient:
        atexit.register(_part_with, provider)
    return _OtelTraces(provider.get_tracer("cavendish"))


def _part_with(provider: TracerProvider) -> None:
    """Send what waits, at the end of this process.

    The SDK would have PATIENCE anew for each batch of it.
    """
    last = threading.Thread(target=provider.shutdown, name="cavendish-last-spans", daemon=True)
    try:
        last.start()
    except RuntimeError:  # newer Pythons start no thread so late
        provider.shutdown()
        return
    last.join(PATIENCE)
