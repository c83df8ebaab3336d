"""The client that sends commands in few steps behaves as redis-py's own does."""

from __future__ import annotations

import os
from typing import Any

import pytest
import redis

from cavendish.store import Store
from conftest import Server


def test_a_connection_that_the_server_has_just_closed_costs_no_command(store: Store) -> None:
    """It is believed to live, fails at its command, and the command is sent on a new one."""
    lean = store.connection.redis
    lean.set("a", 1)
    before = lean.client_id()
    with redis.Redis(unix_socket_path=_path(store)) as other:
        other.client_kill_filter(_id=str(before))
    assert lean.incr("a") == 2
    assert lean.client_id() != before


def test_an_exchange_that_is_cut_short_leaves_no_answer_to_the_next_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between two answers: whoever asks next gets the answer to its own question."""
    lean = store.connection.redis
    lean.mset({"a": "1", "b": "2", "c": "3"})
    pipe, answers = lean.pipeline(transaction=False), list[Any]()

    def interrupted(*words: Any, **options: Any) -> Any:
        if answers:
            raise KeyboardInterrupt
        answers.append(redis.client.Pipeline.parse_response(pipe, *words, **options))
        return answers[0]

    monkeypatch.setattr(pipe, "parse_response", interrupted)
    pipe.get("a")
    pipe.get("b")
    with pytest.raises(KeyboardInterrupt):
        pipe.execute()
    assert answers == ["1"]
    assert lean.get("c") == "3"


def test_a_refusal_stands_in_place_of_its_answer_or_is_raised(store: Store) -> None:
    """The other commands of a pipeline are answered, whatever one of them met."""
    lean = store.connection.redis
    lean.set("text", "x")
    for _ in range(2):
        pipe = lean.pipeline(transaction=False)
        pipe.get("text")
        pipe.hgetall("text")
        pipe.zrange("none", 0, -1, withscores=True)
        first, refusal, last = pipe.execute(raise_on_error=False)
        assert (first, last) == ("x", [])
        assert isinstance(refusal, redis.ResponseError)
    pipe.get("text")
    pipe.hgetall("text")
    with pytest.raises(redis.ResponseError, match="HGETALL text"):
        pipe.execute()
    with pytest.raises(redis.ResponseError):
        lean.hgetall("text")
    assert lean.get("text") == "x"


def test_a_transaction_is_one(store: Store) -> None:
    """What needs MULTI gets redis-py's own pipeline."""
    lean = store.connection.redis
    with lean.pipeline(transaction=True) as pipe:
        pipe.incr("a")
        pipe.incr("a")
        assert pipe.execute() == [1, 2]


def test_a_forked_process_uses_no_connection_of_its_parent(server: Server) -> None:
    """Two processes on one socket would read each other's answers."""
    parent = Store(server.url)
    before = parent.connection.redis.client_id()
    read, write = os.pipe()
    if not (child := os.fork()):
        own = {parent.connection.redis.client_id() for _ in range(3)}
        os.write(write, b"own" if before not in own else b"shared")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"own"
    assert parent.connection.redis.client_id() == before
    os.close(read)
    os.close(write)
    parent.close()


def _path(store: Store) -> str:
    return str(store.connection.redis.get_connection_kwargs()["path"])
