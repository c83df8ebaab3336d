"""The console script `cavendish`: it starts the command line, or says what to install for it."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `cavendish`; exit with 1 and one sentence where the extra `worker` is not installed."""
    try:
        _run()
    except KeyboardInterrupt:
        sys.stderr.write("Stopped by Ctrl-C; what was done by then stays done.\n")
        sys.exit(130)


def _run() -> None:
    try:
        from cavendish_worker.cli import main as run  # noqa: PLC0415 (it needs the extra)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("cavendish", "cavendish_worker"):
            raise
        sys.exit(
            f"The command `cavendish` needs {missing}, which the client alone does not bring: "
            "pip install 'cavendish[worker]'"
        )
    run()
