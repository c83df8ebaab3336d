"""list: the tracked ids that match a filter."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from cavendish.endpoints.endpoint_view import find_endpoint
from cavendish.filter import Filter
from cavendish.model import TrackedTask
from cavendish.record_json import valid
from cavendish.store import Store
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.filters import filter_options, wanted
from cavendish_worker.cli.interrupted import told_if_interrupted
from cavendish_worker.cli.options import json_option, limit_option
from cavendish_worker.cli.output import json_text
from cavendish_worker.cli.progress import with_bar
from cavendish_worker.cli.tables import table
from cavendish_worker.wording.times import moment

#: Tasks that are read at once, and at most on one page.
_AT_ONCE, _LARGEST = 500, 100_000
_COLUMNS = ("id", "state", "lane", "submitted", "ended", "polls", "model, producer", "reason")
_CSV = (
    "id service account state submitted_at deadline_at finished_at settled_at polls model producer "
    "reason metadata record"
).split()


@click.command("list", short_help="List ids by state, time, producer or endpoint.")
@filter_options
@limit_option(default=50, type=click.IntRange(1, _LARGEST))
@click.option("--cursor", metavar="TEXT", help="Continue after an earlier page: its `next`.")
@click.option("--all", "every", is_flag=True, help="Print all, however many there are.")
@click.option("--records", is_flag=True, help="With the records of the remote API.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "jsonl", "csv"]),
    show_default="table",
    help="Format of the output.",
)
@json_option
def command(
    limit: int,
    cursor: str | None,
    form: str | None,
    *,
    every: bool,
    records: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """List pending and ended ids, the newest submit first.

    --since and --until compare with the time of the end, or of the submit while an id is pending.
    A page ends with a cursor, `next` in --json: with it the next page begins where this one ended,
    also if ids came or went in between. Ended ids are kept for CAVENDISH_RETENTION.

    \b
    cavendish list --service nano-banana --state failed --since 2h
    cavendish list --endpoint shop --limit 500 --json
    cavendish list --all --records --format jsonl > everything.jsonl
    """
    if as_json and form not in (None, "json"):
        raise click.UsageError("--json is --format json; name one of them.")
    form = "json" if as_json else form or "table"
    if records and form == "table":
        raise click.UsageError("A table has no room for --records: add --format jsonl.")
    store, _ = open_store()
    sought = Sought(store, wanted(store, options), cursor, None if every else limit, records)
    with told_if_interrupted(lambda: "Stopped; what was printed is not all."):
        _PRINTERS[form](sought)
    if not sought.found and options["endpoint"] is not None:
        find_endpoint(store, options["endpoint"])  # raises if it is not known at all
    if sought.next:
        more = f"There are more: --cursor {sought.next} goes on, --all prints all."
        click.echo(more, err=True)


class Sought:
    """The tasks that are printed; once they are, `found` is their number, and `next` the cursor
    behind them, if any.

    `limit`: how many at most; None: all, with a bar at a terminal.
    """

    def __init__(
        self, store: Store, found: Filter, cursor: str | None, limit: int | None, records: bool
    ) -> None:
        self._store, self._filter, self._limit = store, found, limit
        self.found, self.next, self.records = 0, cursor, records
        self.now = store.fleet.now()

    def pages(self) -> Iterator[Sequence[TrackedTask]]:
        """The tasks, page by page; the last one ends where the limit is reached."""
        left = self._limit
        while True:
            size = _AT_ONCE if left is None else min(left, _AT_ONCE)
            page = self._store.search.page(self._filter, self.next, size, with_record=self.records)
            self.next = page.next
            self.found += len(page.items)
            left = None if left is None else left - len(page.items)
            yield page.items
            if page.next is None or left == 0:
                return

    def __iter__(self) -> Iterator[TrackedTask]:
        """All of them; with a bar on stderr where all are wanted and a person looks on."""
        tasks = (task for page in self.pages() for task in page)
        if self._limit is not None or not sys.stderr.isatty() or sys.stdout.isatty():
            return tasks
        return with_bar(tasks, self._store.search.count(self._filter), "listing")


def _print_table(sought: Sought) -> None:
    printed = False
    for page in sought.pages():
        rows = [
            (
                task.id,
                task.state,
                f"{task.account}/{task.service}",
                moment(task.submitted_at),
                moment(task.settled_at) or f"{sought.now - task.submitted_at:.0f} s so far",
                task.polls,
                " ".join(filter(None, (task.model, task.producer))),
                task.reason,
            )
            for task in page
        ]
        if rows:
            spare = ("model, producer", "polls", "submitted", "lane", "reason", "ended")
            table(_COLUMNS, rows, cut="reason", spare=spare, head=not printed)
            printed = True
    if not printed:
        click.echo("no such ids")


def _print_json(sought: Sought) -> None:
    before = '{"items": ['
    for task in sought:
        click.echo(f"{before}\n{_json(task, sought.records)}", nl=False)
        before = ","
    click.echo(f'{before if before != "," else ""}\n], "next": {json.dumps(sought.next)}}}')


def _print_lines(sought: Sought) -> None:
    for task in sought:
        click.echo(_json(task, sought.records))


def _print_csv(sought: Sought) -> None:
    columns = _CSV if sought.records else _CSV[:-1]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for task in sought:
        writer.writerow(_cell(task, name) for name in columns)


def _json(task: TrackedTask, records: bool) -> str:
    """A task on one line; its record stands in it as it came."""
    plain = task.to_json()
    del plain["record"]
    text = json.dumps(plain, ensure_ascii=False)
    if records:
        text = f'{text[:-1]}, "record": {valid(task.record_json or "null")}}}'
    return json_text(text)


def _cell(task: TrackedTask, name: str) -> object:
    if name == "record":
        return task.record_json or ""
    value = getattr(task, name)
    if name == "metadata":
        return "" if value is None else json.dumps(value)
    return "" if value is None else value


_PRINTERS: dict[str, Callable[[Sought], None]] = {
    "table": _print_table,
    "json": _print_json,
    "jsonl": _print_lines,
    "csv": _print_csv,
}
