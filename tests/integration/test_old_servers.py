"""A Redis that is too old is refused in one sentence; a small server here answers as one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from cavendish.errors import ServerTooOld
from cavendish.store import Store
from delivering import SECRET

NEEDED = "Cavendish needs Redis 6.2 or newer, or any Valkey."


class OldRedis:
    """Speaks the protocol on a real socket: HELLO from 6.0 on, its version, the time, and OK."""

    def __init__(self, version: str) -> None:
        self.version = version
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(
                    target=self._serve, args=(self._listener.accept()[0],), daemon=True
                ).start()

    def _serve(self, peer: socket.socket) -> None:
        with suppress(OSError, ValueError), peer, peer.makefile("rb") as lines:
            while count := lines.readline():
                words = []
                for _ in range(int(count[1:])):
                    length = int(lines.readline()[1:])
                    words.append(lines.read(length + 2)[:-2].decode())
                peer.sendall(self._answer(words).encode())

    def _answer(self, words: list[str]) -> str:
        name = words[0].upper()
        if name == "HELLO" and self.version < "6":
            return f"-ERR unknown command `HELLO`, with args beginning with: `{words[1]}`, \r\n"
        if name == "HELLO":
            return f"%3\r\n+server\r\n+redis\r\n+version\r\n+{self.version}\r\n+proto\r\n:3\r\n"
        if name == "INFO":
            text = f"# Server\r\nredis_version:{self.version}\r\nrun_id:abc\r\n"
            return f"${len(text)}\r\n{text}\r\n"
        if name == "TIME":
            return "*2\r\n$10\r\n1795829148\r\n$1\r\n0\r\n"
        if name in ("GET", "HGET"):
            return "$-1\r\n"
        return "*0\r\n" if name in ("HGETALL", "SMEMBERS", "CONFIG") else "+OK\r\n"

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def old() -> Iterator[Callable[[str], OldRedis]]:
    running: list[OldRedis] = []

    def begin(version: str) -> OldRedis:
        running.append(OldRedis(version))
        return running[-1]

    yield begin
    for one in running:
        one.close()


def ended(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A process of ours that was started with such a server, once it has ended by itself."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
    }
    environment |= {
        "CAVENDISH_REDIS_URL": url,
        "CAVENDISH_API_TOKEN": "x",
        "CAVENDISH_WEBHOOK_SECRET": SECRET,
    }
    command: list[Any] = [sys.executable, "-m", *words]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=50
    )


def test_a_server_without_hello_is_refused_as_too_old_in_one_sentence(
    old: Callable[[str], OldRedis],
) -> None:
    store = Store(old("5.0.14").url)
    with pytest.raises(ServerTooOld, match=rf"is older than 6\.0; {NEEDED}$"):
        store.fleet.now()
    store.close()


@pytest.mark.parametrize(
    ("version", "fine"), [("6.0.16", False), ("6.2.0", True), ("7.2.4", True), ("10.0.1", True)]
)
def test_the_version_decides_and_is_named(
    old: Callable[[str], OldRedis], version: str, fine: bool
) -> None:
    store = Store(old(version).url)
    if fine:
        store.refuse_old_server()
    else:
        with pytest.raises(ServerTooOld, match=rf"is version {version}; {NEEDED}$"):
            store.refuse_old_server()
    store.close()


@pytest.mark.timeout(90)
@pytest.mark.parametrize("version", ["5.0.14", "6.0.16"])
@pytest.mark.parametrize("role", ["worker", "beat"])
def test_a_process_ends_with_that_sentence_and_no_traceback(
    old: Callable[[str], OldRedis], version: str, role: str
) -> None:
    done = ended(old(version).url, "celery", "-q", "-A", "cavendish_worker", role)
    assert done.returncode == 2, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if NEEDED in line]
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr
    assert said.startswith("Redis at redis://127.0.0.1:")


def test_a_command_says_it_too(old: Callable[[str], OldRedis]) -> None:
    done = ended(old("5.0.14").url, "cavendish_worker.cli", "status")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.strip().endswith(NEEDED)
