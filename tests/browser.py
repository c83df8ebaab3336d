"""A real browser without a window.

Debian's chromium, driven through its chromedriver by the W3C WebDriver protocol.
"""

from __future__ import annotations

import base64
import contextlib
import json
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

    def narrow(self, width: int) -> None:
        """Make the page so wide, in pixels: a window is never narrower than 500."""
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        said = {"cmd": "Emulation.setDeviceMetricsOverride", "params": screen}
        self._ask("POST", f"{self._session}/goog/cdp/execute", said)

    def wait_for(self, script: str) -> Any:
        """What a piece of JavaScript hands to the function `arguments[0]`, now or later."""
        said = {"script": script, "args": []}
        return self._ask("POST", f"{self._session}/execute/async", said)

    def element(self, selector: str) -> str:
        """The first element that a CSS selector finds. Raises if there is none."""
        said = {"using": "css selector", "value": selector}
        found = self._ask("POST", f"{self._session}/element", said)
        return str(next(iter(found.values())))

    def click(self, selector: str) -> str:
        """Click as a person does; the text of the page then."""
        # Flower's style scrolls smoothly, and the driver clicks before that has ended.
        place = {"behavior": "instant", "block": "center"}
        found = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{found}?.scrollIntoView({json.dumps(place)})")
        self._ask("POST", f"{self._session}/element/{self.element(selector)}/click", {})
        return self.text()

    def type(self, selector: str, text: str) -> None:
        """Type into an element in place of what is there."""
        one = self.element(selector)
        self._ask("POST", f"{self._session}/element/{one}/clear", {})
        self._ask("POST", f"{self._session}/element/{one}/value", {"text": text})

    def press(self, *keys: str) -> None:
        """Press keys on whatever has the focus."""
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        said = {"actions": [{"type": "key", "id": "keyboard", "actions": steps}]}
        self._ask("POST", f"{self._session}/actions", said)

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
