"""Generated command lines and input.

A command ends with 0, 1 or 2 and a plain sentence, never with a traceback.
"""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.settings import Settings
from cavendish_worker.cli import main
from delivering import Delivering
from hostile import bodies, cases, objects, values


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: object
    out: str
    err: str


def run(*words: str, stdin: bytes = b"") -> Ended:
    """A command in this process, with streams as strict as those of a shell."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    err.reconfigure(errors="backslashreplace")  # as Python's own
    before, sys.stdin, sys.argv = (
        (sys.stdin, sys.argv),
        io.TextIOWrapper(io.BytesIO(stdin), "utf-8"),
        ["cavendish", *words],
    )
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
        code: object = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.stdin, sys.argv = before
    return Ended(code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode())  # type: ignore[attr-defined]


@pytest.fixture
def stocked(
    endpoint_index: Delivering, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Delivering:
    """A store with an id that has ended and a pending delivery."""
    monkeypatch.setenv("CAVENDISH_REDIS_URL", settings.redis_url)
    monkeypatch.setenv("CAVENDISH_WEBHOOK_ALLOW", "127.0.0.0/8")
    endpoint_index.end("a", webhook="http://127.0.0.1:9/hook")
    return endpoint_index


COMMANDS = (
    "submit|show|wait|events|status|doctor|list|dead list|dead show|dead revive|dead drop|replay|"
    "endpoint add|endpoint list|endpoint show|endpoint rotate|endpoint enable|endpoint disable|"
    "endpoint remove|endpoint new-key|endpoint|dead|nope|"
).split("|")
OPTIONS = (
    "--service --account --webhook --deadline --meta --model --producer --restart --json --timeout "
    "--endpoint --since --reason --limit --all --rate --yes --ed25519 --overlap --after --state "
    "--until --help --nope -"
).split()
WORDS = (
    "a b nano-banana default shop http://127.0.0.1:9/hook http://[::1 0 1 -1 1e999 nan inf 60 2h "
    '99999999999999d 24 2026-11-22T22:50:01Z 0001-01-01T00:00:00+23:59 9999-12-31 {} [] {"a":1} '
    "NaN ١ ② é - -- 9223372036854775808"
).split()
words = (
    st.sampled_from(WORDS)
    | st.sampled_from([" ", "\n", "\x1b[31m", "x" * 300])
    | st.text(max_size=6)
)
words = words.map(
    lambda text: text.replace("\0", "").encode("utf-8", "replace").decode()
)  # what a shell can hand over
options = st.sampled_from(OPTIONS).flatmap(
    lambda name: st.lists(words, max_size=1).map(lambda rest: [name, *rest])
)
lines = st.sampled_from(
    ["--service nano-banana", "--service nano-banana --json", "--json", ""]
).map(str.split)
parts = st.lists(options | words.map(lambda word: [word]), max_size=4)
commands = st.builds(
    lambda command, line, parts: [*command.split(), *line, *chain.from_iterable(parts)],
    st.sampled_from(COMMANDS),
    lines,
    parts,
)


def is_plain(ended: Ended, *, told_json: bool) -> None:
    assert ended.code in (0, 1, 2)
    assert "Traceback" not in ended.err
    assert ended.err or ended.code != 2
    if told_json and ended.out and not ended.out.startswith("Usage:"):
        json.loads(ended.out)


def test_whatever_is_typed_a_command_ends_plainly(stocked: Delivering) -> None:
    @cases(200)
    @given(line=commands)
    def prove(line: list[str]) -> None:
        line = [*line, "--timeout", "0"] if line[:1] == ["wait"] else line
        is_plain(run(*line), told_json="--json" in line and line[:1] != ["events"])

    prove()


own = st.builds(
    lambda task_id, more: f'{{"id":{task_id},{more[1:]}' if more != "{}" else f'{{"id":{task_id}}}',
    values,
    objects,
)
wished = st.lists(
    st.tuples(
        st.sampled_from("service webhook deadline metadata model producer restart id x".split()),
        values,
    ),
    max_size=3,
)
own |= wished.map(
    lambda pairs: "{" + ",".join(f'"{key}":{value}' for key, value in [("id", '"a"'), *pairs]) + "}"
)
inputs = st.lists(bodies(values | own | own) | st.binary(max_size=30), max_size=4).map(b"\n".join)


@pytest.mark.parametrize("json_too", [(), ("--json",)], ids=["", "json"])
def test_whatever_comes_by_stdin_each_line_is_taken_or_refused(
    stocked: Delivering, json_too: tuple[str, ...]
) -> None:
    @cases(100)
    @given(stdin=inputs)
    def prove(stdin: bytes) -> None:
        is_plain(
            run("submit", "--service", "nano-banana", *json_too, "-", stdin=stdin),
            told_json=bool(json_too),
        )

    prove()


# --- inputs that failed once

SERVICE = ("--service", "nano-banana")
BYTE = "\udcff"  # what Python makes of a byte that is no UTF-8


def test_a_record_with_broken_unicode_can_be_shown(stocked: Delivering) -> None:
    stocked.end("b", webhook="http://127.0.0.1:9/hook", record={"id": "b", "text": "\ud800"})
    for line in (
        ("show", *SERVICE, "b"),
        ("show", *SERVICE, "--json", "b"),
        ("wait", *SERVICE, "--json", "b"),
    ):
        is_plain(run(*line), told_json="--json" in line)


def test_metadata_nested_100_000_deep_are_no_traceback(stocked: Delivering) -> None:
    is_plain(run("submit", *SERVICE, "--meta", "[" * 100_000, "b"), told_json=False)


def test_a_byte_that_is_no_utf_8_in_a_url_is_a_plain_sentence(stocked: Delivering) -> None:
    for line in (
        ("endpoint", "show"),
        ("endpoint", "enable"),
        ("dead", "list", "--endpoint"),
        ("endpoint", "disable"),
    ):
        is_plain(run(*line, f"http://{BYTE}"), told_json=False)


def test_a_byte_that_is_no_utf_8_in_a_reason_does_not_break_the_commands_that_show_it(
    stocked: Delivering,
) -> None:
    run("endpoint", "disable", "http://127.0.0.1:9/hook", "--reason", BYTE)
    for line in (
        ("status",),
        ("status", "--json"),
        ("doctor",),
        ("endpoint", "list"),
        ("endpoint", "list", "--json"),
    ):
        is_plain(run(*line), told_json="--json" in line)


def test_an_unknown_key_of_100_000_characters_is_not_repeated_whole(stocked: Delivering) -> None:
    said = run("submit", *SERVICE, "-", stdin=b'{"id":"b","' + b"k" * 100_000 + b'":1}')
    assert len(said.err) < 1000
