"""What the key of one request may see and do: the only place where that is decided.

What a key may not do is a Problem with 403, decided without a look into the store, so it says
nothing of what others have there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cavendish import TrackedTask
from cavendish.model import Lane
from cavendish.policy.access import ApiKey
from cavendish_worker.service.problem_details import Problem


@dataclass(frozen=True, slots=True)
class KeyAccess:
    """The access of a key."""

    key: ApiKey

    def require(self, right: str) -> None:
        """Refuse what the key may not do at all."""
        if right not in self.key.may:
            raise Problem(403, f"This key may not {right}; it may {', '.join(self.key.may)}.")

    def require_all(self) -> None:
        """Refuse a key that is not for everything in the store."""
        if self.key.limited:
            raise Problem(403, "This is about all accounts, and this key is limited to some.")

    def place(self, service: str, account: str) -> None:
        """Refuse a service, or an account, that the key is not for."""
        self.account(account)
        if self.key.services and service not in self.key.services:
            raise Problem(403, f"This key may not use the service {service!r}.")

    def account(self, account: str) -> None:
        """Refuse an account that the key is not for."""
        if self.key.accounts and account not in self.key.accounts:
            raise Problem(403, f"This key may not use the account {account!r}.")

    def whole_account(self, account: str) -> None:
        """Refuse an account of which the key is not for all services."""
        self.account(account)
        if self.key.services:
            raise Problem(403, "This is about all services, and this key is limited to some.")

    def group(self, name: str, account: str) -> None:
        """Refuse a group that others may share: it would tell of their ids."""
        self.account(account)
        mine = f"{self.key.name}/"
        if (self.key.own or self.key.services) and not name.startswith(mine):
            raise Problem(403, f"The groups of this key have names that begin with {mine!r}.")

    def one_of(self, what: str, named: str | None) -> str | None:
        """The account or service of a search: the named one, or the only one of the key."""
        allowed = self.key.accounts if what == "account" else self.key.services
        if not allowed or named in allowed:
            return named
        if named is not None:
            raise Problem(403, f"This key may not use the {what} {named!r}.")
        if len(allowed) > 1:
            raise Problem(422, f"This key is for several: name one {what} of {', '.join(allowed)}.")
        return allowed[0]

    def includes(self, lane: Lane) -> bool:
        """True for a lane in which the key sees something."""
        account, service = self.key.accounts, self.key.services
        return (not account or lane.account in account) and (not service or lane.service in service)

    def sees(self, task: TrackedTask) -> bool:
        """True for a task, in a place of the key, that others have not submitted for themselves."""
        return not self.key.own or task.producer == self.key.name

    def seen(self, tasks: Iterable[TrackedTask]) -> list[TrackedTask]:
        """Those of the tasks that it sees."""
        return [task for task in tasks if self.sees(task)]

    def producer(self, named: str | None) -> str | None:
        """The producer of a search: the key itself, if it sees only what it submitted."""
        if not self.key.own or named == self.key.name:
            return named
        if named is None:
            return self.key.name
        raise Problem(403, f"This key is the producer {self.key.name!r}, and no other.")

    @property
    def by(self) -> str:
        """Who does it, as operators read it."""
        return f"key {self.key.name}"
