"""Counts what this process of the HTTP service has answered since it began.

Labels are routes as the code spells them, services, and words of ours; never ids, keys or URLs.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from cavendish_worker.telemetry.metrics.families import Counter, Gauge, Histogram

#: Seconds of a request: most take milliseconds, held ones 20 s, and held purchases minutes.
SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60, 300, 1800)

REQUESTS = Counter(
    "cavendish_http_requests",
    "Requests, by the route that answered (none: no route did), and the status of the answer.",
    ("method", "route", "status"),
)
DURATION = Histogram(
    "cavendish_http_request_duration_seconds",
    "From the head of a request to the end of its answer; waits that are held are among them.",
    SECONDS,
    ("route",),
)
HELD = Gauge("cavendish_http_held_waits", "Requests that wait for the end of an id or a group.")
KEYS_REFUSED = Counter(
    "cavendish_http_keys_refused",
    "Requests without a key, or with one that is unknown, revoked or expired, by where: api, "
    "gateway (where the token of an account counts as well).",
    ("at",),
)
SUBMITS = Counter(
    "cavendish_gateway_submits",
    "Paid submits through the gateway, by what came of them: tracked, passed (they make no task), "
    "refused (by the API), unsent (the API or the store was away), uncertain (nobody knows whether "
    "the API took it).",
    ("service", "outcome"),
)
CALLBACKS = Counter(
    "cavendish_callbacks",
    "Callbacks of the API, by what they were: accepted (names an id), unreadable, foreign (its URL "
    "is none of ours).",
    ("outcome",),
)

REGISTRY = CollectorRegistry(auto_describe=False)
for one in (REQUESTS, DURATION, HELD, KEYS_REFUSED, SUBMITS, CALLBACKS):
    REGISTRY.register(one)
ProcessCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)
for place in ("api", "gateway"):  # shown from the first scrape on, so that the first is an increase
    KEYS_REFUSED.add(place, by=0)
for kind in ("accepted", "unreadable", "foreign"):
    CALLBACKS.add(kind, by=0)
