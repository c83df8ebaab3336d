"""Which words the query of a request may have: one that is unknown is a typo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from fastapi import Request
from fastapi.dependencies.models import Dependant
from pydantic import BaseModel

from cavendish.model import printable
from cavendish_worker.service.problem_details import Problem


class QueryNames:
    """The parameters that a route has in its query."""

    def __init__(self, dependant: Dependant) -> None:
        #: Name -> whether it may be given several times.
        self._known = dict(_names(dependant))

    def check(self, request: Request) -> None:
        """Raise a Problem for a parameter that the route does not have, or that comes twice."""
        seen = set[str]()
        for name, _ in request.query_params.multi_items():
            if name not in self._known:
                known = ", ".join(sorted(self._known)) or "none"
                raise _problem(name, f"There is no such parameter; this resource has {known}.")
            if name in seen and not self._known[name]:
                raise _problem(name, "It is given twice, and it has one value.")
            seen.add(name)


def _names(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    for field in dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, inner in kind.model_fields.items():
                yield name, _is_list(inner.annotation)
        else:
            yield field.alias, _is_list(kind)


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is list or any(map(_is_list, get_args(kind)))


def _problem(name: str, said: str) -> Problem:
    at = f"query {printable(name, 60)}"
    return Problem(422, f"{at}: {said}", errors=[{"at": at, "detail": said}])
