"""The delivering side against its bars: speed, CPU, delay, isolation, hostile receivers, idle cost;
in under eight minutes.

    python tests/bench/webhooks.py [--only throughput,latency]

A real Redis that writes each change to its disk, one real Celery worker process, and a receiver in
a process of its own.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from ground import ground
from report import machine
from webhook_hostile import addresses, bombs
from webhook_measures import Measures, Row
from webhook_road import Road


def table(road: Road, chosen: list[str], say: Callable[[str], None]) -> bool:
    """Measure and print row by row; true if every bar was met."""
    measures = Measures(road)
    known: dict[str, Callable[[], list[Row]]] = {
        "throughput": measures.throughput,
        "zero": measures.zero,
        "latency": measures.latency,
        "isolation": measures.isolation,
        "neighbours": measures.neighbours,
        "addresses": lambda: addresses(road),
        "bombs": lambda: bombs(road),
        "idle": measures.idle,
    }
    say(_line("measure", "bar", "measured", "met"))
    rows: list[Row] = []
    for name in chosen or known:
        for row in known[name]():
            rows.append(row)
            say(
                _line(
                    row.measure,
                    row.bar,
                    row.measured,
                    {True: "yes", False: "NO", None: ""}[row.met],
                )
            )
    for note in measures.notes:
        say(note)
    return all(row.met is not False for row in rows)


NAMES = "throughput zero latency isolation neighbours addresses bombs idle".split()


def _line(measure: str, bar: str, measured: str, met: str) -> str:
    return f"{measure:<60} | {bar:>11} | {measured:>24} | {met}".rstrip()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="some measures, with commas: " + ",".join(NAMES))
    only = [name for name in parser.parse_args().only.split(",") if name]
    if unknown := set(only) - set(NAMES):
        parser.error(f"there is no measure {', '.join(sorted(unknown))}")
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that everything is ended on the way out
    began = time.monotonic()
    print(f"{machine()}; load average {os.getloadavg()[0]:.2f} at the start", flush=True)
    with ground(()) as field:
        road = Road(field)
        with road.receiving():
            table(road, only, lambda line: print(line, flush=True))
        road.close()
    print(f"{time.monotonic() - began:.0f} s, load average {os.getloadavg()[0]:.2f} at the end")


if __name__ == "__main__":
    main()
