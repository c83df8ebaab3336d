"""All benches about asking, one after another: printed, and with --write kept in RESULTS.md with a
plot.

    python tests/bench/report.py [--minutes 6] [--write]

The two virtual-clock benches run side by side, then the whole system in real time with the machine
to itself.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TITLES = {
    "rate_limit": "The rate limit on a virtual clock",
    "durations": "Duration model and due times on a virtual clock",
    "fairness": "Two producers, one of them with a burst, on a virtual clock",
    "whole": "The whole system in real time, against three ways to poll that are in use",
}


def start(name: str, *words: str) -> subprocess.Popen[str]:
    """Run one bench of this folder."""
    return subprocess.Popen(
        [sys.executable, str(HERE / f"{name}.py"), *words], stdout=subprocess.PIPE, text=True
    )


def finish(name: str, process: subprocess.Popen[str]) -> str:
    """Wait for a bench, print its title and its text, and return the text."""
    text = process.communicate()[0]
    if process.returncode:
        sys.exit(f"The bench {name} failed.")
    print(f"\n## {TITLES[name]}\n\n{text}", flush=True)
    return text


def machine() -> str:
    """What the numbers were taken on."""
    cores = os.cpu_count()
    return (
        f"{cores} cores, {platform.machine()}, {platform.system()} {platform.release()}, "
        f"Python "
        f"{platform.python_version()}"
    )


def plot(rows: list[dict[str, Any]]) -> str:
    """Two rows of bars on a logarithmic scale, as SVG.

    Calls per task, and mean delay from finish to detection.
    """
    panels = (
        ("API calls per detected task", "calls_per_task"),
        ("mean seconds from finish to detection", "delay"),
    )
    width, bar, top = 760, 26, 36
    parts = []
    for number, (title, key) in enumerate(panels):
        values = [row[key]["mean"] if key == "delay" else row[key] for row in rows]
        low = min(value for value in values if value) / 3
        high = max(value for value in values if value)
        base = top + number * (len(rows) * bar + 60)
        parts.append(f'<text x="10" y="{base - 12}" font-weight="bold">{title}</text>')
        for place, (row, value) in enumerate(zip(rows, values, strict=True)):
            y = base + place * bar
            length = 420 * math.log(value / low) / math.log(high / low) if value else 0
            colour = "#d4a017" if row["contestant"] == "ours" else "#8a8a8a"
            missed = (
                f" ({row['missed']:.0%} never detected)"
                if row["missed"] and row["missed"] > 0.01
                else ""
            )
            shown = f"{value:.3g}{missed}" if value else "nothing detected"
            parts.append(f'<text x="10" y="{y + 15}">{row["contestant"]}</text>')
            parts.append(
                f'<rect x="130" y="{y + 2}" width="{length:.0f}" height="{bar - 8}" '
                f'fill="{colour}"/>'
            )
            parts.append(f'<text x="{136 + length:.0f}" y="{y + 15}">{shown}</text>')
    height = top + len(panels) * (len(rows) * bar + 60) - 30
    style = 'font-family="sans-serif" font-size="13"'
    ground = f'<rect width="{width}" height="{height}" fill="white"/>'
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f"{style}>\n{ground}\n{body}\n</svg>\n"
    )


#: Where the results of other benches begin.
OTHERS = "\n# Results of `make bench-capacity`\n"


def main() -> None:
    """Run, print and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument(
        "--write", action="store_true", help="keep the results in RESULTS.md and the plot"
    )
    words = parser.parse_args()
    print(machine())
    rate_limit, durations = start("rate_limit"), start("durations")
    texts = {
        "rate_limit": finish("rate_limit", rate_limit),
        "durations": finish("durations", durations),
        "fairness": finish("fairness", start("fairness")),
    }
    with tempfile.TemporaryDirectory() as folder:
        rows_file = Path(folder) / "rows.json"
        texts["whole"] = finish(
            "whole",
            start("whole", "--minutes", str(words.minutes), "--together", "--json", str(rows_file)),
        )
        rows = json.loads(rows_file.read_text())
    if words.write:
        head = f"# Results of `make bench-polling`\n\n{datetime.now(UTC):%Y-%m-%d} · {machine()}\n"
        parts = [
            f"\n## {TITLES[name]}\n\n```\n{text.strip()}\n```\n" for name, text in texts.items()
        ]
        results = HERE / "RESULTS.md"
        others = "".join(results.read_text().partition(OTHERS)[1:])
        results.write_text(head + "".join(parts) + others)
        (HERE / "polling.svg").write_text(plot(rows["rows"] if isinstance(rows, dict) else rows))


if __name__ == "__main__":
    main()
