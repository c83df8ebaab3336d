"""The client of Cavendish: track the ids of remote jobs, read their results, wait for their ends.

It needs Redis and nothing else: no Celery, no HTTP, and it logs nothing. This is the public face.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from cavendish.endpoints.webhook_endpoint import NewSecret, WebhookEndpoint
from cavendish.errors import (
    CavendishError,
    ClientClosed,
    EndpointError,
    EventsMissed,
    QuotaExceeded,
    SettingsError,
    StoreUnavailable,
    SubmissionError,
    WaitTimeout,
)
from cavendish.filter import Filter, Page
from cavendish.model import Changed, Event, Group, State, Submitted, Task, TrackedTask
from cavendish.operator_act import OperatorAct
from cavendish.policy.operator_controls import Pause, RateCeiling

__all__ = [
    "AsyncClient",
    "CavendishError",
    "Changed",
    "Client",
    "ClientClosed",
    "EndpointError",
    "Event",
    "EventsMissed",
    "Filter",
    "Group",
    "NewSecret",
    "OperatorAct",
    "Page",
    "Pause",
    "QuotaExceeded",
    "RateCeiling",
    "Settings",
    "SettingsError",
    "State",
    "StoreUnavailable",
    "SubmissionError",
    "Submitted",
    "Task",
    "TrackedTask",
    "WaitTimeout",
    "WebhookEndpoint",
]

if TYPE_CHECKING:
    from cavendish.async_client import AsyncClient
    from cavendish.client import Client
    from cavendish.settings import Settings

    __version__: str
else:
    #: Imported at their first use: redis-py takes longer to import than all of Cavendish.
    _AT_FIRST_USE = {
        "AsyncClient": "cavendish.async_client",
        "Client": "cavendish.client",
        "Settings": "cavendish.settings",
    }

    def __getattr__(name: str) -> object:
        if name == "__version__":
            found = import_module("importlib.metadata").version("cavendish")
        elif name in _AT_FIRST_USE:
            found = getattr(import_module(_AT_FIRST_USE[name]), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found
