"""The JSON of tasks: what a submit says, and what is known of an id."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cavendish import Task, TrackedTask
from cavendish.record_json import valid
from cavendish.stored_json import compact
from cavendish.submission import ID_LENGTH

#: Ids in one request.
MOST_IDS = 10_000


class Body(BaseModel):
    """The JSON body of a request: no other fields, no conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TaskBody(Body):
    """An id with options of its own."""

    id: str = Field(max_length=ID_LENGTH, examples=["1c4dd0f1-6b0e-4b6f-9f36-0a9e1f3c7a10"])
    metadata: dict[str, Any] | None = None
    key: str | None = None


class SubmitBody(Body):
    """Ids of one service, and what is said of all of them."""

    service: str = Field(examples=["nano-banana"])
    account: str = "default"
    tasks: list[str | TaskBody] = Field(max_length=MOST_IDS)
    webhook: str | list[str] | None = None
    deadline: float | None = None
    metadata: dict[str, Any] | None = None
    model: str | None = None
    producer: str | None = None
    restart: bool = False
    traceparent: str | None = None
    group: str | None = None
    group_size: int | None = None

    def ids(self) -> list[str | Task]:
        """The ids as the client takes them."""
        return [
            one if isinstance(one, str) else Task(one.id, one.metadata, one.key)
            for one in self.tasks
        ]


def task_json(task: TrackedTask) -> str:
    """The JSON of a task; the upstream record stands in it as it came, but valid."""
    plain = task.to_json()
    del plain["record"]
    text = compact(plain)
    return f'{text[:-1]},"record":{valid(task.record_json or "null")}}}'
