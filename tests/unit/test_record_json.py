"""The JSON of an upstream record, kept as it came: in the store and in a webhook."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.model import State, TrackedTask
from cavendish.record_json import KeptRecord, encodable, read_record, reader, valid
from cavendish.store.task_record import stored
from cavendish_worker.polling import answer_json
from cavendish_worker.polling.answer_json import ITEMS, read_answer
from cavendish_worker.webhooks.payload import body

#: Items whose text no Python value can write again.
EXACT = {
    "many digits": '{"id":"a","n":12345678901234567890.123}',
    "digits behind a point": '{"id":"a","n":-0.' + "7" * 5000 + "}",
    "a large exponent": '{"id":"a","n":1e400,"m":-1E+400}',
    "a float of a kind": '{"id":"a","n":1.0e+01,"m":-0.0,"k":0.10}',
    "keys that come twice": '{"id":"a","n":1,"n":2}',
    "the order of keys": '{"z":1,"id":"a","b":2,"a":3}',
    "escapes": r'{"id":"a","text":"\u00e9 \/ \ud83d\ude00 \ud800 é 水彩"}',
    "white space": '{\n  "id": "a",\t"n": [ ]\r\n}',
    "brackets in texts": '{"id":"a","text":"]}\\"[{,"}',
}
#: Items that are no JSON, and what takes their place in a webhook.
INVALID = {
    '{"id":"a","n":NaN,"m":[-Infinity,Infinity]}': '{"id":"a","n":null,"m":[null,null]}',
    '{"id":"a","text":"NaN\t\\" Infinity"}': '{"id":"a","text":"NaN\\u0009\\" Infinity"}',
    f'{{"n":-{"7" * 4301},"m":{"7" * 4300}}}': f'{{"n":"-{"7" * 4301}","m":{"7" * 4300}}}',
    '{"id":"a","text":"\x00\n\x1f"}': '{"id":"a","text":"\\u0000\\u000a\\u001f"}',
}


def items(text: str) -> list[Any]:
    found: list[Any] = read_answer(f' {{"count": 2, "items": [ {text} , {{}}]}} '.encode())["items"]
    return found


def announced(text: str) -> str:
    """What stands in the webhook of a task with this record."""
    task = TrackedTask("a", "s", "default", State.SUCCEEDED, 0.0, 9.0, settled_at=5.0)
    task = type(task)(
        **{name: getattr(task, name) for name in task.__slots__} | {"record_json": text}
    )
    sent = body(task).decode()
    json.loads(sent, parse_constant=pytest.fail)
    found = re.search(r'"task":(.*)\}\}\Z', sent, re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("text", EXACT.values(), ids=EXACT)
def test_an_item_is_stored_and_announced_as_it_came(text: str) -> None:
    record, empty = items(text)
    assert (stored(record), stored(empty)) == (text, "{}")
    assert read_record(text) == record
    assert json.loads(announced(text)) == json.loads(text)
    assert announced(text) == (valid(text) if "\n" in text else text)


@pytest.mark.parametrize(("text", "instead"), INVALID.items())
def test_what_is_no_json_is_stored_as_it_came_and_announced_as_valid_json(
    text: str, instead: str
) -> None:
    record, _ = items(text)
    assert stored(record) == text
    assert announced(text) == instead
    assert reader().decode(instead) == record == read_record(text)


def test_the_answer_about_a_single_id_is_kept_as_it_came() -> None:
    text = '{"id":"a","n":1.10}'
    assert stored(read_answer(f"\n{text} ".encode())) == text


def test_the_last_list_of_items_counts() -> None:
    answer = read_answer(b'{"items":[{"id":"a"}],"items":[{"id":"b"},7]}')
    assert answer == {"items": [{"id": "b"}, 7]}
    assert answer["items"][0].text == '{"id":"b"}'


def test_python_values_say_what_they_can_of_odd_numbers() -> None:
    record, _ = items('{"n":12345678901234567890.123,"m":1e400,"k":NaN,"d":1,"d":2}')
    assert record == {"n": 12345678901234567890.123, "m": "1e400", "k": None, "d": 2}


def test_bytes_that_are_no_text_and_half_pairs_can_be_stored() -> None:
    (record,) = read_answer(b'{"items":[{"id":"a","text":"\xff"}]}')["items"]
    assert stored(record) == '{"id":"a","text":"\ufffd"}'
    assert encodable('{"text":"\ud800"}') == r'{"text":"\ud800"}'
    (half,) = read_answer(b'{"items":[{"id":"b","text":"\xed\xa0\x80"}]}')["items"]
    assert stored(half) == r'{"id":"b","text":"\ud800"}'


def test_digits_that_only_the_reader_in_python_takes_do_not_get_into_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answer_json, "CONTAINERS", 0)
    record, _ = items('{"id":"a","n":1\u0663,"m":1.50}')
    assert stored(record) == '{"id":"a","n":13,"m":1.5}'
    record, _ = items('{"id":"a","m":1.50}')
    assert stored(record) == '{"id":"a","m":1.50}'


BROKEN = (
    '{"items":[{}', '{"items":[{},]}', '{"items":[{}{}]}', '{"items" []}', '{"items":[]', '{',
    '{"items":[]}}', '{"a":}', '{a:1}', '{"a":1,}', '{"a":1 "b":2}', '{"items":[,]}', "", "{}{}",
)  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_no_json_is_no_answer(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (as the reader of the standard library)
        json.loads(text)
    with pytest.raises(ValueError):  # noqa: PT011
        read_answer(text.encode())


def test_more_items_than_any_batch_has_ids_are_no_answer() -> None:
    assert len(read_answer(b'{"items":[%b]}' % b",".join([b"1"] * ITEMS))["items"]) == ITEMS
    with pytest.raises(ValueError, match="items"):
        read_answer(b'{"items":[%b]}' % b",".join([b"1"] * (ITEMS + 1)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(value=JSON, indent=st.none() | st.integers(0, 2), ascii_only=st.booleans())
def test_it_reads_what_the_standard_library_reads(
    value: Any,
    indent: int | None,
    ascii_only: bool,
) -> None:
    text = json.dumps({"items": [value], "x": value}, indent=indent, ensure_ascii=ascii_only)
    answer = read_answer(text.encode())
    assert answer == json.loads(text)
    if isinstance(value, dict):
        (record,) = answer["items"]
        assert isinstance(record, KeptRecord)
        assert json.loads(valid(record.text)) == value
