"""The data folder of `cavendish up`.

Private to its user, whatever the umask, and patient with a full disk.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cavendish.errors import StackError
from cavendish.local_paths import SECRET_KEY, WEBHOOK_SECRET

#: The errors of a disk that takes no more. They end by themselves once somebody makes room.
FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
#: Bytes that a disk must take before it counts as having room again.
_ROOM = 64 * 1024
#: Everything that `cavendish up` writes here. A folder that holds something else is somebody's, and
#: its mode stays as it is.
_OURS = {
    "redis",
    "redis.sock",
    "lock",
    "stack.json",
    "emulator-port",
    "probe",
    WEBHOOK_SECRET,
    SECRET_KEY,
}


def prepare(folder: Path) -> None:
    """Make the folder, for this user alone, and let whatever this process and its children write be
    private. Raises OSError.

    A folder that is there already becomes private too, unless it holds files of somebody else
    (`CAVENDISH_DATA_DIR=.`).
    """
    os.umask(0o077)
    folder.mkdir(parents=True, exist_ok=True)
    found = {path.name.removesuffix(".new") for path in folder.iterdir()}
    if found <= _OURS and _is_mine(folder):
        folder.chmod(0o700)
    with suppress(FileNotFoundError):
        (folder / "redis").chmod(
            0o700
        )  # an older version may have made it, with an append-only file that all may read


def private(folder: Path) -> None:
    """Make a folder in a place that others may write to.

    Raises StackError if somebody else was there first.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.is_symlink() or not _is_mine(folder) or stat.S_IMODE(folder.stat().st_mode) & 0o022:
        raise StackError(
            f"The folder {folder} is not private to this user; remove it, or set a shorter CAVENDISH_DATA_DIR."
        )


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
    """Let this file hold a secret, made at its first use. Raises OSError."""
    if not path.exists():
        write(path, make())


def is_full(folder: Path) -> bool:
    """True if the disk of the folder takes nothing more: it is tried."""
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
