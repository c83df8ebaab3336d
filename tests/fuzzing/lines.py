"""Generated lines on the stdin of real processes of `cavendish submit -`.

Every good id is tracked, every other line gets one sentence, and nothing is a traceback.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random

from cavendish.client import Client
from cavendish.settings import Settings
from conftest import Server
from fuzzing import shapes
from fuzzing.tally import Tally

#: Lines of one process, processes at once, and seconds until one never ends.
LINES, AT_ONCE, NEVER = 250, 2, 120.0
_OPTIONS = "service account webhook deadline metadata model producer restart traceparent x".split()


@dataclass
class Input:
    """What comes by stdin: `good` ids that must be tracked, and the lines that need an answer.

    `lines`: their number; None if how they are cut is open, as in UTF-16 or CSV. `form`: the format
    that the command is told.
    """

    data: bytes
    good: list[str] = field(default_factory=list)
    lines: int | None = None
    form: str = "auto"


def run(seed: int, count: int, server: Server) -> Tally:
    """So many lines."""
    tally = Tally("lines of stdin", seed)
    numbers = range((count + LINES - 1) // LINES)
    client = Client(settings=Settings.load({"CAVENDISH_REDIS_URL": server.url}))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = pool.map(lambda number: _submitted(drawn(seed, number), server), numbers)
        for number, done in zip(numbers, results, strict=True):
            _judge(tally, client, f"process {number}", drawn(seed, number), done)
    client.close()
    return tally.end()


def drawn(seed: int, number: int) -> Input:
    """The stdin of one process."""
    chance = Random(f"lines {seed} {number}")
    name = f"l{number}"
    match chance.randrange(12):
        case 0:
            return _csv(chance, name)
        case 1:
            return _wide(chance, name)
        case 2:
            return _array(chance, name)
        case 3:
            return _random(chance, name)
    said = Input(b"", [f"{name}-first"], lines=0)  # else the first line might name a format
    rows = [said.good[0].encode()]
    rows += [_line(chance, f"{name}-{place}", said) for place in range(LINES)]
    ends = (b"\r\n",) if chance.random() < 0.2 else (b"\n",)
    said.lines = sum(bool(_text(row)) for row in rows)
    said.data = b"".join(row + chance.choice(ends) for row in rows)
    if chance.random() < 0.1:
        said.data = said.data[: -len(ends[0])]  # the last line has no end
    return said


def _text(row: bytes) -> bytes:
    """What is left of a line without the space around it, and a mark of the byte order."""
    return row.decode(errors="replace").removeprefix("\ufeff").strip().encode()


def _csv(chance: Random, name: str) -> Input:
    """A table, of which nothing may be tracked unless its format is named."""
    mark, end = chance.choice(",;\t"), chance.choice(["\n", "\r\n"])
    rows = [f"{name}-{place}{mark}{chance.random()}" for place in range(LINES)]
    said = Input(b"", form=chance.choice(["auto", "csv"]))
    if said.form == "csv":
        said.good = [row.partition(mark)[0] for row in rows]
    rows += ["", mark, f'"{name}', "a" + 2 * mark][: chance.randrange(3)]
    said.data = end.join([f"id{mark}model", *rows, ""]).encode(chance.choice(_MARKED))
    return said


def _array(chance: Random, name: str) -> Input:
    """A JSON array: good ids among items that may be anything."""
    said = Input(b"", [f"{name}-{place}" for place in range(LINES)], form=chance.choice(_JSON))
    items = [json.dumps(each) for each in said.good]
    items += [shapes.value(chance) for _ in range(9)]
    chance.shuffle(items)
    text = "[" + ",".join(chance.choice(["\n  ", "", " "]) + item for item in items) + "\n]"
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        said.good = []  # some value is no JSON, so that nothing of it is taken
    said.data = text.encode(errors="surrogatepass")
    if chance.random() < 0.3:
        said.data, said.good = shapes.damaged(chance, said.data), []
    return said


def _random(chance: Random, name: str) -> Input:
    """Bytes without a meaning, or a damaged table, for any format."""
    form = chance.choice(["auto", "lines", "jsonl", "json", "csv"])
    if chance.random() < 0.5:
        return Input(chance.randbytes(chance.randrange(5000)), form=form)
    return Input(shapes.damaged(chance, _csv(chance, name).data), form=form)


#: Encodings that are recognised by their mark; UTF-8 needs none.
_MARKED, _JSON = ("utf-8", "utf-8-sig", "utf-16", "utf-32"), ("auto", "json")


def _wide(chance: Random, name: str) -> Input:
    """Another encoding, or a mark of the byte order, as some shells write them."""
    text = "".join(f"{name}-{place}\n" for place in range(LINES))
    encoding = chance.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7"])
    return Input(text.encode(encoding))


def _line(chance: Random, task_id: str, said: Input) -> bytes:
    if chance.random() < 0.35:
        said.good.append(task_id)
        return _good(chance, task_id).encode()
    match chance.randrange(9):
        case 0:
            return shapes.value(chance).encode(errors="surrogatepass").replace(b"\n", b" ")
        case 1:
            known = {"id": task_id, "service": "nano-banana", "metadata": {"a": [1]}}
            text = shapes.mutated(chance, known | {"deadline": 60, "restart": True})
            return text.encode(errors="surrogatepass").replace(b"\n", b" ")
        case 2:
            key, odd = chance.choice(_OPTIONS), shapes.value(chance)
            text = f'{{"id":"{task_id}","{key}":{odd}}}'
            return text.encode(errors="surrogatepass").replace(b"\n", b" ")
        case 3:
            return shapes.damaged(chance, _good(chance, task_id).encode()).replace(b"\n", b"")
        case 4:
            return chance.randbytes(chance.randrange(40)).replace(b"\n", b"")
        case 5:
            return chance.choice(_ODD)
        case 6:
            return task_id.encode() + chance.choice(
                [b"\0", b"\x1b[31m", b"\xff", b"\xc2\x85", b"\t"]
            )
        case 7 if chance.random() < 0.05:
            return chance.choice(_HUGE)
        case 7:
            return (task_id + "x" * chance.choice((190, 200, 1000))).encode()
        case _:
            return chance.choice([b"", b" ", b"\t\t", b"\r", b"\x0b", b"\xe2\x80\xa8"])


_ODD = [
    b"id", b"-", b"--help", b"{", b"}", b"[", b"]", b'"', b'""', b"{}", b"[]", b"null", b"NaN",
    b'["a"]', b'{"id":null}', b'{"id":7}', b'{"id":["a"]}', b'{"ID":"a"}', b'{"id":"a"}x',
    b"\xef\xbb\xbf",
    b'{"id":""}', b'{"id":" a "}', b'{"id":"a","id":{}}', b'"\\ud800"', b'{"id":"\\ud800"}', b"#",
    b'{"id":"a","deadline":NaN}', b'{"id":"a","deadline":1e999}',
    b'{"id":"a","service":"\\u0000"}',
]  # fmt: skip
_HUGE = [
    b"x" * 1_000_000,
    b"[" * 1_000_000,
    b'{"id":"' + b"y" * 1_000_000 + b'"}',
    b'{"id":"deep","metadata":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
    b'{"id":"wide","metadata":{"a":"' + b"z" * 500_000 + b'"}}',
    b'{"id":"digits","deadline":' + b"9" * 100_000 + b"}",
    b"\xff" * 500_000,
]


def _good(chance: Random, task_id: str) -> str:
    """A line that must be taken: the id, as it is or in JSON, with options of its own."""
    spaces = chance.choice(["", "", " ", "\t"])
    match chance.randrange(4):
        case 0:
            return json.dumps(task_id) + spaces
        case 1:
            own = {
                "metadata": {"n": chance.random(), "水": None},
                "deadline": 3600,
                "producer": chance.choice("pq"),
                "webhook": "https://example.com/hook",
                "model": "m",
            }
            chosen = {key: own[key] for key in own if chance.random() < 0.2}
            return json.dumps({"id": task_id} | chosen, ensure_ascii=chance.random() < 0.5)
    return spaces + task_id + spaces


def _submitted(said: Input, server: Server) -> subprocess.CompletedProcess[bytes] | None:
    """Run one process; None if it never ended."""
    environment = {
        name: text for name, text in os.environ.items() if not name.startswith("CAVENDISH_")
    }
    environment |= {"CAVENDISH_REDIS_URL": server.url, "COLUMNS": "100"}
    words = ["submit", "--service", "nano-banana", "--format", said.form, "--json", "-"]
    command = [sys.executable, "-m", "cavendish_worker.cli", *words]
    try:
        return subprocess.run(
            command,
            input=said.data,
            capture_output=True,
            env=environment,
            timeout=NEVER,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None


def _judge(
    tally: Tally,
    client: Client,
    where: str,
    said: Input,
    done: subprocess.CompletedProcess[bytes] | None,
) -> None:
    tally.made += LINES
    tally.good += len(said.good)
    if done is None or done.returncode not in (0, 1):
        tally.death(f"{where}: {done and (done.returncode, done.stderr[-500:])}")
        return
    if b"Traceback" in done.stderr + done.stdout:
        tally.traceback(f"{where}: {done.stderr[-1500:]!r}")
        return
    try:
        answers = json.loads(done.stdout)
    except ValueError:
        if said.good or done.stderr.count(b"\n") != 1:  # all of it may be refused in one sentence
            tally.mistake(f"{where}: no JSON, {done.stdout[:300]!r} {done.stderr[:300]!r}")
        return
    if said.lines is not None and len(answers) != said.lines:
        tally.mistake(f"{where}: {len(answers)} answers for {said.lines} lines")
    for answer in answers:
        reason = answer["reason"]
        if answer["outcome"] == "refused" and not (0 < len(reason) <= 300 and reason.isprintable()):
            tally.mistake(f"{where}: {answer!r:.600}")
    tracked = client.get_many(said.good, service="nano-banana") if said.good else {}
    taken = {answer["id"] for answer in answers if answer["outcome"] != "refused"}
    for task_id in said.good:
        if task_id not in tracked or task_id not in taken:
            tally.mistake(f"{where}: {task_id} is not tracked, or not said to be")
