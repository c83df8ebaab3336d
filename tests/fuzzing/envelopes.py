"""Messages as they could lie in the lists of the broker, by chance: good submits among all others.

A good one is spelt in every way that Celery and strangers' libraries spell it.
"""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import uuid
from collections.abc import Callable
from random import Random
from typing import Any

from cavendish.task_names import QUEUES, SUBMIT
from fuzzing.shapes import damaged, fields, leaf, mutated, value, word

#: Fields of headers that Celery acts on, with values that are not always theirs.
_HEADERS: dict[str, list[str]] = {
    "eta": ['"2026-01-01T00:00:00"', '"2999-01-01T00:00:00+00:00"', '"soon"', "7", "[]"],
    "expires": ['"2020-01-01T00:00:00"', '"x"', "1", "1e999", "{}"],
    "timelimit": ["[1,1]", "[null]", '["a","b"]', "[0.01,0.01]", "[-1,1e300]", "5", '"ab"', "{}"],
    "retries": ["1e9", '"3"', "-1", "null", "[]", "1" + "0" * 400],
    "id": ["null", "[1]", "{}", '""', "7", "true", '"' + "i" * 5000 + '"', '"\\ud800"'],
    "root_id": ["[1]", '"x"', "{}"],
    "parent_id": ["[1]", '"x"'],
    "group": ['"g"', "[1]", "{}"],
    "group_index": ['"x"', "1e308"],
    "reply_to": ['"celery"', "[1]", '"nowhere"'],
    "correlation_id": ["[1]", "{}"],
    "shadow": ['"cavendish.submit"', "[1]", '"a\\nb"'],
    "argsrepr": ["[1]", '"' + "a" * 20_000 + '"', "{}", '"\\ud800"'],
    "kwargsrepr": ["7", '"\\u0000"', "[]"],
    "origin": ["[1]", "7", '"\\ud800"'],
    "stamps": ['{"a":[1]}', '"x"', "[1]"],
    "stamped_headers": ['["a"]', '["nope"]', "7"],
    "replaced_task_nesting": ['"x"', "1e999"],
    "ignore_result": ["false", '"x"', "[]"],
    "lang": ["null", '"c"', "[1]"],
    "traceparent": ['"00-x"', "[1]", "7"],
    "cavendish-deaths": ["1", "2", "-1", "3", "1e999", '"3"', "9" * 30],
    "compression": ['"application/x-gzip"', '"x"', "[1]", "{}", "true", '"zlib"'],
    "x-death": ["[]", '"x"'],
    "method": ['"shutdown"', "[1]"],
    "clock": ['"x"', "1e999"],
}
_TASKS = [
    *QUEUES, "celery.chord_unlock", "celery.backend_cleanup", "celery.chain", "celery.map",
    "celery.accumulate", "no.such.task", "", "cavendish.submit ", "CAVENDISH.SUBMIT", "__class__",
]  # fmt: skip
_KINDS: list[tuple[Any, Any, Callable[[bytes], bytes]]] = [
    ("application/x-python-serialize", "binary", pickle.dumps),
    ("application/x-yaml", "utf-8", bytes),
    ("application/x-msgpack", "binary", bytes),
    ("application/data", "binary", bytes),
    ("text/plain", "utf-8", bytes),
    ("application/json", "utf-16", lambda body: body.decode().encode("utf-16")),
    ("application/json", "latin-1", bytes),
    ("application/json", "zlib", bytes),
    ("application/json", "rot13", bytes),
    ("application/json", "idna", bytes),
    ("application/json", "no-such-charset", bytes),
    ("application/json", "unicode_escape", bytes),
    ("application/json", None, bytes),
    ("APPLICATION/JSON", "UTF-8", bytes),
    ("", "", bytes),
]
_EMBEDS = [
    {"callbacks": [5], "errbacks": None, "chain": None, "chord": None},
    {"callbacks": None, "errbacks": [{"task": "x"}], "chain": [7], "chord": 3},
    {"chord": {"task": "celery.chord_unlock", "args": [], "kwargs": {}, "options": {}}},
    {"chain": [{"task": "cavendish.submit", "args": [], "kwargs": {}, "options": {}}]},
    {"callbacks": [{"task": "celery.map", "args": [[1]], "kwargs": {}, "options": {}}]},
]


def drawn(chance: Random, name: str) -> tuple[str, bytes, list[str]]:
    """The list that a message lies in, the message, and the ids that must be tracked for it."""
    if chance.random() < 0.3:
        return _good(chance, name)
    queue = SUBMIT if chance.random() < 0.8 else chance.choice(QUEUES)
    ids = [f"{name}-odd{n}" for n in range(chance.randrange(3))]
    whole = _envelope(chance, queue, [ids, {"service": "nano-banana"}, {}], queue)
    return queue, _odd(chance, queue, whole), []


def _good(chance: Random, name: str) -> tuple[str, bytes, list[str]]:
    """A submit that must be taken. An id that is none may be among its ids."""
    good = [f"{name}-{n}" for n in range(chance.randrange(1, 4))]
    ids: list[Any] = [*good]
    if chance.random() < 0.2:
        ids.insert(chance.randrange(len(ids) + 1), chance.choice(["", "x" * 201, "a\nb", 7, None]))
    options: dict[str, Any] = {"service": "nano-banana"}
    more = {
        "deadline": 3600 + chance.random(),
        "metadata": {word(chance): word(chance), "n": [chance.random()]},
        "producer": chance.choice("pqr"),
        "model": "nano-banana-pro",
        "restart": chance.random() < 0.5,
        "webhook": chance.choice(["http://127.0.0.1:9/hook", ["http://127.0.0.1:9/a?b=c"]]),
    }
    options |= {key: more[key] for key in more if chance.random() < 0.2}
    embed = chance.choice([{}, dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))])
    whole = _envelope(chance, SUBMIT, [ids, options, embed], SUBMIT)
    _spelt_otherwise(chance, whole)
    text = json.dumps(whole, ensure_ascii=chance.random() < 0.7)
    if chance.random() < 0.1:  # fields that nobody knows
        text = f'{{"x-odd":{leaf(chance)},{text[1:]}'
        text = text if _reads(text) else json.dumps(whole)
    return SUBMIT, text.encode(errors="surrogatepass"), good


def _reads(text: str) -> bool:
    try:
        json.loads(text)
        text.encode()
    except (ValueError, RecursionError):
        return False
    return True


def _spelt_otherwise(chance: Random, whole: dict[str, Any]) -> None:
    """What a submit may leave out or spell otherwise."""
    properties, headers = whole["properties"], whole["headers"]
    for key in ("delivery_info", "delivery_tag", "delivery_mode", "priority"):
        if chance.random() < 0.1:
            properties.pop(key, None)
    if chance.random() < 0.1:
        properties["delivery_tag"] = "one tag for many"
    if chance.random() < 0.1:
        properties["delivery_info"] = {"exchange": "nowhere", "routing_key": "no queue"}
    for key in list(headers):
        if key not in ("task", "id") and chance.random() < 0.05:
            del headers[key]
    if chance.random() < 0.1:
        headers["x-" + chance.choice("abc")] = chance.choice([1, None, "x", [], {}])
    if chance.random() < 0.1:
        del whole["content-type"], whole["content-encoding"]


def _envelope(chance: Random, task: str, body: Any, queue: str) -> dict[str, Any]:
    """A message as Kombu lays it into a list: of protocol 2, or seldom of protocol 1."""
    headers: dict[str, Any] = dict.fromkeys(("eta", "expires", "group", "root_id", "parent_id"))
    headers |= {"lang": "py", "task": task, "id": uuid.UUID(int=chance.getrandbits(128)).hex}
    headers |= {"retries": 0, "timelimit": [None, None], "origin": "a-stranger", "argsrepr": "()"}
    if chance.random() < 0.1:
        args, options = [body[0]], body[1]
        old = {"task": task, "id": headers["id"], "args": args, "kwargs": options}
        headers, data = {}, json.dumps(old)
    else:
        data = json.dumps([[body[0]], body[1], body[2]])
    packed = chance.random() < 0.8
    properties: dict[str, Any] = {
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": 0,
        "delivery_tag": uuid.UUID(int=chance.getrandbits(128)).hex,
    }
    if packed or chance.random() < 0.5:
        properties["body_encoding"] = "base64" if packed else None
    return {
        "body": base64.b64encode(data.encode()).decode() if packed else data,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
    }


def _odd(chance: Random, queue: str, whole: dict[str, Any]) -> bytes:
    """The message with something wrong about it, or something else in its place."""
    match chance.randrange(9):
        case 0:
            text = mutated(chance, whole)
        case 1:
            text = _with_header(chance, whole)
        case 2:
            return damaged(chance, json.dumps(whole).encode())
        case 3:
            _body(whole, mutated(chance, [[["x"]], {"service": "nano-banana"}, {}]).encode())
            text = json.dumps(whole)
        case 4:
            text = _of_another_kind(chance, whole)
        case 5:
            task = chance.choice(_TASKS) if chance.random() < 0.8 else word(chance)
            whole["headers"] |= {"task": task, "id": "x"}
            arguments = f"[{value(chance)},{value(chance)},{{}}]"
            _body(whole, f"[{arguments[1:]}".encode(errors="surrogatepass"))
            text = json.dumps(whole)
        case 6:
            args = ",".join(value(chance) for _ in range(chance.randrange(5)))
            kwargs = fields(chance)
            _body(whole, f"[[{args}],{{{kwargs}}},{{}}]".encode(errors="surrogatepass"))
            text = json.dumps(whole)
        case 7:
            embed = chance.choice(_EMBEDS)
            _body(whole, json.dumps([[["x"]], {"service": "nano-banana"}, embed]).encode())
            text = json.dumps(whole)
        case _:
            return value(chance, 30).encode(errors="surrogatepass")
    return text.encode(errors="surrogatepass")


def _body(whole: dict[str, Any], body: bytes) -> None:
    whole["body"] = base64.b64encode(body).decode()
    whole["properties"]["body_encoding"] = "base64"


def _with_header(chance: Random, whole: dict[str, Any]) -> str:
    name = chance.choice(list(_HEADERS))
    odd = chance.choice(_HEADERS[name]) if chance.random() < 0.8 else leaf(chance)
    return json.dumps(whole).replace('"headers": {', f'"headers": {{"{name}": {odd}, ', 1)


def _of_another_kind(chance: Random, whole: dict[str, Any]) -> str:
    """Another content type or charset, a packed body, or another encoding of it."""
    data = json.dumps([[["x"]], {"service": "nano-banana"}, {}]).encode()
    kind, charset, made = chance.choice(_KINDS)
    whole |= {"content-type": kind, "content-encoding": charset}
    _body(whole, made(data))
    match chance.randrange(4):
        case 0:
            whole["headers"]["compression"] = chance.choice(["application/x-gzip", "gzip"])
            _body(whole, gzip.compress(data * 100, 1))
        case 1:
            whole["properties"]["body_encoding"] = chance.choice(["rot13", "base64", None, 7, []])
            whole["body"] = chance.choice(["%", "====", "AA", "\ud800", data.decode(), 7, None, []])
    return json.dumps(whole)
