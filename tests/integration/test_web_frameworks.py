"""The examples of PRODUCERS.md for FastAPI and Django, served by uvicorn over real HTTP."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from cavendish.model import Lane, TrackedTask
from cavendish.store import Store
from cavendish_worker.devstack.ports import free_port
from conftest import Server
from ending import settle
from servers import eventually

PAGE = (Path(__file__).parents[2] / "deploy" / "PRODUCERS.md").read_text()
LANE = Lane("default", "nano-banana")
#: Requests that wait at once: more than the client has threads.
IDS = [f"id-{number}" for number in range(40)]

SETTINGS = """
ALLOWED_HOSTS, ROOT_URLCONF, SECRET_KEY = ["*"], "urls", "of a test"
"""
URLS = """
from django.urls import path
from views import image

urlpatterns = [path("images/<task_id>", image)]
"""


def example(title: str) -> str:
    """The program of the page that begins with this comment."""
    (found,) = re.findall(rf"```python\n(# {title}.*?)```", PAGE, re.DOTALL)
    return str(found)


def write(folder: Path, framework: str) -> str:
    """Write the example and what it needs; returns the application's name for uvicorn."""
    if framework == "fastapi":
        (folder / "shop.py").write_text(example("FastAPI"))
        return "shop:app"
    files = {"settings": SETTINGS, "urls": URLS}
    files |= {name: example(f"Django, {name}.py") for name in ("views", "asgi")}
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return "asgi:application"


@contextmanager
def serving(folder: Path, app: str, url: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of an application that runs as a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--app-dir", str(folder)]
    ours = {"CAVENDISH_REDIS_URL": url, "DJANGO_SETTINGS_MODULE": "settings"}
    with subprocess.Popen(
        command, env=os.environ | ours, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()


@pytest.mark.parametrize("framework", ["fastapi", "django"])
def test_the_view_of_the_page_submits_waits_and_answers_with_the_record(
    framework: str, store: Store, server: Server, tmp_path: Path
) -> None:
    for needed in ("uvicorn", framework):
        if find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: `make setup` does it")
    app = write(tmp_path, framework)
    with (
        serving(tmp_path, app, server.url) as (address, process),
        httpx.Client(base_url=address, trust_env=False, timeout=60) as http,
        ThreadPoolExecutor(len(IDS)) as browsers,
    ):
        eventually(lambda: answers(http), "it serves")
        asked = [browsers.submit(http.get, f"/images/{each}") for each in IDS]
        eventually(lambda: len(tracked(store)) == len(IDS), "all are submitted")
        settle(store, LANE, *IDS)
        for task_id, one in zip(IDS, asked, strict=True):
            answer = one.result(60)
            assert answer.status_code == 200
            assert answer.json()["record"] == {"id": task_id}
        assert http.get(f"/images/{IDS[0]}").json()["state"] == "succeeded"
        process.send_signal(signal.SIGTERM)
        log = process.communicate(timeout=60)[1]
    assert process.returncode in (0, -signal.SIGTERM)  # uvicorn ends by the signal that it got
    assert "Application shutdown complete." in log
    assert "Traceback" not in log


def tracked(store: Store) -> dict[str, TrackedTask]:
    return store.tasks.get(LANE.account, LANE.service, IDS, with_record=False)


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/").status_code == 404
    except httpx.TransportError:
        return False
