"""The whole stack as its users start it.

`cavendish up --emulate`, real processes, real HTTP, real Redis.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

import forked
from cavendish_worker.cli import cli
from forked import Done

SERVICE = "nano-banana"


class Stack:
    """A running `cavendish up --emulate` with a data folder of its own.

    Its processes are forked from one that has imported everything, unless they are to be `fresh`
    ones: as a user starts them, with the folder and the umask of the caller.
    """

    def __init__(self, *options: str, fresh: bool = False, **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cavendish-test-"))
        self.log = (self.folder / "log").open("w")
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
        }
        self.environment |= {
            "CAVENDISH_DATA_DIR": str(self.folder / "data"),
            "CAVENDISH_FLOWER_PORT": "0",
            "CAVENDISH_HTTP_PORT": "0",
            "CAVENDISH_LOG_FORMAT": "json",
        }
        self.environment |= {"CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8", **environment}
        self.data = Path(self.environment["CAVENDISH_DATA_DIR"])
        words = ["up", "--emulate", "--workers", "1", *options]  # on any machine
        self.process = (
            subprocess.Popen(
                [sys.executable, "-m", "cavendish_worker.cli", *words],
                env=self.environment,
                stdout=self.log,
                stderr=self.log,
            )
            if fresh
            else forked.shared().start("cavendish", words, self.environment, self.folder / "log")
        )
        self.facts = wait_until(self._ready, 60, "the stack is up")

    def _ready(self) -> dict[str, Any]:
        assert self.process.poll() is None, self.lines()
        facts: dict[str, Any] = json.loads((self.data / "stack.json").read_text())
        self.tally(facts)
        return facts

    def lines(self) -> str:
        """What the stack logged."""
        return (self.folder / "log").read_text(errors="replace")

    def pids(self) -> dict[str, int]:
        """The process ids of the parts, as they are now."""
        pids: dict[str, int] = json.loads((self.data / "stack.json").read_text())["pids"]
        return pids

    def kill(self, part: str) -> None:
        """kill -9 one part, and wait until it runs again."""
        before = self.pids()[part]
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: self.pids()[part] != before, 60, f"{part} runs again")

    def create(self, count: int) -> list[str]:
        """Make remote tasks at the emulated API."""
        ids: list[str] = httpx.post(
            f"{self.facts['api']}/emulator/tasks", json={"count": count}, trust_env=False
        ).json()["ids"]
        return ids

    def tally(self, facts: dict[str, Any] | None = None) -> dict[str, Any]:
        said: dict[str, Any] = httpx.get(
            f"{(facts or self.facts)['api']}/emulator/tally", trust_env=False
        ).json()
        return said

    def ledger(self) -> dict[str, Any]:
        said: dict[str, Any] = httpx.get(f"{self.facts['receiver']}/ledger", trust_env=False).json()
        return said

    def cavendish(self, *words: str, stdin: str | None = None) -> Done:
        """Run a command of ours as a user of this stack would."""
        (done,) = forked.shared().run([(words, self.environment)], stdin)
        return done

    def status(self) -> dict[str, Any]:
        """What `cavendish status --json` prints, in this process: it is asked again and again."""
        said: dict[str, Any] = json.loads(
            CliRunner().invoke(cli, ["status", "--json"], env=self.environment).stdout
        )
        return said

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(40)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_until(asked: Callable[[], Any], seconds: float, what: str) -> Any:
    """Ask until the answer is truthy; errors mean not yet. Fails naming what did not come.

    What takes long is asked for less often: an answer may cost as much as what is waited for.
    """
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        with contextlib.suppress(OSError, ValueError, KeyError, httpx.TransportError):
            if answer := asked():
                return answer
        time.sleep(min(max(passed / 10, 0.05), 0.4))
    raise AssertionError(f"not within {seconds} s: {what}")


@pytest.fixture
def start() -> Iterator[Callable[..., Stack]]:
    """Start stacks for the length of a test."""
    running: list[Stack] = []

    def begin(*options: str, fresh: bool = False, **environment: str) -> Stack:
        running.append(Stack(*options, fresh=fresh, **environment))
        return running[-1]

    yield begin
    for stack in running:
        stack.close()
