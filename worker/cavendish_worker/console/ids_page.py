"""The page of the ids: all that match a filter, page by page; or the one that has this name."""

from __future__ import annotations

from typing import Any

from cavendish.model import State
from cavendish_worker.console.id_filter import Words, words
from cavendish_worker.console.page import Page

#: Ids on one page, and those that are looked at for it: it must cost Redis little, however few
#: match.
SHOWN, LOOKED_AT = 100, 4_000


class IdsPage(Page):
    """`/cavendish/ids?state=…&service=…&q=…`."""

    async def answer(self, *place: str) -> None:  # noqa: ARG002
        await self.show("ids.html", self._search if self.said("q") else self._list)

    def _list(self) -> dict[str, Any]:
        store = self.parts.store
        now = store.fleet.now()
        wanted = words(self.said, self.get_query_arguments("state"), now)
        cursor = self.said("cursor")
        page = store.search.page(wanted.filter, cursor or None, SHOWN, looked_at_most=LOOKED_AT)
        following = self.to("ids", **wanted.said, cursor=page.next) if page.next else ""
        return self._found(wanted, now) | {"tasks": page.items, "following": following}

    def _search(self) -> dict[str, Any]:
        """Whoever looks for an id or a key has no use for a list of one."""
        store, text = self.parts.store, self.said("q")
        now = store.fleet.now()
        wanted = words(self.said, self.get_query_arguments("state"), now)
        return self._found(wanted, now) | {"tasks": store.search.named(text), "following": ""}

    def _found(self, wanted: Words, now: float) -> dict[str, Any]:
        return {"wanted": wanted, "now": now, "states": list(State)}

    def draw(self, template: str, **found: Any) -> None:
        tasks = found.get("tasks", ())
        if self.said("q") and len(tasks) == 1:
            one = tasks[0]
            self.redirect(self.to_id(one.account, one.service, one.id))
            return
        super().draw(template, **found)
