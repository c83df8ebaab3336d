"""What a log shows of an error by Celery: one sentence where Redis is away, else the traceback."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError

from cavendish_worker.telemetry import logs


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The lines of a JSON log, filled as they are written."""
    shown = list[dict[str, Any]]()

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            shown.extend(json.loads(line) for line in text.splitlines())
            return len(text)

    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    monkeypatch.setattr("sys.stderr", Stream())
    logs.set_up("json", "info")
    yield shown
    root.handlers[:] = before
    root.setLevel(level)


def told(logger: str, error: Exception) -> None:
    logging.getLogger(logger).error("consumer: Connection to broker lost.", exc_info=error)


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("Connection refused"),
        redis.TimeoutError("Timeout reading from socket"),
        redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
        OperationalError("gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_broker_that_is_away_or_still_loads_its_file_is_one_line(
    lines: list[dict[str, Any]], error: Exception
) -> None:
    told("celery.worker.consumer.consumer", error)
    (line,) = lines
    assert line["event"] == "consumer: Connection to broker lost."
    assert "exception" not in line


def test_an_error_of_another_kind_keeps_what_python_says_of_it(lines: list[dict[str, Any]]) -> None:
    told("celery.worker.consumer.consumer", KeyError("x"))
    assert "KeyError: 'x'" in lines[0]["exception"]


def test_what_others_log_is_one_line_on_a_console_and_nothing_acts_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Celery logs the path of its broker, which may hold anything."""
    root, stream = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    monkeypatch.setattr("sys.stderr", stream)
    try:
        logs.set_up("console", "info")
        logging.getLogger("celery").warning("Connected to %s.\n", "/a\nb\x1b[31m\r/redis.sock")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert stream.getvalue().splitlines()[0].endswith("Connected to /a b [31m /redis.sock.")
    assert stream.getvalue().count("\n") == 1
