"""README is short, its pictures are the newest, and its programs do what it says."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import way_of_an_id
from cavendish.endpoints import signing
from programs import need

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PRODUCERS = (ROOT / "deploy" / "PRODUCERS.md").read_text()
SECRET = signing.new_secret()
RAW = '{"type":"task.succeeded","data":{"metadata":{"größe":1.50}}}'.encode()


def program(language: str, word: str) -> str:
    """The one program of README or PRODUCERS in this language that holds this word."""
    found = re.findall(rf"```{language}\n(.*?)```", README + PRODUCERS, re.DOTALL)
    (one,) = [text for text in found if word in text]
    return str(one)


def headers(*secrets: str, sent_at: float | None = None) -> dict[str, str]:
    """What a webhook carries that these secrets sign."""
    return signing.headers(secrets, "msg_1", int(sent_at or time.time()), RAW)


def refused_by_python(headers: dict[str, str], raw: bytes) -> bool:
    room: dict[str, Any] = {}
    exec(program("python", "def verify"), room)  # noqa: S102 (README's own)
    try:
        return bool(room["verify"](SECRET, headers, raw) != json.loads(RAW))
    except ValueError:
        return True


def refused_by_node(headers: dict[str, str], raw: bytes) -> bool:
    need("node")
    call = (
        f"verify({json.dumps(SECRET)}, {json.dumps(headers)}, "
        f"Buffer.from({json.dumps(raw.hex())}, 'hex'))"
    )
    text = f"{program('js', 'export function verify')}\nconsole.log(JSON.stringify({call}));"
    done = subprocess.run(
        ["node", "--input-type=module", "-e", text], capture_output=True, text=True, check=False
    )
    return done.returncode != 0 or json.loads(done.stdout) != json.loads(RAW)


@pytest.mark.parametrize("refused", [refused_by_python, refused_by_node])
def test_the_programs_that_verify_take_what_is_signed_and_nothing_else(refused: Any) -> None:
    right = headers(SECRET)
    assert not refused(right, RAW)
    assert not refused(headers(signing.new_secret(), SECRET), RAW)  # a rotation: both sign
    assert refused(right, RAW.replace(b"1.50", b"1.51"))
    assert refused(headers(signing.new_secret()), RAW)
    assert refused(headers(SECRET, sent_at=time.time() - 600), RAW)
    assert refused(right | {"webhook-id": "msg_2"}, RAW)


def test_the_drawing_is_the_one_that_its_script_makes() -> None:
    assert way_of_an_id.PLACE.read_text() == way_of_an_id.drawing()


def test_readme_has_at_most_150_lines() -> None:
    assert len(README.splitlines()) <= 150
