"""The systemd units, by systemd itself where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deployed import DEPLOY

UNITS = DEPLOY / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
#: Of 10; a service without any sandbox has 9.6.
MOST_EXPOSED = 1.5


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as on a host, with programs that are there."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    folder = tmp_path_factory.mktemp("systemd")
    shutil.copytree(UNITS, folder, dirs_exist_ok=True)
    for path in folder.glob("*.service"):
        path.write_text(re.sub(r"/opt/cavendish/bin/\w+", "/bin/true", path.read_text()))
    return folder


def analyze(folder: Path, *words: str) -> str:
    """What systemd-analyze complains of; empty if it does not."""
    environment = {"SYSTEMD_UNIT_PATH": f"{folder}:", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["systemd-analyze", *words],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        check=False,
    )
    return done.stderr if words[0] == "verify" else done.stdout[-200:] if done.returncode else ""


def instance(path: Path) -> str:
    return path.name.replace("@.", "@1.")


@pytest.mark.parametrize(
    "path",
    [*SERVICES, *UNITS.glob("*.socket"), UNITS / "cavendish.target"],
    ids=lambda path: path.name,
)
def test_systemd_finds_nothing_wrong_with_a_unit(installed: Path, path: Path) -> None:
    assert analyze(installed, "verify", "--man=no", f"./{instance(path)}") == ""


def test_systemd_would_find_what_is_wrong(installed: Path) -> None:
    (installed / "wrong.service").write_text(
        "[Service]\nExecStart=/bin/true\nProtectSytem=strict\n"
    )
    assert "ProtectSytem" in analyze(installed, "verify", "--man=no", "./wrong.service")


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_a_service_is_hardly_exposed(installed: Path, path: Path) -> None:
    threshold = f"--threshold={MOST_EXPOSED * 10:.0f}"
    assert (
        analyze(
            installed, "security", "--offline=true", "--no-pager", threshold, f"./{instance(path)}"
        )
        == ""
    )


def test_without_its_sandbox_a_service_is_exposed(installed: Path) -> None:
    (installed / "bare.service").write_text("[Service]\nExecStart=/bin/true\n")
    assert analyze(
        installed, "security", "--offline=true", "--no-pager", "--threshold=15", "./bare.service"
    )


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_a_service_is_bounded_and_belongs_to_the_target(path: Path) -> None:
    said = path.read_text()
    assert path.name.startswith("cavendish-")  # or the sandbox would not be its
    assert re.search(r"^MemoryMax=\d+M$", said, re.MULTILINE)
    assert "PartOf=cavendish.target" in said
    assert "WantedBy=cavendish.target" in said


def test_every_service_has_the_sandbox_the_settings_and_starts_again() -> None:
    said = (UNITS / "cavendish-.service.d" / "sandbox.conf").read_text()
    for line in (
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "EnvironmentFile=/etc/cavendish/env",
        "Restart=always",
    ):
        assert f"\n{line}\n" in said


def test_units_that_share_a_state_folder_share_its_owner() -> None:
    """With DynamicUser each unit has a uid of its own, and takes the folder from the others.

    200/CHDIR.
    """
    said = (UNITS / "cavendish-.service.d" / "sandbox.conf").read_text()
    assert {
        "User=cavendish",
        "Group=cavendish",
        "StateDirectory=cavendish",
        "StateDirectoryMode=0700",
    } <= set(said.splitlines())
    assert not re.search(r"^DynamicUser=", said, re.MULTILINE)
    assert "useradd --system" in (UNITS / "cavendish.target").read_text()
