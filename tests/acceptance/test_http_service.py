"""The HTTP service as its users start it: in `cavendish up`, and alone."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from acceptance.conftest import SERVICE, Stack, wait_until
from cavendish.errors import StackError
from cavendish_worker.devstack.ports import free_port
from conftest import Server
from serving import caller
from shell import Run


def test_up_serves_http_with_a_key_that_only_its_user_reads(start: Callable[..., Stack]) -> None:
    """From a submit by curl, so to say, to the end that a waiting get brings."""
    stack = start("--no-flower")
    path = Path(stack.facts["http_key"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (task_id,) = stack.create(1)
    with caller(stack.facts["http"], path.read_text().strip()) as http:
        wait_until(lambda: http.get("/healthz").is_success, 40, "it answers")
        assert http.post("/v1/tasks", json={"service": SERVICE, "ids": [task_id]}).is_success
        where = f"/v1/tasks/{SERVICE}/{task_id}?wait=20"
        wait_until(lambda: http.get(where).json()["state"] == "succeeded", 60, "it ended")
        stack.kill("http")
        wait_until(lambda: http.get(where).json()["id"] == task_id, 40, "it answers again")


def test_without_tls_it_listens_on_this_machine_only(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is told that a proxy has TLS."""
    monkeypatch.setenv("CAVENDISH_HTTP_ADDRESS", "0.0.0.0")
    done = run("serve")
    assert isinstance(done.exception, StackError)
    assert "Without TLS the service listens on this machine only" in str(done.exception)
    one = run("serve", "--certificate", __file__)
    assert "belong together" in one.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_success(own_server: Server, number: int) -> None:
    """And its port that is taken is one sentence."""
    port = str(free_port())
    environment = {"CAVENDISH_REDIS_URL": own_server.url, "CAVENDISH_HTTP_PORT": port}
    command = [sys.executable, "-m", "cavendish_worker.cli", "serve"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        with caller(f"http://127.0.0.1:{port}") as http:
            wait_until(lambda: http.get("/healthz").is_success, 40, "it answers")
        taken = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert taken.returncode == 1
    assert taken.stderr.count("\n") == 1
    assert "cannot be listened on" in taken.stderr
