"""What the documents say of the settings is what the code reads, and what they link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import architecture
from cavendish.settings import described
from cavendish.store.keys import LaneKeys

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


def test_the_architecture_names_every_file_and_every_key() -> None:
    text = architecture.PLACE.read_text()
    assert text == architecture.written(text), "run: python tests/architecture.py"
    for path in architecture.sources():
        assert path.name == "__init__.py" or f"]({path.relative_to(ROOT)})" in text


def test_every_key_of_a_lane_has_a_row_in_the_table_of_keys() -> None:
    names = {name for name in vars(LaneKeys) if not name.startswith("_")} - {"lane", "of_delivery"}
    rows = re.findall(r"^\| \{lane\}:([\w-]+)", architecture.key_table(), re.MULTILINE)
    assert {row.replace("-", "_") for row in rows} == names


def test_every_program_that_make_and_the_bench_of_polling_start_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    started = [ROOT / path for path in re.findall(r"python (tests/[\w/.]+)", makefile)]
    report = (ROOT / "tests/bench/report.py").read_text()
    benches = re.findall(r'start\("([^"]+)"', report)
    started += [ROOT / f"tests/bench/{name}.py" for name in benches]
    assert len(started) > len(benches) > 2
    assert [str(path) for path in started if not path.exists()] == []
