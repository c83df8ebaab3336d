"""Submits ids: checks them, counts them to their producer, and lets the store track them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

from cavendish.endpoints.webhook_endpoint import is_url
from cavendish.errors import StoreUnavailable, SubmissionError
from cavendish.model import Lane, State, Submitted, Task
from cavendish.policy.next_poll import first_age
from cavendish.policy.producer_quota import ProducerQuota
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts
from cavendish.store.new_tasks import Own
from cavendish.submission import Checked, SubmitOptions, check, check_ids, shown

#: What a submit is told beside its ids, in this order.
_TOLD = (
    "service account webhook deadline metadata model producer restart traceparent group group_size"
).split()


class Submitter:
    """Submits with one store. Safe to share between threads."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings
        self._forecasts = Forecasts(store.shared_state)

    def submit(self, ids: Sequence[str | UUID | Task], *told: object) -> list[Submitted]:
        """The answer to each id, in their order. `told`: what `Client.submit` is told, all of it.

        Raises SubmissionError, QuotaExceeded and StoreUnavailable.
        """
        options = self._options(*told)
        checked = check_ids(ids)
        now = round(self._store.fleet.now(), 3)
        added = self._add(checked, options, now) if checked.sound or options.group_size else {}
        return [
            Submitted(shown(name).strip('"'), "refused", reason=complaint)
            if complaint
            else _explained(added[name], options)
            for name, complaint in checked.answers
        ]

    def _options(self, *told: object) -> SubmitOptions:
        s, values = self._settings, dict(zip(_TOLD, told, strict=True))
        if values["deadline"] is None:
            values["deadline"] = s.deadline
        options = check(
            **values,
            allowed=s.webhook_allow + self._store.fleet.allowed() if values["webhook"] else (),
            ports=s.webhook_ports,
            services=s.services,
        )
        names = (name for name in options.webhooks if not is_url(name))
        for name in self._store.endpoints.missing(names):
            raise SubmissionError(
                f"No endpoint is registered as {name!r}; register it: "
                f"`cavendish endpoint add {name} URL`.",
                "endpoint",
            )
        return options

    def _add(self, checked: Checked, options: SubmitOptions, now: float) -> dict[str, Submitted]:
        tasks, usage, ids = self._store.tasks, self._store.producer_usage, checked.sound
        retention, place = self._settings.retention, (options.account, options.service, ids)
        counted = usage.reserve(
            len(ids),
            options,
            ProducerQuota(self._settings.producer_ids, self._settings.producer_bytes),
            retention,
            now,
            lambda: len(tasks.get(*place, with_record=False)),
            _own_bytes(checked, ids),
        )

        def correct(new_ids: Sequence[str]) -> None:
            unstored = _own_bytes(checked, ids) - _own_bytes(checked, new_ids)
            usage.submitted(counted, len(new_ids), options, retention, now, unstored)

        known = tasks.get(*place) if counted is not None and options.restart else {}
        try:
            if options.group and (why := self._store.groups.join(ids, options, now, retention)):
                correct([])
                raise SubmissionError(why)
            added = self._track(checked, options, now) if ids else {}
        except StoreUnavailable:  # it may be stored: a replica is missing, or the answer is lost
            with suppress(StoreUnavailable):
                there = tasks.get(*place, with_record=False)
                correct([name for name, task in there.items() if task.submitted_at == now])
            raise
        new_ids = [task_id for task_id, answer in added.items() if answer.outcome == "new"]
        correct(new_ids)
        usage.restarted([known[each] for each in new_ids if each in known], retention, now)
        return added

    def _track(self, checked: Checked, options: SubmitOptions, now: float) -> dict[str, Submitted]:
        """Let the store track ids; those with equal metadata of their own share it, as if they had
        been submitted together.
        """
        lane = Lane(options.account, options.service)
        forecast = self._forecasts.forecast(lane, options.model, now)
        first_poll = now + min(first_age(forecast), options.deadline)
        times = Counter(checked.metadata.values())
        alike: dict[str, list[str]] = {}
        for task_id in checked.sound:
            text = checked.metadata.get(task_id, "")
            alike.setdefault(text if times[text] > 1 else "", []).append(task_id)
        own = _own_fields(checked, times)
        added: dict[str, Submitted] = {}
        for text, some in alike.items():
            told = replace(options, metadata=text) if text else options
            added |= self._store.tasks.add(some, told, now, first_poll, own)
        return added


def _own_fields(checked: Checked, times: Counter[str]) -> Own:
    """The fields that ids do not share; `times`: of how many ids each metadata is."""
    own = {name: {"key": key} for name, key in checked.keys.items()}
    for name, text in checked.metadata.items():
        if times[text] == 1:
            own.setdefault(name, {})["metadata"] = text
    return own


def _own_bytes(checked: Checked, ids: Iterable[str]) -> int:
    """Bytes of what some ids have of their own."""
    own = [texts for texts in (checked.metadata, checked.keys) if texts]
    return sum(
        len(texts.get(name, "").encode(errors="surrogatepass")) for texts in own for name in ids
    )


def _explained(answer: Submitted, options: SubmitOptions) -> Submitted:
    """The answer with the reason why an ended id was not restarted, if that was asked for."""
    if options.restart and answer.outcome == "known" and answer.state is not State.PENDING:
        why = "not restarted: a delivery of its last end is still pending, or in the dead letters"
        return replace(answer, reason=why)
    return answer
