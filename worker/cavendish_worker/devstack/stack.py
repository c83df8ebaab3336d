"""`cavendish up`.

Embedded Redis, emulated API, beat, worker and Flower on one machine, kept alive.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from cavendish.errors import StackError
from cavendish.local_paths import (
    SECRET_KEY,
    WEBHOOK_SECRET,
    broker_url,
    socket_path,
    store_url,
    with_kept,
)
from cavendish.settings import Settings
from cavendish_worker.devstack import embedded_redis as embedded
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.webhooks import encryption, signing

#: Seconds between two polls at the parts, and before a part that ended is started again (growing
#: while it keeps ending).
POLL_EVERY, FIRST_WAIT, LONGEST_WAIT = 0.1, 0.2, 10.0
#: Seconds in which the parts that listen should do so.
LISTENING_WITHIN = 15.0
#: A part that lived this long is no longer «failing to start».
SETTLED_AFTER = 10.0


@dataclass(slots=True)
class Part:
    """One process of the stack."""

    name: str
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    failures: int = 0

    def start(self) -> None:
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 (our own command lines)
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for us: the parts are ended in order
            preexec_fn=_die_with_parent,  # noqa: PLW1509 (nothing here runs threads)
        )

    def poll(self, now: float) -> None:
        """Start the part again if it ended, after a wait that grows while it keeps ending."""
        if self.process is None or self.process.poll() is None:
            return
        if not self.restart_at:
            self.failures = 1 if now - self.started_at > SETTLED_AFTER else self.failures + 1
            wait = min(FIRST_WAIT * 2 ** (self.failures - 1), LONGEST_WAIT)
            self.restart_at = now + wait
            logger().error(
                "part.ended", part=self.name, exit_code=self.process.returncode, restart_in=wait
            )
        elif now >= self.restart_at:
            self.restart_at = 0.0
            self.start()


class Stack:
    """The parts, started in order and ended in the reverse one."""

    def __init__(
        self, settings: Settings, *, emulate: list[str] | None = None, flower: bool = True
    ) -> None:
        self._settings, self._emulate, self._flower = settings, emulate, flower
        self._parts: list[Part] = []
        self._stopping = False
        self._lock: IO[str] | None = None
        self.facts: dict[str, object] = {}

    def up(self, ready: Callable[[dict[str, object]], None]) -> None:
        """Run until SIGTERM or SIGINT.

        `ready` gets the addresses of the parts once they were started.
        """
        data_dir = self._settings.data_dir
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._take_lock(data_dir)
        except OSError as error:
            raise StackError(
                f"The data folder {data_dir} cannot be used: {error.strerror}."
            ) from None
        for number in (
            signal.SIGTERM,
            signal.SIGINT,
            signal.SIGHUP,
        ):  # the last one: somebody closed the terminal
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` wants it
                signal.signal(number, self._stop)
        try:
            self._start_parts(data_dir)
            self._write_facts(data_dir)
            self._wait_for_answers()
            ready(self.facts)
            while not self._stopping:
                time.sleep(POLL_EVERY)
                for part in self._parts:
                    before = part.process
                    part.poll(time.monotonic())
                    if part.process is not before:
                        self._write_facts(data_dir)
        finally:
            self._end_parts()
            (data_dir / "stack.json").unlink(missing_ok=True)

    def _start_parts(self, data_dir: Path) -> None:
        environment = self._environment(data_dir)
        if not self._settings.redis_url:
            path = socket_path(data_dir)
            server = self._start(
                "redis", embedded.arguments(data_dir, path), embedded.environment()
            )
            assert server.process is not None  # noqa: S101 (just started)
            embedded.wait_for(
                store_url(self._settings), server.process, data_dir / "redis" / "server.log"
            )
        if self._emulate is not None:
            port = _kept_port(data_dir)
            environment |= _emulated(port, self._settings)
            self.facts |= {
                "api": environment["CAVENDISH_API_URL"],
                "receiver": f"http://127.0.0.1:{port}/receiver",
            }
            self._start(
                "emulator",
                [*_CAVENDISH, "emulate", "--port", str(port), *self._emulate],
                environment,
            )
        self._start(
            "worker",
            [
                *_CELERY,
                "worker",
                "-P",
                "threads",
                "-n",
                "worker@%h",
                "--without-gossip",
                "--without-mingle",
            ],
            environment,
        )
        self._start("beat", [*_CELERY, "beat"], environment)
        if self._flower:
            port, address = self._flower_port(), self._settings.flower_address
            self._start(
                "flower", [*_CELERY, "flower", f"--port={port}", "--logging=error"], environment
            )
            self.facts["flower"] = _url_at(_EVERYWHERE.get(address, address), port)

    def _wait_for_answers(self) -> None:
        """What is said to be up can be called.

        The pretend API and Flower listen, or have had time enough to.
        """
        until = time.monotonic() + LISTENING_WITHIN
        for name in ("api", "flower"):
            where = urlsplit(str(self.facts.get(name, "")))
            while where.hostname and not self._stopping and time.monotonic() < until:
                with (
                    suppress(OSError),
                    socket.create_connection((where.hostname, where.port), timeout=1),
                ):
                    break
                time.sleep(POLL_EVERY)

    def _environment(self, data_dir: Path) -> dict[str, str]:
        facts = {"book": store_url(self._settings), "broker": broker_url(self._settings)}
        self.facts |= facts
        if not self._settings.webhook_secret:
            keep(data_dir / WEBHOOK_SECRET, signing.new_secret)
        if not (
            self._settings.secret_key or self._settings.redis_url
        ):  # in a store that others share, theirs would be another
            keep(data_dir / SECRET_KEY, encryption.new_key)
        kept = with_kept(self._settings)
        return dict(os.environ) | {
            "CAVENDISH_REDIS_URL": facts["book"],
            "CAVENDISH_BROKER_URL": facts["broker"],
            "CAVENDISH_WEBHOOK_SECRET": kept.webhook_secret
            or (data_dir / WEBHOOK_SECRET).read_text().strip(),
            "CAVENDISH_SECRET_KEY": ",".join(kept.secret_key),
        }

    def _start(self, name: str, command: list[str], environment: Mapping[str, str]) -> Part:
        part = Part(name, command, dict(environment))
        part.start()
        self._parts.append(part)
        return part

    def _flower_port(self) -> int:
        wanted = self._settings.flower_port
        if wanted and _is_free(wanted, self._settings.flower_address):
            return wanted
        port = free_port()
        if wanted:
            logger().warning("flower.port_taken", wanted=wanted, port=port)
        return port

    def _take_lock(self, data_dir: Path) -> None:
        self._lock = (data_dir / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StackError(
                f"Another `cavendish up` runs with the data folder {data_dir}."
            ) from None

    def _write_facts(self, data_dir: Path) -> None:
        pids = {part.name: part.process.pid for part in self._parts if part.process}
        fresh = data_dir / "stack.json.new"
        with os.fdopen(
            os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
        ) as file:  # a URL may hold a password
            file.write(json.dumps(self.facts | {"pids": pids}))
        fresh.replace(data_dir / "stack.json")

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _end_parts(self) -> None:
        """SIGTERM, with time to finish; what the others still need goes last."""
        logger().info("stack.stopping")
        until = time.monotonic() + self._settings.shutdown_timeout
        first = [part for part in self._parts if part.name not in _LAST]
        for group in (
            first,
            *([part for part in self._parts if part.name == name] for name in _LAST),
        ):
            alive = [part.process for part in group if part.process and part.process.poll() is None]
            for process in alive:
                process.terminate()
            for process in alive:
                try:
                    process.wait(max(until - time.monotonic(), 1.0))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        logger().info("stack.stopped")


#: The parts that end after all others, in this order.
_LAST = ("emulator", "redis")
#: How to reach from this machine what listens at all of its addresses.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (nothing is bound here)
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_CELERY = [sys.executable, "-m", "celery", "-q", "-A", "cavendish_worker.tasks"]
_CAVENDISH = [sys.executable, "-m", "cavendish_worker.cli"]


def keep(path: Path, make: Callable[[], str]) -> None:
    """Let this file hold a secret, made at its first use, readable by its owner only."""
    if path.exists():
        return
    fresh = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(make())
    fresh.replace(path)  # whole or not at all


def free_port() -> int:
    """A port of the loopback interface that is free right now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _url_at(address: str, port: int) -> str:
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _kept_port(data_dir: Path) -> int:
    """The pretend API's port.

    The one it had before in this data folder, if it is free, so that webhooks still arrive.
    """
    path = data_dir / "emulator-port"
    try:
        port = int(path.read_text())
    except (OSError, ValueError):
        port = 0
    port = port if port and _is_free(port) else free_port()
    path.write_text(str(port))
    return port


def _is_free(port: int, address: str = "127.0.0.1") -> bool:
    try:
        with socket.create_server(
            (address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET
        ):
            return True
    except OSError:
        return False


def _emulated(port: int, settings: Settings) -> dict[str, str]:
    allow = [*map(str, settings.webhook_allow), "127.0.0.0/8"]
    return {
        "CAVENDISH_API_URL": f"http://127.0.0.1:{port}",
        "CAVENDISH_API_TOKEN": "emulated",
        "CAVENDISH_WEBHOOK_ALLOW": ",".join(allow),
    }


def _die_with_parent() -> None:
    """On Linux: if `cavendish up` is killed, its parts end too instead of running on unseen."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
