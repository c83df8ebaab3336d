"""What a client changes afterwards: it cancels ids, pauses accounts, sets the ceilings of calls."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from cavendish.arguments import checked
from cavendish.controller import Controller
from cavendish.filter import Filter
from cavendish.model import Changed
from cavendish.policy.operator_controls import Pause, RateCeiling
from cavendish.undo import Undo


class OperatorMethods:
    """Methods of `Client`."""

    _controller: Controller
    _undo: Undo

    @checked()
    def cancel(
        self,
        ids: Iterable[str | UUID] | Filter,
        *,
        service: str | None = None,
        account: str | None = None,
        silent: bool = False,
        reason: str = "",
        by: str | None = None,
    ) -> list[Changed]:
        """Cancel `ids` of a `service`, or all that match a Filter: they are polled no more.

        Returns what became of each. Ended tasks stay as they are, and the answer to a call under
        way is dropped. `task.cancelled` is sent, unless `silent`; a group counts it
        anyway. `account`: "default" if it is not given. The reason of each task has `reason` and
        `by` (default: user and host of the caller). A filter names service and account
        itself, and finds pending tasks only, without those that are submitted later.

        It goes some hundred ids at a time: an error leaves those before it cancelled. Raises
        SubmissionError for what cannot be meant.
        """
        found = self._undo.cancel(ids, service, account, silent=silent, reason=reason, by=by)
        return [one for some in found for one in some]

    @checked()
    def set_deadline(
        self,
        ids: Iterable[str | UUID] | Filter,
        deadline: float,
        *,
        service: str | None = None,
        account: str | None = None,
        by: str | None = None,
    ) -> list[Changed]:
        """Give pending `ids` of a `service` another `deadline`, in seconds from now (1 s to 30
        days); or all that match a Filter, as for `cancel`.

        Returns what became of each. `account`: "default" if it is not given. `by` (default: user
        and host of the caller) is noted in the `acts` of each task.
        """
        found = self._undo.set_deadline(ids, service, account, deadline, by)
        return [one for some in found for one in some]

    @checked()
    def forget(
        self,
        ids: Iterable[str | UUID] | Filter,
        *,
        service: str | None = None,
        account: str | None = None,
    ) -> list[Changed]:
        """Erase all that is kept of `ids` of a `service`: records, results, metadata, deliveries
        with their logs, dead letters, events; or of all tasks that match a Filter.

        Pending ones are cancelled first, without a webhook. Returns what became of each. Totals
        and learned durations stay. `account`: "default" if it is not given. If it is interrupted,
        call it again.
        """
        return [one for some in self._undo.forget(ids, service, account) for one in some]

    @checked()
    def pause(
        self,
        account: str,
        service: str | None = None,
        *,
        seconds: float | None = None,
        until: float | None = None,
        reason: str = "",
        by: str | None = None,
    ) -> Pause:
        """Make no calls about the ids of an `account`, or of one `service` of it.

        It ends by itself after so many `seconds`, or at the Unix time `until`; without either it
        lasts until `resume`. Ids wait and are accepted, webhooks go on, and deadlines still pass.
        Every worker obeys within a tick; calls under way are finished. What is paused already gets
        the new time and reason. `reason` is shown wherever the pause is, and so is `by` (default:
        user and host of the caller). Raises SubmissionError for what cannot be meant.
        """
        return self._controller.pause(account, service, seconds, until, reason, by)

    @checked()
    def resume(self, account: str, service: str | None = None) -> Pause | None:
        """End the pause of an `account`, or of one `service` of it, and return it.

        None if there was none. The pause of an account and those of its services end one by one.
        """
        return self._controller.resume(account, service)

    def pauses(self) -> list[Pause]:
        """All pauses by operators that are in force, by account and service."""
        return self._controller.pauses()

    @checked()
    def set_rate_ceiling(
        self, account: str, calls: float | None, *, by: str | None = None
    ) -> RateCeiling | None:
        """Let an `account` make at most so many `calls` per second, instead of CAVENDISH_RATE.

        All workers obey within a second. More than the API allows is never made. None: as
        CAVENDISH_RATE says. `by` is shown with it (default: user and host of the caller).
        """
        return self._controller.set_rate_ceiling(account, calls, by)

    def rate_ceilings(self) -> list[RateCeiling]:
        """All ceilings that operators have set, by account."""
        return self._controller.rate_ceilings()
