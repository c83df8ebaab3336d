"""A company's proxy between the workers and the remote API, as the environment names it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from acceptance.conftest import SERVICE, wait_until
from acceptance.parts import Parts
from cavendish_worker.devstack.emulator.tasks_api import EmulatorConfig
from cavendish_worker.http.event_loop import LoopThread
from conftest import Server
from delivering import Served
from proxying import Proxy

NAMES = [f"{kind}_proxy" for kind in ("http", "https", "all", "no")]


@pytest.fixture
def proxy(loop: LoopThread) -> Iterator[Proxy]:
    """A forward proxy, which finds every name on this machine."""
    stack, one = AsyncExitStack(), Proxy()
    loop.run(stack.enter_async_context(one.running()), timeout=5)
    yield one
    loop.run(stack.aclose(), timeout=5)


@pytest.fixture
def parts(own_server: Server, served: Served, proxy: Proxy) -> Iterator[Parts]:
    """Parts whose API has a name that only the proxy finds, and whose environment names it."""
    made = Parts(own_server.url, served, EmulatorConfig(rate=50.0, median=0.5))
    for name in NAMES:
        made.environment.pop(name, None)
        made.environment.pop(name.upper(), None)
    url = made.environment["CAVENDISH_API_URL"].replace("127.0.0.1", "api.example")
    made.environment |= {"CAVENDISH_API_URL": url}
    made.environment |= {"HTTP_PROXY": f"http://ada:sesame@127.0.0.1:{proxy.port}"}
    yield made
    made.close()


def api(parts: Parts) -> dict[str, Any]:
    """What doctor finds of the API, in the environment of the parts."""
    command = [sys.executable, "-m", "cavendish_worker.cli", "doctor", "--json"]
    done = subprocess.run(
        command, env=parts.environment, capture_output=True, text=True, check=False
    )
    (found,) = (one for one in json.loads(done.stdout) if one["what"] == "api, account default")
    return dict(found)


def test_every_call_to_the_api_goes_through_the_proxy_and_no_webhook_does(
    parts: Parts, proxy: Proxy
) -> None:
    """Nobody else finds the API's name, so that each answer came through it; doctor says so."""
    parts.celery("worker")
    parts.celery("beat")
    ids = parts.emulator.create(5)
    parts.client.submit(ids, service=SERVICE, webhook=parts.receiver)
    wait_until(lambda: parts.settled(ids), 60, "the worker asks through the proxy")
    wait_until(lambda: set(parts.announced()["states"]) == set(ids), 60, "webhooks go directly")
    found = api(parts)
    assert found["ok"]
    assert f"asked through the proxy 127.0.0.1:{proxy.port} (HTTP_PROXY)," in found["found"]
    assert "sesame" not in json.dumps(found) + parts.lines()
    lines = [head.partition(b"\r\n")[0] for head in proxy.heads]
    assert lines
    assert all(line.startswith(b"POST http://api.example:") for line in lines)


def test_no_proxy_is_obeyed_by_workers_and_by_doctor(parts: Parts, proxy: Proxy) -> None:
    """They look the name up themselves then, and nothing reaches the proxy."""
    parts.environment |= {"NO_PROXY": "localhost,.example"}
    parts.celery("worker")
    parts.celery("beat")
    parts.client.submit(parts.emulator.create(1), service=SERVICE)
    wait_until(lambda: "ConnectError" in parts.lines(), 60, "the worker asks directly")
    found = api(parts)
    assert "api.example is not found" in found["found"]
    assert proxy.heads == []
