"""Somebody who opens all pages inside Flower and asks the HTTP service, while a soak goes on."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

#: Pages of Flower, and what is asked of the HTTP service; `{id}` is one of the latest.
PAGES = (
    "/cavendish",
    "/cavendish/ids",
    "/cavendish/ids?state=succeeded",
    "/cavendish/ids?q={id}",
    "/cavendish/id/nano-banana/{id}",
    "/cavendish/webhooks",
    "/cavendish/actions",
    "/workers",
    "/tasks",
)
ASKED = (
    "/v1/tasks/nano-banana/{id}",
    "/v1/tasks/nano-banana/{id}?wait=2",
    "/v1/tasks?limit=50",
    "/v1/status",
    "/v1/endpoints",
    "/metrics",
)


class Visitor(threading.Thread):
    """Opens a page and asks the service each half second; `answers`: how often each status came."""

    def __init__(self, facts: dict[str, Any], data_folder: Path, ids: list[str]) -> None:
        super().__init__(daemon=True)
        self._facts, self._ids, self._over = facts, ids, threading.Event()
        self._key = (data_folder / "http-key").read_text().strip()
        self.answers: Counter[str] = Counter()

    def run(self) -> None:
        key = {"authorization": f"Bearer {self._key}"}
        with httpx.Client(trust_env=False, timeout=30, headers=key) as http:
            for url in self._urls():
                if self._over.wait(0.25):
                    break
                try:
                    self.answers[str(http.get(url).status_code)] += 1
                except httpx.HTTPError as error:
                    self.answers[type(error).__name__] += 1

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _urls(self) -> Iterator[str]:
        pages, asked = itertools.cycle(PAGES), itertools.cycle(ASKED)
        while True:
            latest = self._ids[-1] if self._ids else "none-yet"
            yield self._facts["flower"] + next(pages).format(id=latest)
            yield self._facts["http"] + next(asked).format(id=latest)
