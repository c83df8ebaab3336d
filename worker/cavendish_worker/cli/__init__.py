"""The command line: one file per command, of its name.

Each command is imported when it is called. An error is one plain sentence on stderr, and an exit
code that is not 0.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from pathlib import Path

import click

from cavendish_worker.cli.lazy_group import LazyGroup
from cavendish_worker.cli.output import replace_unprintable

#: Section of `--help` -> command -> its short help.
SECTIONS = {
    "Track ids": {
        "submit": "Track ids of the remote API.",
        "show": "Show one id, its webhooks, and what the API said.",
        "wait": "Wait until all ids have ended.",
        "group": "Show how far a group of ids is.",
        "list": "List ids by state, time, producer or endpoint.",
        "cancel": "Cancel pending ids, and stop polling them.",
        "deadline": "Give pending ids another deadline.",
        "forget": "Erase all data of ids.",
        "events": "Print which ids have ended; with --follow, also new ends.",
        "refused": "List, retry or drop refused submits and quarantined messages.",
    },
    "Watch": {
        "top": "Show the whole system on one screen, live.",
        "status": "Show the first page of top once, or refresh it with --watch.",
        "doctor": "Report what is wrong, and what to do about it.",
        "metrics": "Print or serve metrics of the store for Prometheus.",
        "alive": "Check whether the worker or beat of this host is alive.",
    },
    "Operate": {
        "pause": "Stop the calls for an account or a service, until resumed or for a time.",
        "resume": "Make calls again for an account or a service that was paused.",
        "rate-limit": "Show, set or remove the rate ceiling of an account.",
    },
    "Webhooks": {
        "endpoint": "Register webhook endpoints, rotate secrets, disable, test.",
        "dead": "List, revive or drop dead letters.",
        "replay": "Send delivered webhooks of an endpoint again.",
        "secret": "Print a secret for CAVENDISH_WEBHOOK_SECRET.",
    },
    "HTTP service": {
        "serve": "Serve the HTTP API for programs in any language.",
        "key": "Make, list and revoke keys of the HTTP API.",
    },
    "Run and try": {
        "up": "Run the whole stack on this machine.",
        "emulate": "Serve an emulated API and a webhook receiver.",
        "demo": "Run everything once in under a minute, and check the result.",
    },
}


@click.group(
    cls=LazyGroup,
    package=__name__,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='Completion: eval "$(_CAVENDISH_COMPLETE=bash_source cavendish)" in ~/.bashrc; '
    "zsh_source and fish_source for the other shells.",
)
@click.version_option(package_name="cavendish", prog_name="cavendish")
def cli() -> None:
    """Track remote AI image and video tasks: submit ids, receive signed webhooks.

    \b
    cavendish up --emulate                      the whole stack on this machine, emulated API
    cavendish submit --service nano-banana ID   track an id
    cavendish top                               everything on one screen, live
    cavendish doctor                            what is wrong, and what to do about it
    """


def main() -> None:
    """The console script."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was closed when this process began
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 (to the end)
    codecs.register_error("cavendish", replace_unprintable)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="cavendish")
    try:
        code = cli.main(prog_name="cavendish", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as refused:
        refused.show()
        sys.exit(refused.exit_code)
    except click.Abort as abort:
        if isinstance(abort.__cause__ or abort.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None  # the console script tells of it
        click.echo("Nothing was changed.", err=True)  # a question was answered by no, or not at all
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone: say nothing more
        sys.exit(1)
    except Exception as error:
        from cavendish.errors import CavendishError, SettingsError  # noqa: PLC0415 (--help needs none)

        if not isinstance(error, CavendishError):
            raise
        click.echo(str(error), err=True)
        sys.exit(2 if isinstance(error, SettingsError) else 1)
