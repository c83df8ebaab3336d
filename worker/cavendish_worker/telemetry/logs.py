"""Sets up structlog for worker, beat and command line: one line per event, as text or JSON."""

from __future__ import annotations

import logging
import re
import sys
import time

import structlog

from cavendish.model import Lane, printable

#: Loggers whose lines say less than our own: for each message received, task run and call made.
_CHATTY = "celery.worker.strategy celery.app.trace celery.beat kombu httpx aiohttp".split()
_CHATTY += ["tornado.access", "uvicorn.error"]
#: Parts of the names of errors that mean that the broker is away.
_LOST = ("BusyLoading", "Connection", "Operational", "Scheduling", "Timeout")
#: What Redis says to a user who lacks a right. Celery tries again at once, and would log it with a
#: traceback each time.
_REFUSED = re.compile(r"NOPERM|no permissions? to", re.IGNORECASE)
#: Seconds for which the same refusal is not logged again.
_SILENT_FOR = 60.0
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_logged_at: dict[str, float] = {}


def set_up(log_format: str, log_level: str) -> None:
    """Send structlog and the standard logging through one formatter to stderr."""
    level, as_json = logging.getLevelNamesMapping()[log_level.upper()], log_format == "json"
    stamp = structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        stamp,
    ]
    formatter = structlog.stdlib.ProcessorFormatter
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_without_trace_of_lost_broker)
    handler.addFilter(_worth_a_line)
    handler.setFormatter(
        formatter(
            processors=[formatter.remove_processors_meta, *(_json() if as_json else _console())],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, formatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _json() -> list[structlog.typing.Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _on_one_line(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Replace what would begin a new line or act on a terminal; others log paths and names too."""
    text = str(event.get("event", ""))
    event["event"] = printable(text, len(text)).strip()
    return event


def _console() -> list[structlog.typing.Processor]:
    # The richer formatters of exceptions print local variables, and secrets among them.
    plain = structlog.dev.plain_traceback
    colors = sys.stderr.isatty()
    return [
        _on_one_line,
        structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=18, exception_formatter=plain),
    ]


def _without_trace_of_lost_broker(record: logging.LogRecord) -> bool:
    """Show one sentence where the broker or the store is away, without a useless traceback."""
    error = record.exc_info[1] if record.exc_info else None
    name, by_celery = type(error).__name__, record.name.startswith(("celery.worker", "celery.beat"))
    if error is not None and refuses(error) and record.name.startswith("celery."):
        return _one_sentence(record, error)
    # Reject: a message was put back, since the store is away.
    if name == "Reject" or (by_celery and any(word in name for word in _LOST)):
        record.exc_info = record.exc_text = None
        if record.name == "celery.beat":  # its message holds the whole stack as well
            record.msg, record.args = f"{name}: {error}", ()
    return True


def refuses(error: BaseException) -> bool:
    """True if Redis refused a right to this user, also in an error that Kombu wrapped."""
    return bool(_REFUSED.search(str(error)))


def _one_sentence(record: logging.LogRecord, error: BaseException) -> bool:
    """Make the record one sentence about a refused right; False if it was logged lately."""
    first = str(error).splitlines()[0].removeprefix("ACL failure in script: ")
    what = _UUID.sub("*", first.partition(" script: ")[0][:300].rstrip("."))
    advice = "deploy/redis-users.acl lists the rights of each role"
    record.exc_info = record.exc_text = None
    record.msg, record.args = f"The broker refuses this user: {what}. {advice}.", ()
    now = time.monotonic()
    if now - _logged_at.get(what, -_SILENT_FOR) < _SILENT_FOR:
        return False
    _logged_at[what] = now
    return True


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Hide a line about what should happen: a worker that ends puts a message back."""
    return not str(record.msg).startswith("Requeuing undeliverable message")


def logger() -> structlog.stdlib.BoundLogger:
    """The log of events: one line at each seam, never payloads or secrets."""
    log: structlog.stdlib.BoundLogger = structlog.get_logger("cavendish")
    return log


def report_unreadable(lane: Lane, error: Exception) -> None:
    """Log that the data of a lane cannot be read."""
    outcome = f"{type(error).__name__}: {error}"[:200]
    logger().error("lane.unreadable", lane=str(lane), outcome=outcome)
