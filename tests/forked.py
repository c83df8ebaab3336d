"""Commands of `cavendish` and `celery` in processes of their own, without an interpreter's start
for each.

One process imports everything once and forks each command from there. A test that runs many saves
half a second of CPU time per command; environment, output and exit code are those of a process.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from cavendish_worker.devstack import stack

_DIE_WITH_PARENT = 1
#: The module whose `main` is each program.
_MAIN = {"cavendish": "cavendish_worker.entry", "celery": "celery.__main__"}
#: The program that `python -m MODULE` is.
_OF_MODULE = {"cavendish_worker.cli": "cavendish", "celery": "celery"}
_POPEN = subprocess.Popen


class Done(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def returncode(self) -> int:
        """The exit code, by the name that `subprocess` has for it."""
        return self.code


class Forked:
    """The process that forks commands; use it in a `with`."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:  # closes its stdin, and waits for its end
            pass

    def run(
        self,
        commands: Iterable[tuple[Iterable[str], Mapping[str, str]]],
        stdin: str | None = None,
        program: str = "cavendish",
        streams: Mapping[str, str] = {},
    ) -> list[Done]:
        """Run commands of a program (words, environment) side by side, with the same stdin.

        Returns in their order how each ended. `streams`: which are "closed" of "stdin" and
        "stdout", or "broken": a pipe that nobody reads.
        """
        asked = [([*words], dict(environment)) for words, environment in commands]
        told = {"asked": asked, "stdin": stdin, "streams": dict(streams)}
        return [Done(*each) for each in self._ask(run=program, **told)]

    def start(
        self, program: str, words: Iterable[str], environment: Mapping[str, str], log: Path
    ) -> Process:
        """Start `PROGRAM WORDS`; what it prints is appended to the file `log`."""
        asked = {"words": [*words], "environment": dict(environment), "log": str(log)}
        return Process(self._ask(start=program, **asked), lambda pid: self._ask(ended=pid))

    def _ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@cache
def shared() -> Forked:
    """The one that all tests of this process share; it ends with them."""
    forked = Forked()
    atexit.register(forked.__exit__)
    return forked


class Process:
    """A started process, with the names that `subprocess.Popen` has."""

    def __init__(self, pid: int, ended: Callable[[int], int | None]) -> None:
        """`ended`: gives the exit code of a process, None while it runs."""
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._ended(self.pid)
        return self.returncode

    def wait(self, timeout: float = 600.0) -> int:
        until = time.monotonic() + timeout
        with contextlib.suppress(ProcessLookupError):  # it has ended, and was asked for
            watched = os.pidfd_open(self.pid)
            try:
                select.select([watched], [], [], timeout)
            finally:
                os.close(watched)
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _become(program: str, words: list[str], environment: dict[str, str], files: list[int]) -> None:
    """In the child: do what `cavendish WORDS` or `celery WORDS` does, and end as it would."""
    for here, there in enumerate(files):
        os.dup2(there, here)
    os.environ.clear()
    os.environ.update(environment)
    if (encoding := environment.get("PYTHONIOENCODING")) and sys.stdout is not None:
        sys.stdout.reconfigure(encoding=encoding)  # type: ignore[union-attr]
        sys.stderr.reconfigure(encoding=encoding, errors="backslashreplace")  # type: ignore[union-attr]
    sys.argv = [program, *words]
    code: Any = 1
    try:
        import_module(_MAIN[program]).main()
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    if isinstance(code, str):
        print(code, file=sys.stderr)  # noqa: T201 (as the interpreter does)
        code = 1
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # the interpreter tells of it at its end
        print("Exception ignored in: sys.stdout", file=sys.stderr)  # noqa: T201
        code = 120
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code or 0)


def _import_everything() -> None:
    package = import_module("cavendish_worker.cli")
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.endswith("__main__"):
            import_module(found.name)
    for name in (
        "celery.__main__", "celery.apps.beat", "celery.apps.worker", "celery.bin.celery",
        "celery.concurrency.thread", "celery.worker.consumer", "kombu.transport.redis",
        "cavendish_worker.runtime", "flower.command",
    ):  # fmt: skip
        import_module(name)
    # An app takes its settings from the environment when it is imported: each child has its own.
    assert "cavendish_worker.celeryapp.app" not in sys.modules


def _as_asked(streams: Mapping[str, str]) -> None:
    """In the child: let its streams be as they would be for an interpreter that begins so."""
    if streams.get("stdout") == "broken":
        ours, theirs = os.pipe()
        os.dup2(theirs, 1)
        os.close(ours)
        os.close(theirs)
    for number, name in enumerate(("stdin", "stdout")):
        if streams.get(name) == "closed":
            os.close(number)
            setattr(sys, name, None)


def _run(
    program: str, asked: list[Any], stdin: str | None, streams: Mapping[str, str]
) -> list[Any]:
    running = []
    for words, environment in asked:
        given, out, err = (tempfile.TemporaryFile() for _ in range(3))  # noqa: SIM115
        given.write((stdin or "").encode())
        given.seek(0)
        pid = os.fork()
        if pid == 0:
            for here, there in enumerate((given, out, err)):
                os.dup2(there.fileno(), here)
            _as_asked(streams)
            _become(program, words, environment, [])
        given.close()
        running.append((pid, out, err))
    done = []
    for pid, *files in running:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        texts = []
        for file in files:
            with file:
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        done.append([code, *texts])
    return done


def _start(program: str, words: list[str], environment: dict[str, str], log: str) -> int:
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
        stack.subprocess.Popen = _start_part  # type: ignore[misc,assignment]
        _become(program, words, environment, [nothing, out, out])
    return pid


def _start_part(
    command: list[str], *, env: dict[str, str], preexec_fn: Callable[[], None], **options: Any
) -> Process | subprocess.Popen[bytes]:
    """In a forked `cavendish up`: start a part as `Popen` would, if it is Python by a fork."""
    if command[0] != sys.executable:
        return _POPEN(command, env=env, preexec_fn=preexec_fn, **options)
    pid = os.fork()
    if pid == 0:
        gc.freeze()  # nothing of the parent may close a file of ours when it is collected
        for number in {*range(3, 256)} - {*options["pass_fds"]}:  # its lock above all
            with contextlib.suppress(OSError):
                os.close(number)
        os.setpgid(0, 0)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        preexec_fn()
        nothing = os.open(os.devnull, os.O_RDONLY)
        _become(_OF_MODULE[command[2]], command[3:], env, [nothing])
    return Process(pid, _ended)


def _ended(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _serve() -> None:
    _import_everything()
    for line in sys.stdin:
        question = json.loads(line)
        if "run" in question:
            told = (question[each] for each in ("run", "asked", "stdin", "streams"))
            answer: Any = _run(*told)
        elif "start" in question:
            asked = (question[each] for each in ("start", "words", "environment", "log"))
            answer = _start(*asked)
        else:
            answer = _ended(question["ended"])
        os.write(1, (json.dumps(answer) + "\n").encode())


if __name__ == "__main__":
    _serve()
