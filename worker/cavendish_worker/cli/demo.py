"""demo: the whole main job on this machine, shown while it runs, and checked at its end."""

from __future__ import annotations

import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cavendish import Client, State, TrackedTask
from cavendish.errors import StackError
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.cli.top import overview
from cavendish_worker.cli.top.polls import Polls
from cavendish_worker.cli.top.view import View

SERVICE = "nano-banana"
#: Seconds between two polls.
EVERY = 0.5
_OURS = (sys.executable, "-m", "cavendish_worker.cli")


@click.command("demo", short_help="Run everything once in under a minute, and check the result.")
@click.option(
    "--tasks",
    default=500,
    type=click.IntRange(min=1),
    show_default=True,
    help="Number of ids to submit.",
)
@click.option(
    "--timeout", default=55.0, show_default=True, help="Seconds after which the demo has failed."
)
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a picture of the run to this file.",
)
def command(tasks: int, timeout: float, svg: Path | None) -> None:
    """Run everything once against an emulated API, and check the result.

    Ids are submitted in three ways, polled, settled and announced. Exit code 0 only if every id was
    settled and every webhook arrived, with a valid signature and one webhook-id for each.

    \b
    cavendish demo
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    try:
        run, midway = _run(tasks, timeout, console)
    except KeyboardInterrupt:  # the stack has ended by now
        console.print("Stopped before the end.")
        sys.exit(130)
    console.print(run.summary())
    if svg is not None:
        picture = Console(
            highlight=False, record=True, width=100, file=io.StringIO(), force_terminal=True
        )
        picture.print(midway, run.summary(), sep="\n")
        svg.write_text(picture.export_svg(title="make demo"))
    if not run.whole:
        console.print("Not every id was settled, announced and verified.", style="bold red")
        sys.exit(1)
    then = "Next: cavendish up --emulate, and in another terminal cavendish top (in .venv/bin)."
    console.print(then, style="dim")


def _run(tasks: int, timeout: float, console: Console) -> tuple[Run, Panel | Text]:
    """The main job, and what was shown in the middle of it."""
    with (
        tempfile.TemporaryDirectory(prefix="cavendish-demo-") as folder,
        _stack(Path(folder)) as facts,
    ):
        console.print(f"The stack is up. Flower: {facts['flower']}")
        make = f"{facts['api']}/emulator/tasks"
        ids = httpx.post(make, json={"count": tasks}, trust_env=False).json()["ids"]
        settings = Settings.load(_environment(facts))
        polls = Polls(Store(str(facts["store"])), settings, EVERY)
        with Client(settings=settings) as client:
            _submit_in_three_ways(client, ids, facts, console)
            watch = Watch(client, polls, ids, facts, timeout)
            return watch.until_done(console), watch.midway


def _environment(facts: dict[str, Any]) -> dict[str, str]:
    """The settings of a producer beside the stack."""
    return {
        "CAVENDISH_REDIS_URL": str(facts["store"]),
        "CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8",
    }


@contextmanager
def _stack(folder: Path) -> Iterator[dict[str, Any]]:
    """`cavendish up --emulate` with a data folder of its own; its log is a file there."""
    log, kept = folder / "up.log", ("CAVENDISH_REDIS_URL", "CAVENDISH_BROKER_URL")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in kept or not name.startswith("CAVENDISH_")
    }
    environment |= {"CAVENDISH_DATA_DIR": str(folder / "data"), "CAVENDISH_FLOWER_PORT": "0"}
    command = [*_OURS, "up", "--emulate", "--median", "5", "--sigma", "0.4"]
    with log.open("w") as lines:
        process = subprocess.Popen(command, env=environment, stdout=lines, stderr=lines)  # noqa: S603 (our own command)
    try:
        yield _facts(folder / "data" / "stack.json", process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _facts(
    path: Path, process: subprocess.Popen[bytes], log: Path, seconds: float = 20.0
) -> dict[str, Any]:
    """The URLs of the stack, once it answers. Raises StackError if it does not in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if path.exists():
            facts: dict[str, Any] = json.loads(path.read_text())
            with suppress(httpx.TransportError):
                httpx.get(f"{facts['api']}/emulator/tally", trust_env=False)
                return facts
        time.sleep(0.05)
    last = log.read_text(errors="replace").splitlines()[-20:]
    raise StackError("\n".join(["The stack did not come up:", *last]))


def _submit_in_three_ways(
    client: Client, ids: list[str], facts: dict[str, Any], console: Console
) -> None:
    """A third by the client, a third by a Celery message, a third by the command line."""
    from celery import Celery  # noqa: PLC0415 (as a producer would that has nothing of ours)

    third = len(ids) // 3
    by_client, by_message, by_shell = ids[:third], ids[third : 2 * third], ids[2 * third :]
    hook, queue = str(facts["receiver"]), "cavendish.submit"
    client.submit(by_client, service=SERVICE, webhook=hook, metadata={"door": "client"})
    producer = Celery("a-producer", broker=facts["broker"], set_as_current=False)
    options = {"service": SERVICE, "webhook": hook, "metadata": {"door": "message"}}
    if by_message:
        producer.send_task(queue, args=[by_message], kwargs=options, queue=queue)
    producer.close()
    words = ["--service", SERVICE, "--webhook", hook, "--meta", '{"door": "shell"}', "-"]
    said = subprocess.run(  # noqa: S603 (our own command)
        [*_OURS, "submit", *words],
        env=os.environ | _environment(facts),
        input="\n".join(by_shell),
        capture_output=True,
        text=True,
        check=False,
    )
    if said.returncode:
        raise StackError(f"`cavendish submit` failed: {said.stderr.strip()}")
    ways = f"{len(by_client)} by the client, {len(by_message)} by a Celery message"
    console.print(f"Submitted {ways}, {len(by_shell)} by the shell.")


@dataclass(slots=True)
class Run:
    """What is known of the demo at one moment.

    `ledger`: the webhooks that the receiver took; `tally`: the calls that the API answered.
    """

    wanted: int
    seconds: float
    tasks: dict[str, TrackedTask]
    ledger: dict[str, Any]
    tally: dict[str, Any]

    @property
    def ended(self) -> list[TrackedTask]:
        return [task for task in self.tasks.values() if task.state.terminal]

    @property
    def whole(self) -> bool:
        """True if every id was settled, and its webhook arrived once and says the same."""
        states = {task.id: task.state.value for task in self.ended}
        return (
            len(states) == self.wanted
            and states == self.ledger["states"]
            and not self.ledger["under_two_ids"]
            and not self.ledger["refused"]
        )

    def line(self) -> str:
        done = f"settled {len(self.ended):3d} of {self.wanted}"
        verified = f"webhooks verified {self.ledger['verified']:3d}"
        return f"{self.seconds:4.0f} s   {done}   {verified}   calls {self.tally['calls']}"

    def live(self, found: dict[str, Any], width: int, height: int) -> Panel:
        """How far it is, above the first page of `cavendish top`."""
        bars, verified = Table.grid(padding=(0, 2)), self.ledger["verified"]
        numbers = {"tracked": len(self.tasks), "settled": len(self.ended), "announced": verified}
        for name, done in numbers.items():
            style = "green" if done == self.wanted else "dark_orange"
            room = max(width - 40, 10)
            bar = ProgressBar(self.wanted, done, width=room, complete_style=style)
            bars.add_row(Text(name, style="dim"), bar, f"{done} of {self.wanted}")
        below = overview.draw(View(found=found), width - 4, height - 7)
        title = f"[bold]Cavendish[/]  {self.seconds:.0f} s"
        body = Group(bars, Text(""), below)
        return Panel(body, title=title, border_style="dark_orange", width=width)

    def summary(self) -> Panel:
        """The numbers of the whole run."""
        ended, calls, verified = self.ended, self.tally["calls"], str(self.ledger["verified"])
        count = Counter(task.state for task in ended)
        times = [(task.settled_at, task.finished_at) for task in ended]
        delays = sorted(settled - finished for settled, finished in times if settled and finished)
        cuts = statistics.quantiles(delays, n=100) if len(delays) > 1 else [0.0] * 99
        shares = " / ".join(f"{cuts[share - 1]:.2f} s" for share in (50, 95, 99))
        rows = {
            "tracked": f"{len(self.tasks)} of {self.wanted}, submitted in three ways",
            "succeeded": str(count[State.SUCCEEDED]),
            "failed": str(count[State.FAILED]),
            "webhooks delivered and verified": verified
            + (", each under one webhook-id" if self.whole else ""),
            "API calls per finished task": f"{calls / max(len(ended), 1):.3f}  ({calls} calls)",
            "detection delay p50 / p95 / p99": shares,
            "429s": str(self.tally["answers"].get("429", 0)),
            "time": f"{self.seconds:.1f} s",
        }
        shown = Table.grid(padding=(0, 3))
        for name, value in rows.items():
            shown.add_row(Text(name, style="dim"), Text(value, style="bold"))
        colour = "dark_orange" if self.whole else "red"
        return Panel(shown, title="Cavendish", border_style=colour, expand=False)


@dataclass
class Watch:
    """Polls twice a second until all is done or the time is over.

    `midway`: what was shown while the work went on.
    """

    client: Client
    polls: Polls
    ids: list[str]
    facts: dict[str, Any]
    timeout: float
    midway: Panel | Text = field(default_factory=Text)

    def until_done(self, console: Console) -> Run:
        """Show each poll at a terminal; elsewhere print a line of progress every three seconds."""
        said, started = 0.0, time.monotonic()
        with (
            httpx.Client(trust_env=False) as http,
            Live(console=console, transient=True, auto_refresh=False) as live,
        ):
            while True:
                run, found = self._poll(http, started), self.polls.poll()
                if len(run.ended) <= 0.6 * run.wanted:  # later a picture shows little of the work
                    self.midway = run.live(found, 100, 26)
                if console.is_terminal:
                    width, height = min(console.width, 120), console.height - 1
                    live.update(run.live(found, width, height), refresh=True)
                elif run.seconds - said >= 3:
                    said = run.seconds
                    console.print(run.line())
                if run.whole or run.seconds > self.timeout:
                    return run
                time.sleep(EVERY)

    def _poll(self, http: httpx.Client, started: float) -> Run:
        tasks = self.client.get_many(self.ids, service=SERVICE, with_record=False)
        ledger = http.get(f"{self.facts['receiver']}/ledger").json()
        tally = http.get(f"{self.facts['api']}/emulator/tally").json()
        return Run(len(self.ids), time.monotonic() - started, tasks, ledger, tally)
