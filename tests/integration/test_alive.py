"""`cavendish alive`, the probe.

On the heartbeat of a real process, with Redis there, away, and silent.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result
from endpoint_index import Served

from acceptance.parts import Parts
from cavendish.errors import SettingsError
from cavendish.settings import env_name
from cavendish.store import Store
from cavendish.store.fleet import GONE_AFTER, Member
from cavendish_worker.cli import cli
from cavendish_worker.devstack.emulator.api import Config
from conftest import Server

HERE = socket.gethostname()


@pytest.fixture
def probe(store: Store, server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `cavendish alive` with the shared Redis."""
    monkeypatch.setenv(env_name("redis_url"), server.url)
    return lambda *words: CliRunner().invoke(cli, ["alive", *words])


def heard(store: Store, name: str, ago: float) -> None:
    store.fleet.beat(Member(name, name.partition("@")[0], "0.1.0", store.fleet.now() - ago))


def test_a_real_worker_is_alive_until_it_has_ended(own_server: Server, served: Served) -> None:
    parts = Parts(own_server.url, served, Config())
    command = [sys.executable, "-m", "cavendish_worker.cli", "alive", "--role"]
    try:
        worker = parts.celery("worker")
        said = [
            subprocess.run(
                [*command, role], env=parts.environment, capture_output=True, check=False
            )
            for role in ("worker", "beat")
        ]
        assert [one.returncode for one in said] == [0, 1]
        assert f"worker@{HERE}:{worker.pid} was heard of" in said[0].stdout.decode()
        parts.end(worker)
        assert (
            subprocess.run(
                [*command, "worker"], env=parts.environment, capture_output=True, check=False
            ).returncode
            == 1
        )
    finally:
        parts.close()


@pytest.mark.parametrize(
    ("ago", "code"), [(GONE_AFTER - 5, 0), (GONE_AFTER + 5, 1)], ids=["lately", "long ago"]
)
def test_a_process_is_alive_that_was_heard_of_lately(
    probe: Callable[..., Result], store: Store, ago: float, code: int
) -> None:
    heard(store, f"worker@{HERE}:1", ago)
    assert [probe(*words).exit_code for words in ([], ["--role", "worker"], ["--ready"])] == [
        code
    ] * 3


def test_processes_of_other_roles_and_hosts_do_not_count(
    probe: Callable[..., Result], store: Store
) -> None:
    heard(store, f"beat@{HERE}:1", 0)
    heard(store, f"worker@{HERE}-2:1", 0)
    assert probe("--role", "worker").exit_code == 1
    assert probe("--role", "worker", "--name", f"{HERE}-2").exit_code == 0


def test_of_several_processes_of_a_host_the_last_heard_counts(
    probe: Callable[..., Result], store: Store
) -> None:
    heard(store, f"worker@{HERE}:1", GONE_AFTER + 5)
    heard(store, f"worker@{HERE}:2", 1)
    said = json.loads(probe("--role", "worker", "--json").stdout)
    assert (said["alive"], said["process"], said["role"], said["away"]) == (
        True,
        f"worker@{HERE}:2",
        "worker",
        "",
    )
    assert said["ago"] == pytest.approx(1, abs=0.5)


def test_nobody_is_ended_because_redis_is_away_but_nobody_is_ready(
    own_server: Server, probe: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(env_name("redis_url"), own_server.url)
    own_server.kill()
    living, ready = probe("--role", "worker"), probe("--role", "worker", "--ready")
    assert (living.exit_code, ready.exit_code) == (0, 1)
    assert "cannot be told: Redis at" in living.stdout
    assert "cannot be told: Redis at" in ready.stderr


def test_a_silent_redis_is_not_waited_for_until_the_probe_itself_is_cut_off(
    probe: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cavendish_worker.cli.alive.PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(env_name("redis_url"), f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        began = time.monotonic()
        said = probe("--role", "worker")
        assert (said.exit_code, time.monotonic() - began < 2) == (0, True)
        assert "silent for 0.5 s" in said.stdout


def test_settings_that_cannot_be_used_are_no_life(
    probe: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in ("localhost", "redis://127.0.0.1/0?socket_timeout=soon"):
        monkeypatch.setenv(env_name("redis_url"), wrong)
        assert isinstance(probe().exception, SettingsError)
