"""submit, show: what a producer does from the shell."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from cavendish import Client, State, SubmissionError, Submitted, TrackedTask
from cavendish.model import Lane
from cavendish.store import Store
from cavendish.store.keys import delivery_of
from cavendish.submission import traceparent_complaint
from cavendish_worker.cli.arguments import opened
from cavendish_worker.cli.dead import show_log, told
from cavendish_worker.cli.output import account_option, as_json, moment, plain, print_json, table
from cavendish_worker.telemetry.tracing import traces

_WORDS = (
    "service",
    "account",
    "webhook",
    "deadline",
    "metadata",
    "model",
    "producer",
    "restart",
    "traceparent",
)


def _metadata(_context: click.Context, _option: click.Parameter, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise click.BadParameter("is no JSON.") from None


@click.command(short_help="Track ids of the remote API.")
@click.argument("ids", nargs=-1, metavar="[ID]...|-")
@click.option("--service", metavar="NAME", help="Service of the remote API, such as nano-banana.")
@account_option
@click.option(
    "--webhook",
    multiple=True,
    metavar="URL|NAME",
    help="Where to announce the end: a URL, or a registered endpoint; may be given several times.",
)
@click.option(
    "--deadline", type=float, metavar="SECONDS", help="Give up after so long (1 s to 30 days)."
)
@click.option(
    "--meta",
    "metadata",
    callback=_metadata,
    metavar="JSON",
    help="A JSON object that comes back in the webhook.",
)
@click.option(
    "--model",
    metavar="NAME",
    help="The model that works on it, if known: tasks of one model take alike.",
)
@click.option("--producer", metavar="NAME", help="Who asks: producers share the calls fairly.")
@click.option(
    "--traceparent",
    metavar="TEXT",
    help="W3C trace context of whoever asks; unset: TRACEPARENT of the environment, if it is one.",
)
@click.option("--restart", is_flag=True, help="Track ids anew that have ended.")
@as_json
def submit(ids: tuple[str, ...], as_json: bool, webhook: tuple[str, ...], **options: Any) -> None:  # noqa: FBT001 (click)
    """Track ids of the remote API; known ones are left as they are.

    With `-` the ids come from stdin, one a line; a line may also be a JSON object with "id" and
    options of its own: {"id": "…", "webhook": "https://…", "metadata": {…}}.

    \b
    cavendish submit --service nano-banana 1c4dd0f1-6b0e-4b6f-9f36-0a9e1f3c7a10
    generate | cavendish submit --service nano-banana --webhook https://example.com/hook -
    """
    if not ids:
        raise click.UsageError("Give ids, or - to read them from stdin.")
    if "-" in ids and len(ids) > 1:
        raise click.UsageError("Give ids, or - alone to read them from stdin.")
    options["webhook"] = list(webhook) or None
    if options["traceparent"] is None and not traceparent_complaint(os.environ.get("TRACEPARENT")):
        options["traceparent"] = os.environ["TRACEPARENT"]
    options = {
        name: value for name, value in options.items() if value is not None and value is not False
    }
    groups: dict[str, tuple[dict[str, Any], list[Any]]] = {}
    answers: list[Submitted] = []
    for task_id, own in lines(ids, answers):
        both = {**options, **own}
        groups.setdefault(json.dumps(both, sort_keys=True), (both, []))[1].append(task_id)
    if not groups and not answers:
        raise SubmissionError("Stdin held no ids.")
    if any("service" not in both for both, _ in groups.values()):
        raise click.UsageError("Missing option '--service'.")
    with Client() as client:
        for both, members in groups.values():
            try:
                with traces().submit(
                    str(both["service"]), len(members), both.get("traceparent") or ""
                ) as trace:
                    answers += client.submit(
                        members, **both | ({"traceparent": trace} if trace else {})
                    )
            except SubmissionError as error:
                if both == options:  # what the command itself says is wrong, not a line
                    raise
                answers += [
                    Submitted(str(task_id), "refused", reason=str(error)) for task_id in members
                ]
    if as_json:
        print_json(
            [
                {"id": a.id, "outcome": a.outcome, "state": a.state, "reason": a.reason}
                for a in answers
            ]
        )
    else:
        _report(answers)
    if any(answer.refused for answer in answers):
        sys.exit(1)


def lines(ids: tuple[str, ...], refused: list[Submitted]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each id with the options of its own line.

    Lines that cannot be read are refused, the others go on.
    """
    if ids != ("-",):
        yield from ((task_id, {}) for task_id in ids)
        return
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            line = raw.decode().strip()
            if not line:
                continue
            if not line.startswith(("{", "[", '"')):
                yield line, {}
                continue
            read = json.loads(line)
            read = {"id": read} if isinstance(read, str) else read
            task_id = read.pop("id")
        except (AttributeError, TypeError, ValueError, KeyError, RecursionError):
            refused.append(
                Submitted(
                    f"line {number}",
                    "refused",
                    reason="the line is neither an id nor a JSON object with an id",
                )
            )
            continue
        unknown = sorted(set(read) - set(_WORDS))
        if unknown:
            refused.append(
                Submitted(
                    str(task_id),
                    "refused",
                    reason=f"line {number} has the unknown key {unknown[0][:40]!r}",
                )
            )
            continue
        yield task_id, read


def _report(answers: list[Submitted]) -> None:
    count = Counter(answer.outcome for answer in answers)
    click.echo(
        " · ".join(f"{count[word]} {word}" for word in ("new", "known", "refused") if count[word])
    )
    ended = Counter(
        str(answer.state)
        for answer in answers
        if answer.outcome == "known" and answer.state is not State.PENDING
    )
    if ended:
        click.echo(
            "already ended: "
            + " · ".join(f"{number} {state}" for state, number in sorted(ended.items()))
        )
    for answer in [answer for answer in answers if answer.reason][:20]:
        click.echo(f"{answer.outcome}: '{plain(answer.id[:60])}': {plain(answer.reason)}", err=True)


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
def show(task_id: str, service: str | None, account: str | None, as_json: bool) -> None:  # noqa: FBT001 (click)
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


COMMANDS = (submit, show)
