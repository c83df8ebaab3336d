"""demo: the whole main job on this machine, shown while it runs, and judged at its end."""

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
from contextlib import contextmanager
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
from cavendish_worker.cli.top import Polls
from cavendish_worker.cli.top.pages import View, lane_view

SERVICE = "nano-banana"
#: Seconds between two polls.
EVERY = 0.5


@click.command(short_help="See the main job done in under a minute, and judged.")
@click.option(
    "--tasks",
    default=500,
    type=click.IntRange(min=1),
    show_default=True,
    help="How many ids to submit.",
)
@click.option(
    "--timeout", default=55.0, show_default=True, help="Seconds after which it counts as failed."
)
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw the summary into this file.",
)
def demo(tasks: int, timeout: float, svg: Path | None) -> None:
    """Run the main job against a pretend API: submit through three doors, poll, settle, announce,
    and count.

    Exit code 0 only if every id was settled, and every webhook arrived, verified, under one name.

    \b
    cavendish demo
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    try:
        run, midway = _run(tasks, timeout, console)
    except KeyboardInterrupt:  # the stack has ended by now
        console.print("Stopped before its end.")
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
    console.print(
        "Next: cavendish up --emulate, and cavendish top in another terminal; both lie in .venv/bin.",
        style="dim",
    )


def _run(tasks: int, timeout: float, console: Console) -> tuple[Run, Panel | Text]:
    """The main job, and what was shown midway."""
    with (
        tempfile.TemporaryDirectory(prefix="cavendish-demo-") as folder,
        _stack(Path(folder)) as facts,
    ):
        console.print(f"The stack is up. Flower: {facts['flower']}")
        ids = httpx.post(
            f"{facts['api']}/emulator/tasks", json={"count": tasks}, trust_env=False
        ).json()["ids"]
        settings = Settings.load(
            {"CAVENDISH_REDIS_URL": facts["book"], "CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8"}
        )
        with Client(settings=settings) as client:
            _submit_by_three_doors(client, ids, facts, console)
            watch = Watch(
                client, Polls(Store(str(facts["book"])), settings, EVERY), ids, facts, timeout
            )
            return watch.until_done(console), watch.midway


@contextmanager
def _stack(folder: Path) -> Iterator[dict[str, Any]]:
    """`cavendish up --emulate` with a data folder of its own; its lines go into a file there."""
    log = folder / "up.log"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
    }
    environment |= {
        name: os.environ[name]
        for name in ("CAVENDISH_REDIS_URL", "CAVENDISH_BROKER_URL")
        if name in os.environ
    }
    environment |= {"CAVENDISH_DATA_DIR": str(folder / "data"), "CAVENDISH_FLOWER_PORT": "0"}
    with log.open("w") as lines:
        command = [
            sys.executable,
            "-m",
            "cavendish_worker.cli",
            "up",
            "--emulate",
            "--median",
            "5",
            "--sigma",
            "0.4",
        ]
        process = subprocess.Popen(command, env=environment, stdout=lines, stderr=lines)  # noqa: S603 (our own command)
    try:
        yield _facts(folder / "data" / "stack.json", process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _facts(
    path: Path, process: subprocess.Popen[bytes], log: Path, seconds: float = 20.0
) -> dict[str, Any]:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if path.exists():
            facts: dict[str, Any] = json.loads(path.read_text())
            try:
                httpx.get(f"{facts['api']}/emulator/tally", trust_env=False)
            except httpx.TransportError:
                pass
            else:
                return facts
        time.sleep(0.05)
    raise StackError(
        "The stack did not come up:\n"
        + "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    )


def _submit_by_three_doors(
    client: Client, ids: list[str], facts: dict[str, Any], console: Console
) -> None:
    """A third through the client, a third as a Celery message, a third through the command line."""
    from celery import Celery  # noqa: PLC0415 (what a producer that has nothing of ours would do)

    third = len(ids) // 3
    by_client, by_message, by_shell = ids[:third], ids[third : 2 * third], ids[2 * third :]
    hook = str(facts["receiver"])
    client.submit(by_client, service=SERVICE, webhook=hook, metadata={"door": "client"})
    producer = Celery("a-producer", broker=facts["broker"], set_as_current=False)
    options = {"service": SERVICE, "webhook": hook, "metadata": {"door": "message"}}
    if by_message:
        producer.send_task(
            "cavendish.submit", args=[by_message], kwargs=options, queue="cavendish.submit"
        )
    producer.close()
    environment = dict(os.environ) | {
        "CAVENDISH_REDIS_URL": str(facts["book"]),
        "CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8",
    }
    options = ["--service", SERVICE, "--webhook", hook, "--meta", '{"door": "shell"}', "-"]
    said = subprocess.run(  # noqa: S603 (our own command)
        [sys.executable, "-m", "cavendish_worker.cli", "submit", *options],
        env=environment, input="\n".join(by_shell), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if said.returncode:
        raise StackError(f"`cavendish submit` failed: {said.stderr.strip()}")
    console.print(
        f"Submitted {len(by_client)} by the client, {len(by_message)} by a Celery message, {len(by_shell)} by the shell."
    )


@dataclass(slots=True)
class Run:
    """What is known of the demo at one moment."""

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
        """Every id settled.

        Every webhook arrived, verified, says what the store says, and has one name.
        """
        told = {task.id: task.state.value for task in self.ended}
        names = not self.ledger["under_two_ids"] and not self.ledger["refused"]
        return (
            len(told) == self.wanted == len(self.ledger["states"])
            and told == self.ledger["states"]
            and names
        )

    def line(self) -> str:
        done = f"settled {len(self.ended):3d} of {self.wanted}   webhooks verified {self.ledger['verified']:3d}"
        return f"{self.seconds:4.0f} s   {done}   calls {self.tally['calls']}"

    def live(self, found: dict[str, Any], width: int, height: int) -> Panel:
        """How far it is, above what `cavendish top` shows of it."""
        bars = Table.grid(padding=(0, 2))
        for name, done in (
            ("tracked", len(self.tasks)),
            ("settled", len(self.ended)),
            ("announced", self.ledger["verified"]),
        ):
            style = "green" if done == self.wanted else "dark_orange"
            bar = ProgressBar(
                total=self.wanted, completed=done, width=max(width - 40, 10), complete_style=style
            )
            bars.add_row(Text(name, style="dim"), bar, f"{done} of {self.wanted}")
        below = lane_view(View(found=found), width - 4, height - 7)
        title = f"[bold]Cavendish[/]  {self.seconds:.0f} s"
        return Panel(
            Group(bars, Text(""), below), title=title, border_style="dark_orange", width=width
        )

    def summary(self) -> Panel:
        ended = self.ended
        count = Counter(task.state for task in ended)
        delays = sorted(
            task.settled_at - task.finished_at
            for task in ended
            if task.settled_at and task.finished_at
        )
        cuts = statistics.quantiles(delays, n=100) if len(delays) > 1 else [0.0] * 99
        grid = Table.grid(padding=(0, 3))
        rows = [
            ("tracked", f"{len(self.tasks)} of {self.wanted}, by three doors"),
            ("succeeded", str(count[State.SUCCEEDED])),
            ("failed", str(count[State.FAILED])),
            (
                "webhooks delivered and verified",
                f"{self.ledger['verified']}, none under two names"
                if self.whole
                else str(self.ledger["verified"]),
            ),
            (
                "API calls per finished task",
                f"{self.tally['calls'] / max(len(ended), 1):.3f}  ({self.tally['calls']} calls)",
            ),
            (
                "detection delay p50 / p95 / p99",
                f"{cuts[49]:.2f} s / {cuts[94]:.2f} s / {cuts[98]:.2f} s",
            ),
            ("429s", str(self.tally["answers"].get("429", 0))),
            ("time", f"{self.seconds:.1f} s"),
        ]
        for name, value in rows:
            grid.add_row(Text(name, style="dim"), Text(value, style="bold"))
        return Panel(
            grid,
            title="Cavendish",
            border_style="dark_orange" if self.whole else "red",
            expand=False,
        )


@dataclass
class Watch:
    """Polls twice a second until all is done or the time is over."""

    client: Client
    polls: Polls
    ids: list[str]
    facts: dict[str, Any]
    timeout: float
    midway: Panel | Text = field(default_factory=Text)

    def until_done(self, console: Console) -> Run:
        """Show each poll, where somebody is at a terminal.

        Elsewhere say now and then how it goes.
        """
        said = 0.0
        with (
            httpx.Client(trust_env=False) as http,
            Live(console=console, transient=True, auto_refresh=False) as live,
        ):
            started = time.monotonic()
            while True:
                run, found = self._observation(http, started), self.polls.poll()
                if not self._nearly_over(run):
                    self.midway = run.live(found, 100, 26)
                if console.is_terminal:
                    live.update(
                        run.live(found, min(console.width, 120), console.height - 1), refresh=True
                    )
                elif run.seconds - said >= 3:
                    said = run.seconds
                    console.print(run.line())
                if run.whole or run.seconds > self.timeout:
                    return run
                time.sleep(EVERY)

    def _observation(self, http: httpx.Client, started: float) -> Run:
        tasks = self.client.get_many(self.ids, service=SERVICE, with_record=False)
        ledger = http.get(f"{self.facts['receiver']}/ledger").json()
        tally = http.get(f"{self.facts['api']}/emulator/tally").json()
        return Run(len(self.ids), time.monotonic() - started, tasks, ledger, tally)

    def _nearly_over(self, run: Run) -> bool:
        """True once so much is done that a picture of the work would show little of it."""
        return len(run.ended) > 0.6 * run.wanted


COMMANDS = (demo,)
