"""Requests to a real process of the HTTP service: all that its document promises, by schemathesis,
while strangers send heads and bodies that never end, and ones that are far too large.

No answer may be a 5xx or break the promise of the document, and a good client is served throughout.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.devstack.ports import free_port
from cavendish_worker.service.application import create_app
from cavendish_worker.service.openapi_document import operations
from cavendish_worker.service.parts import Parts
from conftest import Server
from fuzzing.tally import Tally
from programs import CLIENTS
from serving import caller, new_key

#: What is asked once, of each word of the document; and what is asked as often as is wanted.
ONCE, AGAIN = "coverage", "fuzzing"
#: Cases of one process of schemathesis, and how many of these in a row may end by a fault of their
#: own: CPython 3.11 has ended some of them after ten thousand cases and more.
CASES, FAULTS = 4_000, 3
#: What each answer is checked for.
_CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"
_CHECKS += ",response_schema_conformance"
#: Strangers at once that send a byte now and then, and that send much.
_SLOW, _LARGE = 300, 4
#: The stream of events ends only if it is told to.
_CONFIG = '[[operations]]\ninclude-path = "/v1/events"\nparameters = { follow = false }\n'
#: `cavendish serve`, which holds a wait for a fifth of a second, not 20 s: schemathesis soon knows
#: ids that are pending.
_SERVE = """
from cavendish_worker.cli import cli
from cavendish_worker.service import application, held_requests
held_requests.LONGEST = 0.2
cli(["serve"])
"""
#: Errors of schemathesis that are the service's: it gave no answer.
_UNANSWERED = re.compile("network|connection|server|timeout", re.IGNORECASE)
#: Seconds after which an answer never comes.
_NEVER = 30.0


def run(seed: int, count: int, server: Server, phases: tuple[str, ...] = (ONCE, AGAIN)) -> Tally:
    """So many requests or more, by one process of schemathesis after the other, each with a seed of
    its own; needs `make clients`.
    """
    tally, asked = Tally("HTTP requests", seed), Asked()
    store = Store(server.url)
    key = new_key(store, "ops")
    store.close()
    with tempfile.TemporaryDirectory() as folder, _served(server.url, Path(folder)) as (it, log):
        port, ended = it
        with _strangers(port, key, seed, tally), _good_client(port, key, tally):
            for number, phase in enumerate(_phases(asked, count, phases)):
                work = Path(folder, str(number))
                work.mkdir()
                _schemathesis(port, key, seed + number, phase, count - asked.cases, work, asked)
        asked.tell(tally)
        if ended() is not None:
            tally.death(f"the service ended with {ended()}")
        for said in log.read_text(errors="replace").split("Traceback")[1:]:
            lines = [line for line in said.splitlines() if line[:1].isalpha()]
            tally.traceback(" ".join(lines[:2]))
    return tally.end()


@dataclass
class Asked:
    """What the processes of schemathesis have asked so far.

    `faults`: those of the tool itself, of which the service knows nothing; `in_a_row` the last.
    """

    cases: int = 0
    server_errors: int = 0
    faults: int = 0
    in_a_row: int = 0
    last_words: str = ""
    broken: list[str] = field(default_factory=list)

    def take(self, said: dict[str, Any], last_words: str) -> None:
        """Add what one process reported; one that ended by a fault of its own reports nothing, or
        errors that are no answers.
        """
        self.cases += said.get("test_cases", {}).get("generated", 0)
        failures, errors = said.get("failures", []), said.get("errors", [])
        self.server_errors += sum(
            each["count"] for each in failures if "server error" in each["title"].lower()
        )
        unanswered = [each for each in errors if _UNANSWERED.search(each["title"])]
        self.broken += [json.dumps(each)[:1000] for each in failures + unanswered]
        fault = not said.get("complete") or len(errors) > len(unanswered)
        self.in_a_row = self.in_a_row + 1 if fault else 0
        self.faults += fault
        self.last_words = last_words if fault else self.last_words

    def tell(self, tally: Tally) -> None:
        """Put it into a tally."""
        tally.made += self.cases
        for said in self.broken:
            tally.mistake(said)
        numbers = {
            "cases": self.cases,
            "5xx": self.server_errors,
            "faults of the tool": self.faults,
        }
        tally.notes.append(", ".join(f"{number:,} {what}" for what, number in numbers.items()))
        if self.in_a_row == FAULTS:
            tally.mistake(f"schemathesis failed {FAULTS} times in a row: {self.last_words}")


def _phases(asked: Asked, count: int, phases: tuple[str, ...]) -> Iterator[str]:
    """The phase of each process, until enough was asked."""
    yield phases[0]
    while asked.cases < count and asked.in_a_row < FAULTS:
        yield phases[-1]


@contextmanager
def _served(url: str, folder: Path) -> Iterator[tuple[tuple[int, Callable[[], int | None]], Path]]:
    """`cavendish serve`; yields its port, its exit code as far as it has one, and its log."""
    port, log = free_port(), folder / "log"
    ours = {"REDIS_URL": url, "HTTP_PORT": str(port), "HTTP_RATE": "100000", "API_TOKEN": "t"}
    ours |= {"LOG_LEVEL": "warning", "API_URL": f"http://127.0.0.1:{free_port()}"}
    environment = os.environ | {f"CAVENDISH_{name}": text for name, text in ours.items()}
    command = [sys.executable, "-c", _SERVE]
    with (
        log.open("w") as out,
        subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process,
    ):
        while process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield (port, process.poll), log
        process.terminate()


def _schemathesis(
    port: int, key: str, seed: int, phase: str, count: int, folder: Path, asked: Asked
) -> None:
    """One process, with about so many cases at most."""
    report, address = folder / "report.json", f"http://127.0.0.1:{port}"
    document = create_app(Parts.of(Settings())).openapi()
    each = max(min(count, CASES) // len(operations(document)), 1)
    (folder / "schemathesis.toml").write_text(_CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {key}", "--checks", _CHECKS]
    command += ["--phases", phase, "--max-examples", str(each), "--seed", str(seed)]
    command += ["--continue-on-failure", "--request-timeout", str(_NEVER)]
    command += ["--suppress-health-check", "all", "--generation-database", "none"]
    # One worker: CPython 3.11 reads source in several threads with errors, and hypothesis does so.
    command += ["--report-json-path", str(report), "--warnings", "off", "--workers", "1"]
    environment = os.environ | {"PYTHONPATH": str(CLIENTS)}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    said = json.loads(report.read_text()) if report.exists() else {}
    asked.take(said, f"{done.stdout[-800:]}{done.stderr[-800:]}")


@contextmanager
def _good_client(port: int, key: str, tally: Tally) -> Iterator[None]:
    """Gets its own id all the time."""
    stop = threading.Event()

    def go_on() -> None:
        with caller(f"http://127.0.0.1:{port}", key) as http:
            told = {"service": "nano-banana", "ids": ["good"]}
            while not stop.wait(0.05):
                try:
                    for answer in (
                        http.post("/v1/tasks", json=told),
                        http.get("/v1/tasks/nano-banana/good"),  # if nobody has made us forget it
                    ):
                        if answer.status_code not in (200, 201, 404):
                            tally.mistake(f"a good client got {answer.status_code}: {answer.text}")
                except httpx.HTTPError as error:
                    tally.mistake(f"a good client got no answer: {error}")
                tally.good += 1

    yield from _while(stop, [go_on])


@contextmanager
def _strangers(port: int, key: str, seed: int, tally: Tally) -> Iterator[None]:
    stop = threading.Event()
    slow = [lambda n=number: _slow(port, key, stop, n, tally) for number in range(_SLOW)]
    large = [lambda n=number: _large(port, key, stop, seed + n, tally) for number in range(_LARGE)]
    yield from _while(stop, slow + large)


def _while(stop: threading.Event, works: list[Callable[[], Any]]) -> Iterator[None]:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    until = time.monotonic() + _NEVER
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0.0))


def _slow(port: int, key: str, stop: threading.Event, number: int, tally: Tally) -> None:
    """A head, or a body, byte by byte."""
    head = f"POST /v1/tasks HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n"
    body = f"{head}content-type: application/json\r\ncontent-length: 9999\r\n\r\n"
    start, more = (head, b"x: y\r\n") if number % 2 else (body, b" ")
    while not stop.is_set():
        tally.made += 1
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
            peer.sendall(start.encode())
            while not stop.wait(0.5):
                peer.sendall(more)


def _large(port: int, key: str, stop: threading.Event, seed: int, tally: Tally) -> None:
    """A body of 100 MB, of a known length or without one, or a head of 100,000 lines."""
    chance = random.Random(f"large {seed}")
    paths = "/v1/tasks /nano-banana/tasks /nano-banana/images /callbacks/a/b/c".split()
    while not stop.is_set():
        head = f"POST {chance.choice(paths)} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n"
        kinds = ("transfer-encoding: chunked", "content-length: 100000000", "x: y\r\n" * 100_000)
        kind = chance.choice(kinds)
        tally.made += 1
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
            peer.sendall(f"{head}content-type: application/json\r\n{kind}\r\n\r\n".encode())
            piece = b"10000\r\n" + b" " * 2**16 + b"\r\n" if "chunked" in kind else b" " * 2**16
            for _ in range(100_000_000 // 2**16):
                peer.sendall(piece)
            peer.recv(65536)
        stop.wait(2)
