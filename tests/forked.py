"""Commands of `cavendish` in processes of their own, without an interpreter's start for each.

One process imports the command line once and forks each command from there. A test that runs many
commands saves half a second of CPU time per command; environment, output and exit code are those of
a process.
"""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, NamedTuple


class Done(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


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

    def run(self, commands: Iterable[tuple[Iterable[str], Mapping[str, str]]]) -> list[Done]:
        """Run commands (words, environment) side by side; returns in their order how each ended."""
        asked = [([*words], dict(environment)) for words, environment in commands]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return [Done(*each) for each in json.loads(self._process.stdout.readline())]


def _become(words: list[str], environment: dict[str, str], out: int, err: int) -> None:
    """In the child: do what `cavendish WORDS` does, and end as it would."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for here, there in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(here, there)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["cavendish", *words]
    code: Any = 1
    try:
        import_module("cavendish_worker.entry").main()
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    if isinstance(code, str):
        print(code, file=sys.stderr)  # noqa: T201 (as the interpreter does)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _serve() -> None:
    package = import_module("cavendish_worker.cli")
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.endswith("__main__"):
            import_module(found.name)
    # An app takes its settings from the environment when it is imported: each child has its own.
    assert "cavendish_worker.celeryapp.app" not in sys.modules
    for line in sys.stdin:
        running = []
        for words, environment in json.loads(line):
            out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
            pid = os.fork()
            if pid == 0:
                _become(words, environment, out.fileno(), err.fileno())
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
        os.write(1, (json.dumps(done) + "\n").encode())


if __name__ == "__main__":
    _serve()
