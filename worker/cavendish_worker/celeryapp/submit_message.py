"""Checks a `cavendish.submit` message, which anybody may have sent, and submits its ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cavendish.client import Client
from cavendish.errors import SubmissionError
from cavendish.model import Submitted
from cavendish.submission import shown, traceparent_complaint
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.tracing import traces

#: The keywords that a message may have, and the most ids in it.
KEYWORDS = frozenset(
    "service account webhook deadline metadata model producer restart traceparent key group "
    "group_size".split()
)
IDS = 20_000
#: Keeps refused ids with their options and the reason; returns the name under which they are found.
Keep = Callable[[Any, dict[str, Any], SubmissionError], str]


def take_in(
    client: Client,
    ids: Any,
    options: dict[str, Any],
    header: Any = None,
    keep: Keep = lambda *_: "",
) -> str:
    """Submit the ids of a message; returns what Flower shows.

    `header`: the `traceparent` header that Celery's instrumentation sends; ignored if it is not
    valid; `keep`: keeps what is refused, the whole message or single ids. Raises SubmissionError,
    which refuses the whole message, and StoreUnavailable.
    """
    if header is not None and not traceparent_complaint(header):
        options = {"traceparent": header} | options
    try:
        answers = submit(client, ids, options)
    except SubmissionError as error:
        raise refused(ids, options, error, keep) from None
    count = {
        word: sum(answer.outcome == word for answer in answers)
        for word in ("new", "known", "refused")
    }
    outcome = " · ".join(f"{number} {word}" for word, number in count.items() if number) or "no ids"
    first = next((answer for answer in answers if answer.refused), None)
    if first:
        some = [one for one, answer in zip(ids, answers, strict=True) if answer.refused]
        keep(some, options, SubmissionError(first.reason, "ids"))
    log = logger().bind(service=options["service"], ids=len(answers), outcome=outcome)
    log.warning("submit.taken", why=first.reason) if first else log.info("submit.taken")
    return outcome


def refused(ids: Any, options: dict[str, Any], error: SubmissionError, keep: Keep) -> Exception:
    """Keep and log a message that is refused as a whole; the error again."""
    logger().error("submit.refused", id=keep(ids, options, error), outcome=str(error))
    return error


def submit(client: Client, ids: Any, options: dict[str, Any]) -> list[Submitted]:
    """Submit the ids of a message; the answer to each. Raises SubmissionError, StoreUnavailable."""
    unknown = sorted(set(options) - KEYWORDS)
    if unknown:
        first, takes = shown(unknown[0]), ", ".join(sorted(KEYWORDS))
        raise SubmissionError(
            f"cavendish.submit does not know the keyword {first}; it takes {takes}."
        )
    if "service" not in options:
        raise SubmissionError("cavendish.submit needs the keyword 'service'.", "service")
    if not isinstance(ids, list):
        raise SubmissionError("cavendish.submit takes a list of ids as its first argument.", "ids")
    if len(ids) > IDS:
        raise SubmissionError(
            f"cavendish.submit takes at most {IDS} ids a message, not {len(ids)}.", "ids"
        )
    service, given = str(options["service"]), options.get("traceparent") or ""
    with traces().submit(service, len(ids), given) as trace:
        return client.submit(ids, **options | ({"traceparent": trace} if trace else {}))
