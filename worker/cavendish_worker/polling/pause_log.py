"""Logs the pauses of operators: one line when a process first sees one, and one when it is over."""

from __future__ import annotations

import threading

from cavendish.policy.operator_controls import Controls, Pause
from cavendish_worker.telemetry.logs import logger


class PauseLog:
    """What one process has told of. Safe to share between threads."""

    def __init__(self) -> None:
        self._told: dict[str, Pause] = {}
        self._lock = threading.Lock()

    def tell(self, controls: Controls, now: float) -> None:
        """Log what began, changed or ended since the last call."""
        pauses = {pause.name: pause for pause in controls.in_force(now)}
        with self._lock:
            told, self._told = self._told, pauses
        for name, pause in pauses.items():
            if told.get(name) != pause:
                advice = f"its ids wait; `cavendish resume {_words(pause)}` ends it"
                logger().warning("operator.paused", **_about(pause), why=pause.told, advice=advice)
        for name, pause in told.items():
            if name not in pauses:
                logger().info("operator.resumed", **_about(pause))


def _about(pause: Pause) -> dict[str, str]:
    return {"account": pause.account} | ({"service": pause.service} if pause.service else {})


def _words(pause: Pause) -> str:
    service = f" --service {pause.service}" if pause.service else ""
    return f"--account {pause.account}{service}"
