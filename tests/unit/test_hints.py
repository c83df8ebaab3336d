"""The command line that `cavendish up` shows: it can be pasted into another terminal."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cavendish.settings import env_name
from cavendish_worker.cli.up import our_command


@pytest.mark.parametrize("argv", [".venv/bin/cavendish", "/opt/a b/cavendish"])
def test_a_command_that_is_on_no_path_is_named_as_it_was_run(
    argv: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(env_name("data_dir"), raising=False)
    monkeypatch.setattr(sys, "argv", [argv])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert our_command() == (f"'{argv}'" if " " in argv else argv)
    (tmp_path / "cavendish").touch(mode=0o755)
    assert our_command() == "cavendish"


def test_a_data_folder_of_its_own_is_said_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/worker/cli/__main__.py"])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(env_name("data_dir"), "/srv/my data")
    ours = f"{sys.executable} -m cavendish_worker.cli"
    assert our_command() == f"CAVENDISH_DATA_DIR='/srv/my data' {ours}"


@pytest.mark.parametrize("folder", ["/srv/a\nb", "/srv/it's", "/srv/a\\b", "/srv/\udcff"])
def test_a_data_folder_that_cannot_be_pasted_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    """The log escapes what it shows, and a shell would take that for another folder."""
    (tmp_path / "cavendish").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(env_name("data_dir"), folder)
    assert our_command() == "CAVENDISH_DATA_DIR=… cavendish"
