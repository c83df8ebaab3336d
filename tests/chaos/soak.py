"""The whole stack at full speed for a while: does anything grow that should not?

    python tests/chaos/soak.py --minutes 10

Ids are made and submitted in an open loop, end within seconds, and are forgotten a minute later, so
memory, keys, threads and connections must come to rest. Somebody opens all pages inside Flower and
asks the HTTP service all the while. Slopes are least squares over the second
half, in blocks, with their standard error. At the end everything is left to expire: each key that
remains must be one that is meant to.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx
import redis
from rich.console import Console
from rich.table import Table
from visiting import Visitor

from cavendish import Client
from cavendish.errors import StoreUnavailable
from cavendish.settings import Settings

SERVICE = "nano-banana"
#: Seconds between samples; from the end of the load until everything has expired (retention, and a
#: reconcile run each 30 s).
EVERY, COOLING = 5.0, 60.0 + 90.0
#: Blocks into which the second half is averaged: neighbouring samples are too alike to count each
#: for itself.
BLOCKS = 10
#: Growth that counts as none: MB per hour for memory; for everything else a share of the mean per
#: hour, or in all two more (a pool of threads grows to its size by and by).
FLAT_MB, FLAT_SHARE, FLAT_COUNT = 10.0, 0.05, 2.0
#: Minutes below which a slope says nothing: every part still fills its caches.
SHORTEST = 5.0
MB = 2**20
SETTINGS = {
    "RETENTION": "60",
    "DEADLINE": "60",  # until then, and ten times LAST_POLL longer, a list names each id
    "LAST_POLL": "10",
    "CALL_TIMEOUT": "10",
    "DEAD_RETENTION": "60",
    "EVENTS_KEPT": "1000",
    "FLOWER_PORT": "0",
    "HTTP_PORT": "0",
    "LOG_LEVEL": "warning",
    "WEBHOOK_ALLOW": "127.0.0.0/8",
}
_LANE = r"\{default/nano-banana/0\}"
#: What may stay in the store for ever, since its size does not depend on how many ids there were;
#: and common parts, which are kept for an hour longer than the records that refer to them.
PERMANENT = re.compile(
    rf"""cavendish:(lanes|fleet|tick|reconciled|api-keys|api-keys-used
    |\{{cavendish:fleet\}}:(format|origin)|\{{usage\}}:(producers|of:\S*)
    |\{{default\}}:(rate-limit|due|due:\S*|noted)|\{{default/nano-banana\}}:visibility
    |\{{cavendish:(deadlines|deliveries)\}}:(due|due:\S*|noted)
    |\{{[0-9a-f]{{16}}\}}:(circuit|attempts)
    |{_LANE}:(counts|service-health|events|durations:\S*|models|callbacks|common|common-until)
    |{_LANE}:(reconciled|own-keys-checked)
    |\{{cavendish/\S+\}}:reconciled)""",
    re.VERBOSE,
)
#: The same of the broker: Celery's bindings, and lists that are empty most of the time.
BROKER = re.compile(r"_kombu\.binding\S*|unacked\S*|cavendish\.\w+")
out = Console(highlight=False, width=130)


class Soak:
    """A running stack, the load on it, and the samples."""

    def __init__(self, folder: Path) -> None:
        self._log = (folder / "log").open("w")
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
        }
        environment |= {f"CAVENDISH_{name}": value for name, value in SETTINGS.items()}
        environment |= {"CAVENDISH_DATA_DIR": str(folder / "data")}
        environment |= {
            "FLOWER_MAX_TASKS": "1000"
        }  # its 10,000 messages would still be filling it up when a short soak ends
        command = [sys.executable, "-m", "cavendish_worker.cli", "up", "--emulate"]
        command += ["--rate", "0", "--median", "3", "--sigma", "0.3"]
        self._process = subprocess.Popen(
            command, env=environment, stdout=self._log, stderr=self._log
        )
        self._facts_at, self.log_at = folder / "data" / "stack.json", folder / "log"
        self._http = httpx.Client(trust_env=False, timeout=30)
        self.facts = self._wait_for_facts()
        ours = {
            "CAVENDISH_REDIS_URL": self.facts["store"],
            "CAVENDISH_WEBHOOK_ALLOW": SETTINGS["WEBHOOK_ALLOW"],
            "CAVENDISH_DEADLINE": SETTINGS["DEADLINE"],
        }
        self.client = Client(settings=Settings.load(ours))
        path = self.facts["store"].removeprefix("unix://").partition("?")[0]
        self.store, self.broker = (
            redis.Redis(unix_socket_path=path, db=db, decode_responses=True) for db in (0, 1)
        )
        self.made = self.refused = 0
        self.latest: list[str] = []
        self.visitor = Visitor(self.facts, folder / "data", self.latest)
        self.samples: list[tuple[float, dict[str, float]]] = []
        self._over = threading.Event()

    def _wait_for_facts(self) -> dict[str, Any]:
        until = time.monotonic() + 30
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError, ValueError, httpx.TransportError):
                facts: dict[str, Any] = json.loads(self._facts_at.read_text())
                self._http.get(f"{facts['api']}/emulator/tally")
                return facts
            time.sleep(0.1)
        raise RuntimeError(self.log_at.read_text())

    def load(self, rate: float) -> None:
        """Make and submit ids until `finish`.

        An open loop, so a stack that is too slow falls behind and shows it.
        """
        began = time.monotonic()
        while not self._over.wait(0.25):
            count = int((time.monotonic() - began) * rate) - self.made
            if count <= 0:
                continue
            ids = self._http.post(
                f"{self.facts['api']}/emulator/tasks", json={"count": count}
            ).json()["ids"]
            try:
                self.client.submit(
                    ids,
                    service=SERVICE,
                    webhook=self.facts["receiver"],
                    metadata={"soak": self.made // 1000},  # kept for an hour longer than its ids
                )
                self.latest[:] = ids[-1:]
            except StoreUnavailable:
                self.refused += count
            self.made += count

    def watch(self, seconds: float) -> None:
        """Take samples for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.samples.append((time.monotonic(), self.sample()))
            time.sleep(EVERY)

    def sample(self) -> dict[str, float]:
        """Everything that might grow, now."""
        pids = json.loads(self._facts_at.read_text())["pids"]
        found = {
            f"{part} RSS (MB)": _resident(pids[part])
            for part in ("worker", "beat", "flower", "http", "redis")
        }
        info = self.store.info()
        found |= {
            "redis used_memory (MB)": info["used_memory"] / MB,
            "redis clients": info["connected_clients"],
        }
        for part in ("worker", "flower", "http"):
            process = Path("/proc", str(pids[part]))
            found[f"{part} threads"] = len(list((process / "task").iterdir()))
            found[f"{part} files"] = len(list((process / "fd").iterdir()))
        lane = "cavendish:{default/nano-banana/0}"
        found |= {
            "keys of the store": self.store.dbsize(),
            "keys of the broker": self.broker.dbsize(),
        }
        found |= {
            "pending": sum(self.store.zcard(key) for key in self.store.keys(f"{lane}:due:*")),
            "deadlines": sum(self.store.llen(key) for key in self.store.keys(f"{lane}:deadline:*")),
            "ended": self.store.zcard(f"{lane}:ended"),
        }
        found |= {
            "messages": sum(
                self.broker.llen(f"cavendish.{name}")
                for name in ("dispatch", "retrieve", "deliver", "reconcile")
            )
        }
        return found | {"unacked": self.broker.zcard("unacked_index")}

    def finish(self) -> None:
        self._over.set()

    def announced(self) -> tuple[int, int]:
        """Ids announced to the receiver, and webhooks that came twice."""
        said = self._http.get(f"{self.facts['receiver']}/ledger").json()
        return int(said["announced"]), int(said["repeats"])

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(40)
        self._log.close()


def _resident(pid: int) -> float:
    """Anonymous memory and all else that is resident, in MB, of a process and its children."""
    own = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(own[1]) / 1024 if own else 0.0) + sum(_resident(int(child)) for child in children)


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Growth per hour by least squares over means of blocks, its standard error, and the mean."""
    size = max(len(points) // BLOCKS, 1)
    blocks = [points[start : start + size] for start in range(0, len(points) - size + 1, size)]
    xs = [fmean(at for at, _ in block) / 3600 for block in blocks]
    ys = [fmean(value for _, value in block) for block in blocks]
    if len(xs) < 3:
        return 0.0, math.inf, fmean(ys)
    x, y = fmean(xs), fmean(ys)
    spread = sum((each - x) ** 2 for each in xs)
    steep = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / spread
    rest = sum((b - y - steep * (a - x)) ** 2 for a, b in zip(xs, ys, strict=True))
    return steep, math.sqrt(rest / (len(xs) - 2) / spread), y


def report(samples: Sequence[tuple[float, dict[str, float]]]) -> list[str]:
    """Print each series with its slope; returns those that grow."""
    half = samples[len(samples) // 2 :]
    table = Table(
        "series", "half time", "end", "per hour", "standard error", "", box=None, pad_edge=False
    )
    growing, hours = [], max((half[-1][0] - half[0][0]) / 3600, 1e-9)
    for name in samples[0][1]:
        steep, error, mean = slope([(at, sample[name]) for at, sample in half])
        flat = steep - 3 * error <= (
            FLAT_MB if "MB" in name else max(FLAT_SHARE * mean, FLAT_COUNT / hours)
        )
        growing += [] if flat else [name]
        shown = (half[0][1][name], half[-1][1][name], steep, error)
        table.add_row(name, *(f"{value:,.1f}" for value in shown), "flat" if flat else "GROWS")
    out.print(table)
    return growing


def patterns(server: redis.Redis) -> Counter[tuple[str, bool]]:
    """How many keys of each shape there are, and whether they expire."""
    found: Counter[tuple[str, bool]] = Counter()
    keys = list(server.scan_iter(count=1000))
    pipe = server.pipeline(transaction=False)
    for key in keys:
        pipe.ttl(key)
    for key, left in zip(keys, pipe.execute(), strict=True):
        found[re.sub(r"(:(?:task|result|delivery):).*", r"\1…", key), left >= 0] += 1
    return found


def show_keys(title: str, found: Counter[tuple[str, bool]]) -> None:
    table = Table("keys", "", "", title=title, title_justify="left", box=None, pad_edge=False)
    for (shape, expires), count in sorted(found.items()):
        table.add_row(shape, f"{count:,}", "expires" if expires else "stays")
    out.print(table)


@contextlib.contextmanager
def running() -> Iterator[Soak]:
    with tempfile.TemporaryDirectory(prefix="cavendish-soak-") as folder:
        soak = Soak(Path(folder))
        try:
            yield soak
        finally:
            soak.close()


def main() -> int:
    """Returns 1 if something grows, is left over, or was not announced."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the stack is ended too
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("--minutes", type=float, default=10.0)
    asked.add_argument("--rate", type=float, default=100.0, help="ids per second")
    asked.add_argument("--samples", type=Path, help="write the samples to this file as JSON lines")
    words = asked.parse_args()
    with running() as soak:
        producer = threading.Thread(target=soak.load, args=(words.rate,), daemon=True)
        producer.start()
        soak.visitor.start()
        soak.watch(words.minutes * 60)
        soak.finish()
        producer.join()
        soak.visitor.stop()
        ended_with = soak.samples[-1][1]
        out.print(
            f"\n{soak.made:,} ids in {words.minutes:g} minutes, {words.rate:g}/s asked for; "
            f"{soak.refused} not submitted\npages and HTTP: {dict(soak.visitor.answers)}\n"
        )
        growing = (
            report(soak.samples) if words.minutes >= SHORTEST else (report(soak.samples), [])[1]
        )
        show_keys("\nAt the end of the load", patterns(soak.store))
        deadline = (
            time.monotonic() + COOLING + ended_with["ended"] / 50
        )  # a reconcile run forgets so many a second at least
        time.sleep(COOLING)
        while time.monotonic() < deadline and (left := unaccounted(soak)):
            time.sleep(5)
        left = unaccounted(soak)
        show_keys("\nAfter everything has expired: the store", patterns(soak.store))
        show_keys("\nand the broker", patterns(soak.broker))
        announced, repeats = soak.announced()
        out.print(f"\n{announced:,} of {soak.made - soak.refused:,} announced, {repeats} repeats")
        troubles = [
            line
            for line in soak.log_at.read_text(errors="replace").splitlines()
            if "Traceback" in line or "rror" in line
        ]
        out.print(
            f"{len(troubles)} lines of trouble in the "
            f"log{': ' + troubles[0][:200] if troubles else ''}"
        )
    if words.samples:
        words.samples.write_text(
            "".join(json.dumps({"at": at} | sample) + "\n" for at, sample in soak.samples)
        )
    out.print(
        f"grows: {', '.join(growing) or 'nothing'}; left over: {', '.join(left) or 'nothing'}"
    )
    return 1 if growing or left or announced != soak.made - soak.refused else 0


def unaccounted(soak: Soak) -> list[str]:
    """Keys that should be gone by now."""
    store = [key for key in soak.store.scan_iter(count=1000) if not PERMANENT.fullmatch(key)]
    return store + [key for key in soak.broker.scan_iter(count=1000) if not BROKER.fullmatch(key)]


if __name__ == "__main__":
    sys.exit(main())
