"""show: one id, its webhooks, and what the API said."""

from __future__ import annotations

import json
from typing import Any

import click

from cavendish import State, SubmissionError, TrackedTask
from cavendish.model import Lane
from cavendish.store import Store
from cavendish.store.keys import delivery_of
from cavendish_worker.cli.arguments import opened
from cavendish_worker.cli.dead import show_log, told
from cavendish_worker.cli.output import as_json, moment, plain, print_json, table


@click.command(short_help="Show one id, its webhooks, and what the API said.")
@click.argument("task_id", metavar="ID")
@click.option(
    "--service",
    metavar="NAME",
    help="Service of the remote API, where several track an id of this name.",
)
@click.option(
    "--account",
    metavar="NAME",
    help="Account of the remote API, where several track an id of this name.",
)
@as_json
def show(task_id: str, service: str | None, account: str | None, as_json: bool) -> None:
    """Show one tracked task and the deliveries of its webhooks, with the upstream record once it
    has ended.

    \b
    cavendish show 1c4dd0f1-6b0e-4b6f-9f36-0a9e1f3c7a10
    """
    store, settings = opened()
    task = _the_one(store, task_id, service, account)
    deliveries = _deliveries(
        store, Lane.of(task.account, task.service, task_id, settings.shards), task
    )
    if as_json:
        print_json(task.to_json() | {"deliveries": deliveries})
        return
    shown: list[tuple[str, object]] = [
        ("id", task.id),
        ("state", task.state),
        ("reason", task.reason),
    ]
    shown += [
        ("service", f"{task.service} (account {task.account})"),
        ("model", task.model),
        ("polls", task.polls),
    ]
    shown += [
        (name, moment(getattr(task, f"{name}_at")))
        for name in ("submitted", "deadline", "finished", "settled")
    ]
    shown += [("trace", task.trace)]
    shown += [("metadata", json.dumps(task.metadata) if task.metadata else "")]
    table("", ("", ""), [(name, value) for name, value in shown if value not in ("", None)])
    for one in deliveries:
        click.echo()
        attempts = (
            f", {one['attempts']} {'try' if one['attempts'] == 1 else 'attempts'}, last: {one['outcome']}"
            if one["outcome"]
            else ""
        )
        click.echo(
            f"webhook to {one['endpoint'] if one['registered'] else one['url'] or one['endpoint']}: {one['state']}{attempts}"
        )
        show_log(one["log"])
    if deliveries:
        click.echo()
    if task.record is not None:
        print_json(task.record)


def _the_one(store: Store, task_id: str, service: str | None, account: str | None) -> TrackedTask:
    """The task of this name, wherever it is tracked.

    Raises SubmissionError if there is none, or more than one.
    """
    asked = {(lane.account, lane.service) for lane in store.tasks.lanes()}
    asked = {
        pair
        for pair in asked
        if pair[0] == (account or pair[0]) and pair[1] == (service or pair[1])
    }
    found = [task for pair in sorted(asked) for task in store.tasks.get(*pair, [task_id]).values()]
    if len(found) == 1:
        return found[0]
    if found:
        where = ", ".join(f"{task.service} (account {task.account})" for task in found)
        raise SubmissionError(f"{task_id!r} is tracked for {where}: say --service or --account.")
    raise SubmissionError(
        f"'{plain(task_id)}' is not tracked{f' for the service {service!r}' if service else ''}."
    )


def _deliveries(store: Store, lane: Lane, task: TrackedTask) -> list[dict[str, Any]]:
    """What became of the webhook to each webhook of a task."""
    registered = store.endpoints.all() if task.webhooks else {}
    found = []
    for delivery in store.deliveries.load(
        lane, [delivery_of(subscription, task.id) for subscription in task.webhooks]
    ):
        known = registered.get(delivery.endpoint)
        state = "waiting" if task.state is State.PENDING else delivery.state
        said = {
            "endpoint": delivery.endpoint,
            "url": known.url if known else delivery.url,
            "registered": known is not None,
        }
        found.append(
            said
            | {
                "state": state,
                "attempts": delivery.attempts,
                "outcome": delivery.outcome,
                "log": told(delivery.log),
            }
        )
    return found


COMMANDS = (show,)
