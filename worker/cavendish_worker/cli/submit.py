"""submit: track ids of the remote API."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import click

from cavendish import Client, QuotaExceeded, State, SubmissionError, Submitted, Task
from cavendish.submission import traceparent_complaint
from cavendish_worker.cli.id_lines import TASK_FIELDS, format_option, read_ids
from cavendish_worker.cli.interrupted import told_if_interrupted
from cavendish_worker.cli.options import account_option, json_option, service_option
from cavendish_worker.cli.output import counts, plain, print_json
from cavendish_worker.telemetry.tracing import traces

#: Refusals that are shown one by one.
_SHOWN = 20
#: What no id of the remote API holds, but lines of many formats that are taken for ids by mistake.
_ODD = re.compile(r"""[ ,"'`{}\[\]]""")
#: The ids that share their options, with these options.
Group = tuple[dict[str, Any], list[Any]]


def _metadata(_ctx: click.Context, _param: click.Parameter, text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        raise click.BadParameter("is not JSON.") from None


@click.command("submit", short_help="Track ids of the remote API.")
@click.argument("ids", nargs=-1, metavar="[ID...|-]")
@service_option()
@account_option(default="default", show_default=True)
@click.option(
    "--webhook",
    multiple=True,
    metavar="URL|NAME",
    help="Receiver of the webhook: a URL, or a registered endpoint; may be repeated.",
)
@click.option(
    "--deadline",
    type=float,
    metavar="SECONDS",
    help="Time after which the task expires (1 s to 30 days).",
)
@click.option(
    "--meta",
    "metadata",
    callback=_metadata,
    metavar="JSON",
    help="A JSON object that is sent back in the webhook.",
)
@click.option(
    "--model",
    metavar="NAME",
    help="The model that runs the task, if known; it improves the duration estimate.",
)
@click.option(
    "--producer",
    metavar="NAME",
    help="A label for who submits; the API calls are shared fairly between producers.",
)
@click.option(
    "--traceparent",
    metavar="TEXT",
    help="W3C trace context of the caller; default: the variable TRACEPARENT, if it is valid.",
)
@click.option("--key", metavar="TEXT", help="A name of your own for the id; `list --key` finds it.")
@click.option(
    "--group", metavar="NAME", help="A label for ids that belong together; see `cavendish group`."
)
@click.option(
    "--group-size",
    type=int,
    metavar="N",
    help="Number of ids in the group: group.completed is sent when as many have ended.",
)
@click.option("--restart", is_flag=True, help="Track ids again that have ended.")
@format_option
@click.option(
    "--raw",
    is_flag=True,
    help="Accept ids with commas, quotes, braces or white space, as the Python client does.",
)
@json_option
def command(
    ids: tuple[str, ...],
    as_json: bool,
    webhook: tuple[str, ...],
    form: str,
    raw: bool,
    **options: Any,
) -> None:
    """Track ids of the remote API; a known id stays as it is, and gets the webhooks added.

    With `-` the ids come from stdin, one per line; a line may also be a JSON object with "id" and
    options of its own: {"id": "…", "webhook": "https://…", "metadata": {…}, "key": "…"}. Items of a
    JSON array may be such objects, too; with `--format csv` each row of a table is one.

    \b
    cavendish submit --service nano-banana 1c4dd0f1-6b0e-4b6f-9f36-0a9e1f3c7a10
    generate | cavendish submit --service nano-banana --webhook https://example.com/hook -
    cavendish submit --service nano-banana --format csv - < orders.csv
    """
    if not ids or ("-" in ids and len(ids) > 1):
        raise click.UsageError("Give ids, or - alone to read them from stdin.")
    common = _common(options, webhook)
    answers: list[Submitted] = []
    with told_if_interrupted(lambda: "Stopped; no id was submitted."):
        groups = _groups(read_ids(ids, answers, form, raw=raw), common)
    if not groups and not answers:
        raise SubmissionError("Stdin held no ids.")
    if any("service" not in both for both, _ in groups):
        raise click.UsageError("Missing option '--service'.")
    number = sum(len(members) for _, members in groups) + len(answers)
    with Client() as client, told_if_interrupted(lambda: _so_far(len(answers), number)):
        for group in groups:
            answers += _submit(client, group, common, raw=raw)
    if as_json:
        fields = ("id", "outcome", "state", "reason")
        print_json([{name: getattr(answer, name) for name in fields} for answer in answers])
    else:
        _report(answers)
    if any(answer.refused for answer in answers):
        sys.exit(1)


def _so_far(done: int, number: int) -> str:
    rest = "submit all again: what is known stays as it is"
    return f"Stopped; at least {done:,} of {number:,} ids were answered, {rest}."


def _common(options: dict[str, Any], webhook: tuple[str, ...]) -> dict[str, Any]:
    """What the command line and its environment say of all ids."""
    options |= {"webhook": [*webhook] or None, "restart": options["restart"] or None}
    if options["traceparent"] is None and not traceparent_complaint(os.environ.get("TRACEPARENT")):
        options["traceparent"] = os.environ["TRACEPARENT"]
    return {name: value for name, value in options.items() if value is not None}


def _groups(entries: Iterable[tuple[Any, dict[str, Any]]], common: dict[str, Any]) -> list[Group]:
    """The ids in groups that share their options, but for what a `Task` has: a submit for each."""
    groups: dict[str, Group] = {}
    for task_id, own in entries:
        alone = {name: own.pop(name) for name in TASK_FIELDS if name in own}
        both = common | own if own else common
        key = json.dumps(both, sort_keys=True) if own else ""
        members = groups.setdefault(key, (both, []))[1]
        members.append(Task(task_id, **alone) if alone else task_id)
    return [*groups.values()]


def _submit(client: Client, group: Group, common: dict[str, Any], *, raw: bool) -> list[Submitted]:
    """Submit one group.

    Raises SubmissionError if the options of the command itself are wrong; if those of a line are,
    or if there is no room for the group, only its ids are refused.
    """
    both, ids = group
    names = [each.id if isinstance(each, Task) else each for each in ids]
    odd = {} if raw else {place: why for place, name in enumerate(names) if (why := _odd(name))}
    sound = [each for place, each in enumerate(ids) if place not in odd]
    try:
        with traces().submit(
            str(both["service"]), len(sound), both.get("traceparent") or ""
        ) as trace:
            answers = iter(client.submit(sound, **both | ({"traceparent": trace} if trace else {})))
    except SubmissionError as error:
        if both == common and not isinstance(error, QuotaExceeded):
            raise
        return [Submitted(str(name), "refused", reason=str(error)) for name in names]
    return [odd.get(place) or next(answers) for place in range(len(ids))]


def _odd(name: Any) -> Submitted | None:
    """The refusal of an id that no remote API makes, or None; the client refuses all others."""
    found = _ODD.search(name.strip()) if isinstance(name, str) else None
    reason = f"the id holds {found[0]!r}; --raw takes it as it is" if found else ""
    return Submitted(name, "refused", reason=reason) if found else None


def _report(answers: list[Submitted]) -> None:
    """Print how many ids had which outcome, and the first reasons."""
    outcomes = Counter(answer.outcome for answer in answers)
    click.echo(counts({name: outcomes[name] for name in ("new", "known", "refused")}))
    ended = Counter(
        str(answer.state)
        for answer in answers
        if answer.outcome == "known" and answer.state is not State.PENDING
    )
    if ended:
        click.echo(f"already ended: {counts(dict(sorted(ended.items())))}")
    for answer in [answer for answer in answers if answer.reason][:_SHOWN]:
        click.echo(f"{answer.outcome}: '{plain(answer.id[:60])}': {plain(answer.reason)}", err=True)
