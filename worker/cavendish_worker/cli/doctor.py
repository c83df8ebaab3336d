"""doctor: what is wrong, and what to do about it."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from cavendish.errors import StoreUnavailable
from cavendish.local_paths import store_url, with_kept
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker import doctor as doctors
from cavendish_worker.cli.output import as_json, plain, print_json


@click.command(short_help="Say what is wrong, and what to do about it.")
@click.option(
    "--offline",
    is_flag=True,
    help="Ask only Redis and the broker: neither the API, nor the resolver, nor a proxy.",
)
@as_json
def doctor(as_json: bool, offline: bool) -> None:
    """Check what must be right for the work to go on, and say what to do about what is not. Exit
    code 1 if anything fails.

    It asks Redis, the broker, and the API (one call that costs nothing, about an id that is
    nobody's); what living workers say of themselves is believed, and the rest is seen with the
    settings of this environment.

    \b
    cavendish doctor
    cavendish doctor --offline --json
    """
    settings = with_kept(Settings.load())
    try:
        findings = doctors.examine(
            Store(store_url(settings), settings.shards), settings, offline=offline
        )
    except StoreUnavailable as error:
        advice = "Start it, or mend CAVENDISH_REDIS_URL, user and password too; `cavendish up` brings its own."
        findings = [doctors.Finding("redis", ok=False, found=str(error), advice=advice)]
    failed = [finding for finding in findings if not finding.ok]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _print(finding)
        word = "thing is" if len(failed) == 1 else "things are"
        click.echo(
            f"\n{len(failed)} {word} wrong."
            if failed
            else f"\nAll is well: {len(findings)} checks."
        )
    if failed:
        sys.exit(1)


def _print(finding: doctors.Finding) -> None:
    mark, colour = ("ok  ", "green") if finding.ok else ("FAIL", "red")
    if finding.ok and finding.advice:
        mark, colour = "note", "cyan"
    if not finding.examined:
        mark, colour = "-   ", "bright_black"
    click.echo(
        f"{click.style(mark, fg=colour, bold=not finding.ok)}  {plain(f'{finding.what}: {finding.found}')}"
    )
    if finding.advice:
        click.echo(f"      {plain(finding.advice)}")


COMMANDS = (doctor,)
