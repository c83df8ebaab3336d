"""The JSON of tasks: what requests say about them, and how they are answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, model_validator

from cavendish import Changed, Filter, State, Task
from cavendish.model import printable
from cavendish.submission import METADATA_BYTES, WEBHOOKS

#: Ids in one request.
MOST_IDS = 10_000
EXAMPLE = "1c4dd0f1-6b0e-4b6f-9f36-0a9e1f3c7a10"
StateName = Literal["pending", "succeeded", "failed", "unknown", "expired", "cancelled"]
T = TypeVar("T")


def few(most: int) -> BeforeValidator:
    """For what may be a list or something else: it has at most so many items."""

    def checked(told: object) -> object:
        if isinstance(told, list) and len(told) > most:
            raise ValueError(f"At most {most:,} may be given.")
        return told

    return BeforeValidator(checked)


def all_texts(told: object) -> object:
    """Of the faults of an object of texts, too, only the first is told of."""
    for name, value in told.items() if isinstance(told, dict) else ():
        if not isinstance(value, str):
            raise ValueError(f"The value of {printable(name, 60)!r} must be a text.")  # noqa: TRY004
    return told


class _FirstFault(FailFast):
    """FailFast that may stand in a union, for which Python 3.11 needs its hash."""

    __hash__ = object.__hash__


#: A list in a body. Only its first wrong item is told of: a million of them would stop everybody
#: for a minute.
Listed = Annotated[list[T], _FirstFault()]
#: An entry takes five bytes at least: `"":1,`.
Metadata = Annotated[dict[str, Any], Field(max_length=METADATA_BYTES // 5)]
Ids = Annotated[Listed[str], Field(max_length=MOST_IDS, examples=[[EXAMPLE]])]


class Body(BaseModel):
    """The JSON body of a request: no other fields, no conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, told: Any) -> Any:
        """Tell of one unknown field only, as of one item of a list."""
        names, known = told if isinstance(told, dict) else (), cls.model_fields
        unknown = next((name for name in names if name not in known), None)
        if unknown is not None:
            raise ValueError(f"There is no field {printable(unknown, 60)!r}.")
        return told


class TaskBody(Body):
    """An id with options of its own."""

    id: str = Field(examples=[EXAMPLE])
    metadata: Metadata | None = Field(
        None, description="Metadata of this id, instead of that of the whole submit."
    )
    key: str | None = Field(None, description="A name of your own for this id: `?key=` finds it.")


class SubmitBody(Body):
    """Ids of one service, and options for all of them."""

    service: str = Field(
        examples=["nano-banana"], description="The service that made the ids, such as nano-banana."
    )
    account: str = Field("default", description="The account whose token is used to poll the ids.")
    ids: Listed[str | TaskBody] = Field(max_length=MOST_IDS, examples=[[EXAMPLE]])
    webhook: Annotated[
        str | Annotated[Listed[str], Field(max_length=WEBHOOKS)] | None, few(WEBHOOKS)
    ] = Field(None, description="A URL or the name of a registered endpoint, or up to 8 of them.")
    deadline: float | None = Field(None, description="Seconds from now: 1 to 2592000.")
    metadata: Metadata | None = Field(None, description="At most 8 KiB; each webhook contains it.")
    model: str | None = Field(
        None, description="The model that runs the task; it improves the duration estimate."
    )
    producer: str | None = Field(
        None, description="Calls are shared fairly between producers. Default: name of the key."
    )
    restart: bool = Field(
        default=False, description="Track ended ids again, once all their deliveries are closed."
    )
    traceparent: str | None = Field(None, description="W3C trace context for each webhook.")
    key: str | None = Field(
        None, description="A name of your own for the id; only for a submit of one id."
    )
    group: str | None = Field(None, description="A label for ids that belong together.")
    group_size: int | None = Field(
        None, description="Ids in the group, 1 to 10000: after as many ends, group.completed."
    )

    def tasks(self) -> list[str | Task]:
        """The ids as the client takes them."""
        return [
            one if isinstance(one, str) else Task(one.id, one.metadata, one.key) for one in self.ids
        ]


class Wanted(BaseModel):
    """The tasks that match all that is given."""

    service: str | None = None
    account: str | None = None
    state: Annotated[Listed[StateName], Field(min_length=1, max_length=len(State))] | None = None
    producer: str | None = None
    model: str | None = None
    key: str | None = None
    group: str | None = None
    endpoint: str | None = Field(
        None, description="Name or URL of an endpoint that gets their webhooks."
    )
    since: float | None = Field(
        None, description="Unix time: compared with the end, or with the submit while pending."
    )
    until: float | None = None

    def filter(self, **instead: str | None) -> Filter:
        """The filter of the client, with these fields instead. Raises SubmissionError."""
        given = {name: getattr(self, name) for name in Wanted.model_fields}
        return Filter(**given | instead)


class FilterBody(Wanted, Body):
    """A filter in a body."""


class CountQuery(Wanted):
    """A filter in a query."""


class ListQuery(CountQuery):
    """A page of the tasks that match a filter."""

    cursor: str | None = Field(None, description="The `next` of an earlier page.")
    limit: int = Field(50, ge=1, le=1000)
    with_record: bool = Field(default=False, description="Include the records of the remote API.")


class SubmittedItem(BaseModel):
    """What became of one id."""

    id: str
    outcome: Literal["new", "known", "refused"]
    state: StateName | None
    reason: str


class SubmittedItems(BaseModel):
    """What became of each id, in their order."""

    items: list[SubmittedItem]


class TaskItem(BaseModel):
    """A tracked task. Times are in seconds since the Unix epoch; null: not yet.

    - `reason` says in a sentence why the task has its `state`;
    - it was submitted at `submitted_at`, finished at the remote API at `finished_at`, and its end
      was stored at `settled_at`; a pending task expires soon after `deadline_at`;
    - `polls` counts its polls, the last one at `polled_at`; `absences` counts how often
      in a row the API did not find it;
    - `trace` is the `traceparent` of the submit; `record` is the API's record at the end.
    """

    id: str
    service: str
    account: str
    state: StateName
    submitted_at: float
    deadline_at: float
    polls: int
    polled_at: float | None
    absences: int
    finished_at: float | None
    settled_at: float | None
    reason: str
    model: str
    producer: str
    metadata: dict[str, Any] | None
    trace: str
    key: str
    group: str
    record: dict[str, Any] | None


class TaskPage(BaseModel):
    """A page of tasks, the newest submit first; `next` is null on the last one."""

    items: list[TaskItem]
    next: str | None


class FoundTasks(BaseModel):
    """The tasks among some ids, and the ids that are not tracked."""

    items: list[TaskItem]
    missing: list[str]


class ChangedItems(BaseModel):
    """What became of each id that was to be changed."""

    items: list[Changed]


class Count(BaseModel):
    """How many there are."""

    count: int
