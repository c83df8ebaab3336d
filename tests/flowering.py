"""Flower with our pages, as production starts it, for the length of a test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

import forked
from cavendish_worker.devstack.ports import free_port
from servers import eventually

#: Who logs in, unless a test says otherwise.
LOGIN = ("ada", "not: for, everyone")


@contextmanager
def flower(
    url: str, folder: Path, *words: str, login: tuple[str, str] | None = LOGIN, **environment: str
) -> Iterator[httpx.Client]:
    """Yields a client that has logged in. `words`: options of Flower."""
    with process_of_flower(url, folder, *words, login=login, **environment) as (http, _):
        yield http


@contextmanager
def process_of_flower(
    url: str, folder: Path, *words: str, login: tuple[str, str] | None = LOGIN, **environment: str
) -> Iterator[tuple[httpx.Client, forked.Process]]:
    """The same with the process, which a test may kill."""
    port = free_port()
    given = {name: text for name, text in os.environ.items() if not name.startswith("CAVENDISH_")}
    given |= {"CAVENDISH_REDIS_URL": url, "CAVENDISH_FLOWER_PORT": str(port)}
    given |= {"CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8", "CAVENDISH_DATA_DIR": str(folder)}
    given |= environment | ({"CAVENDISH_FLOWER_BASIC_AUTH": ":".join(login)} if login else {})
    command = ["-A", "cavendish_worker", "flower", *words]
    process = forked.shared().start("celery", command, given, folder / "flower.log")
    at = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=at, trust_env=False, auth=login, timeout=30) as http:
            eventually(lambda: _answers(http), "Flower answers", 60)
            yield http, process
    finally:
        process.terminate()
        process.wait(30)


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/healthcheck").status_code in (200, 404)  # 404 under a prefix
    except httpx.TransportError:
        return False
