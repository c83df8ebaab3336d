"""What the deploy files say.

Each container and unit that runs something, in one shape, and what runs it.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
OURS = f"cavendish:{VERSION}"


@dataclass(frozen=True)
class Part:
    """Something that runs for long. `grace`: seconds from SIGTERM to SIGKILL."""

    where: str
    name: str
    image: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    grace: float = 0.0

    @property
    def ours(self) -> bool:
        return self.image == OURS


def read(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


@cache
def compose() -> dict[str, Any]:
    return read(DEPLOY / "compose.yaml")[0]


@cache
def manifests() -> tuple[dict[str, Any], ...]:
    """Every Kubernetes object of base and components, as it is written."""
    paths = [
        path
        for folder in ("base", "components")
        for path in sorted((KUBERNETES / folder).rglob("*.yaml"))
    ]
    return tuple(one for path in paths if path.name != "kustomization.yaml" for one in read(path))


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [one for one in manifests() if one["kind"] in kinds]


def config_map() -> dict[str, str]:
    """The settings that all pods of the base share."""
    literals = read(KUBERNETES / "base" / "kustomization.yaml")[0]["configMapGenerator"][0][
        "literals"
    ]
    return dict(line.split("=", 1) for line in literals)


def in_compose() -> list[Part]:
    return [
        Part(
            "compose",
            name,
            one["image"],
            tuple(one.get("command", ())),
            filled(one.get("environment", {})),
            seconds(one),
        )
        for name, one in compose()["services"].items()
    ]


def in_kubernetes() -> list[Part]:
    found = []
    for one in of_kind("Deployment", "StatefulSet"):
        pod = one["spec"]["template"]["spec"]
        for box in pod["containers"]:
            environment = {
                line["name"]: line["value"] for line in box.get("env", ()) if "value" in line
            }
            if box["image"] == OURS:
                environment |= config_map()
            grace = pod["terminationGracePeriodSeconds"]
            found.append(
                Part(
                    "kubernetes", box["name"], box["image"], tuple(box["args"]), environment, grace
                )
            )
    return found


def in_systemd() -> list[Part]:
    found = []
    for path in sorted((DEPLOY / "systemd").glob("*.service")):
        lines = dict(
            line.split("=", 1) for line in path.read_text().splitlines() if re.match(r"\w+=", line)
        )
        program, *words = shlex.split(lines["ExecStart"].replace("%%", "%").replace("%i", "1"))
        command = (program.removeprefix("/opt/cavendish/bin/"), *words)
        found.append(Part("systemd", path.name, OURS, command, {}, float(lines["TimeoutStopSec"])))
    return found


def named(part: Part) -> str:
    return f"{part.where} {part.name}"


def seconds(service: dict[str, Any]) -> float:
    """Compose's own grace is 10 s where a service names none."""
    text = str(service.get("stop_grace_period", "10s"))
    assert re.fullmatch(r"\d+s", text), text
    return float(text[:-1])


def filled(environment: dict[str, Any]) -> dict[str, str]:
    """The environment with each `${NAME:-default}` at its default."""
    return {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))
        for name, value in environment.items()
    }


PARTS = [*in_compose(), *in_kubernetes(), *in_systemd()]
