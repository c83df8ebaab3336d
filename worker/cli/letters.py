"""dead list | show | revive: the announcements that no receiver took."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from scheduler.errors import SubmissionError
from scheduler.settings import Settings
from scheduler.store import Book
from scheduler.store.debts import Debt
from scheduler.whereabouts import book_url
from worker.cli.output import as_json, moment, print_json, table


@click.group()
def dead() -> None:
    """The dead letters: announcements that no receiver took, each with its reason."""


def _book() -> Book:
    settings = Settings.load()
    return Book(book_url(settings), settings.shards)


def _all(book: Book) -> list[Debt]:
    return [debt for lane in book.tasks.lanes() for debt in book.debts.dead(lane)]


@dead.command("list")
@as_json
def list_dead(as_json: bool) -> None:  # noqa: FBT001 (click)
    """List the dead letters, the newest first.

    \b
    cavendish dead list
    """
    debts = _all(_book())
    if as_json:
        print_json([asdict(debt) | {"lane": str(debt.lane)} for debt in debts])
    elif debts:
        rows = [(debt.name, str(debt.lane), moment(debt.at), debt.tries, debt.outcome, debt.url) for debt in debts]
        table("", ("debt", "lane", "died", "tries", "reason", "url"), rows)
    else:
        click.echo("no dead letters")


@dead.command("show")
@click.argument("debt")
@as_json
def show_dead(debt: str, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Show one dead letter, by its name or by the id that it announces.

    \b
    cavendish dead show 1c4dd0f1-6b0e-4b6f-9f36-0a9e1f3c7a10
    """
    found = [one for one in _all(_book()) if debt in (one.name, one.task_id)]
    if not found:
        raise SubmissionError(f"No dead letter is called {debt!r}, nor announces such an id.")
    if as_json:
        print_json([asdict(one) | {"lane": str(one.lane)} for one in found])
        return
    for one in found:
        table(
            "",
            ("", ""),
            [(name, str(value)) for name, value in (asdict(one) | {"lane": str(one.lane), "at": moment(one.at)}).items()],
        )


@dead.command()
@click.argument("debts", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Revive all of them.")
@as_json
def revive(debts: tuple[str, ...], everything: bool, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Bring dead letters back among the owed, with all their tries, by name or by the id that they announce.

    \b
    cavendish dead revive --all
    """
    if not debts and not everything:
        raise click.UsageError("Name dead letters, or give --all.")
    book, revived = _book(), []
    now = book.fleet.now()
    for lane in book.tasks.lanes():
        names = [one.name for one in book.debts.dead(lane) if everything or one.name in debts or one.task_id in debts]
        revived += book.debts.revive(lane, now, names) if names else []
    if as_json:
        print_json(revived)
    else:
        click.echo(f"{len(revived)} revived")
    if not revived and debts:
        sys.exit(1)


COMMANDS = (dead,)
