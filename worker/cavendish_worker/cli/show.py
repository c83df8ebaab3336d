"""show: one id, its webhooks, and what the API said."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from cavendish import Pause, State, SubmissionError, TrackedTask
from cavendish.model import Lane
from cavendish.store import Store
from cavendish.store.keys import delivery_of
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.delivery_log import print_log, read_log
from cavendish_worker.cli.options import account_option, json_option, service_option
from cavendish_worker.cli.output import plain, print_json
from cavendish_worker.cli.tables import pairs
from cavendish_worker.wording.times import moment


@click.command("show", short_help="Show one id, its webhooks, and what the API said.")
@click.argument("task_id", metavar="ID")
@service_option(help="Service of the remote API, if several services track an id of this name.")
@account_option(help="Account of the remote API, if several accounts track an id of this name.")
@json_option
def command(task_id: str, service: str | None, account: str | None, as_json: bool) -> None:
    """Show one tracked task and the deliveries of its webhooks.

    Once the task has ended, the record of the remote API is shown, too.

    \b
    cavendish show 1c4dd0f1-6b0e-4b6f-9f36-0a9e1f3c7a10
    """
    store, settings = open_store()
    task = _find(store, task_id, service, account)
    lane = Lane.of(task.account, task.service, task_id, settings.shards)
    deliveries, pause = _deliveries(store, lane, task), _pause(store, task)
    if as_json:
        exact = {"record_json": task.record_json, "deliveries": deliveries}
        print_json(task.to_json() | {"paused": asdict(pause) if pause else None} | exact)
        return
    pairs(_rows(task, pause))
    for delivery in deliveries:
        _print(delivery)
    if deliveries:
        click.echo()
    if task.record is not None:
        print_json(task.record)


def _rows(task: TrackedTask, pause: Pause | None) -> list[tuple[str, object]]:
    return [
        ("id", task.id),
        ("state", task.state),
        ("reason", task.reason),
        ("not polled", pause.sentence if pause else ""),
        ("not found", _absences(task)),
        ("service", f"{task.service} (account {task.account})"),
        ("key", task.key),
        ("group", task.group),
        ("model", task.model),
        ("polls", task.polls),
        ("submitted", moment(task.submitted_at)),
        ("deadline", moment(task.deadline_at)),
        *((act.verb, f"{moment(act.at)} by {act.by}") for act in task.acts),
        ("finished", moment(task.finished_at)),
        ("settled", moment(task.settled_at)),
        ("trace", task.trace),
        ("metadata", json.dumps(task.metadata) if task.metadata else ""),
    ]


def _absences(task: TrackedTask) -> str:
    """How often in a row the API did not find a pending task."""
    if task.state is not State.PENDING or not task.absences:
        return ""
    polls = f"{task.absences} polls" if task.absences > 1 else "poll"
    return f"by the API, in the last {polls}"


def _find(store: Store, task_id: str, service: str | None, account: str | None) -> TrackedTask:
    """The task of this name. Raises SubmissionError if there is none, or more than one."""
    found = [
        task
        for asked in sorted({(lane.account, lane.service) for lane in store.tasks.lanes()})
        if asked == (account or asked[0], service or asked[1])
        for task in store.tasks.get(*asked, [task_id]).values()
    ]
    if len(found) == 1:
        return found[0]
    if found:
        where = ", ".join(f"{task.service} (account {task.account})" for task in found)
        raise SubmissionError(f"{task_id!r} is tracked for {where}: give --service or --account.")
    of = f" for the service {service!r}" if service else ""
    raise SubmissionError(f"'{plain(task_id)}' is not tracked{of}.")


def _pause(store: Store, task: TrackedTask) -> Pause | None:
    """The pause for which a pending task is not asked about."""
    if task.state is not State.PENDING:
        return None
    return store.controls.read().pause_of(task.account, task.service, store.fleet.now())


def _deliveries(store: Store, lane: Lane, task: TrackedTask) -> list[dict[str, Any]]:
    """The delivery to each webhook of a task, with its log."""
    registered = store.endpoints.all() if task.webhooks else {}
    names = [delivery_of(subscription, task.id) for subscription in task.webhooks]
    return [
        {
            "endpoint": one.endpoint,
            "url": registered[one.endpoint].url if one.endpoint in registered else one.url,
            "registered": one.endpoint in registered,
            "state": "waiting" if task.state is State.PENDING else one.state,
            "attempts": one.attempts,
            "outcome": one.outcome,
            "log": read_log(one.log),
        }
        for one in store.deliveries.load(lane, names)
    ]


def _print(delivery: dict[str, Any]) -> None:
    """Print one delivery; a registered endpoint has a name, others are known by their URL."""
    url, count = delivery["url"], delivery["attempts"]
    to = delivery["endpoint"] if delivery["registered"] or not url else url
    last = f", {count} attempt{'' if count == 1 else 's'}, last: {delivery['outcome']}"
    click.echo(
        "\n" + plain(f"webhook to {to}: {delivery['state']}{last if delivery['outcome'] else ''}")
    )
    print_log(delivery["log"])
