"""Whatever is given to a method of a client in place of what it takes, one sentence says so."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import pytest

from cavendish import AsyncClient, Client, EndpointError, Filter, SubmissionError
from cavendish.settings import Settings
from cavendish.store import Store

VERBS = [
    name
    for name, value in inspect.getmembers(Client, inspect.isfunction)
    if not name.startswith("_") and len(inspect.signature(value).parameters) > 1
]
#: Arguments with which a method works, or waits for nothing.
SOUND: dict[str, Any] = {
    "ids": ["a"],
    "task_id": "a",
    "service": "nano-banana",
    "name": "shop",
    "which": "shop",
    "key": "order-7",
    "account": "default",
    "deadline": 60.0,
    "calls": 5.0,
    "url": "https://shop.example/hook",
    "timeout": 0.0,
    "follow": False,
    "unencrypted": True,
}
#: What a sentence calls an argument, if not by its name.
CALLED = {"ids": "id", "webhook": "url"}
#: Values that no argument takes, and those that fit some types only.
NEVER: tuple[Any, ...] = (object(), b"x", {1})
SOME: dict[type, tuple[Any, ...]] = {
    str: ("text", "\ud800"),
    float: (5.5, math.nan, 10**400),
    int: (5,),
    bool: (True,),
    type(None): (None,),
    UUID: (UUID(int=7),),
    list: ([], [5], (each for each in "ab")),
    dict: ({}, {"a": 1}),
}
#: Those of SOME that are wrong although they are of the type.
WRONG_THEMSELVES = ("\ud800", math.nan, 10**400)
#: Which of SOME a type takes.
TAKES: dict[Any, tuple[type, ...]] = {
    float: (float, int),
    Iterable: (list,),
    Mapping: (dict,),
    Callable: (),
}


def wrong_values(hint: Any) -> Iterator[Any]:
    """Values that an argument of this type does not take."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    origins = [get_origin(kind) or kind for kind in kinds]
    takes = {each for kind in origins for each in TAKES.get(kind, (kind,))}
    for kind, values in SOME.items():
        yield from (one for one in values if kind not in takes or one in WRONG_THEMSELVES)
    yield from (one for one in NEVER if not isinstance(one, set) or list not in takes)


def cases() -> Iterator[Any]:
    for verb in VERBS:
        method = getattr(Client, verb)
        hints = get_type_hints(method)
        for name in list(inspect.signature(method).parameters)[1:]:
            yield pytest.param(verb, name, hints[name], id=f"{verb} {name}")


def sound(verb: str, but: str) -> dict[str, Any]:
    """Sound arguments of a method, all that it needs, without one."""
    parameters = inspect.signature(getattr(Client, verb)).parameters
    return {
        name: SOUND[name]
        for name, one in list(parameters.items())[1:]
        if name != but and (one.default is one.empty or name in ("timeout", "follow"))
    }


@pytest.fixture
def clients(settings: Settings, store: Store) -> Iterator[tuple[Client, AsyncClient]]:
    """Clients of an empty store."""
    del store
    with Client(settings=settings) as client:
        other = AsyncClient(settings=settings)
        yield client, other
        asyncio.run(other.close())


def call(client: Client | AsyncClient, verb: str, arguments: dict[str, Any]) -> object:
    """Call a method, and take all that it gives."""

    async def story() -> object:
        found = getattr(client, verb)(**arguments)
        if isinstance(found, AsyncGenerator):
            return [one async for one in found]
        return await found

    if isinstance(client, AsyncClient):
        return asyncio.run(story())
    found = getattr(client, verb)(**arguments)
    return list(found) if isinstance(found, Iterator) else found


@pytest.mark.parametrize(("verb", "name", "hint"), list(cases()))
def test_an_argument_of_a_wrong_type_is_refused_in_one_sentence_that_names_it(
    clients: tuple[Client, AsyncClient], store: Store, verb: str, name: str, hint: Any
) -> None:
    """Each argument of each method of both clients; nothing is written."""
    for client in clients:
        for value in wrong_values(hint):
            with pytest.raises((SubmissionError, EndpointError)) as refused:
                call(client, verb, sound(verb, name) | {name: value})
            said = str(refused.value)
            assert said.endswith("."), said
            assert "\n" not in said
            assert len(said) < 400
            assert CALLED.get(name, name) in said.lower().replace(" ", "_"), said
    assert store.tasks.lanes() == []
    assert store.endpoints.all() == {}


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_sound_is_not_refused_for_its_type(
    clients: tuple[Client, AsyncClient], verb: str
) -> None:
    """The sound values of the other test are sound."""
    for client in clients:
        said = ""
        try:
            call(client, verb, sound(verb, ""))
        except (SubmissionError, EndpointError, TimeoutError) as refused:
            said = str(refused)  # there is no such id, group, endpoint
        assert "must be" not in said


@pytest.mark.parametrize("value", [5, b"redis://", ["redis://"]])
def test_a_client_of_no_url_is_refused(value: Any) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(SubmissionError, match="`url` must be a text or None, not"):
            kind(value)
        with pytest.raises(SubmissionError, match="`settings` must be a Settings or None, not"):
            kind(settings=value)


@pytest.mark.parametrize("verb", ["get_many", "wait", "cancel", "set_deadline", "forget"])
@pytest.mark.parametrize("wrong", [5, None, b"a", "\ud800", ["a"]])
def test_an_id_that_is_no_text_is_refused_by_all_that_look_for_it(
    clients: tuple[Client, AsyncClient], verb: str, wrong: Any
) -> None:
    """A submit refuses it alone."""
    for client in clients:
        told = sound(verb, "ids") | {"ids": ["a", wrong], "service": "nano-banana"}
        with pytest.raises(SubmissionError, match="An id must be a text"):
            call(client, verb, told)
        answers: Any = call(client, "submit", sound("submit", "ids") | {"ids": ["a", wrong]})
        assert [one.refused for one in answers] == [False, True]


def test_a_filter_refuses_what_no_task_can_be() -> None:
    """Also no state at all: a list that turned out empty would mean every task."""
    for name, hint in get_type_hints(Filter).items():
        for value in wrong_values(hint):
            with pytest.raises(SubmissionError, match="state" if name == "state" else name):
                Filter(**{name: value})
    with pytest.raises(SubmissionError, match="name a state"):
        Filter(state=[])


def test_a_filter_of_a_generator_of_states_means_these() -> None:
    """It is read more than once, and once it was read it would mean every task."""
    found = Filter(state=(each for each in ["failed", "expired"]))
    assert found.state == ("failed", "expired")
