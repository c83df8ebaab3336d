"""A process that has imported everything and forks a fresh worker, beat or Flower for each life.

    {"name": "w1", "words": ["worker", …], "aim": {…} | null}   on stdin: fork one
    {"name": "w1", "pid": 4711} and later {"name": "w1", "pid": 4711, "ended": -9}   on stdout

It runs no thread and builds no runtime, so what it forks is what a fresh interpreter would be, a
second sooner. Children of a pool whose parent is killed live on, as they do elsewhere; here until
the end of the run.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import celery.apps.beat
import celery.apps.worker
import celery.bin.celery
import celery.concurrency.prefork
import celery.concurrency.thread
import celery.worker.consumer
import flower.command  # noqa: F401 (so that Flower's lives are short of imports too)

import cavendish_worker.tasks
from cavendish_worker import runtime as wiring
from chaos import operators, partitions, points

_DIE_WITH_PARENT, _ADOPT_ORPHANS = 1, 36


def live(words: list[str], aim: dict[str, Any] | None, log: str) -> None:
    """In the child: become what `celery WORDS` would be, or an operator."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    os.setpgid(0, 0)
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for here, there in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(here, there)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
    signal.set_wakeup_fd(-1)
    partitions.sign()
    if aim is not None:
        points.install(points.Aim(**aim))
    if words[0] == "operator":
        operators.operate(*words[1:])
    if (
        "prefork" in words
    ):  # Celery takes `-P prefork` for its own default, which the app's own setting goes before
        cavendish_worker.tasks.app.conf.worker_pool = "prefork"
        os.register_at_fork(after_in_child=forget_runtime)
    sys.argv = ["celery", "-q", "-A", "cavendish_worker", *words]
    celery.bin.celery.celery.main(args=sys.argv[1:], prog_name="celery")


def forget_runtime() -> None:
    """In a child of a pool.

    Its parent has built runtime (for its heart), whose event loop runs in the parent only.
    """
    wiring._runtime, wiring._lock = None, threading.RLock()


def say(**fact: Any) -> None:
    os.write(1, (json.dumps(fact) + "\n").encode())


def bury() -> None:
    """Kill all that still lives, with the orphans."""
    while children := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        for pid in map(int, children):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def serve(log: str) -> None:
    """Fork what is asked for, and tell of each end, until stdin ends."""
    ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1)
    lives: dict[int, str] = {}
    heard = b""
    gc.freeze()
    while True:
        if select.select([0], [], [], 0.01)[0]:
            chunk = os.read(0, 65536)
            if not chunk:
                return bury()
            heard += chunk
        while b"\n" in heard:
            line, _, heard = heard.partition(b"\n")
            asked = json.loads(line)
            pid = os.fork()
            if pid == 0:
                code: Any = 70
                try:
                    live(asked["words"], asked["aim"], log)
                except SystemExit as end:
                    code = end.code
                finally:
                    os._exit(code if isinstance(code, int) else 0)
            lives[pid] = asked["name"]
            say(name=asked["name"], pid=pid)
        while lives:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid in lives:
                say(name=lives.pop(pid), pid=pid, ended=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    serve(sys.argv[1])
