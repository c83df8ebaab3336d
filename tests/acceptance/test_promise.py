"""Nothing lost, whatever dies: the short forms of `make chaos`, with its very parts."""

from __future__ import annotations

import importlib
import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from chaos import everywhere, restarts
from chaos.points import BEAT_POINTS, BEAT_STEPS, STEPS, WORKER_POINTS, Aim, install
from chaos.reckoning import Evidence, Reckoning, Settled

ROOT = Path(__file__).parents[2]


class Said(list[str]):
    """What a run printed, for the message of a test that fails."""

    def __call__(self, text: str) -> None:
        self.append(text)

    def __str__(self) -> str:
        return "\n".join(self)


@pytest.mark.timeout(90)
def test_killed_at_points_and_at_random_nothing_is_lost_early_wrong_or_under_two_ids() -> None:
    said = Said()
    plan = everywhere.Plan(
        11,
        6.0,
        12.0,
        45.0,
        10.0,
        slots=3,
        flower=False,
        door=False,
        redis_every=3.0,
        kills=10,
        quick=True,
    )
    assert everywhere.run(plan, said), str(said)


@pytest.mark.timeout(90)
def test_redis_restarts_five_times_and_the_worker_is_back_at_work_within_seconds() -> None:
    said = Said()
    assert restarts.restarts(restarts.Plan(11, 5, rate=10.0, drain=45.0, quick=True), said), str(
        said
    )


@pytest.mark.timeout(90)
def test_the_broker_loses_everything_three_times_and_nothing_is_lost() -> None:
    said = Said()
    assert restarts.broker_losses(restarts.Plan(11, 3, rate=10.0, drain=45.0, quick=True), said), (
        str(said)
    )


def test_every_step_of_the_road_can_be_died_at() -> None:
    """A step that was renamed would be a point that nobody ever passes."""
    for where in {*STEPS.values(), *BEAT_STEPS.values()}:
        module, _, path = where.partition(":")
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        assert callable(found)
    assert len({*WORKER_POINTS, *BEAT_POINTS}) == len(WORKER_POINTS) + len(BEAT_POINTS)


def test_a_step_is_wrapped_where_it_is_polled_up_and_only_its_own_point_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cavendish_worker import tasks  # noqa: PLC0415

    class Ended(Exception):
        pass

    class Survivor(Aim):
        def die(self) -> None:
            raise Ended(self.point)

    did: list[str] = []
    monkeypatch.setattr(tasks, "send_deliver", lambda: did.append("sent"))
    install(Survivor("delivery worker called, after", 2, ""))
    tasks.send_deliver()
    with pytest.raises(Ended, match="delivery worker called, after"):
        tasks.send_deliver()
    assert did == ["sent", "sent"]


def test_the_reckoning_names_each_way_to_break_the_promise() -> None:
    """The ledger itself is tested by a run in which everything went wrong that can."""
    ids = frozenset(("well", "unsettled", "unannounced", "early", "twice", "wrong", "expired"))
    truth = dict.fromkeys(ids, (100.0, "succeeded"))
    settled = {one: Settled("succeeded", 101.0, 900.0) for one in ids - {"unsettled"}}
    settled |= {
        "early": Settled("succeeded", 99.0, 900.0),
        "wrong": Settled("failed", 101.0, 900.0),
    }
    settled["expired"] = Settled("expired", 50.0, 60.0)
    received = {
        f"msg-{one}": (1, one, settled[one].state) for one in settled if one != "unannounced"
    }
    received |= {"msg-twice-2": (2, "twice", "succeeded")}
    found = Reckoning(Evidence(ids, truth, settled, received), frozenset({"expired"}))
    assert (found.unsettled, found.unannounced, found.two_ids) == (
        ["unsettled"],
        ["unannounced"],
        ["twice"],
    )
    assert (found.early, found.wrong, found.restart, found.kept) == (
        ["early", "expired"],
        ["wrong"],
        1,
        False,
    )
    sound = {"well"}
    only = Evidence(
        frozenset(sound), truth, {"well": settled["well"]}, {"msg-well": received["msg-well"]}
    )
    assert Reckoning(only).kept


def test_celery_is_held_below_the_version_whose_worker_exits_when_redis_restarts() -> None:
    """Once `make chaos` keeps the promise with a newer one (--celery PYTHON), lift the pin and this
    test with it.
    """
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (pin,) = [one for one in map(Requirement, lines) if one.name == "celery"]
    installed = Version(importlib.metadata.version("celery"))
    allowed = pin.specifier.contains(Version("5.7.0"))
    assert allowed or installed < Version("5.7"), (
        f"Celery {installed} is installed, but pyproject.toml says {pin}: a busy worker of 5.7.0 exits when Redis restarts. "
        "Run `python tests/chaos restarts --celery .venv/bin/python`; if it is kept, lift the pin."
    )
