"""An address of ours with a slash at its end, as people type it, leads to the page."""

from __future__ import annotations

from cavendish_worker.console.page import Page


class SlashPage(Page):
    """`/cavendish/`, `/cavendish/ids/?state=failed` and the like; an id may end with a slash."""

    async def answer(self, *place: str) -> None:  # noqa: ARG002
        path, mark, query = self.request.uri.partition("?")
        self.redirect(path.rstrip("/") + mark + query)
