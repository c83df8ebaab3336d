"""The data folder of `cavendish up`: private to its user, whatever the umask.

A full disk is told apart from other errors, so that the stack can wait for room.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cavendish.environment.local_paths import SECRET_KEY, WEBHOOK_SECRET
from cavendish.errors import StackError

#: The error numbers of a full disk.
FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
#: Bytes that a disk must take before it counts as having room.
_ROOM = 64 * 1024
#: Everything that `cavendish up` writes here. A folder that holds anything else has another use
#: too, and keeps its mode.
_OURS = {*"redis redis.sock lock stack.json emulator-port http-key probe".split()}
_OURS |= {WEBHOOK_SECRET, SECRET_KEY}


def prepare(folder: Path) -> None:
    """Make the folder for this user alone, and set the umask of this process. Raises OSError.

    An existing folder becomes private too, unless it holds other files (`CAVENDISH_DATA_DIR=.`).
    """
    os.umask(0o077)
    folder.mkdir(parents=True, exist_ok=True)
    found = {path.name.removesuffix(".new") for path in folder.iterdir()}
    if found <= _OURS and _is_mine(folder):
        folder.chmod(0o700)
    # An older version may have made it, with an append-only file that everybody can read.
    with suppress(FileNotFoundError):
        (folder / "redis").chmod(0o700)


def make_private(folder: Path) -> None:
    """Make a folder where others can write too. Raises StackError if another user made it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.is_symlink() or not _is_mine(folder) or stat.S_IMODE(folder.stat().st_mode) & 0o022:
        advice = "remove it, or set a shorter CAVENDISH_DATA_DIR"
        raise StackError(f"The folder {folder} is not private to this user; {advice}.")


def write(path: Path, text: str) -> None:
    """Write a file as a whole or not at all, readable by its owner only. Raises OSError."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def keep(path: Path, make: Callable[[], str]) -> None:
    """Make the secret in this file, unless it exists. Raises OSError."""
    if not path.exists():
        write(path, make())


def is_full(folder: Path) -> bool:
    """True if a small file cannot be written, since the disk is full."""
    probe = folder / "probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(_ROOM))
    except OSError as error:
        return error.errno in FULL
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return False


def _is_mine(folder: Path) -> bool:
    return folder.stat().st_uid == os.getuid()
