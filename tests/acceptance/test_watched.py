"""Real workers and a beat under the eyes of Prometheus and of an OpenTelemetry collector, all on
the loopback interface.
"""

from __future__ import annotations

import gzip
import re

import httpx
import pytest
from endpoint_index import Receiver, Served
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from acceptance.conftest import SERVICE, wait_until
from acceptance.parts import Parts
from cavendish_worker.devstack.emulator.api import Config
from conftest import Server

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.named: set[str] = set()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        raw = await request.aread()
        unpacked = (
            gzip.decompress(raw) if request.headers.get("content-encoding") == "gzip" else raw
        )
        for resource in ExportTraceServiceRequest.FromString(unpacked).resource_spans:
            self.named |= {
                one.value.string_value
                for one in resource.resource.attributes
                if one.key == "service.name"
            }
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return httpx.Response(200)

    def of(self, trace: str) -> dict[str, list[Span]]:
        """The spans of a trace by the first word of their name."""
        found: dict[str, list[Span]] = {}
        for span in list(self.spans):
            if span.trace_id.hex() == trace:
                found.setdefault(span.name.partition(" ")[0], []).append(span)
        return found


def scraped(at: str) -> dict[str, float]:
    """The sums over all labels of what a worker exposes."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx.get(at, trust_env=False).text):
        for one in family.samples:
            found[one.name] = found.get(one.name, 0.0) + one.value
    return found


@pytest.mark.timeout(120)
def test_what_came_by_celery_is_one_trace_to_the_receiver_and_is_counted_by_the_worker_that_did_it(
    own_server: Server, served: Served
) -> None:
    collector, receiver = Collector(), Receiver()
    parts = Parts(own_server.url, served, Config(rate=20.0, median=0.5), METRICS_PORT="0")
    parts.environment |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": served(collector),
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    try:
        worker = parts.celery("worker")
        parts.celery("beat")
        (at,) = wait_until(
            lambda: parts.logged("metrics.served"), 10, "the worker serves its metrics"
        )
        ids = parts.emulator.create(3)
        parts.producer.send_task(
            "cavendish.submit",
            args=[ids],
            queue="cavendish.submit",
            kwargs={"service": SERVICE, "webhook": served(receiver)},
            headers={"traceparent": f"00-{TRACE}-{PARENT}-01"},
        )
        wait_until(lambda: len(receiver.got) == 3, 30, "all announced")
        wait_until(lambda: len(collector.of(TRACE).get("webhook", [])) == 3, 10, "all spans came")
        spans = collector.of(TRACE)
        assert {name: len(those) for name, those in spans.items()} == {
            "submit": 1,
            "look": 3,
            "webhook": 3,
        }
        (submit,) = spans["submit"]
        assert submit.parent_span_id.hex() == PARENT
        assert {span.parent_span_id for span in spans["look"] + spans["webhook"]} == {
            submit.span_id
        }
        calls = {span.span_id for span in collector.spans if span.name == f"retrieve {SERVICE}"}
        assert {link.span_id for poll in spans["look"] for link in poll.links} <= calls
        sent = {
            re.fullmatch(rf"00-{TRACE}-(\w+)-\w+", one.headers["traceparent"])[1]
            for one in receiver.got
        }  # type: ignore[index]
        assert sent == {span.span_id.hex() for span in spans["webhook"]}
        assert collector.named == {"cavendish"}

        counted = scraped(at["at"])
        tally = parts.tally()
        assert (
            counted["cavendish_calls_total"]
            == counted["cavendish_call_duration_seconds_count"]
            == tally["calls"]
        )
        assert counted["cavendish_detection_delay_seconds_count"] == 3
        assert (
            counted["cavendish_webhook_attempts_total"]
            == counted["cavendish_webhook_delay_seconds_count"]
            == 3
        )
        assert counted["cavendish_webhook_end_to_end_seconds_count"] == 3
        assert counted["process_resident_memory_bytes"] > 1e7

        assert parts.end(worker) < 10
        assert "Traceback" not in parts.lines()
    finally:
        parts.close()
