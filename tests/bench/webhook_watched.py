"""Celery's command line in a process that notes each address it is about to connect to, one JSON
text a line.

    python tests/bench/webhook_watched.py FILE NAMES -A cavendish_worker.tasks worker …

NAMES is a JSON object: name -> the addresses that the resolver says for it. Everything else is as
it always is.
"""

from __future__ import annotations

import json
import runpy
import socket
import sys
from pathlib import Path
from typing import Any


def watch(file: Path) -> None:
    """Note TCP connects from now on.

    The interpreter reports each of them, whatever library makes it.
    """
    notes = file.open("a", buffering=1)

    def note(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect" and args[0].family != socket.AF_UNIX:
            notes.write(json.dumps(args[1][0]) + "\n")

    sys.addaudithook(note)


def resolve(names: dict[str, list[str]]) -> None:
    """Let the resolver know these names, as a hostile name server would."""
    asked = socket.getaddrinfo

    def answer(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in names:
            return asked(host, port, *more, **options)
        return [row for address in names[name] for row in asked(address, port, *more, **options)]

    socket.getaddrinfo = answer


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
    resolve(json.loads(sys.argv[2]))
    sys.argv[:3] = ["celery"]
    runpy.run_module("celery", run_name="__main__", alter_sys=True)
