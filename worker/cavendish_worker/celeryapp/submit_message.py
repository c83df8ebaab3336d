"""What a stranger's `cavendish.submit` message may say.

Everything is checked; unknown words are named.
"""

from __future__ import annotations

from typing import Any

from cavendish.client import Client
from cavendish.errors import SubmissionError
from cavendish.submission import shown, traceparent_complaint
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.tracing import traces

WORDS = frozenset(
    {
        "service",
        "account",
        "webhook",
        "deadline",
        "metadata",
        "model",
        "producer",
        "restart",
        "traceparent",
    }
)
IDS = 20_000


def take_in(client: Client, ids: Any, options: dict[str, Any], header: Any = None) -> str:
    """Submit what a message asks for. Raises SubmissionError (the message is refused whole) and
    BookUnavailable.

    `header`: the `traceparent` that came with the message, as the instrumentation of Celery sends
    it; passed over if it is none.
    """
    if header is not None and not traceparent_complaint(header):
        options = {"traceparent": header} | options
    try:
        answers = _submit(client, ids, options)
    except SubmissionError as error:
        logger().error("submit.refused", outcome=str(error))
        raise
    count = {
        word: sum(answer.outcome == word for answer in answers)
        for word in ("new", "known", "refused")
    }
    outcome = " · ".join(f"{number} {word}" for word, number in count.items() if number) or "no ids"
    first = next((answer for answer in answers if answer.refused), None)
    log = logger().bind(service=options["service"], ids=len(answers), outcome=outcome)
    log.warning("submit.taken", why=first.reason) if first else log.info("submit.taken")
    return outcome


def _submit(client: Client, ids: Any, options: dict[str, Any]) -> list[Any]:
    unknown = sorted(set(options) - WORDS)
    if unknown:
        takes = ", ".join(sorted(WORDS))
        raise SubmissionError(
            f"cavendish.submit does not know the keyword {shown(unknown[0])}; it takes {takes}."
        )
    if "service" not in options:
        raise SubmissionError("cavendish.submit needs the keyword 'service'.")
    if not isinstance(ids, list):
        raise SubmissionError("cavendish.submit takes a list of ids as its first argument.")
    if len(ids) > IDS:
        raise SubmissionError(
            f"cavendish.submit takes at most {IDS} ids a message, not {len(ids)}."
        )
    with traces().submit(
        str(options["service"]), len(ids), options.get("traceparent") or ""
    ) as trace:
        return client.submit(ids, **options | ({"traceparent": trace} if trace else {}))
