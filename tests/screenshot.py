"""Take README's picture of Flower: `make screenshot`. Needs chromium and chromium-driver."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from acceptance.conftest import SERVICE, Stack, wait_until
from browser import browser

PLACE = Path(__file__).parent / "flower.png"


def main() -> None:
    """Flower's page of tasks, in the middle of a run."""
    with ExitStack() as open_things:
        stack = Stack("--rate", "10", "--median", "8")
        open_things.callback(stack.close)
        window = open_things.enter_context(browser("1440,780"))
        flower = stack.facts["flower"]
        wait_until(
            lambda: window.open(f"{flower}/workers").count("Online") > 1,
            30,
            "Flower hears of the worker",
        )
        stack.cavendish(
            "submit", "--service", SERVICE, "--webhook", stack.facts["receiver"], *stack.create(120)
        )
        wait_until(lambda: len(stack.ledger()["states"]) > 60, 60, "half of the ids have ended")
        window.open(f"{flower}/tasks")
        time.sleep(1)  # the page asks for its rows, and fades them in
        PLACE.write_bytes(window.picture())
    print(f"{PLACE.name}: {PLACE.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
