"""What the documents say of the settings is what the code reads."""

from __future__ import annotations

import re
from pathlib import Path

from scheduler.settings import described

ROOT = Path(__file__).parents[2]


def test_the_example_environment_has_every_setting_with_its_default() -> None:
    text = (ROOT / "deploy" / "env.example").read_text()
    for name, unit, default, meaning in described():
        note = f"({unit}; default {default})" if default else f"({unit})"
        assert f"# {meaning}\n# {note}\n{name}=\n" in text
    assert set(re.findall(r"^(CAVENDISH_\w+)=", text, re.MULTILINE)) == {row[0] for row in described()}


def test_the_readme_has_every_setting_with_its_default() -> None:
    text = (ROOT / "README.md").read_text()
    for name, unit, default, meaning in described():
        assert f"| `{name}` | {unit.replace('|', 'or')} | {default} | {meaning} |" in text
    assert set(re.findall(r"^\| `(CAVENDISH_\w+)` \|", text, re.MULTILINE)) == {row[0] for row in described()}
