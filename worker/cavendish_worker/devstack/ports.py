"""Ports for the parts of `cavendish up`: free ones, and those that it had before."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

from cavendish_worker.devstack import data_folder


def free_port() -> int:
    """A port of the loopback interface that is free right now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def url_at(address: str, port: int) -> str:
    """The URL of a server at an address."""
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def listening(address: str, port: int) -> socket.socket | None:
    """A socket that listens there, for a process that inherits it; None if there can be none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=2048)
    except OSError:
        return None


def kept_port(data_dir: Path) -> int:
    """The port of the emulated API: the last one of this data folder, if it is free.

    So webhooks to its receiver still arrive after a restart.
    """
    path, port = data_dir / "emulator-port", 0
    with suppress(OSError, ValueError):
        port = int(path.read_text())
    port = port if port and is_free(port) else free_port()
    data_folder.write(path, str(port))
    return port


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    """True if a server may listen there right now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.create_server((address, port), family=family):
            return True
    except OSError:
        return False
