"""Sets up Flower by our settings, and makes the messages that it shows easy to read.

Both `cavendish up` and `celery flower` use this. Flower reads `FLOWER_*`, a `flowerconfig.py` and
its command line later, so each of them overrides it.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from flower import command
from flower.utils import broker
from tornado.options import options

from cavendish.environment.local_paths import broker_url
from cavendish.settings import Settings

#: The columns of the page of tasks; the last one links to all details of a message.
COLUMNS = "name,state,args,kwargs,result,runtime,received,worker,uuid"
#: Messages that Flower keeps in memory, about 5 KB each.
KEPT = 10_000
#: Seconds that Flower has to end by itself, and then to write what it keeps (`--persistent`).
_GRACE = 3.0
_REPR = re.compile(
    r"""(?P<name>\w+\()?(?P<sign>['"])(?P<text>.*)(?P=sign)(?(name),?\))""", re.DOTALL
)


def set_up(settings: Settings) -> None:
    """Give Flower's options our settings, if Flower is in this process.

    It is in each process that was started by `celery`.
    """
    if "tasks_columns" not in options:
        return
    options.address = settings.flower_address
    options.port = settings.flower_port
    options.basic_auth = [settings.flower_basic_auth] if settings.flower_basic_auth else []
    # Without a password, any web page could make a browser send commands to Flower.
    options.read_only = not settings.flower_basic_auth
    options.logging = settings.log_level
    options.tasks_columns = COLUMNS
    options.max_tasks = KEPT
    options.format_task = without_python
    _Socket.database = _number(broker_url(settings))
    broker.RedisSocket = _Socket
    command.sigterm_handler = _end
    command.Flower = partial(_with_pages, settings)


def _with_pages(settings: Settings, **options: Any) -> Any:
    """What the command makes instead of Flower's application."""
    # Only Flower's own process needs the pages; this module is in every process of Celery.
    from cavendish_worker.console import seam  # noqa: PLC0415

    return seam.application(settings, **options)


def _end(_number: int, _frame: object) -> None:
    """Handle SIGTERM as Flower does, but end also while the broker is away.

    Python waits for all threads before it exits, and some of Flower's wait for the broker.
    """
    threading.Thread(target=_end_in_time, name="cavendish-flower-end", daemon=True).start()
    sys.exit(0)


def _end_in_time() -> None:
    time.sleep(_GRACE)
    last = threading.Thread(target=_run_exit_functions, daemon=True)
    last.start()
    last.join(_GRACE)
    os._exit(0)


def _run_exit_functions() -> None:
    with suppress(Exception):
        atexit._run_exitfuncs()


def without_python(task: Any) -> Any:
    """Flower's hook for a message that it shows (a copy): results and errors as sentences."""
    task.result = _sentence(task.exception or task.result)
    task.args = "" if task.args == "()" else task.args
    task.kwargs = "" if task.kwargs == "{}" else task.kwargs
    return task


def _sentence(value: Any) -> Any:
    """`SubmissionError('No.')` and `'done'` without Python's signs around the text."""
    found = _REPR.fullmatch(value) if isinstance(value, str) else None
    return found["text"] if found else value


class _Socket(broker.RedisSocket):  # type: ignore[misc]
    """Counts the messages in the database that the broker's URL names.

    Flower itself would use database 0 of a Redis behind a unix socket, and would not decode the
    path of the socket.
    """

    database = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        place = self.redis.connection_pool.connection_kwargs
        place |= {"db": self.database, "path": f"/{unquote(self.vhost)}"}


def _number(url: str) -> int:
    return int(parse_qs(urlsplit(url).query).get("virtual_host", ["0"])[0])
