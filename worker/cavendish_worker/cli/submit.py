"""submit: track ids of the remote API."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from cavendish import Client, State, SubmissionError, Submitted
from cavendish.submission import traceparent_complaint
from cavendish_worker.cli.output import account_option, as_json, plain, print_json
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
def submit(ids: tuple[str, ...], as_json: bool, webhook: tuple[str, ...], **options: Any) -> None:
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


COMMANDS = (submit,)
