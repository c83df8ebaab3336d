"""Short runs of `make fuzz`, always of the same inputs, and what its judges find."""

from __future__ import annotations

import pytest

from cavendish.store import Store
from cavendish_worker.telemetry import logs
from conftest import Server
from fuzzing import http_requests, lines, receivers, stale, upstream, workers
from fuzzing.reading import bears_out, final_answer
from fuzzing.tally import Tally, table
from programs import need

SEED = 1


@pytest.fixture(autouse=True)
def silent(clean_environment: None) -> None:
    logs.set_up("console", "critical")


def told(tally: Tally) -> str:
    return "\n".join([table([tally]), *tally.findings])


def test_generated_answers_of_receivers_acknowledge_nothing_that_they_do_not_say() -> None:
    tally = receivers.run(SEED, 400)
    assert tally.clean, told(tally)


def test_generated_answers_of_the_api_end_no_id_that_they_do_not_end(store: Store) -> None:
    tally = upstream.run(SEED, 300, store)
    assert tally.clean, told(tally)


def test_good_submits_among_generated_messages_are_tracked_by_workers_that_live_on(
    own_server: Server,
) -> None:
    tally = workers.run(SEED, 300, own_server)
    assert tally.clean, told(tally)


def test_good_ids_among_generated_lines_are_tracked_and_each_bad_line_gets_a_sentence(
    store: Store, server: Server
) -> None:
    tally = lines.run(SEED, lines.LINES, server)
    assert tally.clean, told(tally)


@pytest.mark.timeout(240)
def test_generated_requests_over_http_break_no_promise_while_strangers_send_what_never_ends(
    store: Store, server: Server
) -> None:
    need("clients")
    tally = http_requests.run(SEED, 34, server, (http_requests.AGAIN,))
    assert tally.clean, told(tally)


# --- the judges see what they are there for


def test_an_acknowledgement_that_nobody_gave_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "final_answer", lambda _: None)
    tally = receivers.run(SEED, 40)
    assert tally.wrong
    assert not tally.clean


RECORD = b'{"items":[{"id":"a","response":{"success":%b,"data":[{"image_url":"https://x/y"}]}}]}'


@pytest.mark.parametrize("framing", ["length", "chunked", "trailers", "interim"])
def test_the_independent_reading_tells_a_success_from_a_failure(framing: str) -> None:
    for word, verdict, other in (
        (b"true", "succeeded", "failed"),
        (b"false", "failed", "succeeded"),
    ):
        said = stale.framed(200, RECORD % word, framing)
        assert bears_out(said, "a", verdict, alone=False)
        assert not bears_out(said, "a", other, alone=False)
        assert not bears_out(said, "b", verdict, alone=False)
        assert not bears_out(said.replace(b" 200 ", b" 500 "), "a", verdict, alone=False)


def test_the_independent_reading_takes_no_interim_or_cut_head_for_an_answer() -> None:
    assert final_answer(b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 202 X\r\nlength") is None
    assert final_answer(b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 204 X\r\n\r\n") == (
        204,
        b"HTTP/1.1 204 X\r\n\r\n",
        b"",
    )
    assert final_answer(b"zzzHTTP/1.1 200 OK\r\n\r\n") is None
