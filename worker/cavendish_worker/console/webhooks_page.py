"""The page of the webhooks: the endpoints, and the dead letters."""

from __future__ import annotations

import math
from typing import Any

from cavendish.model import OPERATIONS
from cavendish_worker.console.dead_page import wanted_by
from cavendish_worker.console.endpoint_rows import matching, rows
from cavendish_worker.console.id_filter import time_in
from cavendish_worker.console.page import Page

#: Endpoints and dead letters on one page.
ENDPOINTS, LETTERS = 50, 50
#: Dead letters that are looked at for one page: it must cost Redis little, however few match.
LOOKED_AT = 2_000


class WebhooksPage(Page):
    """`/cavendish/webhooks?named=…&from=50&endpoint=…&reason=…&since=…&before=…`."""

    async def answer(self, *place: str) -> None:  # noqa: ARG002
        await self.show("webhooks.html", self._find)

    def _find(self) -> dict[str, Any]:
        polled, store = self.parts.poll(), self.parts.store
        now, statistics = polled.found["now"], polled.statistics
        named = self.said("named")
        names = matching(polled.endpoints, named, statistics, self.parts.urls)
        first = self.whole(self.said("from"))
        wanted, before = wanted_by(self.said, now), self.said("before")
        start = time_in(before, now) if before else math.inf
        letters, following = wanted.page(store, LETTERS, start, LOOKED_AT)
        last = first + ENDPOINTS
        said = {name: self.said(name) for name in ("endpoint", "reason", "since")}
        return {
            "now": now,
            "endpoints": rows(store, statistics, self.parts.urls, names[first:last]),
            "named": named,
            "many": len(names),
            "more": self.to("webhooks", named=named, **{"from": last}) if names[last:] else "",
            "alerts": next((one for one in statistics.lanes if one.lane == OPERATIONS), None),
            "alerted": self.parts.settings.operations_webhook,
            "letters": letters,
            "following": self.to("webhooks", **said, before=following) if following else "",
            "said": said,
        }
