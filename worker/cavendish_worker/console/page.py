"""What all of our pages in Flower share: users and rights, queries, security."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from flower.views import BaseHandler
from tornado.web import HTTPError, authenticated

from cavendish.errors import CavendishError, StoreUnavailable
from cavendish.policy.bulk_actions import Note
from cavendish_worker.console.console_parts import ConsoleParts
from cavendish_worker.console.off_loop import PATIENCE
from cavendish_worker.console.shown import Shown
from cavendish_worker.telemetry.logs import logger

R = TypeVar("R")
#: Digits of a number that a URL or a form may name.
DIGITS = 12
#: Empty parts of a path, and those that lead elsewhere.
_STEPS = re.compile(r"(^|/)\.{0,2}(/|$)")
#: What a page says that cannot be shown, by the status of its answer.
WRONG = {
    400: "This address, or a field of the form, is not valid UTF-8 text.",
    405: "Nothing can be sent to this address: a form of another page does that.",
    500: "Cavendish failed here, or a key in Redis cannot be read: Flower's log says more.",
}
#: Nothing but Flower's own files and ours; `data:` are pictures in Flower's style.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "img-src 'self' data:"
)


class Page(BaseHandler):  # type: ignore[misc]
    """One page. `answer` is what it does; whoever may see Flower may see it."""

    def initialize(self, parts: ConsoleParts) -> None:
        self.parts = parts

    @authenticated
    async def get(self, *place: str) -> None:
        """Every page of ours is behind Flower's login."""
        try:
            await self.answer(*place)
        except CavendishError as error:
            self.complain(error)

    @authenticated
    async def post(self, *place: str) -> None:
        """A form of ours: `check_xsrf_cookie` has found that it is one."""
        try:
            await self.act(*place)
        except CavendishError as error:
            self.complain(error)

    async def answer(self, *place: str) -> None:  # noqa: ARG002
        """What a page shows; `place`: the parts of its address."""
        raise HTTPError(405)

    async def act(self, *place: str) -> None:  # noqa: ARG002
        """What a form of a page does."""
        raise HTTPError(405)

    def set_default_headers(self) -> None:
        """No other site may read, frame or load this; Flower itself may allow all of them."""
        self.clear_header("Access-Control-Allow-Origin")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")

    def options(self, *_: Any, **__: Any) -> None:
        """No other site is answered what it may send."""
        raise HTTPError(405)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """One sentence, on a page like the others; a traceback stands in the log only."""
        if status_code == 401:
            super().write_error(status_code, **kwargs)
            return
        error, self.current_user = kwargs.get("exc_info", (None, None))[1], None
        told = error.get_message() if status_code == 403 and isinstance(error, HTTPError) else ""
        Page.draw(self, "refused.html", why=told or WRONG.get(status_code, WRONG[500]))

    # --- who looks

    @property
    def login(self) -> bool:
        """True where Flower asks who somebody is."""
        return bool(self.application.options.basic_auth or self.application.options.auth)

    @property
    def operates(self) -> bool:
        """True where whoever looks may also act."""
        return self.login and not self.application.options.read_only

    @property
    def who(self) -> str:
        """The name under which somebody has logged in."""
        if not self.application.options.basic_auth:
            return str(self.current_user)
        try:
            words = base64.b64decode(self.request.headers["Authorization"].split()[1]).decode()
        except (KeyError, IndexError, ValueError, binascii.Error):
            return "somebody"
        name = words.partition(":")[0]
        return name if name and name.isprintable() else "somebody"

    @property
    def token(self) -> str:
        """What a form of this page carries, and no other site knows."""
        secret = str(self.application.settings["cookie_secret"]).encode()
        return hmac.new(secret, f"form {self.who}".encode(), hashlib.sha256).hexdigest()

    def check_xsrf_cookie(self) -> None:
        """A form counts only from a page of this very site, with the token of that page."""
        site = self.request.headers.get("Sec-Fetch-Site")
        origin = self.request.headers.get("Origin", "")
        ours = site == "same-origin" if site else self._is_host(origin)
        if not ours:
            raise HTTPError(403, "This request did not come from a form of this site.")
        given = self.get_body_argument("token", "")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            raise HTTPError(
                403, "This form is too old. Open its page again, and repeat the action."
            )
        self.check_operates()

    def check_operates(self) -> None:
        """Raise HTTPError unless whoever looks may also act."""
        if not self.operates:
            raise HTTPError(
                403, "Actions are not allowed here: Flower has no login, or is read-only."
            )

    def _is_host(self, origin: str) -> bool:
        try:
            return urlsplit(origin).netloc == str(self.request.host)
        except ValueError:  # no browser sends such
            return False

    # --- what it asks and shows

    async def ask(self, question: Callable[[], R]) -> R:
        """What Redis says. Raises StoreUnavailable also if it takes too long."""
        return await self.parts.off_loop.ask(question)

    async def carry_out(
        self, do: Callable[[], str], note: str, patience: float = PATIENCE, **about: str
    ) -> str:
        """Do something, log it, and let the page of actions tell the `note`; what `do` said.

        Raises StoreUnavailable also where it may have been done.
        """
        store, who = self.parts.store, self.who

        def work() -> str:
            said = do()
            logger().info("operator.acted", by=who, outcome=note, **about)
            with suppress(StoreUnavailable):  # it was done
                one = Note(store.fleet.now(), who, note)
                store.shared_state.change_bulk_actions(lambda known: (known.noted(one), None))
            return said

        try:
            said = await self.parts.off_loop.ask(work, patience)
        except StoreUnavailable as away:
            raise StoreUnavailable(
                f"{away} The action may have been done all the same: check before you repeat it."
            ) from None
        self.parts.poll_anew()
        return said

    def said(self, name: str) -> str:
        """One word of the URL, "" if it is not there."""
        return self.get_query_argument(name, "") or ""

    def given(self, name: str) -> str:
        """One field of a form, "" if it is not there."""
        return self.get_body_argument(name, "") or ""

    @staticmethod
    def whole(text: str) -> int:
        """A whole number of a URL or a form; 0 for anything else, and for what is too large."""
        return int(text) if text.isdecimal() and len(text) <= DIGITS else 0

    def to(self, name: str, *place: str, **words: Any) -> str:
        """The address of a page of ours, with those words that are not empty."""
        path = self.reverse_url(f"cavendish-{name}", *map(utf8, place))
        given = {key: value for key, value in words.items() if value}
        query = urlencode(given, doseq=True, errors="backslashreplace")
        return str(path) + (f"?{query}" if given else "")

    def to_id(self, account: str, service: str, task_id: str, **words: Any) -> str:
        """The address of the page of one id: of what browsers and proxies would take for steps in
        the path, such as `..`, a query.
        """
        words["account"] = "" if account == "default" else account
        if _STEPS.search(task_id):
            return self.to("id-asked", service=service, id=task_id, **words)
        return self.to("id", service, task_id, **words)

    async def show(self, template: str, question: Callable[[], dict[str, Any]]) -> None:
        """Fill a template with what a question finds."""
        self.draw(template, **await self.ask(question))

    def complain(self, error: CavendishError) -> None:
        """Say in a sentence what could not be done or shown."""
        away = isinstance(error, StoreUnavailable)
        self.set_status(503 if away else 400)
        self.draw("away.html" if away else "refused.html", why=str(error))

    def draw(self, template: str, **found: Any) -> None:
        # What a template writes, it turns into bytes by this name.
        self.render(f"cavendish/{template}", page=self, shown=Shown, _tt_utf8=utf8, **found)


def utf8(value: str | bytes) -> bytes:
    """A text as bytes, also one that is damaged and holds what is no character."""
    return value if isinstance(value, bytes) else value.encode(errors="backslashreplace")
