"""What the HTTP service tells of itself: metrics, heartbeats, submits of uncertain fate."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cavendish import Client
from cavendish.endpoints import encryption
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.uncertain_submits import KEPT, UncertainSubmit
from cavendish_worker.devstack.ports import free_port
from cavendish_worker.service.callback_urls import CallbackUrls
from cavendish_worker.telemetry.metrics import answered, serving
from ending import blocked, settle
from servers import eventually
from serving import caller, new_key, service

SERVICE, LANE = "nano-banana", Lane("default", "nano-banana")
IMAGES = f"/{SERVICE}/images"
ASKED = {"prompt": "a banana", "async": True}
Serve = Callable[[Callable[[httpx.Request], object]], str]


def counted(name: str, **labels: str) -> float:
    """The sum of a metric of this process over all rows with these labels."""
    return sum(
        sample.value
        for family in answered.REGISTRY.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


class Counted:
    """By how much metrics have grown since this was made."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        for family in answered.REGISTRY.collect():
            for sample in family.samples:
                self._before[sample.name, tuple(sorted(sample.labels.items()))] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        now = counted(name, **labels)
        before = sum(
            value
            for (known, said), value in self._before.items()
            if known == name and labels.items() <= dict(said).items()
        )
        return now - before


def test_requests_are_counted_by_route_and_status_and_held_ones_now(
    store: Store, settings: Settings, client: Client
) -> None:
    """No label holds an id, a path of a stranger, or a method that nobody knows."""
    grown = Counted()
    client.submit(["an-id"], service=SERVICE)
    with (
        service(settings) as address,
        caller(address, new_key(store, "ops")) as http,
        ThreadPoolExecutor() as pool,
    ):
        waiting = pool.submit(http.get, f"/v1/tasks/{SERVICE}/an-id?wait=20")
        blocked(store)
        eventually(lambda: counted("cavendish_http_held_waits") == 1, "it is held")
        settle(store, LANE, "an-id")
        assert waiting.result(60).is_success
        assert http.get("/WP/x.php").status_code == 404
        http.request("BREW", "/v1/tasks")
        with caller(address, "cav_wrong") as stranger:
            assert stranger.get("/v1/tasks").status_code == 401
            assert stranger.post(f"/{SERVICE}/tasks", json={"id": "a"}).status_code == 401
        text = http.get("/metrics").text
    route = "/v1/tasks/{service}/{task_id:path}"
    assert grown("cavendish_http_requests_total", route=route, status="200") == 1
    assert grown("cavendish_http_request_duration_seconds_count", route=route) == 1
    assert grown("cavendish_http_requests_total", route="/v1/tasks", status="401") == 1
    assert counted("cavendish_http_held_waits") == 0
    assert grown("cavendish_http_keys_refused_total", at="api") == 1
    assert grown("cavendish_http_keys_refused_total", at="gateway") == 1
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {"cavendish_store_up", "cavendish_http_requests"} <= families
    assert [word for word in ("an-id", "/WP", "BREW", "cav_") if word in text] == []


def test_paid_submits_are_counted_by_what_came_of_them(
    store: Store, settings: Settings, served: Serve
) -> None:
    """One of uncertain fate lies in the store too, where doctor and an alert find it."""
    grown, answers = Counted(), list[httpx.Response]()

    async def api(request: httpx.Request) -> httpx.Response:
        await request.aread()
        return answers.pop()

    with (
        service(replace(settings, api_url=served(api))) as address,
        caller(address, new_key(store, "shop")) as http,
    ):
        for path, answer in (
            (IMAGES, httpx.Response(200, json={"task_id": str(uuid.uuid4())})),
            (IMAGES, httpx.Response(400, json={"error": {"code": "bad_request"}})),
            (IMAGES, httpx.Response(500, json={"error": {"code": "api_error", "message": "no"}})),
            ("/serp/google", httpx.Response(200, json={})),
            ("/serp/google", httpx.Response(502)),
        ):
            answers.append(answer)
            http.post(path, json=ASKED)
    nobody = f"http://127.0.0.1:{free_port()}"
    with (
        service(replace(settings, api_url=nobody)) as address,
        caller(address, new_key(store, "other")) as http,
    ):
        http.post(IMAGES, json=ASKED)
    outcomes = {"tracked": 1, "refused": 1, "uncertain": 2, "passed": 1, "unsent": 1}
    for outcome, count in outcomes.items():
        assert grown("cavendish_gateway_submits_total", outcome=outcome) == count, outcome
    now = store.fleet.now()
    found = [(one.account, one.service, one.producer, one.said) for one in store.uncertain.all(now)]
    assert found == [
        ("default", SERVICE, "shop", "HTTP 500 api_error no"),
        ("default", "serp", "shop", "HTTP 502"),
    ]
    assert store.uncertain.count(now) == 2


def test_only_the_latest_uncertain_submits_of_a_week_are_kept(store: Store) -> None:
    now = store.fleet.now()
    store.uncertain.note(UncertainSubmit(now - 8 * 86400, "default", SERVICE, "shop", "old"))
    assert store.uncertain.all(now) == []
    for number in range(KEPT + 5):
        store.uncertain.note(UncertainSubmit(now + number, "default", SERVICE, "shop", "x"))
    assert store.uncertain.count(now) == KEPT
    assert store.uncertain.all(now)[0].at == now + 5
    store.connection.redis.zadd("cavendish:uncertain", {"damaged": now})
    assert len(store.uncertain.all(now)) == KEPT
    store.uncertain.forget()
    assert store.uncertain.all(now) == []


def test_callbacks_are_counted_by_what_they_were(store: Store, settings: Settings) -> None:
    grown, key = Counted(), encryption.new_key()
    here = replace(settings, public_url="https://us.example", secret_key=(key,))
    url = CallbackUrls(here.public_url, (key,)).url("default", SERVICE)
    path = url.removeprefix(here.public_url)
    with service(here) as address, caller(address) as http:
        for where, body in ((path, {"task_id": "a"}), (path, {}), (f"{path}0", {"task_id": "a"})):
            http.post(where, json=body)
    for outcome in ("accepted", "unreadable", "foreign"):
        assert grown("cavendish_callbacks_total", outcome=outcome) == 1, outcome


def test_a_running_service_is_of_the_fleet_and_one_that_ended_is_not(
    store: Store, settings: Settings
) -> None:
    """Its heartbeat comes from the loop that answers."""

    def alive() -> list[str]:
        return [one.role for one in store.fleet.members(store.fleet.now())]

    with service(settings):
        eventually(lambda: alive() == ["http"], "it lives")
    assert alive() == []


def test_it_serves_its_metrics_at_a_port_of_its_own(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """Without a key: for Prometheus."""
    port = free_port()
    serving.begin(("127.0.0.1", port), answered.REGISTRY)
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert "cavendish_http_held_waits" in text
