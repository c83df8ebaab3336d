"""A real browser without a window.

Debian's chromium, driven through its chromedriver by the W3C WebDriver protocol.
"""

from __future__ import annotations

import base64
import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import httpx

from cavendish_worker.devstack.ports import free_port

#: Nothing that a browser does of its own accord, and what it needs to run as root in a container.
_FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic
    --disable-dev-shm-usage --no-first-run
    --hide-scrollbars
--disable-background-networking --disable-component-update --disable-sync"""


class Browser:
    """One window. Whatever the driver refuses raises httpx.HTTPStatusError."""

    def __init__(self, driver: str, profile: str, size: str) -> None:
        options = {"args": [*_FLAGS.split(), f"--user-data-dir={profile}", f"--window-size={size}"]}
        self._driver = httpx.Client(base_url=driver, trust_env=False, timeout=30)
        capabilities = {"alwaysMatch": {"goog:chromeOptions": options}}
        self._session = (
            f"/session/{self._ask('POST', '/session', {'capabilities': capabilities})['sessionId']}"
        )

    def open(self, url: str) -> str:
        """Go there; returns the text that a person sees once the page is loaded."""
        self._ask("POST", f"{self._session}/url", {"url": url})
        return self.text()

    def text(self) -> str:
        return str(self.run("return document.body.innerText"))

    def run(self, script: str) -> Any:
        """What a piece of JavaScript returns in the page."""
        return self._ask("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def picture(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self._ask("GET", f"{self._session}/screenshot"))

    def close(self) -> None:
        self._ask("DELETE", self._session)
        self._driver.close()

    def _ask(self, method: str, path: str, said: dict[str, Any] | None = None) -> Any:
        answer = self._driver.request(method, path, json=said)
        answer.raise_for_status()
        return answer.json()["value"]


@contextlib.contextmanager
def browser(size: str = "1400,800") -> Iterator[Browser]:
    """A browser for a while, with a profile of its own."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="cavendish-test-") as profile:
        command = ["chromedriver", f"--port={port}", "--log-level=OFF"]
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for(port)
            window = Browser(f"http://127.0.0.1:{port}", f"{profile}/profile", size)
            yield window
            window.close()
        finally:
            driver.terminate()
            driver.wait(10)


def _wait_for(port: int) -> None:
    until = time.monotonic() + 20
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/status", trust_env=False).json()["value"][
                "ready"
            ]:
                return
        assert time.monotonic() < until, "chromedriver does not answer"
        time.sleep(0.05)
