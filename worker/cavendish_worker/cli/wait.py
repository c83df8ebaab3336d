"""wait.

Until ids have ended, with what the duration model of durations says of how long that will take.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from cavendish import Client, State, SubmissionError, Submitted, TrackedTask, WaitTimeout
from cavendish.clock import Clock
from cavendish.errors import StoreUnavailable
from cavendish.model import Lane
from cavendish.policy.durations import Forecast, until_all
from cavendish.store import Store
from cavendish.store.forecasts import Forecasts
from cavendish_worker.cli.arguments import Number, opened
from cavendish_worker.cli.output import (
    account_option,
    as_json,
    plain,
    print_json,
    service_option,
    table,
)
from cavendish_worker.cli.submit import lines
from cavendish_worker.cli.top.pages import STATE_STYLES

#: Open ids from which the end of the last one is told: more would say hardly more.
SAMPLE = 100
#: Seconds between two polls at the ids while somebody watches, and between two plain lines where
#: nobody does.
AGAIN, SAID_AGAIN = 2.0, 15.0


@dataclass
class Outcome:
    """What is known of the ids while they are waited for.

    Told by one thread, and shown by another.
    """

    store: Store
    ids: Sequence[str]
    lane: Lane
    forecasts: Forecasts = field(init=False)
    clock: Clock = field(init=False)
    told: set[str] = field(default_factory=set)
    #: The open ids with what is known of their models: in one piece, since the other thread reads
    #: it at any time.
    _open: tuple[list[TrackedTask], dict[str, Forecast]] = field(default_factory=lambda: ([], {}))

    def __post_init__(self) -> None:
        self.forecasts, self.clock = Forecasts(self.store.shared_state), self.store.clock()

    def poll(self) -> list[TrackedTask]:
        """Look at the ids that were open.

        Returns those that have ended since. Raises BookUnavailable.
        """
        left = [task_id for task_id in self.ids if task_id not in self.told]
        found = self.store.tasks.get(self.lane.account, self.lane.service, left, with_record=False)
        ended = [task for task in found.values() if task.state.terminal]
        self.told.update(task.id for task in ended)
        still, now = [task for task in found.values() if not task.state.terminal], self.clock.now()
        self._open = (
            still,
            {
                model: self.forecasts.forecast(self.lane, model, now)
                for model in {task.model for task in still}
            },
        )
        return ended

    def eta(self) -> tuple[float, float] | None:
        """Seconds by which all have ended, with even odds and with 19 of 20.

        None if nothing is open.
        """
        (some, known), now = self._open, self.clock.now()
        if not some:
            return None
        longest = max(task.deadline_at - now for task in some)
        running = [
            (
                known[task.model],
                max((task.polled_at or task.submitted_at) - task.submitted_at, 0.0),
                now - task.submitted_at,
            )
            for task in some[:: max(len(some) // SAMPLE, 1)]
        ]
        weight = len(some) / len(running)  # each of the sample stands for so many
        even, most = (
            until_all(running, share ** (1 / weight), max(longest, 0.0)) for share in (0.5, 0.95)
        )
        return even, most


class Eta(ProgressColumn):
    """How long it will take still; worked out anew each second, also while nothing ends."""

    max_refresh = 1.0

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self._outcome = outcome

    def render(self, _task: Task) -> Text:
        return Text(said(self._outcome.eta()), style="cyan")


def said(eta: tuple[float, float] | None) -> str:
    """An estimate in words."""
    if eta is None:
        return ""
    even, most = (
        f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" for seconds in eta
    )
    return f"about {even} more, at most {most}" if even != most else f"about {even} more"


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...|-")
@service_option
@account_option
@click.option(
    "--timeout",
    type=Number(min=0),
    metavar="SECONDS",
    help="Give up waiting after so long; the ids are still tracked.",
)
@as_json
def wait(
    ids: tuple[str, ...], service: str, account: str, timeout: float | None, as_json: bool
) -> None:  # noqa: FBT001 (click)
    """Wait until all ids have ended. Exit code 0 only if all succeeded. With `-` the ids come from
    stdin, as for `submit`.

    At a terminal it shows how many have ended and, from the durations learned so far, when the last
    one will: with even odds, and at most, which one wait in twenty exceeds.

    \b
    cavendish wait --service nano-banana --timeout 300 ID1 ID2
    cavendish wait --service nano-banana - < ids
    """
    store, _ = opened()
    wanted = _wanted(ids)
    outcome = Outcome(store, wanted, Lane(account, service))
    console = Console(stderr=True, highlight=False)
    over = threading.Event()
    with Client() as client, _bar(console, outcome) as bar:
        row = bar.add_task("", total=len(wanted))
        teller = threading.Thread(target=_tell, args=(outcome, console, over), daemon=True)
        teller.start()
        done, late = 0, None

        def progress(ended: int, _all: int) -> None:
            nonlocal done
            done = ended
            bar.update(row, completed=ended)

        try:
            ended = client.wait(
                wanted, service=service, account=account, timeout=timeout, progress=progress
            )
        except WaitTimeout as over_time:
            if not as_json:
                raise
            ended, late = client.get_many(wanted, service=service, account=account), over_time
        except KeyboardInterrupt:
            bar.stop()
            console.print(
                f"Stopped waiting; {done} of {len(wanted)} have ended, the rest is still tracked."
            )
            sys.exit(130)
        finally:
            over.set()
            teller.join(timeout=1.0)
    if as_json:
        print_json([task.to_json() for task in ended.values()])
        if late:
            raise late
    elif console.is_terminal and sys.stdout.isatty():  # the others were told already
        _show([task for task in ended.values() if task.id not in outcome.told], console)
        count = Counter(task.state.value for task in ended.values())
        click.echo(" · ".join(f"{number} {state}" for state, number in count.most_common()))
    else:
        table(
            "",
            ("id", "state", "reason"),
            [(task.id, task.state, task.reason) for task in ended.values()],
        )
    if not all(task.state is State.SUCCEEDED for task in ended.values()):
        sys.exit(1)


def _wanted(ids: tuple[str, ...]) -> list[str]:
    """The ids, each once.

    Raises SubmissionError for a line of stdin that holds none, and where there are none at all.
    """
    refused: list[Submitted] = []
    wanted = list(dict.fromkeys(str(task_id) for task_id, _ in lines(ids, refused)))
    if refused:
        raise SubmissionError(f"{refused[0].id}: {refused[0].reason}.")
    if not wanted:
        raise SubmissionError("Stdin held no ids.")
    return wanted


def _bar(console: Console, outcome: Outcome) -> Progress:
    columns = (
        TextColumn("waiting"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        Eta(outcome),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _tell(outcome: Outcome, console: Console, over: threading.Event) -> None:
    """Print what ends while it is waited for, above the bar.

    Without a terminal a line now and then says how it goes.
    """
    said_at = time.monotonic()
    while True:
        with suppress(StoreUnavailable):  # the wait itself says that
            ended = outcome.poll()
            if console.is_terminal:
                _show(ended, console)
            elif time.monotonic() - said_at >= SAID_AGAIN:
                said_at = time.monotonic()
                console.print(
                    f"{len(outcome.told)} of {len(outcome.ids)} have ended; {said(outcome.eta())}"
                )
        if over.wait(AGAIN):
            return


def _show(ended: Sequence[TrackedTask], console: Console) -> None:
    for task in ended:
        state = (f"{task.state.value:<9} ", STATE_STYLES[task.state.value])
        console.print(
            Text.assemble(
                state, plain(task.id), (f"  {plain(task.reason)}" if task.reason else "", "dim")
            )
        )


COMMANDS = (wait,)
