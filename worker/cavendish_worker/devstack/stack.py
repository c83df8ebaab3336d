"""`cavendish up`: Redis, emulated API, beat, worker, Flower, HTTP service on one machine."""

from __future__ import annotations

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
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from cavendish.endpoints import encryption, signing
from cavendish.environment.local_paths import (
    SECRET_KEY,
    WEBHOOK_SECRET,
    broker_url,
    socket_path,
    store_url,
    with_kept,
)
from cavendish.errors import StackError
from cavendish.settings import Settings
from cavendish_worker.devstack import data_folder, http_key
from cavendish_worker.devstack import embedded_redis as embedded
from cavendish_worker.devstack.part import Part
from cavendish_worker.devstack.ports import free_port, is_free, kept_port, listening, url_at
from cavendish_worker.telemetry.logs import logger

#: Seconds between two checks of the parts.
CHECK_EVERY = 0.1
#: Seconds within which the parts that listen should do so.
LISTENING_WITHIN = 15.0
#: Seconds between two attempts while the disk is full.
RETRY_FULL = 1.0


class Stack:
    """The parts: started in order, and ended in the reverse order."""

    def __init__(
        self,
        settings: Settings,
        *,
        emulate: list[str] | None = None,
        flower: bool = True,
        http: bool = True,
        workers: int = 1,
    ) -> None:
        self._settings, self._emulate, self._workers = settings, emulate, workers
        self._flower, self._http = flower, http
        self._parts: list[Part] = []
        self._stopping = False
        self._full_disk_logged = self._facts_changed = False
        self._lock: IO[str] | None = None
        self._listener: socket.socket | None = None
        self.facts: dict[str, object] = {}

    def up(self, ready: Callable[[dict[str, object]], None]) -> None:
        """Run until SIGTERM or SIGINT.

        `ready` is called with the addresses of the parts once they have started. Raises StackError.
        """
        data_dir = self._settings.data_dir
        # SIGHUP comes when the terminal is closed; `nohup` ignores it.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._stop)
        try:
            self._start_with_room(data_dir)
            if not self._stopping:
                self._wait_for_answers()
                ready(self.facts)
            while not self._stopping:
                time.sleep(CHECK_EVERY)
                self._check_parts(data_dir)
        finally:
            self._end_parts(quietly=self._lock is None)
            if self._lock is not None:  # otherwise it belongs to another stack
                (data_dir / "stack.json").unlink(missing_ok=True)

    def _begin(self, data_dir: Path) -> None:
        """Start all parts. Raises StackError, or OSError if the disk is full."""
        try:
            data_folder.prepare(data_dir)
            self._take_lock(data_dir)
        except OSError as error:
            if error.errno in data_folder.FULL:
                raise
            raise StackError(
                f"The data folder {data_dir} cannot be used: {error.strerror}."
            ) from None
        self._start_parts(data_dir)
        self._write_facts(data_dir)

    def _start_with_room(self, data_dir: Path) -> None:
        """Start all parts; if the disk is full, end them, and start anew when there is room."""
        while not self._stopping:
            try:
                self._begin(data_dir)
            except (OSError, StackError) as error:
                by_disk = isinstance(error, OSError) and error.errno in data_folder.FULL
                if not by_disk and not data_folder.is_full(data_dir):
                    raise
                self._log_full_disk(data_dir)
                self._end_parts(quietly=True)
                self._parts.clear()
                time.sleep(RETRY_FULL)
                while not self._stopping and data_folder.is_full(data_dir):
                    time.sleep(RETRY_FULL)
            else:
                self._full_disk_logged = False
                return

    def _check_parts(self, data_dir: Path) -> None:
        """Start the parts again that ended, and write the new facts when the disk has room."""
        for part in self._parts:
            before = part.process
            part.check(time.monotonic())
            self._facts_changed |= part.process is not before
        if not self._facts_changed:
            return
        try:
            self._write_facts(data_dir)
        except OSError as error:
            if error.errno not in data_folder.FULL:
                raise
            self._log_full_disk(data_dir)
        else:
            self._facts_changed = self._full_disk_logged = False

    def _log_full_disk(self, data_dir: Path) -> None:
        if not self._full_disk_logged:
            full = f"the disk of the data folder {data_dir} is full"
            logger().error("stack.waits", outcome=f"{full}; work goes on when there is room")
        self._full_disk_logged = True

    def _start_parts(self, data_dir: Path) -> None:
        environment = self._environment(data_dir)
        if not self._settings.redis_url:
            self._start_redis(data_dir)
        if self._emulate is not None:
            port = kept_port(data_dir)
            environment |= _emulated(port, self._settings)
            self.facts["api"] = environment["CAVENDISH_API_URL"]
            self.facts["receiver"] = f"http://127.0.0.1:{port}/receiver"
            command = [*_CAVENDISH, "emulate", "--port", str(port), *self._emulate]
            self._start("emulator", command, environment)
        options = "-P threads --without-gossip --without-mingle".split()
        for number in range(self._workers):
            name = f"worker-{number + 1}" if number else "worker"
            command = [*_CELERY, "worker", "-n", f"{name}@%h", *options]
            self._start(name, command, environment | self._metrics_of(number))
        self._start("beat", [*_CELERY, "beat"], environment)
        if self._flower:
            address = self._settings.flower_address
            port = _port("flower", self._settings.flower_port, address)
            command = [*_CELERY, "flower", f"--port={port}", "--logging=error"]
            self._start("flower", command, environment)
            self.facts["flower"] = url_at(_EVERYWHERE.get(address, address), port)
        if self._http:
            self._start_http(environment, data_dir / "http-key")

    def _start_http(self, environment: Mapping[str, str], key_file: Path) -> None:
        """It inherits its socket: while it is started again, connections wait for it."""
        address = self._settings.http_address
        port = _port("http", self._settings.http_port, address)
        self.facts["http"] = url_at(address, port)
        ours = {"CAVENDISH_HTTP_PORT": str(port)} | self._metrics_of(self._workers)
        if self._emulate is not None:  # it is on this machine, and can call back
            ours["CAVENDISH_PUBLIC_URL"] = str(self.facts["http"])
        command, self._listener = [*_CAVENDISH, "serve"], listening(address, port)
        command += ["--fd", str(self._listener.fileno())] if self._listener else []
        self._start("http", command, {**environment, **ours}, self._listener)
        if http_key.keep(str(self.facts["store"]), key_file):
            self.facts["http_key"] = str(key_file)

    def _start_redis(self, data_dir: Path) -> None:
        command = embedded.arguments(data_dir, socket_path(data_dir))
        server = self._start("redis", command, embedded.environment())
        assert server.process is not None  # noqa: S101 (just started)
        log = data_dir / "redis" / "server.log"
        embedded.wait_for(store_url(self._settings), server.process, log)

    def _wait_for_answers(self) -> None:
        """Wait until the API, Flower and the HTTP service listen, or the time for it is up."""
        until = time.monotonic() + LISTENING_WITHIN
        for name in ("api", "flower", "http"):
            where = urlsplit(str(self.facts.get(name, "")))
            while where.hostname and not self._stopping and time.monotonic() < until:
                with (
                    suppress(OSError),
                    socket.create_connection((where.hostname, where.port), timeout=1),
                ):
                    break
                time.sleep(CHECK_EVERY)

    def _environment(self, data_dir: Path) -> dict[str, str]:
        facts = {"store": store_url(self._settings), "broker": broker_url(self._settings)}
        self.facts |= facts
        if not self._settings.webhook_secret:
            data_folder.keep(data_dir / WEBHOOK_SECRET, signing.new_secret)
        # In a store that others share, the others would have another key.
        if not (self._settings.secret_key or self._settings.redis_url):
            data_folder.keep(data_dir / SECRET_KEY, encryption.new_key)
        kept = with_kept(self._settings)
        return dict(os.environ) | {
            "CAVENDISH_REDIS_URL": facts["store"],
            "CAVENDISH_BROKER_URL": self._settings.broker_url
            or self._settings.redis_url
            or facts["broker"],  # this one has lost its options for TLS
            "CAVENDISH_WEBHOOK_SECRET": kept.webhook_secret
            or (data_dir / WEBHOOK_SECRET).read_text().strip(),
            "CAVENDISH_SECRET_KEY": ",".join(kept.secret_key),
        }

    def _start(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        inherited: socket.socket | None = None,
    ) -> Part:
        part = Part(name, command, dict(environment), inherited)
        part.start()
        self._parts.append(part)
        return part

    def _metrics_of(self, number: int) -> dict[str, str]:
        """Each worker, and then the HTTP service, serves its metrics at a port of its own: those
        behind the first one.
        """
        if not self._settings.metrics_port or not self._settings.metrics_port[1]:
            return {}
        host, port = self._settings.metrics_port
        where = f"[{host}]:{port + number}" if ":" in host else f"{host}:{port + number}"
        return {"CAVENDISH_METRICS_PORT": where}

    def _take_lock(self, data_dir: Path) -> None:
        if self._lock is not None:
            return
        lock = (data_dir / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise StackError(
                f"Another `cavendish up` runs with the data folder {data_dir}."
            ) from None
        self._lock = lock

    def _write_facts(self, data_dir: Path) -> None:
        pids = {part.name: part.process.pid for part in self._parts if part.process}
        data_folder.write(data_dir / "stack.json", json.dumps(self.facts | {"pids": pids}))

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _end_parts(self, *, quietly: bool = False) -> None:
        """End the parts by SIGTERM, with time to finish; what the others need ends last."""
        if not quietly:
            logger().info("stack.stopping")
        if self._listener is not None:  # the service has its own, until it ends
            self._listener.close()
        until = time.monotonic() + self._settings.shutdown_timeout
        groups = [[part for part in self._parts if part.name not in _LAST]]
        groups += [[part for part in self._parts if part.name == name] for name in _LAST]
        for group in groups:
            alive = [part.process for part in group if part.process and part.process.poll() is None]
            for process in alive:
                process.terminate()
            for process in alive:
                try:
                    process.wait(max(until - time.monotonic(), 1.0))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        if not quietly:
            logger().info("stack.stopped")


#: The parts that end after all others, in this order.
_LAST = ("emulator", "redis")
#: The address, on this machine, of a part that listens on all addresses.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (nothing is bound here)
_CELERY = [sys.executable, "-m", "celery", "-q", "-A", "cavendish_worker"]
_CAVENDISH = [sys.executable, "-m", "cavendish_worker.cli"]


def _port(part: str, wanted: int, address: str) -> int:
    """The port of a part: the one that is wanted, if it is free."""
    if wanted and is_free(wanted, address):
        return wanted
    port = free_port()
    if wanted:
        logger().warning(f"{part}.port_taken", wanted=wanted, port=port)
    return port


def _emulated(port: int, settings: Settings) -> dict[str, str]:
    allow = [*map(str, settings.webhook_allow), "127.0.0.0/8"]
    return {
        "CAVENDISH_API_URL": f"http://127.0.0.1:{port}",
        "CAVENDISH_API_TOKEN": "emulated",
        "CAVENDISH_WEBHOOK_ALLOW": ",".join(allow),
    }
