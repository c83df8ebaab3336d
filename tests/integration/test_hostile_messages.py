"""What a stranger's `cavendish.submit` may say.

It is taken, or refused in one bounded sentence, and nothing is half written.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection

from cavendish.client import Client
from cavendish.environment.local_paths import broker_url
from cavendish.errors import SubmissionError
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.celeryapp.submit_message import IDS, KEYWORDS, take_in
from cavendish_worker.telemetry import logs
from conftest import Server
from hostile import cases, values
from messages import ENVELOPE, GOOD, Message, envelope, message


def read(text: str) -> Any:
    """What a JSON text says; one that Celery could not read either is the text itself."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    return text


anything = values.map(read)
known = st.sampled_from(sorted(KEYWORDS))
strange = st.sampled_from(
    ["services", "__class__", "self", "ids", "", "\ud800", "k" * 100_000, "a\nb"]
) | st.text(max_size=9)
sound = st.fixed_dictionaries(
    {"service": st.just("nano-banana")},
    optional={
        "deadline": st.just(60),
        "metadata": st.just({"a": 1}),
        "restart": st.booleans(),
        "producer": st.just("p"),
    },
)
messages = st.builds(
    lambda base, odd: base | odd,
    st.just({}) | sound | sound,
    st.dictionaries(known | known | known | strange, anything, max_size=2),
)
ids = st.lists(anything | st.just("a") | st.just("b"), max_size=4) | anything


@pytest.fixture
def client(store: Store, settings: Settings) -> Iterator[Client]:
    logs.set_up("console", "critical")
    with Client(settings=settings) as opened:
        yield opened


def test_whatever_a_message_asks_for_it_is_taken_or_refused_in_one_sentence(
    store: Store, client: Client
) -> None:
    raw = store.connection.redis

    @cases(350)
    @given(ids=ids, options=messages)
    def prove(ids: Any, options: dict[str, Any]) -> None:
        before = raw.dbsize()
        try:
            said = take_in(client, ids, options)
        except SubmissionError as error:
            sentence = str(error)
            assert sentence.isprintable()
            assert len(sentence) <= 300
            assert raw.dbsize() == before
        else:
            assert len(said) <= 100
            assert isinstance(ids, list)

    prove()


@pytest.mark.parametrize("ids", ["a,b", {"a": 1}, None, 7, ["a"] * (IDS + 1), b"a"])
def test_ids_that_are_no_list_or_too_many_are_refused_whole(
    store: Store, client: Client, ids: Any
) -> None:
    with pytest.raises(SubmissionError):
        take_in(client, ids, {"service": "nano-banana"})
    assert store.connection.redis.dbsize() == 0


# --- one test for each bug that was found here, named after it


def test_a_keyword_of_a_hundred_kilobytes_is_not_repeated_whole_in_the_log(client: Client) -> None:
    with pytest.raises(SubmissionError) as caught:
        take_in(client, ["a"], {"service": "nano-banana", "k" * 100_000: 1})
    assert len(str(caught.value)) < 300


# --- messages that are none, to a real worker process


def old_message(body: bytes) -> Message:
    """A message of protocol 1, which has no headers."""
    return body, None, "application/json", "utf-8"


REFUSED: dict[str, Message] = {
    "pickle": message(pickle.dumps([[["x"]], {}, {}]), "application/x-python-serialize", "binary"),
    "pickle, protocol 1": (pickle.dumps({}), None, "application/x-python-serialize", "binary"),
    "yaml": message(b"[]", "application/x-yaml"),
    "msgpack": message(b"\x93\x91", "application/x-msgpack", "binary"),
    "text": message(b"x", "text/plain"),
    "a charset that is none": message(charset="no-such-charset"),
    "no task": (GOOD, {}, "application/json", "utf-8"),
    "an unknown task": message(task="no.such.task"),
    "a body that is no JSON": message(b"{"),
    "arguments as an object": message(b'[{"a":1},{},{}]'),
    "keywords as a list": message(b"[[],[1],{}]"),
    "too many arguments": message(b"[[1,2,3],{},{}]"),
    "the ids twice": message(b'[[["x"]],{"ids":["y"],"service":"nano-banana"},{}]'),
    "junk to be called afterwards": message(
        b'[[["x"]],{"service":"nano-banana"},{"callbacks":[5],"chain":[7],"chord":3}]'
    ),
    "nested 100,000 deep": message(
        b'[[["x"]],{"service":"s","metadata":%b},{}]' % (b"[" * 100_000 + b"]" * 100_000)
    ),
    "5 MB": message(json.dumps([[["x" * 5_000_000]], {"service": "nano-banana"}, {}]).encode()),
    "a time that is none": message(eta="soon"),
    "protocol 1: a list": old_message(b"[1]"),
    "protocol 1: keywords as a list": old_message(
        b'{"task":"cavendish.submit","id":"1","args":[],"kwargs":[1]}'
    ),
}
#: At these Celery's consumer ends, or connects again for ever; and such a message comes back to the
#: next worker.
DEADLY: dict[str, Message] = {
    "a task that is a list": message(task=["cavendish.submit"]),
    "an unknown task without an id": (GOOD, {"task": "no.such.task"}, "application/json", "utf-8"),
    "no id": (GOOD, {"task": "cavendish.submit"}, "application/json", "utf-8"),
    "an id that is a list": message(id=[1]),
    "a time limit that is none": message(timelimit="abc"),
    "an empty body": message(b""),
    "a body that is a number": message(b"7"),
    "too few parts": message(b"[[]]"),
    "too many parts": message(b"[[],{},{},{}]"),
    "raw bytes": message(b"x", "application/data", "binary"),
    "a content type that is a list": message(kind=[1]),
    "protocol 1: a task that is a list": old_message(
        b'{"task":["x"],"id":"1","args":[],"kwargs":{}}'
    ),
    "protocol 1: an id that is a list": old_message(
        b'{"task":"cavendish.submit","id":[1],"args":[],"kwargs":{}}'
    ),
}
#: What may lie in the list of the broker without being a message of Kombu's at all.
JUNK: dict[str, bytes] = {
    "bytes": b"\xff\x00",
    "no JSON": b"{",
    "a list": b"[]",
    "an empty object": b"{}",
    "nested 100,000 deep": b"[" * 100_000,
    "a number of 5,000 digits": b"1" * 5_000,
    "headers that are a list": envelope(headers=[1]),
    "headers that are a text": envelope(headers="task"),
    "properties that are a list": envelope(properties=[]),
    "no tag": envelope(
        properties={"delivery_info": {"exchange": "", "routing_key": "cavendish.submit"}}
    ),
    "a tag that is null": envelope(tag=None),
    "a tag that is an object": envelope(tag={}),
    "a tag that is true": envelope(tag=True),
    "no delivery info": envelope(properties={"delivery_tag": "x"}),
    "a delivery info that is a list": envelope(
        properties={"delivery_tag": "x", "delivery_info": []}
    ),
    "a body that is no base64": envelope(body="%"),
    "a body that is a list": envelope(body=[1]),
    "a body of broken Unicode": envelope(body="\ud800", properties={}),
    "a body encoding that is none": envelope(
        properties={**ENVELOPE["properties"], "body_encoding": "rot13"}
    ),
}


#: A worker that is told of kept messages 20 times a second, and not once.
WORKER = """
from cavendish_worker.celeryapp import redis_transport as broker
broker.Transport.brpop_timeout = 0.05
from cavendish_worker.tasks import app
app.worker_main(["-q", "worker", "-P", "threads"])
"""


class Fleet:
    """One real worker process on a Redis of its own, and a producer of messages that are none."""

    def __init__(self, server: Server, folder: Path) -> None:
        settings = Settings.load({"CAVENDISH_REDIS_URL": server.url})
        self.broker, self.client, self.log = (
            broker_url(settings),
            Client(settings=settings),
            folder / "log",
        )
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
        }
        environment |= {"CAVENDISH_REDIS_URL": server.url, "CAVENDISH_API_TOKEN": "emulated"}
        command = [sys.executable, "-c", WORKER]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def send(self, said: Message) -> None:
        body, headers, kind, charset = said
        with Connection(self.broker) as connection, connection.Producer() as producer:
            raw = producer.channel.prepare_message(
                body, None, kind, charset, headers, properties={"delivery_mode": 2}
            )
            producer.channel.basic_publish(raw, exchange="", routing_key="cavendish.submit")

    def push(self, raw: bytes) -> None:
        """Lay something into the broker's list, as no library would."""
        with Connection(self.broker) as connection, connection.channel() as channel:
            channel.client.lpush("cavendish.submit", raw)

    def works(self) -> bool:
        """True if a sound message that is sent now is taken by the worker that was there from the
        start.
        """
        task_id, until = str(uuid.uuid4()), time.monotonic() + 60
        self.send(message(json.dumps([[[task_id]], {"service": "nano-banana"}, {}]).encode()))
        while self.process.poll() is None and time.monotonic() < until:
            if self.client.get(task_id, service="nano-banana"):
                return True
            time.sleep(0.05)
        return False


@pytest.fixture
def fleet(own_server: Server, tmp_path: Path) -> Iterator[Fleet]:
    one = Fleet(own_server, tmp_path)
    yield one
    one.process.kill()
    one.process.wait(10)
    one.client.close()


def test_messages_that_are_none_are_refused_and_neither_end_the_worker_nor_hold_up_the_queue(
    fleet: Fleet,
) -> None:
    for name, said in REFUSED.items():
        fleet.send(said)
        assert fleet.works(), f"{name}: {fleet.log.read_text()[-2000:]}"
        assert "Traceback" not in fleet.log.read_text(), name


def test_messages_that_celery_itself_trips_over_neither_end_the_worker_nor_hold_up_the_queue(
    fleet: Fleet,
) -> None:
    assert fleet.works()
    for name, said in DEADLY.items():
        fleet.send(said)
        assert fleet.works(), name
        assert "Traceback" not in fleet.log.read_text(), name


def test_what_is_no_message_at_all_neither_ends_the_worker_nor_holds_up_the_queue(
    fleet: Fleet,
) -> None:
    assert fleet.works()
    for name, raw in JUNK.items():
        fleet.push(raw)
        assert fleet.works(), f"{name}: {fleet.log.read_text()[-2000:]}"
        assert "Traceback" not in fleet.log.read_text(), name
