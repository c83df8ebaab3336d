"""Whatever is stored in place of JSON, its readers go on, and what they show is finite."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from cavendish.endpoints.webhook_endpoint import Disabled, Endpoint, Key
from cavendish.model import LoggedAttempt
from cavendish.policy.circuit import Circuit
from cavendish.policy.durations import BINS, DurationModel
from cavendish.policy.episodes import Announcement, Episode, Episodes
from cavendish.policy.rate_limit import RateLimit
from cavendish.policy.service_health import ServiceHealth
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store import keys as spelt
from cavendish.store.fleet import Member
from cavendish.stored_json import read_lines
from cavendish.submission import SubmitOptions
from cavendish_worker import doctor
from cavendish_worker.cli import cli
from cavendish_worker.telemetry.metrics import scraped, serving
from cavendish_worker.telemetry.snapshot import gather
from conftest import Server
from delivering import KEYS, LANE

#: Texts that are no dataclass of ours, whatever its fields.
NO_JSON = ["", "{", "[" * 200_000, '{"a":' * 200_000, "\udcff", "NaN", "5" * 5000]
NO_OBJECT = ["null", "true", "5", '"x"', "[]", '[{"at": 1}]']
#: Values that no field of ours may have, but for texts and what may be null.
NO_VALUE = ["Infinity", "-Infinity", "NaN", "1e999", "1" + "0" * 400, "{}", "true", "[[[]]]"]

SOUND: list[tuple[Any, Callable[[object], Any], Any]] = [
    (RateLimit(rate=3.0, pause_reason="x"), RateLimit.from_json, RateLimit()),
    (ServiceHealth(failures=2, reason="x"), ServiceHealth.from_json, ServiceHealth()),
    (DurationModel((1.0,) * BINS, seen=2), DurationModel.from_json, DurationModel()),
    (Circuit(failures=3), Circuit.from_json, Circuit()),
    (Disabled(1.0, "x", "y"), Disabled.from_json, Disabled(0.0, "unreadable")),
    (
        Episodes(
            (Episode("service.down", "{}", 1.0, "x", "{}", 2.0, told=True),),
            (Announcement("service.down", "{}", 1.0, 1.0, "{}"),),
        ),
        Episodes.from_json,
        Episodes(),
    ),
    (
        Endpoint("shop", "https://x.example", 1.0, (Key("k", 1.0, 2.0, "p"),), per_minute=5.0),
        lambda text: Endpoint.from_json("shop", text),
        None,
    ),
    (Member("worker@a:1", "worker", "1", 5.0, ("x",), queues=("q",)), Member.from_json, None),
]
KINDS = [type(sound).__name__ for sound, _, _ in SOUND]


@pytest.mark.parametrize(("sound", "from_json", "default"), SOUND, ids=KINDS)
def test_what_is_stored_comes_back_and_what_is_damaged_is_the_default(
    sound: Any, from_json: Callable[[object], Any], default: Any
) -> None:
    assert from_json(sound.to_json()) == sound
    for text in (*NO_JSON, *NO_OBJECT, None, 5, ValueError("WRONGTYPE")):
        assert from_json(text) == default
    fields = json.loads(sound.to_json())
    for name in fields:
        for value in NO_VALUE:
            damaged = json.dumps(fields | {name: "DAMAGE"}).replace('"DAMAGE"', value)
            read = from_json(damaged)
            boolean = value == "true" and isinstance(getattr(sound, name), bool)
            assert boolean or read == default, (name, value)


def test_a_line_of_a_delivery_log_that_nobody_can_read_is_left_out() -> None:
    sound = '{"at": 1, "outcome": "HTTP 500", "seconds": 0.5, "status": 500}'
    log = "\n".join([*NO_JSON, *NO_OBJECT, sound, '{"at": Infinity}', '{"status": "200"}'])
    assert read_lines(LoggedAttempt, log) == [LoggedAttempt(1.0, "HTTP 500", 0.5, 500)]


@pytest.fixture
def damage(store: Store) -> Callable[[str], None]:
    """Writes a text in place of everything that is stored as JSON."""
    now = store.fleet.now()
    options = SubmitOptions("nano-banana", "default", ("shop",), 900.0, "", "", "", False)
    store.tasks.add(["a"], options, now, now)
    raw = store.connection.redis

    def write(text: str) -> None:
        for key in (
            KEYS.service_health,
            KEYS.durations(""),
            spelt.rate_limit("default"),
            spelt.circuit("shop"),
        ):
            raw.hset(key, mapping={"version": "1", "value": text})
        for key in (spelt.ENDPOINTS, spelt.DISABLED, spelt.FLEET):
            raw.hset(key, "shop", text)
        raw.hset(KEYS.delivery("shop:a"), mapping={"attempts": 1, "log": text, "state": "dead"})
        raw.zadd(KEYS.dead, {"shop:a": now})

    return write


@pytest.mark.parametrize(
    "text",
    [*NO_JSON, *NO_OBJECT, '{"failures":1,"down_until":Infinity}', '{"at":1e300,"why":"x"}'],
    ids=lambda text: text[:20] or "empty",
)
def test_status_doctor_and_metrics_go_on_whatever_is_stored(
    store: Store,
    server: Server,
    settings: Settings,
    damage: Callable[[str], None],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damage(text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"))
    found = gather(store, settings)
    assert "Infinity" not in json.dumps(found)
    sound = {"down_for": 0.0, "failures": 0, "reason": "", "paused_since": None}
    assert found["lanes"][0]["service"] == sound
    assert found["accounts"]["default"]["rate"] == RateLimit().rate
    assert "cavendish_tasks_pending" in serving.text(scraped.registry_of(store, 50))
    assert any(one.what == "endpoint shop" for one in doctor.examine(store, settings, offline=True))
    monkeypatch.setenv("CAVENDISH_REDIS_URL", server.url)
    for words in (["status"], ["status", "--json"], ["dead", "show", "a"], ["endpoint", "list"]):
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, (words, done.output[-200:], done.exception)


def test_a_task_whose_metadata_or_record_is_no_json_is_unreadable_and_the_others_are_read(
    store: Store,
) -> None:
    now, raw = store.fleet.now(), store.connection.redis
    options = SubmitOptions("nano-banana", "default", (), 900.0, "", "", "", False)
    store.tasks.add(["a", "b", "c"], options, now, now)
    raw.hset(KEYS.task("a"), "metadata", "[" * 200_000)
    raw.set(KEYS.result("b"), "[" * 150 + "]" * 150)
    loaded = store.tasks.load(LANE, ["a", "b", "c"], with_record=True)
    assert set(loaded.tasks) == {"c"}
    assert set(loaded.unreadable) == {"a", "b"}
