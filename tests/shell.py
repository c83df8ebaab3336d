"""Commands in the process of a test: how `cavendish` is run there, and what it printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from click.testing import CliRunner, Result

from cavendish_worker.cli import cli

#: Runs `cavendish` with these words, and with this text on stdin: the fixture `run`.
Run = Callable[..., Result]


def shell(*words: str, stdin: str | bytes | None = None) -> Result:
    """Run `cavendish` here, as the environment is."""
    return CliRunner().invoke(cli, list(words), input=stdin)


def said(done: Result) -> Any:
    """What a command printed with --json; it must have ended well."""
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)
