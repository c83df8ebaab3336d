"""Lists of the broker into which producers push submits, and that no worker reads.

Two options of Celery's Redis transport rename the lists into which a producer pushes, and one that
names no queue pushes into Celery's own. Neither the producer nor a worker can notice it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

from cavendish.stored_json import parse
from cavendish.task_names import SUBMIT
from cavendish_worker.doctor.finding import Finding, ill, skipped

#: The queue of a Celery app that names none.
_DEFAULT = "celery"
#: Seconds for the search, and keys that Redis looks through before it answers other clients.
_WITHIN, _AT_ONCE = 3.0, 5_000
_LIST = re.compile(rf"(?P<prefix>.*){re.escape(SUBMIT)}((?P<sep>.+)[0-9])?", re.DOTALL)


def findings(connection: Any) -> list[Finding]:
    """One finding for each such list; none if there is none, or if the broker is no Redis."""
    # It takes a while to load.
    from cavendish_worker.celeryapp.redis_transport import PRIORITIES, Channel  # noqa: PLC0415

    channel = connection.default_channel
    if not isinstance(channel, Channel):
        return []
    read = {channel.list_of(SUBMIT, step) for step in PRIORITIES}
    found: list[Finding] = []
    try:
        if count := _without_queue(channel.client):
            found.append(_default(count))
        found.extend(
            _stray(key, renamed["prefix"], renamed["sep"], channel.sep)
            for key in _lists_like_ours(channel.client)
            if key not in read and (renamed := _LIST.fullmatch(key))
        )
    except TimeoutError:
        why = f"the broker has more keys than can be looked through in {_WITHIN:.0f} s"
        found.append(skipped("stray queues", why))
    except connection.channel_errors as error:
        found.append(skipped("stray queues", str(error)))
    return found


def _lists_like_ours(client: Any) -> Iterator[str]:
    """The names of the lists that end like ours. Raises TimeoutError if there are too many keys."""
    cursor, until = -1, time.monotonic() + _WITHIN
    while cursor:
        cursor, keys = client.scan(max(cursor, 0), f"*{SUBMIT}*", _AT_ONCE, "list")
        yield from sorted({key.decode(errors="backslashreplace") for key in keys})
        if cursor and time.monotonic() > until:
            raise TimeoutError


def _without_queue(client: Any) -> int:
    """How many messages lie in the queue of Celery, if the last one that came is a submit."""
    count, last = client.llen(_DEFAULT), client.lindex(_DEFAULT, 0)
    try:
        message = parse((last or b"").decode())
    except ValueError:
        return 0
    headers = message.get("headers") if isinstance(message, dict) else None
    return count if isinstance(headers, dict) and headers.get("task") == SUBMIT else 0


def _default(count: int) -> Finding:
    return ill(
        f'stray queue "{_DEFAULT}"',
        f"it holds {count} messages, and submits among them, since their producer names no queue",
        f"Send them with queue={SUBMIT!r}; in redis-cli, LMOVE {_DEFAULT} {SUBMIT} LEFT LEFT moves "
        "the last one.",
    )


def _stray(key: str, prefix: str, sep: str | None, ours: str) -> Finding:
    renamed = [f"global_keyprefix {prefix!r}"] if prefix else []
    renamed += [f"sep {sep!r}"] if sep not in (None, ours) else []
    shown = '"' + repr(key)[1:-1].replace('"', r"\"") + '"'
    move = f"LMOVE {shown} {SUBMIT} RIGHT LEFT"
    return ill(
        f"stray queue {shown}",
        f"no worker reads it, since its producer has the {' and the '.join(renamed)}",
        f"Remove that from its broker_transport_options; in redis-cli, {move} moves a message.",
    )
