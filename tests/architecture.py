"""Write the parts of ARCHITECTURE.md that the code says: `python tests/architecture.py`.

The table of keys is the docstring of `store/keys.py`; the map of files is the first sentence of
each file.
"""

from __future__ import annotations

import ast
import re
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "ARCHITECTURE.md"
PACKAGES = ("scheduler/cavendish", "worker/cavendish_worker")


def sources() -> list[Path]:
    """Every file of both packages, folder by folder."""
    found = [
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".lua")
    ]
    return sorted(found, key=lambda path: (str(path.parent), path.name))


def said(path: Path) -> str:
    """The first sentence of a file about itself."""
    text = path.read_text()
    if path.suffix == ".lua":
        header = text.partition("\n-- KEYS")[0].replace("\n-- ", " ")
        about = header.removeprefix(f"-- {path.stem}: ")
    else:
        about = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<=\.) (?=[A-Z`])", about)[0]
    return sentence.replace("|", "\\|")


def file_map() -> str:
    """A table for each folder."""
    parts = []
    for folder, paths in groupby(sources(), key=lambda path: path.parent):
        rows = [(path, said(path)) for path in paths if path.name != "__init__.py" or said(path)]
        inside = folder.relative_to(ROOT)
        parts += ["", f"**{inside}**", "", "| file | what it is for |", "|---|---|"]
        parts += [f"| [{path.name}]({path.relative_to(ROOT)}) | {text} |" for path, text in rows]
    return "\n".join(parts[1:])


def key_table() -> str:
    """The rows of the docstring of `store/keys.py`."""
    about = ast.get_docstring(ast.parse((ROOT / PACKAGES[0] / "store/keys.py").read_text())) or ""
    rows = [line for line in about.splitlines() if line.startswith("|")]
    return "\n".join(re.sub(r" {2,}", " ", re.sub(r"-{4,}", "---", row)) for row in rows)


def written(text: str) -> str:
    """The page with both parts as the code says them now."""
    for name, part in (("keys", key_table()), ("files", file_map())):
        begin, end = f"<!-- {name}: tests/architecture.py -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{part}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    PLACE.write_text(written(PLACE.read_text()))
