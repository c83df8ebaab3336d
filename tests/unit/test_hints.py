"""How `cavendish up` says that its commands are run.

A line that can be pasted into another terminal.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cavendish.settings import env_name
from cavendish_worker.cli.up import ourselves


@pytest.mark.parametrize("argv", [".venv/bin/cavendish", "/opt/a b/cavendish"])
def test_a_command_that_is_on_no_path_is_named_as_it_was_run(
    argv: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(env_name("data_dir"), raising=False)
    monkeypatch.setattr(sys, "argv", [argv])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ourselves() == (f"'{argv}'" if " " in argv else argv)
    (tmp_path / "cavendish").touch(mode=0o755)
    assert ourselves() == "cavendish"


def test_a_data_folder_of_its_own_is_said_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/worker/cli/__main__.py"])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(env_name("data_dir"), "/srv/my data")
    assert (
        ourselves() == f"CAVENDISH_DATA_DIR='/srv/my data' {sys.executable} -m cavendish_worker.cli"
    )
