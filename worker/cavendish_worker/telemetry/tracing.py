"""OpenTelemetry: one trace from the submit of an id, over the poll that ended it, to its webhook.

Spans are made where the extra `cavendish[otel]` is installed and the standard OTEL_* variables say
where to send them. Otherwise nothing of OpenTelemetry is imported, and the `traceparent` of a
producer is passed on to the receiver as it is. The context of a task is in its record, so it
survives every process. A batch call asks about ids of many traces, so its span has a trace of its
own, and the poll of each id that ended is linked to it.
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
from cavendish.store.tracked_tasks import Settled
from cavendish.submission import traceparent_complaint
from cavendish_worker.webhooks.attempt_result import AttemptResult, ResultKind

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

#: Where OTLP spans go; one of these, or OTEL_TRACES_EXPORTER, turns tracing on.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TIMEOUTS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
#: Seconds that a command or a worker that ends waits for a collector, retries included, unless
#: OTEL_* say otherwise.
PATIENCE = 3.0
#: Characters of a service's name, which anybody may have sent.
SHOWN = 40
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class Polls:
    """The traces of one batch. This class, for processes without tracing, does nothing."""

    def call(self, ids: Sequence[str]) -> AbstractContextManager[Callable[[Answer], None]]:
        """Around one call to the API; call what it yields with the answer."""
        del ids
        return nullcontext(lambda _answer: None)

    def settled(self, written: Sequence[Settled], outcomes: Sequence[Outcome]) -> None:
        """Outcomes were written back."""


class Traces:
    """What other rooms call. This class, for processes without tracing, only passes values on."""

    def submit(self, service: str, ids: int, given: str) -> AbstractContextManager[str]:
        """Around one submit; yields the context that is stored with the tasks."""
        del service, ids
        return nullcontext(given)

    def polls(self, lane: Lane) -> Polls:
        """For one batch that is retrieved or expired."""
        del lane
        return _NO_POLLS

    def headers(self) -> dict[str, str]:
        """The headers of a call to the API, which name the current span."""
        return {}

    def delivery(
        self, task: TrackedTask
    ) -> AbstractContextManager[tuple[str, Callable[[AttemptResult], None]]]:
        """Around one webhook call.

        Yields its `traceparent` ('' for none), and a function to call with the result.
        """
        return nullcontext((task.trace, lambda _result: None))


_NO_POLLS = Polls()


class _OtelTraces(Traces):
    def __init__(self, tracer: Tracer) -> None:
        from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415 (only where it is wanted)

        self.tracer = tracer
        self._propagator = tracecontext.TraceContextTextMapPropagator()

    def context_of(self, trace: str) -> Context:
        """The context of a `traceparent`; of a new trace where it is empty."""
        from opentelemetry.context import Context  # noqa: PLC0415

        return self._propagator.extract({"traceparent": trace}, Context())

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        carrier.pop(
            "tracestate", None
        )  # the store does not keep it, so it is not passed on half of the way
        return carrier

    @contextmanager
    def submit(self, service: str, ids: int, given: str) -> Iterator[str]:
        if given and traceparent_complaint(given):
            yield given  # the submit will refuse it
            return
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        # Not checked yet, and broken Unicode would cost all spans of an export.
        service = printable(service, SHOWN)
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
                span.set_attribute("cavendish.result", result.kind.value)
                if result.status:
                    span.set_attribute("http.response.status_code", result.status)
                if result.kind is not ResultKind.DELIVERED:
                    _fail(span, result.outcome)

            yield self.headers().get("traceparent", task.trace), told


class _OtelPolls(Polls):
    def __init__(self, traces: _OtelTraces, lane: Lane) -> None:
        self._traces, self._lane = traces, lane
        # By id: the span of the call that last asked about it, and when that began.
        self._asked: dict[str, tuple[Any, int]] = {}

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
                "cavendish.polls": task.polls + 1,
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
    """A fork does not copy the thread that exports."""
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


def sound(header: str | None) -> str:
    """The `traceparent` that a stranger's header gives; "" where it gives none."""
    return header if header and not traceparent_complaint(header) else ""


def use(these: Traces | None) -> None:
    """Let this process use these traces, for example with an exporter of your own.

    None: set up again at the next use.
    """
    global _traces  # noqa: PLW0603
    _traces = these


def set_up(environ: Mapping[str, str]) -> Traces:
    """The traces that these variables ask for; where that fails, log it and trace nothing."""
    wanted = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or (
        "otlp" if any(map(environ.get, _ENDPOINTS)) else "none"
    )
    if wanted == "none" or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Traces()
    from cavendish_worker.telemetry.logs import logger  # noqa: PLC0415 (`cavendish submit` is quick without)

    protocol = next((value for value in map(environ.get, _PROTOCOLS) if value), "http/protobuf")
    if wanted not in ("otlp", "console") or (wanted == "otlp" and protocol != "http/protobuf"):
        why = f"{wanted} by {protocol} is not supported: only otlp by http/protobuf, or console"
    else:
        try:
            return exporting(_exporter(wanted, environ), environ)
        except ImportError:
            why = "OTEL_* variables ask for traces; install cavendish[otel] for them"
        except Exception as error:  # the SDK raises anything for an OTEL_* that it cannot use
            why = f"an OTEL_* variable cannot be used: {type(error).__name__}: {error}"[:200]
    logger().warning("tracing.off", outcome=why)
    return Traces()


def _exporter(wanted: str, environ: Mapping[str, str]) -> SpanExporter:
    if wanted == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415

        return ConsoleSpanExporter(out=sys.stderr)  # stdout is for the answers of commands
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter(timeout=None if any(map(environ.get, _TIMEOUTS)) else PATIENCE)


def exporting(
    exporter: SpanExporter, environ: Mapping[str, str], *, at_once: bool = False
) -> Traces:
    """Traces that are sent to an exporter: in batches from a thread of its own, or `at_once`.

    They are sampled as OTEL_TRACES_SAMPLER says.
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
        atexit.register(_send_last, provider)
    return _OtelTraces(provider.get_tracer("cavendish"))


def _send_last(provider: TracerProvider) -> None:
    """Send the waiting spans at the end of this process, within PATIENCE seconds in all.

    The SDK would wait as long for each batch.
    """
    last = threading.Thread(target=provider.shutdown, name="cavendish-last-spans", daemon=True)
    try:
        last.start()
    except RuntimeError:  # newer Pythons start no thread so late in the life of a process
        provider.shutdown()
        return
    last.join(PATIENCE)
