"""structlog, set up once for worker, beat and command line.

One line per event, for people or as JSON.
"""

from __future__ import annotations

import logging
import re
import sys
import time

import structlog

#: Celery's lines for each message received and each task run; ours say the same with what came of
#: it.
_CHATTY = (
    "celery.worker.strategy",
    "celery.app.trace",
    "celery.beat",
    "kombu",
    "httpx",
    "httpcore",
    "tornado.access",
)


#: Parts of the names of errors that mean that the broker is away.
_LOST = ("Connection", "Operational", "Scheduling", "Timeout")
#: What Redis says to a user who lacks a right. Celery attempts again at once, and would say it with
#: a traceback each time.
_REFUSED = re.compile(r"NOPERM|no permissions? to", re.IGNORECASE)
#: Seconds for which the same refusal is not told again.
_TOLD_FOR = 60.0
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_told: dict[str, float] = {}


def set_up(log_format: str, log_level: str) -> None:
    """Send structlog and the standard logging through one formatter to stderr."""
    level = logging.getLevelNamesMapping()[log_level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True)
        if log_format == "json"
        else structlog.processors.TimeStamper(fmt="%H:%M:%S"),
    ]
    last: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=18,
                # The richer ones print local variables: secrets among them.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_without_trace_of_lost_broker)
    handler.addFilter(_worth_a_line)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _without_trace_of_lost_broker(record: logging.LogRecord) -> bool:
    """A broker or a store that went away is a sentence.

    The place in the code where it was noticed tells nobody anything.
    """
    trouble = record.exc_info[1] if record.exc_info else None
    if trouble is not None and refuses(trouble) and record.name.startswith("celery."):
        return _one_sentence(record, trouble)
    lost = any(word in type(trouble).__name__ for word in _LOST) and record.name.startswith(
        ("celery.worker", "celery.beat")
    )
    if (
        lost or type(trouble).__name__ == "Reject"
    ):  # a message that was put back, since the store is away
        record.exc_info = record.exc_text = None
        if record.name == "celery.beat":  # whose message carries its whole stack, too
            record.msg, record.args = f"{type(trouble).__name__}: {trouble}", ()
    return True


def refuses(error: BaseException) -> bool:
    """True if Redis answered, and does not let this user do that.

    Kombu may have wrapped it into an error of its own.
    """
    return bool(_REFUSED.search(str(error)))


def _one_sentence(record: logging.LogRecord, trouble: BaseException) -> bool:
    what = _UUID.sub(
        "*",
        str(trouble)
        .splitlines()[0]
        .removeprefix("ACL failure in script: ")
        .partition(" script: ")[0][:300]
        .rstrip("."),
    )
    record.exc_info = record.exc_text = None
    record.msg, record.args = (
        f"The broker refuses this user: {what}. deploy/redis-users.acl has all that each role needs.",
        (),
    )
    now = time.monotonic()
    if now - _told.get(what, -_TOLD_FOR) < _TOLD_FOR:
        return False
    _told[what] = now
    return True


def _worth_a_line(record: logging.LogRecord) -> bool:
    """A message that comes to a worker as it ends goes back into its queue.

    That is how it should be.
    """
    return not str(record.msg).startswith("Requeuing undeliverable message")


def logger() -> structlog.stdlib.BoundLogger:
    """The log of events: one line at each seam, never payloads or secrets."""
    log: structlog.stdlib.BoundLogger = structlog.get_logger("cavendish")
    return log
