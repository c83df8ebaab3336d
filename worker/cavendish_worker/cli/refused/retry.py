"""refused retry: submit again what was refused, or put a quarantined message back."""

from __future__ import annotations

import sys

import click

from cavendish.client import Client
from cavendish.errors import SubmissionError
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import plain, print_json
from cavendish_worker.cli.refused.places import entries_argument, places
from cavendish_worker.cli.refused.show import without_secrets


@click.command("retry", short_help="Submit again what was refused, after its cause was fixed.")
@entries_argument
@click.option("--all", "everything", is_flag=True, help="Retry all of them.")
@json_option
def command(entries: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Submit again what was refused, after its cause was fixed.

    A refused submit is checked by the settings of this environment, and its deadline counts from
    now. A quarantined message goes back into its queue. What is refused again stays.

    \b
    cavendish refused retry 5b0c6d1e2f3a
    cavendish refused retry --all
    """
    answers = []
    with places() as both, Client(settings=both.settings) as client:
        for one in both.chosen(entries, everything=everything):
            try:
                outcome, done = both.retry(one, client), True
            except SubmissionError as error:
                outcome, done = without_secrets(str(error)), False
            answers.append({"id": one, "retried": done, "outcome": outcome})
    if as_json:
        print_json(answers)
    else:
        for answer in answers:
            click.echo(plain(f"{answer['id']}: {answer['outcome']}"), err=not answer["retried"])
        click.echo(f"{sum(bool(answer['retried']) for answer in answers)} retried")
    if not all(answer["retried"] for answer in answers):
        sys.exit(1)
