"""What is kept of the actions of operators, also where a part of it is damaged."""

from __future__ import annotations

import json

import pytest

from cavendish.policy.bulk_actions import LONGEST, BulkAction, BulkActions, Note

KEPT = BulkActions(
    (
        BulkAction("b" * 16, "cancel", "ada", 9.0, 2, "{}"),
        BulkAction("a" * 16, "forget", "grace", 5.0, 1, "{}"),
    ),
    (Note(8.0, "ada", "Endpoint shop disabled"),),
)


def damaged(**others: object) -> str:
    """The same, with one action more than can be read, and other parts in place of its own."""
    text = json.loads(KEPT.to_json())
    text["latest"].insert(1, {"id": "c" * 16, "began_at": "soon"})
    return json.dumps(text | others)


def test_an_action_that_cannot_be_read_takes_no_other_along() -> None:
    """It may be of a version that comes later: it is written back as it was."""
    found = BulkActions.from_json(damaged())
    assert (found.latest, found.notes) == (KEPT.latest, KEPT.notes)
    assert found.unread == ('{"id":"cccccccccccccccc","began_at":"soon"}',)
    written = found.noted(Note(10.0, "ada", "hm")).to_json()
    assert BulkActions.from_json(written).unread == found.unread


def test_what_another_version_could_not_read_is_read_again_once_it_can_be() -> None:
    """As after an update of one Flower of two."""
    rows = [KEPT.latest[0], KEPT.notes[0]]
    texts = [json.dumps(_plain(row)) for row in rows]
    found = BulkActions.from_json(json.dumps({"latest": [], "notes": [], "unread": texts}))
    assert (found.latest, found.notes, found.unread) == (KEPT.latest[:1], KEPT.notes, ())


def _plain(row: BulkAction | Note) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__slots__}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"latest": 7}', '{"latest": [NaN]}', "[" * 200]
)
def test_what_is_no_list_of_actions_is_kept_as_one_entry(text: str) -> None:
    """Nothing that somebody wrote is lost without a word."""
    assert BulkActions.from_json(text).unread == (text,)


def test_little_is_kept_of_much_that_cannot_be_read() -> None:
    """It is read at each look."""
    found = BulkActions.from_json(damaged(unread=["x" * 10 * LONGEST] * 1000))
    assert len(found.to_json()) < 40 * LONGEST
    assert BulkActions.from_json(None) == BulkActions.from_json("{}") == BulkActions()
