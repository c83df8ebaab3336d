"""What the documents say of the settings is what the code reads, and what they link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cavendish.settings import described

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("deploy/*.md")]


def test_the_example_environment_has_every_setting_with_its_default() -> None:
    text = (ROOT / "deploy" / "env.example").read_text()
    for name, unit, default, meaning in described():
        note = f"({unit}; default {default})" if default else f"({unit})"
        assert f"# {meaning}\n# {note}\n{name}=\n" in text
    assert set(re.findall(r"^(CAVENDISH_\w+)=", text, re.MULTILINE)) == {
        row[0] for row in described()
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"CAVENDISH_[A-Z_]*[A-Z]", page.read_text()))
    assert named <= {row[0] for row in described()} | {
        "CAVENDISH_FLOWER_KEPT"
    }  # the first change that CONTRIBUTING makes


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_file_that_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
