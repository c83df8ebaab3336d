"""What operators do with a client: pause and resume accounts, set the ceilings of their calls."""

from __future__ import annotations

from cavendish.controller import Controller
from cavendish.policy.operator_controls import Pause, RateCeiling


class OperatorMethods:
    """Methods of `Client`."""

    _controller: Controller

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
        """Ask no more about the ids of an `account`, or of one `service` of it.

        It ends by itself after so many `seconds`, or at the Unix time `until`; without either it
        lasts until `resume`. Ids wait and are accepted, webhooks go on, and deadlines still pass.
        Every worker obeys within a tick; calls under way are finished. What is paused already gets
        the new time and reason. `reason` is shown wherever the pause is, and so is `by` (default:
        user and host of the caller). Raises SubmissionError for what cannot be meant.
        """
        return self._controller.pause(account, service, seconds, until, reason, by)

    def resume(self, account: str, service: str | None = None) -> Pause | None:
        """End the pause of an `account`, or of one `service` of it, and return it.

        None if there was none. The pause of an account and those of its services end one by one.
        """
        return self._controller.resume(account, service)

    def pauses(self) -> list[Pause]:
        """All pauses by operators that are in force, by account and service."""
        return self._controller.pauses()

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
