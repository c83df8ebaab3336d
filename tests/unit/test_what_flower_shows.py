"""What a message shows of itself.

Enough for a person to know it by, and nothing that may be secret.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cavendish.settings import Settings
from cavendish_worker.celeryapp.app import build
from cavendish_worker.console.flower import without_python
from cavendish_worker.wording.hosts_only import hosts_only


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "{'webhook': 'https://hooks.example/T0/B0/secret'}",
            "{'webhook': 'https://hooks.example/…'}",
        ),
        (
            "{'webhook': 'https://ada:secret@hooks.example:8443/x?key=secret#secret'}",
            "{'webhook': 'https://hooks.example:8443/…'}",
        ),
        (
            "['HTTPS://a.example?token=secret', 'http://b.example']",
            "['https://a.example/…', 'http://b.example/…']",
        ),
        (
            '{"webhook": "https://ada:se,cr(et@a.example/secret,secret)"}',
            '{"webhook": "https://a.example/…"}',
        ),
        (
            '{"webhook": "https://a.example/it\'s secret", "service": "veo"}',
            '{"webhook": "https://a.example/…", "service": "veo"}',
        ),
        (
            "{'webhook': 'https://a.example/secret, that is cut off",
            "{'webhook': 'https://a.example/…",
        ),
        ("to https://ada:secret@a.example/secret, then", "to https://a.example/…, then"),
        ("default/nano-banana/0, 50 ids", "default/nano-banana/0, 50 ids"),
        ("", ""),
    ],
)
def test_of_a_url_the_host_is_shown_and_all_else_as_it_is(said: str, shown: str) -> None:
    assert hosts_only(said) == shown


def test_long_arguments_are_cut() -> None:
    assert len(hosts_only("(" + "'an-id', " * 1000)) == 161


@pytest.mark.timeout(60)
def test_a_long_text_of_a_stranger_does_not_hold_up_the_worker_that_reads_it() -> None:
    """It did for 10 s at 40 KB, growing with the square.

    Each letter might have begun a URL as long as all that followed.
    """
    for text in ("a" * 200_000, "'a://" * 40_000, "a://" + "b@" * 100_000):
        assert len(hosts_only(text)) <= 161


@pytest.mark.parametrize(
    ("result", "exception", "shown"),
    [
        ("'3 new · 1 refused'", None, "3 new · 1 refused"),
        (
            None,
            "SubmissionError(\"cavendish.submit needs the keyword 'service'.\")",
            "cavendish.submit needs the keyword 'service'.",
        ),
        (None, "StoreUnavailable('Redis is away.',)", "Redis is away."),
        (None, "KeyError(7)", "KeyError(7)"),
        ("'cut off...", None, "'cut off..."),
        (None, None, None),
    ],
)
def test_outcomes_and_errors_are_shown_as_sentences(
    result: str | None, exception: str | None, shown: str | None
) -> None:
    assert (
        without_python(
            SimpleNamespace(result=result, exception=exception, args=None, kwargs=None)
        ).result
        == shown
    )


def test_no_arguments_are_shown_as_nothing_and_others_as_they_are() -> None:
    shown = without_python(SimpleNamespace(result=None, exception=None, args="()", kwargs="{}"))
    assert (shown.args, shown.kwargs) == ("", "")
    shown = without_python(
        SimpleNamespace(result=None, exception=None, args=None, kwargs="{'service': 'veo'}")
    )
    assert (shown.args, shown.kwargs) == (None, "{'service': 'veo'}")


def test_an_event_that_comes_while_others_are_published_is_published_next() -> None:
    app = build(Settings.load({}))
    published: list[list[str]] = []

    class Wire:
        """A producer, at whose first publishing another thread sends one more event."""

        def publish(self, events: list[dict[str, Any]], **_: Any) -> None:
            published.append([event["uuid"] for event in events])
            if len(published) == 1:
                dispatcher.send("task-succeeded", uuid="late")

    dispatcher = app.events.Dispatcher(enabled=False, hostname="here", buffer_group=["task"])
    dispatcher.enabled, dispatcher.producer = True, Wire()
    dispatcher.send("task-received", uuid="first")
    dispatcher.flush()
    dispatcher.flush()
    dispatcher.flush()
    assert published == [["first"], ["late"]]
