"""completion: the script by which a shell completes our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

#: What to do with the script of each shell.
_HOW = {
    "bash": 'Add to ~/.bashrc:  eval "$(cavendish completion bash)"',
    "zsh": 'Add to ~/.zshrc, after compinit:  eval "$(cavendish completion zsh)"',
    "fish": "Once:  cavendish completion fish > ~/.config/fish/completions/cavendish.fish",
}


@click.command(short_help="Complete commands and options in bash, zsh or fish.")
@click.argument("shell", type=click.Choice(sorted(_HOW)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell; how to use it is its last line.

    \b
    eval "$(cavendish completion bash)"
    cavendish completion fish > ~/.config/fish/completions/cavendish.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 (click has these three)
    script = kind(context.find_root().command, {}, "cavendish", "_CAVENDISH_COMPLETE").source()
    click.echo(f"{script.rstrip()}\n# {_HOW[shell]}")


COMMANDS = (completion,)
