"""The Redis clients of the broker: their small writes succeed where memory is full, and a refused
command is named.
"""

from __future__ import annotations

from typing import Any

import redis

from cavendish.store.connection import script_text
from cavendish.store.keys import nothing
from cavendish.store.lean_client import LeanClient

#: The commands of the transport that take memory: they write messages, which of them are in work,
#: and which queues there are.
_GROWING = frozenset(("LPUSH", "RPUSH", "SADD", "ZADD", "HSET", "SET"))
_FULL = redis.exceptions.OutOfMemoryError


class PrimaryClient(redis.Redis):
    """A client of the primary that Sentinel names."""

    def execute_command(self, *words: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*words, **options)  # type: ignore[no-untyped-call]
        except _FULL:
            if words[0] not in _GROWING:
                raise
            return super().execute_command(*_even_when_full(words), **options)  # type: ignore[no-untyped-call]
        except redis.exceptions.NoPermissionError as error:  # it does not name the key
            command = " ".join(map(str, words[:2]))
            raise redis.exceptions.NoPermissionError(f"{error} ({command})") from None

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> _Pipeline:  # noqa: FBT001, FBT002, ARG002
        """Without MULTI, unless WATCH needs it: a full Redis queues nothing for an EXEC."""
        return _Pipeline(self.connection_pool, self.response_callbacks, False, shard_hint)  # noqa: FBT003


class BrokerClient(PrimaryClient, LeanClient):
    """A client of one Redis; its pool is a LeanPool."""


class _Pipeline(redis.client.Pipeline):
    def execute_command(self, *words: Any, **options: Any) -> Any:
        if self.explicit_transaction and words[0] in _GROWING:
            words = _even_when_full(words)
        return super().execute_command(*words, **options)  # type: ignore[no-untyped-call]

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 (redis-py's)
        """Run what was queued, and once more what a full Redis has refused."""
        commands = self.command_stack.copy()
        answers = super().execute(raise_on_error=False)
        again = [
            number
            for number, ((name, *_), _) in enumerate(commands)
            if isinstance(answers[number], _FULL) and name in _GROWING
        ]
        for number in again:
            super().execute_command(*_even_when_full(commands[number][0]))  # type: ignore[no-untyped-call]
        for number, answer in zip(again, super().execute(raise_on_error=False), strict=True):
            answers[number] = answer
        if raise_on_error:
            self.raise_first_error(commands, answers)  # type: ignore[no-untyped-call]
        return answers


def _even_when_full(words: tuple[Any, ...]) -> tuple[Any, ...]:
    name, key, *more = words
    return ("EVAL", script_text("write_when_full"), 2, key, nothing(key), name, *more)
