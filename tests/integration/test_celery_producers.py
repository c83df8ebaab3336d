"""Messages of real Celery producers: processes that know Celery and nothing of ours."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import closing
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cavendish import Client, TrackedTask
from cavendish.environment.local_paths import broker_url
from cavendish.store import Store
from cavendish_worker.celeryapp.refused_submits import what_was_sent
from cavendish_worker.doctor import stray_queues
from consuming import Broker, tracked
from servers import eventually
from shell import shell

SERVICE = "nano-banana"
UUIDS = [UUID(int=number) for number in (1, 2)]
#: A producer: it gets its broker, options of its transport, and what to send.
PRODUCER = """
import sys
import datetime
from decimal import Decimal
from uuid import UUID
from celery import Celery
broker, transport, priority, ids, options = map(eval, sys.argv[1:])
app = Celery(broker=broker)
queue = transport.pop("queue", "cavendish.submit")
app.conf.broker_transport_options = transport
send = dict(args=[ids], kwargs=options, queue=queue, priority=priority)
app.send_task("cavendish.submit", **send)
assert "cavendish" not in sys.modules
"""


def send(
    lists: Broker,
    ids: list[Any],
    options: dict[str, Any],
    *,
    priority: int | None = None,
    **transport: Any,
) -> None:
    """Let a process with nothing but Celery send one message."""
    lists.producer(PRODUCER, broker_url(lists.settings), transport, priority, ids, options)


def found(lists: Broker, ids: list[str]) -> dict[str, TrackedTask]:
    """What the store knows of the ids, once the last of them is tracked."""
    tracked(lists, ids[-1])
    with Client(settings=lists.settings) as client:
        return client.get_many(ids, service=SERVICE)


def test_what_celerys_json_carries_is_taken_as_ids_and_inside_metadata(lists: Broker) -> None:
    """UUIDs are ids; in the metadata each marked value becomes its text."""
    lists.worker()
    at = datetime(2026, 11, 28, 17, 30, tzinfo=UTC)
    metadata = {
        "order": UUID(int=9),
        "at": at,
        "on": date(2026, 11, 28),
        "by": time(9, 30),
        "price": Decimal("19.90"),
        "thumb": b"\xff\xd8",
        "text": b"abc",
    }
    send(lists, UUIDS, {"service": SERVICE, "metadata": {"deep": [metadata]}})
    names = [str(each) for each in UUIDS]
    tasks = found(lists, names)
    assert list(tasks) == names
    assert tasks[names[0]].metadata == {
        "deep": [
            {
                "order": str(UUID(int=9)),
                "at": "2026-11-28T17:30:00+00:00",
                "on": "2026-11-28",
                "by": "09:30:00",
                "price": "19.90",
                "thumb": "/9g=",
                "text": "YWJj",
            }
        ]
    }


def test_an_id_that_is_no_text_and_no_uuid_is_refused_alone(lists: Broker) -> None:
    """The others are tracked, and the refused ones can be found with their values."""
    lists.worker()
    send(lists, [Decimal(7), date(2026, 11, 28), UUIDS[0]], {"service": SERVICE})
    assert list(found(lists, [str(UUIDS[0])])) == [str(UUIDS[0])]
    with closing(Store(lists.settings.redis_url)) as store:
        eventually(store.refused.count, "the refused ones are kept", 30)
        one = store.refused.show(store.refused.list()[0].id)
    assert one is not None
    assert (one.ids, one.kind) == (2, "ids")
    assert "must be a string, not Decimal" in one.reason
    sent = what_was_sent(one)
    assert sent is not None
    assert sent[0] == [Decimal(7), date(2026, 11, 28)]


#: What a program of a producer begins with where `packaging` is not installed.
WITHOUT_PACKAGING = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "packaging":
            raise ModuleNotFoundError("No module named 'packaging'", name="packaging")
sys.meta_path.insert(0, Missing())
"""


def test_the_page_says_what_pip_install_celery_redis_lacks(lists: Broker) -> None:
    """Without `packaging` Celery cannot send through Redis, in the words that the page quotes."""
    page = (Path(__file__).parents[2] / "deploy" / "PRODUCERS.md").read_text()
    (row,) = re.findall(r"^\| `pip install celery redis` \| (.*) \|$", page, re.MULTILINE)
    words = map(repr, [broker_url(lists.settings), {}, 0, ["x"], {"service": SERVICE}])
    command = [sys.executable, "-c", WITHOUT_PACKAGING + PRODUCER, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    said = done.stderr.strip().splitlines()[-1].partition(": ")[2]
    assert said == "No module named 'packaging'"
    assert row.startswith(f"`{said}`: add `packaging`, or use the extra `[redis]`")


# --- where a producer puts its messages


def test_a_message_is_taken_whatever_its_priority_and_the_steps_of_its_producer(
    lists: Broker,
) -> None:
    """Kombu keeps a list for each step; a producer with ten steps fills ten lists."""
    ten = {"priority_steps": list(range(10))}
    for number in range(10):
        send(lists, [f"id-{number}"], {"service": SERVICE}, priority=number, **ten)
    send(lists, ["usual"], {"service": SERVICE}, priority=4)
    assert len(lists.redis.keys("cavendish.submit*")) == 10
    lists.worker()
    for name in (*(f"id-{number}" for number in range(10)), "usual"):
        tracked(lists, name)
    assert lists.redis.keys("cavendish.submit*") == []


STRAYS: list[tuple[dict[str, Any], int, str, str]] = [
    ({"global_keyprefix": "acme:"}, 0, "acme:cavendish.submit", "the global_keyprefix 'acme:'"),
    ({"sep": ":"}, 4, "cavendish.submit:3", "the sep ':'"),
    (
        {"global_keyprefix": "a\x01#", "sep": "/", "priority_steps": list(range(10))},
        7,
        "a\\x01#cavendish.submit/7",
        "the global_keyprefix 'a\\x01#' and the sep '/'",
    ),
    (
        {"global_keyprefix": "x"},
        9,
        "xcavendish.submit\\x06\\x169",
        "the global_keyprefix 'x'",
    ),
]


def test_doctor_tells_of_a_producer_that_names_no_queue(
    lists: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its messages lie in Celery's own queue; those of another app there are its business."""
    monkeypatch.setenv("CAVENDISH_REDIS_URL", lists.settings.redis_url)
    lists.redis.lpush("celery", "{", '{"headers": {"task": "shop.mail"}}')
    assert strays() == []
    send(lists, ["lost"], {"service": SERVICE}, queue=None)
    (found,) = strays()
    assert found["what"] == 'stray queue "celery"'
    assert found["found"].startswith("it holds 3 messages, and submits among them")
    lists.redis.lmove("celery", "cavendish.submit", "LEFT", "LEFT")
    lists.worker()
    tracked(lists, "lost")


@pytest.mark.parametrize(("transport", "priority", "shown", "why"), STRAYS)
def test_doctor_names_a_list_that_looks_like_ours_and_what_to_change(
    lists: Broker,
    monkeypatch: pytest.MonkeyPatch,
    transport: dict[str, Any],
    priority: int,
    shown: str,
    why: str,
) -> None:
    """One sentence each; what Redis is told to move then is where workers read."""
    monkeypatch.setenv("CAVENDISH_REDIS_URL", lists.settings.redis_url)
    send(lists, ["fine"], {"service": SERVICE}, priority=3)
    assert strays() == []
    send(lists, ["lost"], {"service": SERVICE}, priority=priority, **transport)
    (found,) = strays()
    assert found["what"] == f'stray queue "{shown}"'
    assert found["found"] == f"no worker reads it, since its producer has {why}"
    assert "Remove that from its broker_transport_options" in found["advice"]
    stray = shown.encode().decode("unicode_escape").encode()
    assert f'LMOVE "{shown}" cavendish.submit RIGHT LEFT' in found["advice"]
    lists.redis.lmove(stray, "cavendish.submit", "RIGHT", "LEFT")
    assert strays() == []
    lists.worker()
    tracked(lists, "lost")


def test_doctor_does_not_search_a_broker_with_too_many_keys_to_its_end(
    lists: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Redis of millions of ids may be the broker, too."""
    monkeypatch.setenv("CAVENDISH_REDIS_URL", lists.settings.redis_url)
    lists.redis.mset({f"key-{number}": "" for number in range(100)})
    monkeypatch.setattr(stray_queues, "_WITHIN", 0.0)
    monkeypatch.setattr(stray_queues, "_AT_ONCE", 1)
    (found,) = strays()
    assert found["found"].startswith("not examined: the broker has more keys than")


def test_doctor_that_may_not_search_says_so_and_examines_the_rest(
    lists: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator may have given its Redis user fewer rights than deploy/redis-users.acl."""
    monkeypatch.setenv("CAVENDISH_REDIS_URL", lists.settings.redis_url)
    lists.redis.execute_command("ACL", "SETUSER", "default", "-scan")
    (found,) = strays()
    assert found["found"].startswith("not examined: ")
    assert "'scan'" in found["found"]


def strays() -> list[dict[str, str]]:
    """What doctor finds of stray queues."""
    found = json.loads(shell("doctor", "--json", "--offline").stdout)
    return [each for each in found if each["what"].startswith("stray")]
