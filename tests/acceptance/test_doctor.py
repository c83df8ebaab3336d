"""The doctor finds what was planted: ten faults, each made for real, and none where all is well."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from acceptance.conftest import SERVICE, wait_until
from acceptance.parts import Parts
from cavendish.endpoints.webhook_endpoint import Disabled, endpoint_of
from cavendish.model import Lane, UpstreamErrorKind
from cavendish.policy.access import ApiKey
from cavendish.policy.rate_limit import RateLimit, report_error
from cavendish.policy.service_health import not_served
from cavendish.settings import Settings
from cavendish.store import keys
from cavendish.store.fleet import FORMAT
from cavendish.store.uncertain_submits import UncertainSubmit
from cavendish.submission import SubmitOptions
from cavendish_worker.cli import cli
from cavendish_worker.devstack.emulator.tasks_api import EmulatorConfig
from cavendish_worker.http.event_loop import LoopThread
from conftest import Server
from delivering import SECRET, Served
from proxying import Proxy
from receiving import Authority
from serving import service

HOUR = 3600.0


@pytest.fixture(scope="module")
def stack() -> Iterator[Server]:
    """A Redis that the tests of this module may change."""
    own = Server()
    own.start()
    yield own
    own.close()


@pytest.fixture
def parts(stack: Server, served: Served) -> Iterator[Parts]:
    """A worker and a beat on an empty store."""
    made = Parts(stack.url, served, EmulatorConfig(rate=50.0))
    made.store.connection.redis.flushall()
    yield made
    made.close()


def said(parts: Parts, *words: str, **settings: str) -> dict[str, dict[str, Any]]:
    """What the doctor says of each thing, in the environment of the parts.

    Its exit code is right.
    """
    environment: dict[str, str | None] = {
        name: v for name, v in parts.environment.items() if name.startswith("CAVENDISH_")
    }
    environment |= {f"CAVENDISH_{name}": value for name, value in settings.items()}
    done = CliRunner().invoke(cli, ["doctor", "--json", *words], env=environment)
    findings: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.exit_code == (0 if all(finding["ok"] for finding in findings) else 1)
    assert all(finding["advice"] for finding in findings if not finding["ok"])
    return {finding["what"]: finding for finding in findings}


def wrong(findings: dict[str, dict[str, Any]]) -> list[str]:
    return [what for what, finding in findings.items() if not finding["ok"]]


def test_a_healthy_stack_is_well_and_everything_in_it_was_examined(parts: Parts) -> None:
    parts.celery("worker")
    parts.celery("beat")
    findings = said(parts)
    assert wrong(findings) == []
    assert [what for what, finding in findings.items() if not finding["examined"]] == [
        "egress"
    ]  # nobody is pending anything
    assert {
        "redis",
        "redis persistence",
        "redis eviction",
        "clock",
        "store",
        "broker",
        "worker",
        "beat",
        "queues",
    } <= set(findings)
    assert {"account default", "api, account default", "webhook secret"} <= set(findings)
    assert findings["store"]["found"] == f"has the format {FORMAT}"
    assert "Run two" in findings["beat"]["advice"]


def test_it_finds_a_service_that_keys_were_made_for_keys_that_end_and_lost_submits(
    parts: Parts,
) -> None:
    """Whoever has seen to the submits acknowledges them."""
    store, now = parts.store, parts.store.fleet.now()
    store.api_keys.add(ApiKey("shop", "", "", ("read",), expires_at=now + 3600))
    store.api_keys.add(ApiKey("late", "", "", ("read",), expires_at=now - 3600))
    store.api_keys.add(ApiKey("good", "", "", ("read",)))
    store.uncertain.note(UncertainSubmit(now, "default", SERVICE, "shop", "HTTP 502"))
    findings = said(parts, "--offline")
    assert "0 alive, but 3 keys were made" in findings["http service"]["found"]
    assert "expires at" in findings["key shop"]["found"]
    assert "expired at" in findings["key late"]["found"]
    assert "key good" not in findings
    assert f"the last by shop to default/{SERVICE}" in findings["paid submits"]["found"]
    assert {"http service", "paid submits"} <= set(wrong(findings))
    assert "paid submits" not in said(parts, "--offline", "--acknowledge")
    with service(Settings.load({"CAVENDISH_REDIS_URL": parts.environment["CAVENDISH_REDIS_URL"]})):
        wait_until(lambda: parts.fleet("http"), 20, "it lives")
        assert said(parts, "--offline")["http service"]["found"] == "1 alive"


def test_a_redis_that_keeps_nothing_on_its_disk_is_found(parts: Parts, stack: Server) -> None:
    redis = parts.store.connection.redis
    redis.config_set("appendonly", "no")
    try:
        finding = said(parts)["redis persistence"]
    finally:
        redis.config_set("appendonly", "yes")
        wait_until(
            lambda: not redis.info("persistence")["aof_rewrite_in_progress"],
            60,
            "the file is written",
        )
    assert (finding["ok"], finding["found"]) == (
        False,
        "is off: a restart of Redis loses what was submitted",
    )


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_redis_that_drops_keys_when_it_is_full_is_found(parts: Parts, policy: str) -> None:
    redis = parts.store.connection.redis
    redis.config_set("maxmemory-policy", policy)
    try:
        finding = said(parts)["redis eviction"]
    finally:
        redis.config_set("maxmemory-policy", "noeviction")
    assert not finding["ok"]
    assert policy in finding["found"]
    assert "noeviction" in finding["advice"]


def test_a_token_that_the_api_refuses_is_found_and_the_workers_are_not_paused_for_it(
    parts: Parts,
) -> None:
    finding = said(parts, API_TOKEN="stolen")["api, account default"]
    assert not finding["ok"]
    assert "401 invalid_token" in finding["found"]
    assert not parts.store.shared_state.rate_limit("default").paused(parts.store.fleet.now())


def test_the_call_of_the_doctor_takes_its_turn_and_is_left_out_in_a_pause_or_offline(
    parts: Parts,
) -> None:
    assert said(parts)["api, account default"]["ok"]
    rate_limit = parts.store.shared_state.rate_limit("default")
    assert (rate_limit.sent_at > 0, rate_limit.heard_at > 0, parts.tally()["calls"]) == (
        True,
        True,
        1,
    )
    now = parts.store.fleet.now()
    held = report_error(rate_limit, UpstreamErrorKind.RATE, "HTTP 429", 60.0, now, now, 0.0)
    parts.store.shared_state.change_rate_limit("default", lambda _: (held, None))
    findings = said(parts)
    assert "the account is paused by the API" in findings["api, account default"]["found"]
    assert "paused by the API for 60 s: HTTP 429" in findings["account default"]["found"]
    assert "the API asked for the pause" in findings["account default"]["advice"]
    assert said(parts, "--offline")["api"]["examined"] is False
    assert parts.tally()["calls"] == 1


def test_a_pause_for_a_refused_credential_is_found(parts: Parts) -> None:
    now = parts.store.fleet.now()

    def change(known: RateLimit) -> tuple[RateLimit, None]:
        kind = UpstreamErrorKind.ACCOUNT
        return report_error(known, kind, "HTTP 403 used_up", None, now, now, 1.0), None

    parts.store.shared_state.change_rate_limit("default", change)
    finding = said(parts)["account default"]
    assert not finding["ok"]
    assert "used_up" in finding["found"]


def test_a_service_that_the_api_does_not_serve_is_found(parts: Parts) -> None:
    now, lane = parts.store.fleet.now(), Lane("default", "flux-next")
    options = SubmitOptions("flux-next", "default", (), 1000.0, "", "", "", restart=False)
    parts.store.tasks.add(["a", "b"], options, now, now)
    parts.store.shared_state.change_service_health(
        lane, lambda known: (not_served(known, "HTTP 404 no_api", now, now, 0.0), None)
    )
    findings = said(parts)
    found = findings["lane default/flux-next/0"]["found"]
    assert found == "the API does not serve flux-next: HTTP 404 no_api; 2 wait"
    assert "does not serve flux-next: HTTP 404 no_api" in findings["api, account default"]["found"]


def test_the_clock_of_a_worker_that_is_an_hour_off_is_found(parts: Parts) -> None:
    parts.celery("worker", shift=-HOUR)
    findings = said(parts)
    (clock,) = [
        finding for what, finding in findings.items() if what.startswith("clock of worker@")
    ]
    assert not clock["ok"]
    assert "3600 s behind Redis" in clock["found"]
    assert findings["clock"]["ok"]


def test_the_clock_of_redis_that_is_an_hour_off_this_machine_is_found(parts: Parts) -> None:
    command = [sys.executable, "-m", "cavendish_worker.cli", "doctor", "--offline", "--json"]
    environment = parts.environment | {"SHIFT": str(HOUR)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=30
    )
    (clock,) = [finding for finding in json.loads(done.stdout) if finding["what"] == "clock"]
    assert (clock["ok"], clock["found"]) == (False, "Redis is 3600 s behind this machine")


def test_no_beat_and_no_worker_are_found(parts: Parts) -> None:
    findings = said(parts)
    assert not findings["beat"]["ok"]
    assert not findings["worker"]["ok"]
    assert "celery -A cavendish_worker beat" in findings["beat"]["advice"]
    assert "queues" not in findings


def test_a_queue_that_no_worker_takes_from_is_found(parts: Parts) -> None:
    parts.celery(
        "worker",
        queues=(
            "cavendish.submit,cavendish.dispatch,cavendish.retrieve,cavendish.expire,"
            "cavendish.reconcile"
        ),
    )
    findings = said(parts)
    assert [what for what in findings if what.startswith("queue")] == ["queue cavendish.deliver"]
    assert not findings["queue cavendish.deliver"]["ok"]
    assert "-Q cavendish.deliver" in findings["queue cavendish.deliver"]["advice"]


def test_a_missing_webhook_secret_is_found_here_and_at_the_workers(parts: Parts) -> None:
    assert not said(parts, WEBHOOK_SECRET="")["webhook secret"]["ok"]
    del parts.environment["CAVENDISH_WEBHOOK_SECRET"]
    parts.celery("worker")
    assert not said(parts, WEBHOOK_SECRET=SECRET)["webhook secret"][
        "ok"
    ]  # what is set here does not sign there


def test_a_disabled_endpoint_is_found(parts: Parts) -> None:
    url = "https://shop.example/hook"
    parts.store.endpoints.disable(
        endpoint_of(url), Disabled(parts.store.fleet.now(), "HTTP 410", url)
    )
    finding = said(parts)[f"endpoint {endpoint_of(url)}"]
    assert not finding["ok"]
    assert "HTTP 410" in finding["found"]
    assert f"cavendish endpoint enable {endpoint_of(url)}" in finding["advice"]


@pytest.mark.parametrize("held", [str(FORMAT + 1), "0", "banana"])
def test_a_store_of_another_format_is_found_and_refused_by_everybody(
    parts: Parts, held: str
) -> None:
    parts.store.connection.redis.set(keys.FORMAT, held)
    findings = said(parts)
    assert wrong(findings) == ["store"]
    assert (
        "store of its own" in findings["store"]["found"]
        or "upgrade it here" in findings["store"]["found"]
    )
    environment = {
        name: v for name, v in parts.environment.items() if name.startswith("CAVENDISH_")
    }
    for words in (["submit", "--service", "nano-banana", "a"], ["status"], ["list"]):
        assert "format" in str(CliRunner().invoke(cli, words, env=environment).exception)
    assert parts.store.connection.redis.dbsize() == 1  # nothing was written


@pytest.mark.parametrize("role", ["worker", "beat"])
def test_no_worker_and_no_beat_begins_with_a_store_of_a_newer_format(
    parts: Parts, role: str
) -> None:
    parts.store.connection.redis.set(keys.FORMAT, FORMAT + 1)
    process = parts.begin(role)
    assert process.wait(20) == 2
    assert f"knows {FORMAT}: upgrade it here" in parts.lines()
    assert "Traceback" not in parts.lines()


def test_a_worker_that_finds_another_store_when_redis_comes_back_ends(
    parts: Parts, stack: Server
) -> None:
    stack.kill()
    process = parts.begin("worker")
    wait_until(
        lambda: "Trying again" in parts.lines() or "retry" in parts.lines().lower(),
        60,
        "it polls for its broker",
    )
    stack.start()
    parts.store.connection.redis.set(keys.FORMAT, FORMAT + 1)
    assert process.wait(40) is not None
    assert "upgrade it here" in parts.lines()


def test_a_redis_that_forbids_config_and_info_is_not_called_ill(parts: Parts) -> None:
    redis = parts.store.connection.redis
    redis.execute_command(
        "ACL", "SETUSER", "tenant", "on", "nopass", "~*", "&*", "+@all", "-config", "-info", "-acl"
    )
    try:
        url = parts.environment["CAVENDISH_REDIS_URL"].replace("unix://", "unix://tenant:x@")
        findings = said(parts, REDIS_URL=url, BROKER_URL=parts.environment["CAVENDISH_REDIS_URL"])
    finally:
        redis.execute_command("ACL", "DELUSER", "tenant")
    for what in ("redis persistence", "redis eviction", "redis version"):
        assert (findings[what]["ok"], findings[what]["examined"]) == (True, False)


def test_names_ways_and_certificates_that_fail_are_told_apart(
    parts: Parts, loop: LoopThread, tmp_path: Path
) -> None:
    unknown = said(parts, API_URL="https://no-such-name.invalid")["api, account default"]
    assert "is not found" in unknown["found"]
    assert "DNS" in unknown["advice"]
    closed = said(parts, API_URL="http://127.0.0.1:1")["api, account default"]
    assert "127.0.0.1:1 is not reached" in closed["found"]
    tls = Authority(tmp_path).server("localhost", [])  # which nobody here trusts

    async def serve() -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(
            asyncio.Protocol, "127.0.0.1", 0, ssl=tls
        )

    server = loop.run(serve(), timeout=5)
    distrusted = said(parts, API_URL=f"https://localhost:{server.sockets[0].getsockname()[1]}")[
        "api, account default"
    ]
    loop.call(server.close)
    assert distrusted["found"].startswith("TLS with localhost fails")
    assert "SSL_CERT_FILE" in distrusted["advice"]


def test_it_says_through_which_proxy_the_api_is_asked(
    parts: Parts, loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, stack = Proxy(), contextlib.AsyncExitStack()
    loop.run(stack.enter_async_context(proxy.running()), timeout=5)
    by, login = f"127.0.0.1:{proxy.port}", "ada:sesame"
    asked = said(parts, API_PROXY=f"http://{login}@{by}")["api, account default"]
    assert asked["ok"]
    assert (
        f"through the proxy {by} (CAVENDISH_API_PROXY), does not refuse the token" in asked["found"]
    )
    assert len(proxy.heads) == 1
    monkeypatch.setenv("HTTPS_PROXY", f"http://{login}@127.0.0.1:1")
    away = said(parts, API_URL="https://no-such-name.invalid")["api, account default"]
    assert "through the proxy 127.0.0.1:1, but" in away["found"]
    assert "HTTPS_PROXY" in away["advice"]
    assert "sesame" not in json.dumps([asked, away])
    without = said(parts, API_URL="https://no-such-name.invalid", API_PROXY="none")[
        "api, account default"
    ]
    assert "is not found" in without["found"]
    loop.run(stack.aclose(), timeout=5)


def test_a_broker_and_a_proxy_that_are_away_are_found(parts: Parts) -> None:
    findings = said(
        parts, BROKER_URL="redis://:sesame@127.0.0.1:1/0", EGRESS_PROXY="http://127.0.0.1:1"
    )
    assert (findings["broker"]["ok"], findings["egress"]["ok"]) == (False, False)
    assert "sesame" not in json.dumps(findings)
