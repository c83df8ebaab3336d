"""One part of `cavendish up`: a process that is started again whenever it ends."""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

from cavendish_worker.telemetry.logs import logger

#: Seconds before a part that ended is started again, growing while it keeps ending.
FIRST_WAIT, LONGEST_WAIT = 0.2, 10.0
#: Seconds after which a part counts as started.
SETTLED_AFTER = 10.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(slots=True)
class Part:
    """One process of the stack, which may inherit a socket."""

    name: str
    command: list[str]
    environment: dict[str, str]
    inherited: socket.socket | None = None
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    failures: int = 0

    def start(self) -> None:
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 (our own command lines)
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            pass_fds=[self.inherited.fileno()] if self.inherited else [],
            process_group=0,  # Ctrl-C is for this process, which ends the parts in order
            preexec_fn=_die_with_parent,  # noqa: PLW1509 (nothing here runs threads)
        )

    def check(self, now: float) -> None:
        """Start the part again if it ended, after a wait that grows while it keeps ending."""
        if self.process is None or self.process.poll() is None:
            return
        if not self.restart_at:
            self.failures = 1 if now - self.started_at > SETTLED_AFTER else self.failures + 1
            wait = min(FIRST_WAIT * 2 ** (self.failures - 1), LONGEST_WAIT)
            self.restart_at = now + wait
            logger().error(
                "part.ended", part=self.name, exit_code=self.process.returncode, restart_in=wait
            )
        elif now >= self.restart_at:
            self.restart_at = 0.0
            self.start()


def _die_with_parent() -> None:
    """On Linux: if `cavendish up` is killed, its parts end too instead of running on unseen."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
