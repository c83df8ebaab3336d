"""Counts the ids or dead letters of an action, in threads, while its page is open.

A count of a million ids takes longer than a page may. It goes on between two looks at its page, and
ends soon after the last one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from cavendish.errors import CavendishError
from cavendish_worker.telemetry.logs import logger

#: Seconds after which nobody waits any more; counts that are known, and that run at once.
UNASKED, KNOWN, AT_ONCE = 20.0, 32, 4
#: Seconds for which a page waits for a count that is soon whole: it may cost Redis as much.
SOON = 0.02


class Count:
    """One count: `number` so far, `whole` once nothing is left, `failed`: why it ended before."""

    def __init__(self) -> None:
        self.number, self.whole, self.failed = 0, False, ""
        self.asked_at = time.monotonic()
        self.ended = threading.Event()

    @property
    def stale(self) -> bool:
        """True for one that has ended and was not looked at for a while."""
        return self.ended.is_set() and time.monotonic() - self.asked_at > UNASKED

    def run(self, numbers: Callable[[], Iterable[int]]) -> None:
        """Add up numbers while anybody asks."""
        try:
            for number in numbers():
                self.number += number
                if time.monotonic() - self.asked_at > UNASKED:
                    self.failed = "The count was stopped, since its page was closed."
                    return
            self.whole = True
        except CavendishError as error:
            self.failed = str(error)
        except Exception as error:
            logger().exception("count.error")
            self.failed = f"Internal error: {type(error).__name__}."
        finally:
            self.ended.set()


class Counts:
    """The counts of one process. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock, self._known = threading.Lock(), dict[str, Count]()

    def of(self, what: str, numbers: Callable[[], Iterable[int]]) -> Count:
        """The count of that name, which begins if there is none; waits a moment for its end."""
        with self._lock:
            count = self._known.get(what)
            if count is None or count.failed or count.stale:
                running = sum(not each.ended.is_set() for each in self._known.values())
                if running >= AT_ONCE:
                    count = Count()
                    count.failed = "Too many counts are running. Open this page again in a minute."
                    return count
                count = self._known[what] = Count()
                while len(self._known) > KNOWN:
                    del self._known[next(iter(self._known))]
                run = threading.Thread(target=count.run, args=(numbers,), daemon=True)
                run.start()
            count.asked_at = time.monotonic()
        count.ended.wait(SOON)
        return count

    def known(self, what: str) -> Count | None:
        """The count of that name, if it was begun."""
        with self._lock:
            return self._known.get(what)
