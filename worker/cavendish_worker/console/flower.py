"""What Flower shows of us: its options by our settings, however it is started, and messages as a
person reads them.

Flower reads `FLOWER_*`, a `flowerconfig.py` and its command line after this, so each of them still
has the last word.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
import time
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from flower import command
from flower.utils import broker
from tornado.options import options

from cavendish.local_paths import broker_url
from cavendish.settings import Settings

#: What the page of tasks shows. The last one leads to all that is known of a message.
COLUMNS = "name,state,args,kwargs,result,runtime,received,worker,uuid"
#: Messages that Flower keeps in memory, about 5 KB each.
KEPT = 10_000
_LENGTH = 160
#: Seconds that Flower has to end by itself, and then to write down what it keeps (`--persistent`).
_GRACE = 3.0
#: A URL, up to the end of its quotation if it is in one, else up to a space; of its parts only
#: scheme and host are kept.
_URL = re.compile(
    r"""(?P<quote>['"])?(?P<scheme>[a-z][a-z0-9+.-]{0,30}://)(?:[^\s/?#]*@)?(?P<host>[^\s/'"?#@,]*)(?(quote)(?:(?!(?P=quote)).)*|[^\s'",]*)""",
    re.IGNORECASE | re.DOTALL,
)

_REPR = re.compile(
    r"""(?P<name>\w+\()?(?P<sign>['"])(?P<text>.*)(?P=sign)(?(name),?\))""", re.DOTALL
)


def set_up(settings: Settings) -> None:
    """Give Flower's options our settings, if it is in this process.

    It is wherever `celery` was started.
    """
    if "tasks_columns" not in options:
        return
    options.address = settings.flower_address
    options.port = settings.flower_port
    options.basic_auth = [settings.flower_basic_auth] if settings.flower_basic_auth else []
    options.read_only = (
        not settings.flower_basic_auth
    )  # any web page may ask a browser to post to this machine
    options.logging = settings.log_level
    options.tasks_columns = COLUMNS
    options.max_tasks = KEPT
    options.format_task = without_python
    _Socket.database = _number(broker_url(settings))
    broker.RedisSocket = _Socket
    command.sigterm_handler = _end


def _end(_number: int, _frame: object) -> None:
    """SIGTERM.

    As Flower does it; but Python then waits for its threads, and while the broker is away those
    wait for that.
    """
    threading.Thread(target=_end_anyway, name="cavendish-flower-end", daemon=True).start()
    sys.exit(0)


def _end_anyway() -> None:
    time.sleep(_GRACE)
    last = threading.Thread(target=_last_words, daemon=True)
    last.start()
    last.join(_GRACE)
    os._exit(0)


def _last_words() -> None:
    with suppress(Exception):
        atexit._run_exitfuncs()


def plain(text: str) -> str:
    """The arguments of a message without what may be secret, and not too long.

    Of a URL, its host is enough.
    """
    said = _URL.sub(lambda url: f"{url['quote'] or ''}{url['scheme'].lower()}{url['host']}/…", text)
    return said if len(said) <= _LENGTH else f"{said[:_LENGTH]}…"


def tidy(headers: Any) -> None:
    """Make what a producer's message shows of itself plain.

    Every monitor of Celery is sent that, not only Flower.
    """
    for name in ("argsrepr", "kwargsrepr"):
        if isinstance(headers, dict) and isinstance(headers.get(name), str):
            headers[name] = plain(headers[name])


def without_python(task: Any) -> Any:
    """Flower's hook before it shows a message (a copy).

    Outcomes and errors as sentences, no arguments as nothing.
    """
    task.result = _sentence(task.exception or task.result)
    task.args, task.kwargs = (
        "" if said in ("()", "{}") else said for said in (task.args, task.kwargs)
    )
    return task


def _sentence(said: Any) -> Any:
    """`SubmissionError('No.')` and `'done'` without Python's signs around them."""
    found = _REPR.fullmatch(said) if isinstance(said, str) else None
    return found["text"] if found else said


class _Socket(broker.RedisSocket):  # type: ignore[misc]
    """Flower counts the messages in database 0 of a Redis behind a unix socket, whatever the
    broker's URL says, and takes its path as the URL spells it."""

    database = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        place = self.redis.connection_pool.connection_kwargs
        place |= {"db": self.database, "path": f"/{unquote(self.vhost)}"}


def _number(url: str) -> int:
    return int(parse_qs(urlsplit(url).query).get("virtual_host", ["0"])[0])
