"""What every deploy file has to keep.

Commands that exist, settings that exist, tags, time to end, files that are there.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner
from flower import options as _flower  # noqa: F401 (defines Flower's options)
from tornado.options import options

import forked
from cavendish.settings import Settings, described
from cavendish_worker.cli import alive, cli
from deployed import (
    DEPLOY,
    OURS,
    PARTS,
    ROOT,
    Part,
    compose,
    config_map,
    in_systemd,
    named,
    of_kind,
    read,
)

SETTINGS = {name for name, *_ in described()}
TEXTS = sorted(
    path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix not in (".lock", ".json")
)


@cache
def celery_takes(words: tuple[str, ...]) -> str:
    """What the real celery complains of.

    Its parser is done with all words before it shows the help.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
    }
    asked = [([*words, "--help"], environment)]
    (done,) = forked.shared().run(asked, program="celery")
    return "" if done.returncode == 0 else done.stderr


def complaint(command: tuple[str, ...]) -> str:
    """Why a command line cannot be run; empty if it can."""
    program, *words = command
    if program == "celery":
        at = words.index("flower") + 1 if "flower" in words else len(words)
        strangers = [
            word
            for word in words[at:]
            if word.lstrip("-").partition("=")[0].replace("_", "-") not in options._options
        ]
        return celery_takes(tuple(words[:at])) or ", ".join(strangers)
    if program == "cavendish":
        said = CliRunner().invoke(cli, [*words, "--help"])
        return "" if said.exit_code == 0 else said.output
    if program == "python":
        assert words[0] == "-c"
        compile(words[1], "deployed", "exec")
        return ""
    return f"nobody knows {program}"


@pytest.mark.parametrize("part", [part for part in PARTS if part.ours], ids=named)
def test_every_command_line_is_one_that_its_program_takes(part: Part) -> None:
    assert complaint(part.command) == ""


def test_a_command_line_that_does_not_exist_is_noticed() -> None:
    assert "No such option" in complaint(
        ("celery", "-A", "cavendish_worker", "worker", "--pool-size", "3")
    )
    assert "No such command" in complaint(("celery", "-A", "cavendish_worker", "wrker"))
    assert complaint(("celery", "-A", "cavendish_worker", "flower", "--adress=x")) == "--adress=x"
    assert "No such option" in complaint(("cavendish", "alive", "--rolle", "worker"))
    assert "No such command" in complaint(("cavendish", "alife"))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_setting_that_is_named_exists(path: Path) -> None:
    named = set(re.findall(r"CAVENDISH_[A-Z][A-Z_]*[A-Z]", path.read_text()))
    assert named <= SETTINGS


@pytest.mark.parametrize(
    "part", [part for part in PARTS if part.ours and part.environment], ids=named
)
def test_every_value_of_a_setting_is_one_that_is_taken(part: Part) -> None:
    settings = Settings.load(
        {name: value for name, value in part.environment.items() if name in SETTINGS}
    )
    assert settings.log_format == "json"


def test_every_image_has_a_tag_and_ours_has_the_version() -> None:
    for image in {part.image for part in PARTS}:
        assert re.fullmatch(r"[a-z/]+:v?\d[\w.-]*", image), image
    assert {part.image for part in PARTS if "cavendish" in part.image} == {OURS}


@pytest.mark.parametrize("part", [part for part in PARTS if part.ours], ids=named)
def test_whoever_finishes_work_has_more_time_than_it_takes(part: Part) -> None:
    """`cavendish up` ends the emulated API after its worker and beat, a second each at most."""
    works = "worker" in part.command or "up" in part.command
    needed = float(part.environment.get("CAVENDISH_SHUTDOWN_TIMEOUT", Settings().shutdown_timeout))
    assert part.grace >= (needed + 5 if works else 5)


def test_the_files_speak_of_the_same_parts_with_the_same_commands() -> None:
    """Apart from the address that Flower and the exporter listen on, the socket that systemd keeps,
    and the name of one of several workers on a host.
    """
    plain = [
        re.sub(
            r"0\.0\.0\.0|127\.0\.0\.1", "HOST", " ".join(part.command).partition(" --address")[0]
        )
        .replace("worker-1@", "worker@")
        .removesuffix(" --fd 3")
        for part in PARTS
        if part.ours and not part.name.startswith("demo")
    ]
    assert {plain.count(line) for line in plain} == {3}
    assert len(set(plain)) == len(in_systemd())


def test_the_compose_file_is_one_by_the_schema_of_its_specification() -> None:
    said = CliRunner().invoke(
        check_jsonschema, ["--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]
    )
    assert said.exit_code == 0, said.output


@pytest.mark.parametrize(("name", "one"), compose()["services"].items(), ids=compose()["services"])
def test_a_service_may_write_nothing_and_do_nothing_that_it_need_not(
    name: str, one: dict[str, object]
) -> None:
    assert (one["read_only"], one["cap_drop"], one["security_opt"]) == (
        True,
        ["ALL"],
        ["no-new-privileges:true"],
    )
    assert one["mem_limit"]
    assert all(str(port).startswith("127.0.0.1:") for port in one.get("ports", ()))  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "one"), compose()["services"].items(), ids=compose()["services"])
def test_a_service_says_by_its_own_work_whether_it_is_well(
    name: str, one: dict[str, dict[str, object]]
) -> None:
    health = one["healthcheck"]
    if name == "demo-ids":
        assert health == {"disable": True}
        return
    kind, *words = health["test"]  # type: ignore[misc]
    assert kind in ("CMD", "CMD-SHELL")
    if one["image"] == OURS:
        assert complaint(tuple(words)) == ""
    if words[:2] == ["cavendish", "alive"]:
        assert int(str(health["timeout"]).rstrip("s")) >= 2 * alive.PATIENCE
    for port in re.findall(r"127\.0\.0\.1:(\d+)", " ".join(words)):
        known = " ".join([*map(str, one.get("command", ())), *map(str, one.get("ports", ()))])
        assert port in known


def test_compose_asks_nothing_that_the_podman_compose_of_debian_12_does_not_know() -> None:
    """Its version 1.0.3 ends with a traceback at any other word of a health check."""
    known = {"test", "interval", "timeout", "start_period", "retries", "disable"}
    for one in compose()["services"].values():
        assert set(one["healthcheck"]) <= known


def test_the_demo_has_a_database_of_its_own_and_no_settings_of_the_real_one() -> None:
    services = compose()["services"]
    demo = {name: one for name, one in services.items() if "demo" in one.get("profiles", ())}
    assert len(demo) == 4
    assert all(one["env_file"] == [] for one in demo.values())
    theirs = {one["environment"]["CAVENDISH_REDIS_URL"] for one in demo.values()}
    real = {
        one.environment["CAVENDISH_REDIS_URL"]
        for one in PARTS
        if one.where == "compose" and one.ours and one.name not in demo
    }
    assert (theirs, real) == ({"redis://redis:6379/1"}, {"redis://redis:6379/0"})


def test_a_demo_that_runs_for_days_does_not_fill_the_redis_of_the_others() -> None:
    """Four ids a second would, within `CAVENDISH_RETENTION` as it is by itself."""
    assert float(compose()["services"]["demo"]["environment"]["CAVENDISH_RETENTION"]) <= 3600


def _mounts() -> list[str]:
    volumes = [
        str(volume) for one in compose()["services"].values() for volume in one.get("volumes", ())
    ]
    return sorted(
        {volume.split(":")[0].removeprefix("./") for volume in volumes if volume.startswith("./")}
    )


@pytest.mark.parametrize("mount", _mounts())
def test_every_file_that_is_mounted_is_there(mount: str) -> None:
    assert (DEPLOY / mount).exists()


def test_every_volume_and_every_service_that_is_depended_on_is_there() -> None:
    services = compose()["services"]
    for one in services.values():
        assert set(one.get("depends_on", ())) <= set(services)
        kept = {
            str(volume).split(":")[0]
            for volume in one.get("volumes", ())
            if not str(volume).startswith("./")
        }
        assert kept <= set(compose()["volumes"])


def test_prometheus_polls_where_the_parts_answer() -> None:
    asked = yaml.safe_load(compose()["configs"]["prometheus"]["content"])
    services, found = compose()["services"], {}
    for job in asked["scrape_configs"]:
        (one,) = job["dns_sd_configs"]
        found |= {name: (job["job_name"], str(one["port"])) for name in one["names"]}
    assert set(found) == {"exporter", "worker", "http"}
    for name, (_, port) in found.items():
        assert f"0.0.0.0:{port}" in [
            *services[name]["command"],
            *services[name]["environment"].values(),
        ]
        demo = [
            one
            for one in services.values()
            if name in one.get("networks", {}).get("default", {}).get("aliases", ())
        ]
        # The demo is looked at under the same name; its HTTP service has another port.
        assert len(demo) == (name != "http")
    assert asked["rule_files"] == ["rules.yml"]
    assert (
        "./prometheus/rules.yml:/etc/prometheus/rules.yml:ro" in services["prometheus"]["volumes"]
    )
    example = DEPLOY / "prometheus" / "prometheus.yml"
    if example.exists():  # rules and dashboards may tell jobs apart
        assert {job["job_name"] for job in read(example)[0]["scrape_configs"]} >= {
            job for job, _ in found.values()
        }


def test_the_dashboard_asks_the_data_source_that_is_provisioned() -> None:
    path = DEPLOY / "grafana" / "cavendish.json"
    source = read(DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yaml")[0][
        "datasources"
    ][0]
    assert source["url"] == "http://prometheus:9090"
    uids = set(re.findall(r'"uid": "([^"]+)"', json.dumps(json.loads(path.read_text())["panels"])))
    assert all(uid.startswith("$") or uid == source["uid"] for uid in uids)


def test_no_file_holds_a_secret_or_names_an_index() -> None:
    for path in [*TEXTS, *DEPLOY.glob("*.lock"), ROOT / ".dockerignore"]:
        said = path.read_text()
        assert not re.search(r"whsec_[A-Za-z0-9+/]{20}", said), path
        assert not re.search(r"(index-url|find-links|https?://[^\s/]*(pypi|simple))", said), path
    for secret in of_kind("Secret"):
        assert set(secret["stringData"].values()) == {""}
        if secret["metadata"]["name"] == "cavendish":  # that of Redis holds no setting of ours
            assert set(secret["stringData"]) | set(config_map()) <= SETTINGS
