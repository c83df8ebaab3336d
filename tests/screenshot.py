"""Take README's pictures of Flower: `make screenshot`. Needs chromium and chromium-driver."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from acceptance.conftest import SERVICE, Stack, wait_until
from browser import Browser, browser

PLACE = Path(__file__).parent / "flower.png"
#: The page of one id, light and dark.
ONE_ID = {"light": PLACE.with_name("one-id.png"), "dark": PLACE.with_name("one-id-dark.png")}


def main() -> None:
    """Flower's page of tasks, in the middle of a run; and the page of an id whose webhook fails."""
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
        take_one_id(stack, window, flower)
    for place in (PLACE, *ONE_ID.values()):
        print(f"{place.name}: {place.stat().st_size // 1024} KiB")


def take_one_id(stack: Stack, window: Browser, flower: str) -> None:
    """The page of an id that one receiver has taken, and another one not yet."""
    (task_id,) = stack.create(1)
    words = ["--service", SERVICE, "--key", "order-7", "--producer", "shop"]
    words += ["--webhook", stack.facts["receiver"], "--webhook", "http://127.0.0.1:9/hook"]
    stack.cavendish("submit", *words, task_id)
    page = f"{flower}/cavendish/id/{SERVICE}/{task_id}"
    wait_until(lambda: "attempt 2" in window.open(page), 90, "a webhook fails twice")
    for theme, place in ONE_ID.items():
        window.run(f"localStorage.setItem('flower-theme', '{theme}')")
        window.open(page)
        place.write_bytes(window.picture())


if __name__ == "__main__":
    main()
