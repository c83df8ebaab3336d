"""The seam between Flower and our pages: their addresses, their templates, and a tab for them.

Flower has no interface for this, so a version may move what is used here. It then starts without
our pages, and the log says so.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from flower import app, urls
from tornado.template import Loader, Template
from tornado.web import StaticFileHandler, url

from cavendish.settings import Settings
from cavendish_worker.console.account_page import AccountPage
from cavendish_worker.console.action_pages import ActionPage, ActionsPage, ActPage
from cavendish_worker.console.console_parts import ConsoleParts
from cavendish_worker.console.dead_page import DeadPage
from cavendish_worker.console.endpoint_page import EndpointPage
from cavendish_worker.console.id_page import IdPage
from cavendish_worker.console.ids_page import IdsPage
from cavendish_worker.console.now_page import NowPage
from cavendish_worker.console.slash_page import SlashPage
from cavendish_worker.console.webhooks_page import WebhooksPage
from cavendish_worker.telemetry import logs

HERE = Path(__file__).parent
#: Seconds for which Flower waits before it listens, while its pages are made ready.
WARM_FOR = 2.0
#: What begins the name of a template of ours.
_OURS = "cavendish/"
#: Behind the last tab of Flower.
_TABS_END = "</ul>"
_TAB = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'cavendish' %} active{% end %}"
            href="{{ reverse_url('cavendish-now') }}"
            {% if active_tab == 'cavendish' %}aria-current="page"{% end %}>Cavendish</a>
        </li>
      """


#: Where Flower's page of a task has its buttons, and our link there: to the ids of its lane that
#: ended while it ran, with a second to spare for the clocks.
_BUTTONS = '<div class="detail-actions">'
_LINK = """
      {% if task.name == 'cavendish.retrieve' and (task.args or '').count('/') == 2 %}
      {% set account, service = map(url_escape, task.args.split('/')[:2]) %}
      {% set lane = f"{reverse_url('cavendish-ids')}?account={account}&service={service}" %}
      {% set begun, ended = task.started or task.timestamp, task.succeeded or task.timestamp %}
      <a class="btn btn-secondary" href="{{ lane }}&amp;state=succeeded&amp;state=failed{{
        f'&since={begun - 1:.0f}&until={ended + 1:.0f}' }}">Ids that ended in this batch</a>
      <a class="btn btn-secondary" href="{{ lane }}">Ids of its lane</a>
      {% end %}
      """


def application(settings: Settings, **options: Any) -> app.Flower:
    """Flower's application with our pages, or without them where their seam has moved."""
    _log(settings)
    ours = list[Any]()
    try:
        parts = ConsoleParts(settings)
        ours = _handlers(parts)
        urls.handlers[-1:-1] = ours  # the last one answers 404
        templates = Templates(options["template_path"])
        made = app.Flower(**options, template_loader=templates)
        made.reverse_url("cavendish-now")
        warming = threading.Thread(target=_warm, args=(parts, templates), daemon=True)
        warming.start()
        warming.join(WARM_FOR)
        return made
    except Exception as moved:  # whatever another version of Flower raises
        outcome = f"{type(moved).__name__}: {moved}"[:200]
        logs.logger().error("flower.pages_missing", outcome=outcome)
        for each in ours:
            if each in urls.handlers:
                urls.handlers.remove(each)
        return app.Flower(**options)


def _warm(parts: ConsoleParts, templates: Templates) -> None:
    """Do once, before Flower listens, what the first request for each page would wait for."""
    with suppress(Exception):  # whoever looks first is told
        for each in sorted(HERE.joinpath("templates").glob("*.html")):
            templates.load(_OURS + each.name)
        templates.load("navbar.html")
        parts.poll()
        parts.poll_anew()


def _log(settings: Settings) -> None:
    """Our lines go where those of Flower go, which may be set to log errors only."""
    root = logging.getLogger()
    level = root.level
    logs.set_up(settings.log_format, settings.log_level)
    root.setLevel(level)
    logging.getLogger("cavendish").setLevel(settings.log_level.upper())


def _handlers(parts: ConsoleParts) -> list[Any]:
    """Our addresses. They are `url`s, since Flower gives only such its prefix and their options."""
    given = {"parts": parts}
    return [
        url(r"/cavendish", NowPage, given, name="cavendish-now"),
        url(r"/cavendish/webhooks", WebhooksPage, given, name="cavendish-webhooks"),
        url(r"/cavendish/endpoint/([^/]+)", EndpointPage, given, name="cavendish-endpoint"),
        url(r"/cavendish/account/([^/]+)", AccountPage, given, name="cavendish-account"),
        url(r"/cavendish/dead", DeadPage, given, name="cavendish-dead"),
        url(r"/cavendish/ids", IdsPage, given, name="cavendish-ids"),
        url(r"/cavendish/id/([^/]+)/(.+)", IdPage, given, name="cavendish-id"),
        url(r"/cavendish/id", IdPage, given, name="cavendish-id-asked"),
        url(r"/cavendish/act", ActPage, given, name="cavendish-act"),
        url(r"/cavendish/action/([0-9a-f]{16})", ActionPage, given, name="cavendish-action"),
        url(r"/cavendish/actions", ActionsPage, given, name="cavendish-actions"),
        url(
            r"/cavendish/static/(.*)",
            StaticFileHandler,
            {"path": str(HERE / "static")},
            name="cavendish-static",
        ),
        url(r"/cavendish(?!/id/)(?:/.*)?/", SlashPage, given),
    ]


class Templates(Loader):
    """Flower's templates with our tab in its navigation, and ours under `cavendish/`."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:  # noqa: ARG002
        """Each name is whole: one of ours extends one of Flower's."""
        return name

    def _create_template(self, name: str) -> Template:
        if name.startswith(_OURS):
            path = HERE / "templates" / name.removeprefix(_OURS)
        else:
            path = Path(self.root) / name
        text = path.read_text("utf-8")
        if name == "navbar.html":
            text = text.replace(_TABS_END, _TAB + _TABS_END, 1)
        if name == "task.html":
            text = text.replace(_BUTTONS, _BUTTONS + _LINK, 1)
        return Template(text, name=name, loader=self)
