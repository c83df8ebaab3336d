"""doctor: what is wrong, and what to do about it."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from cavendish.errors import StoreUnavailable
from cavendish_worker import doctor as doctors
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.options import json_option
from cavendish_worker.cli.output import plain, print_json


@click.command("doctor", short_help="Report what is wrong, and what to do about it.")
@click.option(
    "--offline",
    is_flag=True,
    help="Ask only Redis and the broker: neither the API, nor the resolver, nor a proxy.",
)
@click.option(
    "--acknowledge",
    is_flag=True,
    help="Stop reporting that the store was emptied, and paid submits of uncertain fate; then "
    "check everything.",
)
@json_option
def command(as_json: bool, offline: bool, acknowledge: bool) -> None:
    """Check Redis, the broker, the API, processes and endpoints; say what to do about each fault.

    Exit code 1 if a check fails. The call to the API is free: it queries a reserved id that does
    not exist. Settings are those that living workers report, and else those of this environment.

    \b
    cavendish doctor
    cavendish doctor --offline --json
    """
    store, settings = open_store()
    try:
        if acknowledge:
            store.fleet.acknowledge_emptied()
            store.uncertain.forget()
        findings = doctors.examine(store, settings, offline=offline)
    except StoreUnavailable as error:
        advice = (
            "Start Redis, or correct CAVENDISH_REDIS_URL with its user and password; "
            "`cavendish up` starts an embedded server."
        )
        findings = [doctors.Finding("redis", ok=False, found=str(error), advice=advice)]
    failed = sum(not finding.ok for finding in findings)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _print(finding)
        wrong = f"{failed} {'thing is' if failed == 1 else 'things are'} wrong."
        click.echo(f"\n{wrong if failed else f'All is well: {len(findings)} checks.'}")
    if failed:
        sys.exit(1)


def _print(finding: doctors.Finding) -> None:
    mark, colour = ("ok  ", "green") if finding.ok else ("FAIL", "red")
    if finding.ok and finding.advice:
        mark, colour = "note", "cyan"
    if not finding.examined:
        mark, colour = "-   ", "bright_black"
    mark = click.style(mark, fg=colour, bold=not finding.ok)
    click.echo(f"{mark}  {plain(f'{finding.what}: {finding.found}')}")
    if finding.advice:
        click.echo(f"      {plain(finding.advice)}")
