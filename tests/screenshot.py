"""Take README's pictures of Flower, light and dark: `make screenshot`. Needs chromium and
chromium-driver.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

from acceptance.conftest import SERVICE, Stack, wait_until
from browser import Browser, browser

HERE = Path(__file__).parent
#: The first page of ours, and the page of one id.
NOW, ONE_ID = "now", "one-id"
LOGIN = ("ada", "only: for the picture")


def main() -> None:
    """The first page in the middle of a run; and the page of an id whose webhook fails."""
    with ExitStack() as open_things:
        words = ("--rate", "10", "--median", "8")
        stack = Stack(*words, CAVENDISH_FLOWER_BASIC_AUTH=":".join(LOGIN))
        open_things.callback(stack.close)
        window = open_things.enter_context(browser("1440,900"))
        flower = stack.facts["flower"]
        user, password = map(quote, LOGIN)
        window.open(f"{flower.replace('http://', f'http://{user}:{password}@')}/cavendish")
        hooks = ["--webhook", stack.facts["receiver"], "--producer", "shop"]
        for _ in range(8):  # so that the chart has its minutes
            stack.cavendish("submit", "--service", SERVICE, *hooks, *stack.create(60))
            time.sleep(20)
        (task_id,) = stack.create(1)
        take(window, f"{flower}/cavendish", NOW)
        more = ["--key", "order-7", "--webhook", "http://127.0.0.1:9/hook"]
        stack.cavendish("submit", "--service", SERVICE, *hooks, *more, task_id)
        page = f"{flower}/cavendish/id/{SERVICE}/{task_id}"
        wait_until(lambda: "attempt 2" in window.open(page), 90, "a webhook fails twice")
        take(window, page, ONE_ID)


def take(window: Browser, page: str, name: str) -> None:
    """A page in both themes of Flower."""
    for theme, suffix in (("light", ""), ("dark", "-dark")):
        window.run(f"localStorage.setItem('flower-theme', '{theme}')")
        window.open(page)
        place = HERE / f"{name}{suffix}.png"
        place.write_bytes(window.picture())
        print(f"{place.name}: {place.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
