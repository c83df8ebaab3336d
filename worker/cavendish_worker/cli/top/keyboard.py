"""Single keys from a terminal, which is left as it was found.

Also after an error, and on SIGTERM.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SEQUENCES = {
    b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down", b"\x1bOB": "down",
    b"\x1b[C": "right", b"\x1bOC": "right", b"\x1b[D": "left", b"\x1bOD": "left",
    b"\x1b[Z": "left", b"\t": "right", b"\x1b[5~": "page up", b"\x1b[6~": "page down",
    b"\x1b[H": "home", b"\x1b[1~": "home", b"\x1b[F": "end", b"\x1b[4~": "end",
}  # fmt: skip
#: Seconds after which a lone escape is the key itself, and not the begin of a sequence.
_ESCAPE = 0.05


class Keyboard:
    """Waits for keys, and for others to ring.

    A new size of the window, or something new to show.
    """

    def __init__(self, keys: int | None) -> None:
        """`keys`: the file descriptor of the terminal, None where nobody can press any."""
        self._keys, self._rest = keys, b""
        self._bell, self._rope = (
            socket.socketpair()
        )  # not a pipe: its number may be another file's once it is closed
        self._rope.settimeout(0)  # nobody waits for a bell that rings already

    def ring(self) -> None:
        """Wake up whoever waits.

        Safe in other threads and in handlers of signals, and after the end.
        """
        with suppress(OSError):
            self._rope.send(b"!")

    def wait(self, seconds: float) -> list[str]:
        """The keys that were pressed: none after so many seconds, or when the bell rang."""
        watched: list[socket.socket | int] = (
            [self._bell] if self._keys is None else [self._bell, self._keys]
        )
        ready, _, _ = select.select(watched, [], [], _ESCAPE if self._rest else seconds)
        if self._bell in ready:
            self._bell.recv(4096)
        if self._keys is None or self._keys not in ready:
            rest, self._rest = self._rest, b""
            return ["escape"] if rest else []
        data = os.read(self._keys, 256)
        if not data:  # the terminal is gone
            return ["q"]
        pressed, self._rest = split(self._rest + data)
        return pressed

    def close(self) -> None:
        self._bell.close()
        self._rope.close()


def split(data: bytes) -> tuple[list[str], bytes]:
    """The keys in what a terminal sent, and the begin of a sequence whose end is still to come."""
    keys, at = [], 0
    while at < len(data):
        length = next((n for n in (4, 3, 2, 1) if data[at : at + n] in _SEQUENCES), 0)
        if length:
            keys.append(_SEQUENCES[data[at : at + length]])
        elif data[at] == 0x1B:
            if len(data) - at < 3:
                return keys, data[at:]
            length = 3  # a key that means nothing here
        else:
            length = 1
            keys.append(data[at : at + 1].decode("latin-1"))
        at += length
    return keys, b""


@contextmanager
def listening() -> Iterator[Keyboard]:
    """Keys come one by one and unseen.

    SIGTERM and SIGHUP end the program the ordinary way, so that all is put back.
    """
    fd = sys.stdin.fileno() if sys.stdin.isatty() else None
    before = termios.tcgetattr(fd) if fd is not None else None
    keyboard = Keyboard(fd)
    handlers = {
        number: signal.getsignal(number)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGTSTP)
    }
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _end)
        signal.signal(signal.SIGWINCH, lambda *_: keyboard.ring())
        signal.signal(
            signal.SIGTSTP, signal.SIG_IGN
        )  # a stopped program would leave the other screen behind
        if fd is not None:
            tty.setcbreak(fd)
        yield keyboard
    finally:
        if fd is not None and before is not None:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        keyboard.close()


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
