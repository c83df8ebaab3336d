"""What `submit -` and `wait -` read from stdin: lines, JSON, CSV, in the encodings of shells."""

from __future__ import annotations

import codecs
import csv
import io
import json
from typing import Any

import pytest

from cavendish import Client, State, SubmissionError, Task, TrackedTask
from cavendish.endpoints.webhook_endpoint import subscription_of
from cavendish_worker.cli.id_lines import KNOWN
from delivering import Delivering
from shell import Run, said

SERVICE = "nano-banana"
HOOK = "https://example.com/hook"
SUBMIT = ("submit", "--service", SERVICE)


def everything(client: Client) -> dict[str, TrackedTask]:
    """All tracked tasks of the service, by id."""
    lanes = {lane.service for lane in client._store.tasks.lanes()}
    assert lanes <= {SERVICE}
    raw = client._store.connection.redis
    keys = [key if isinstance(key, str) else key.decode() for key in raw.scan_iter("*:task:*")]
    return client.get_many([key.partition(":task:")[2] for key in keys], service=SERVICE)


def refusals(done: Any) -> list[str]:
    """The reasons that a submit printed with --json gives."""
    return [one["reason"] for one in json.loads(done.stdout) if one["outcome"] == "refused"]


# --- encodings and ends of lines

MARKS = {
    "BOM": codecs.BOM_UTF8 + b"a\nb\n",
    "UTF-16 of PowerShell": "\ufeffa\r\nb\r\n".encode("utf-16-le"),
    "UTF-16 of the other order": "\ufeffa\nb".encode("utf-16-be"),
    "UTF-16 without a mark": "a\nb\n".encode("utf-16-le"),
    "UTF-32": "a\nb\n".encode("utf-32"),
    "CRLF": b"a\r\nb\r\n",
    "two files, each with a BOM": b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n",
    "JSON lines with BOM and CRLF": b'\xef\xbb\xbf{"id": "a"}\r\n"b"\r\n',
    "JSON in UTF-16": json.dumps(["a", {"id": "b"}], indent=1).encode("utf-16"),
}


@pytest.mark.parametrize("name", MARKS)
def test_what_shells_put_around_ids_is_no_part_of_them(run: Run, client: Client, name: str) -> None:
    """The marks of the byte order, UTF-16, and the carriage return before the end of a line."""
    done = run(*SUBMIT, "-", stdin=MARKS[name])
    assert (done.exit_code, done.output) == (0, "2 new\n")
    assert set(everything(client)) == {"a", "b"}


def test_a_line_with_a_byte_that_is_no_utf_8_is_refused_alone(run: Run, client: Client) -> None:
    """Also if the byte is in the metadata of a JSON line."""
    lines = b'a\n\xff\n{"id": "c", "metadata": {"n": "\xff"}}\nd\xe4\nb\n'
    done = run(*SUBMIT, "--json", "-", stdin=lines)
    assert refusals(done) == ["the line is not UTF-8"] * 3
    assert set(everything(client)) == {"a", "b"}


@pytest.mark.parametrize(
    ("words", "stdin", "says"),
    [
        ((), b"\xff\xfea\x00b", "Stdin begins like utf-16, but cannot be read as that."),
        (("--format", "csv"), b"id\n\xff\n", "Stdin is not UTF-8, nor UTF-16 with a"),
        (("--format", "json"), b'["\xff"]', "Stdin is not UTF-8, nor UTF-16 with a"),
    ],
)
def test_what_cannot_be_decoded_as_a_whole_is_one_sentence(
    run: Run, client: Client, words: tuple[str, ...], stdin: bytes, says: str
) -> None:
    """CSV and JSON arrays cannot be cut at a wrong byte."""
    done = run(*SUBMIT, *words, "-", stdin=stdin)
    assert str(done.exception).startswith(says)
    assert everything(client) == {}


# --- JSON over several lines

DOCUMENTS = {
    "an array of texts": '["a", "b"]',
    "a pretty-printed array": json.dumps(["a", {"id": "b", "metadata": {"n": 1}}], indent=2),
    "pretty-printed objects, as jq prints them": '{\n  "id": "a"\n}\n{\n  "id": "b"\n}\n',
    "arrays, one after the other": '["a"]\n["b"]\n',
}


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("words", [(), ("--format", "json")], ids=["recognised", "named"])
def test_the_items_of_json_arrays_and_objects_over_several_lines_are_taken(
    run: Run, client: Client, name: str, words: tuple[str, ...]
) -> None:
    """Each item is an id, or an object with an id and what is said of it."""
    assert run(*SUBMIT, *words, "-", stdin=DOCUMENTS[name]).output == "2 new\n"
    found = everything(client)
    assert set(found) == {"a", "b"}
    assert found["b"].metadata == ({"n": 1} if "pretty-printed array" in name else None)


def test_items_that_say_no_id_are_refused_alone(run: Run, client: Client) -> None:
    """Numbers are no ids, since the API's are texts."""
    document = json.dumps(["a", 7, None, ["b"], {"metadata": {}}, {"id": 7}, {"id": "c", "x": 1}])
    done = run(*SUBMIT, "--json", "-", stdin=document)
    neither = "the entry is neither an id nor a JSON object with an id"
    assert refusals(done) == [
        *[neither] * 4,
        "entry 7 has the unknown key 'x'",
        "an id must be a string, not int",
    ]
    assert set(everything(client)) == {"a"}


@pytest.mark.parametrize(
    ("stdin", "says"),
    [
        ('[\n "a"\n "b"\n]', "Expecting ',' delimiter, line 3, column 2"),
        ('[\n "a",\n "b"', "Expecting ',' delimiter, line 3, column 5"),
        ('{\n "id": "a",\n "metadata": {"tags": [\n"x"\n', "Expecting ',' delimiter, line 5"),
        ("[" * 100_000, "a number is too long, or it is nested too deep"),
        ('["a"]\nb\n', "Expecting value, line 2, column 1"),
    ],
)
def test_a_broken_json_text_is_one_sentence_and_nothing_of_it_is_tracked(
    run: Run, client: Client, stdin: str, says: str
) -> None:
    """Its last line could be taken for an id otherwise."""
    done = run(*SUBMIT, "-", stdin=stdin)
    assert str(done.exception).startswith(f"Stdin cannot be read as JSON: {says}")
    assert isinstance(done.exception, SubmissionError)
    assert everything(client) == {}


def test_lines_and_json_lines_may_be_named_and_are_then_read_as_just_that(
    run: Run, client: Client
) -> None:
    """`lines` takes an id that looks like JSON, and `jsonl` takes no bare id."""
    done = run(*SUBMIT, "--format", "lines", "--raw", "-", stdin='"a"\na,1\nb,2\n')
    assert (done.exit_code, done.output) == (0, "3 new\n")
    assert set(everything(client)) == {'"a"', "a,1", "b,2"}
    done = run(*SUBMIT, "--format", "jsonl", "--json", "-", stdin='"c"\nd\n{"id": "e"}\n')
    assert refusals(done) == ["the line is neither an id nor a JSON object with an id"]
    assert set(everything(client)) == {'"a"', "a,1", "b,2", "c", "e"}
    assert run(*SUBMIT, "--format", "csv", "a").exit_code == 2  # it is for stdin


# --- CSV

COLUMNS = "id metadata webhook deadline restart model producer key group group_size".split()
ROWS = [
    ["a", '{"order":\n "7, or 8"}', f"{HOOK} {HOOK}/2", "600", "false", "m", "shop", "7", "g", "2"],
    [],
    [" b ", "", "", "", "YES", "", "", "", "", ""],
]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_each_row_of_a_table_may_say_what_a_submit_may_say(
    run: Run, client: Client, mark: str
) -> None:
    """Columns are named like the keys of JSON lines, and an empty cell says nothing."""
    table = io.StringIO(newline="")
    csv.writer(table, delimiter=mark).writerows([COLUMNS, *ROWS])
    done = run(*SUBMIT, "--format", "csv", "-", stdin=table.getvalue())
    assert (done.exit_code, done.output) == (0, "2 new\n")
    found = everything(client)
    assert found["a"].metadata == {"order": "7, or 8"}
    assert found["a"].webhooks == (subscription_of(HOOK), subscription_of(f"{HOOK}/2"))
    assert found["a"].deadline_at - found["a"].submitted_at == 600
    assert (found["a"].model, found["a"].producer) == ("m", "shop")
    assert (found["a"].key, found["a"].group) == ("7", "g")
    assert (found["b"].metadata, found["b"].webhooks, found["b"].model) == (None, (), "")


def test_a_table_of_ids_alone_needs_the_column_id_only(run: Run, client: Client) -> None:
    """As spreadsheets write it: quoted, in capitals, with a mark of the byte order."""
    stdin = codecs.BOM_UTF8 + b'"ID"\r\n"a"\r\n"b"\r\n'
    assert run(*SUBMIT, "--format", "csv", "-", stdin=stdin).output == "2 new\n"
    assert set(everything(client)) == {"a", "b"}


@pytest.mark.parametrize(
    ("stdin", "says"),
    [
        ("id,amount\na,1\n", "names the unknown column 'amount'; known: " + ", ".join(KNOWN)),
        ("a,{}\nb,{}\n", "names the unknown column 'a'; known: id, "),
        ("id,model,ID\na,m,b\n", "names the column 'id' twice."),
        ("model,producer\nm,p\n", "names no column 'id'."),
        ("id,\na,7\n", "names the unknown column ''; known: id, "),
    ],
)
def test_a_wrong_first_row_is_one_sentence_that_names_the_known_columns(
    run: Run, client: Client, stdin: str, says: str
) -> None:
    """Nothing of the table is tracked."""
    done = run(*SUBMIT, "--format", "csv", "-", stdin=stdin)
    assert str(done.exception).startswith(f"The first row of the CSV {says}")
    assert everything(client) == {}


def test_a_row_that_cannot_be_read_is_refused_alone(run: Run, client: Client) -> None:
    """With the line where it stands."""
    rows = [
        "id,metadata,deadline,restart",
        "a,{},600,",
        "b,{,,",
        "c,,soon,",
        "d,,,maybe",
        "e",
        ",,5,",
    ]
    done = run(*SUBMIT, "--format", "csv", "--json", "-", stdin="\n".join(rows))
    assert sorted((one["id"], one["reason"]) for one in json.loads(done.stdout)) == [
        ("", "an id must not be empty"),
        ("a", ""),
        ("line 3", "the metadata of the row cannot be read"),
        ("line 4", "the deadline of the row cannot be read"),
        ("line 5", "the restart of the row cannot be read"),
        ("line 6", "the row has 1 cells, and the first row 4"),
    ]
    assert set(everything(client)) == {"a"}


@pytest.mark.parametrize(
    "stdin", ['id,metadata\na,{}\n"b,{}\nc,{}\n', 'id\n"a"b\n', "id\n" + "x" * 200_000]
)
def test_a_broken_table_is_one_sentence_and_nothing_of_it_is_tracked(
    run: Run, client: Client, stdin: str
) -> None:
    """A missing quote would swallow all rows behind it."""
    done = run(*SUBMIT, "--format", "csv", "-", stdin=stdin)
    assert str(done.exception).startswith("Stdin cannot be read as CSV: line ")
    assert everything(client) == {}


TABLES = [
    "id,amount\na,1\nb,2\n",
    "\n\nID;amount\na;1\n",
    '"id","amount"\n"a","1"\n',
    "id\tamount\na\t1\n",
    "order,id\n7,a\n",
    "id\na\nb\n",
    "a,1\nb,2\n\nc,3\n",
    "a;1\nb;2\n",
    "\ufeffid,amount\r\na,1\r\n",
]


@pytest.mark.parametrize("stdin", TABLES)
@pytest.mark.parametrize("words", [SUBMIT, ("wait", "--service", SERVICE)], ids=["submit", "wait"])
def test_a_table_without_its_format_is_recognised_and_refused_with_advice(
    run: Run, client: Client, stdin: str, words: tuple[str, ...]
) -> None:
    """Its first row, and its rows, would be tracked as ids otherwise, and expire."""
    done = run(*words, "-", stdin=stdin)
    assert str(done.exception).startswith("Stdin looks like CSV. Give --format csv, ")
    assert done.exit_code == 1
    assert everything(client) == {}


def test_lines_that_are_no_table_are_not_taken_for_one(run: Run, client: Client) -> None:
    """JSON lines have as many commas each, and single ids may have some."""
    lines = [json.dumps({"id": f"id-{n}", "metadata": {"a": 1, "b": 2}}) for n in range(3)]
    assert run(*SUBMIT, "-", stdin="\n".join(lines)).output == "3 new\n"
    done = run(*SUBMIT, "-", stdin="a;1\nb\n")
    assert done.output == "2 new\n"
    assert set(everything(client)) == {"id-0", "id-1", "id-2", "a;1", "b"}


# --- ids that are none


ODD = ["a,b", "a b", 'a"b', "it's", "`a`", "{a}", "}", "]", "a,"]
LINES = [odd for odd in ODD if not odd.startswith("{")]  # which would be JSON


@pytest.mark.parametrize(
    ("odd", "words", "stdin"),
    [
        *((odd, (odd,), None) for odd in ODD),
        *((odd, ("-",), odd) for odd in LINES),
        *((odd, ("-",), json.dumps({"id": odd})) for odd in ODD),
    ],
)
def test_an_id_with_a_mark_of_a_format_is_refused_with_a_reason_unless_it_is_meant(
    run: Run, client: Client, odd: str, words: tuple[str, ...], stdin: str | None
) -> None:
    """The API's ids hold none of these, but lines of other formats do."""
    done = run(*SUBMIT, "--json", *words, stdin=stdin)
    assert done.exit_code == 1
    (reason,) = refusals(done)
    assert reason.startswith("the id holds ")
    assert reason.endswith("; --raw takes it as it is")
    assert everything(client) == {}
    assert run(*SUBMIT, "--raw", *words, stdin=stdin).output == "1 new\n"
    assert set(everything(client)) == {odd}


def test_the_answers_to_ids_come_in_their_order_and_odd_ones_do_not_stop_the_others(
    run: Run, client: Client
) -> None:
    """A program may go through them side by side."""
    done = run(*SUBMIT, "--json", "a", "b c", "d\t", "e")
    answers = json.loads(done.stdout)
    assert [(one["id"], one["outcome"]) for one in answers] == [
        ("a", "new"),
        ("b c", "refused"),
        ("d\\t", "refused"),
        ("e", "new"),
    ]
    assert set(everything(client)) == {"a", "e"}


def test_the_python_client_takes_ids_with_any_printable_character(client: Client) -> None:
    """What it is given was made by a program, not cut out of a text."""
    ids: list[Any] = ["a,b", "a b", Task('{"c"}')]
    assert [one.outcome for one in client.submit(ids, service=SERVICE)] == ["new"] * 3


# --- wait


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (("--format", "csv"), "id,model\na,m\nb,m\n"),
        (("--format", "csv"), "state,id,\npending,a,1\n,b,\n"),
        ((), json.dumps(["a", {"id": "b", "state": "pending"}], indent=2)),
        ((), "a\r\nb\r\n".encode("utf-16")),
    ],
)
def test_wait_reads_the_same_formats(
    run: Run, endpoint_index: Delivering, words: tuple[str, ...], stdin: Any
) -> None:
    """A file that was submitted is waited for as it is, and so is what `list` printed."""
    endpoint_index.end("a", "b", webhook=HOOK)
    found = said(run("wait", "--service", SERVICE, *words, "--json", "-", stdin=stdin))
    assert [(one["id"], one["state"]) for one in found] == [
        ("a", State.SUCCEEDED),
        ("b", State.SUCCEEDED),
    ]


def test_wait_reads_no_column_but_the_ids_and_needs_that_one(run: Run) -> None:
    """One sentence, as for `submit`."""
    words = ("wait", "--service", SERVICE, "--format", "csv", "-")
    for header, says in (("state,model", "names no column 'id'."), ("id,ID", "names the column")):
        done = run(*words, stdin=f"{header}\na,b\n")
        assert str(done.exception).startswith(f"The first row of the CSV {says}")


def test_what_list_prints_is_what_other_commands_read(run: Run, endpoint_index: Delivering) -> None:
    """In each format that both know."""
    endpoint_index.end("a", "b", webhook=HOOK)
    for form in ("csv", "jsonl"):
        listed = run("list", "--format", form).stdout
        done = run("wait", "--service", SERVICE, "--format", form, "--json", "-", stdin=listed)
        assert {one["id"] for one in said(done)} == {"a", "b"}
