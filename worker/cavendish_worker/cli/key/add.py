"""key add: make a key of the HTTP API."""

from __future__ import annotations

from dataclasses import asdict

import click

from cavendish.errors import SubmissionError
from cavendish.policy.access import RIGHTS, ApiKey, complaint
from cavendish_worker.cli.connect import open_store
from cavendish_worker.cli.options import account_option, json_option, service_option
from cavendish_worker.cli.output import print_json
from cavendish_worker.wording.times import duration


def _rights(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (word.strip() for word in text.split(",")))))


def _seconds(_ctx: click.Context, _param: click.Parameter, text: str | None) -> float | None:
    seconds = None if text is None else duration(text)
    if text is not None and not seconds:
        raise click.BadParameter("must be a duration such as 12h or 90d.")
    return seconds


@click.command("add", short_help="Make a key, and print it once.")
@click.argument("name")
@click.option(
    "--may",
    required=True,
    callback=_rights,
    metavar="RIGHTS",
    help=f"Rights of the key, separated by commas: {', '.join(RIGHTS)}.",
)
@account_option(multiple=True, help="Only this account; may be repeated. Default: all.")
@service_option(multiple=True, help="Only this service; may be repeated. Default: all.")
@click.option("--own", is_flag=True, help="The key sees only what it submitted itself.")
@click.option(
    "--expires",
    callback=_seconds,
    metavar="DURATION",
    help="Time after which the key expires, such as 90d. Default: never.",
)
@json_option
def command(
    name: str,
    may: tuple[str, ...],
    account: tuple[str, ...],
    service: tuple[str, ...],
    own: bool,
    expires: float | None,
    as_json: bool,
) -> None:
    """Make the key NAME of the HTTP API, and print it once: the store keeps only a hash of it.

    NAME is the producer of all ids that are submitted with the key. The right `submit` allows to
    submit (through the gateway, too), cancel and forget ids, and to change their deadlines; `read`
    to read tasks, groups and events; `operate` everything else.

    \b
    cavendish key add shop --may submit,read --account shop --own
    cavendish key add ops --may submit,read,operate --expires 90d
    """
    if why := complaint(name, may, account, service, own=own):
        raise SubmissionError(f"Refused: {why}.")
    store, _ = open_store()
    now = store.fleet.now()
    until = None if expires is None else round(now + expires, 3)
    key = ApiKey(name, "", "", may, account, service, own, round(now, 3), until)
    text = store.api_keys.add(key)
    if text is None:
        raise SubmissionError(f"There is a key {name!r}; revoke it first, or choose another name.")
    if as_json:
        said = {field: value for field, value in asdict(key).items() if field != "digest"}
        print_json(said | {"prefix": text[:12], "key": text})
    else:
        click.echo(text)
        click.echo("Keep it now: it is not shown again.", err=True)
