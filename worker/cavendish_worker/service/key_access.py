"""What the key of one request may see and do: the only place where that is decided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cavendish import TrackedTask
from cavendish.policy.access import ApiKey
from cavendish_worker.service.problem_details import Problem


@dataclass(frozen=True, slots=True)
class KeyAccess:
    """The access of a key. What it may not do is a Problem with 403, decided without the store."""

    key: ApiKey

    def require(self, right: str) -> None:
        """Refuse what the key may not do at all."""
        if right not in self.key.may:
            raise Problem(403, f"This key may not {right}; it may {', '.join(self.key.may)}.")

    def require_unlimited(self) -> None:
        """Refuse a key that is not for everything in the store."""
        if self.key.limited:
            raise Problem(403, "This is about all accounts, and this key is limited to some of it.")

    def place(self, service: str, account: str) -> None:
        """Refuse a service or an account that the key is not for."""
        self.account(account)
        if self.key.services and service not in self.key.services:
            raise Problem(403, f"This key may not use the service {service!r}.")

    def account(self, account: str) -> None:
        """Refuse an account that the key is not for."""
        if self.key.accounts and account not in self.key.accounts:
            raise Problem(403, f"This key may not use the account {account!r}.")

    def sees(self, task: TrackedTask | None) -> bool:
        """True for a task in a place of the key, unless another producer submitted it."""
        return task is not None and (not self.key.own or task.producer == self.key.name)

    def seen(self, tasks: Iterable[TrackedTask]) -> list[TrackedTask]:
        """Those of the tasks that it sees."""
        return [task for task in tasks if self.sees(task)]

    def producer(self, named: str | None) -> str:
        """The producer of a submit: the key, unless it may name another."""
        if named is None or named == self.key.name:
            return self.key.name
        if self.key.own:
            raise Problem(403, f"This key submits as the producer {self.key.name!r} only.")
        return named
