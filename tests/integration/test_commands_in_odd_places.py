"""Every command where something is not as usual: no reader, no home, other encodings, no Redis."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest
import redis

from cavendish import Client, Filter, State
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.cli import cli
from conftest import Server
from ending import settle
from forked import Done, shared
from servers import eventually

SERVICE, HOOK = "nano-banana", "http://127.0.0.1:9/hook"
ENDED, PENDING = "größe→1", "größe→2"
#: Commands that serve until they are ended.
SERVERS = {"serve", "up", "emulate", "demo"}
#: Every other command, with words with which it has something to say.
COMMANDS = {
    "submit": f'--service {SERVICE} --meta {{"größe":1}} größe→3',
    "show": f"--service {SERVICE} {ENDED}",
    "wait": f"--service {SERVICE} --timeout 0 {ENDED}",
    "group": "größe",
    "list": "--all",
    "cancel": f"--service {SERVICE} {PENDING}",
    "deadline": f"--service {SERVICE} --in 2h {PENDING}",
    "forget": f"--service {SERVICE} --yes größe→4",
    "events": "",
    "refused list": "",
    "refused show": "größe",
    "refused retry": "größe",
    "refused drop": "--yes größe",
    "top": "--once --every 0.1",
    "status": "",
    "doctor": "",
    "metrics": "",
    "alive": "--role worker",
    "pause": "--account default --reason größe",
    "resume": "--account default",
    "rate-limit": "--account default --calls 5",
    "endpoint add": f"shop {HOOK} --unencrypted",
    "endpoint list": "",
    "endpoint show": HOOK,
    "endpoint update": "shop --rate 5",
    "endpoint rotate": "shop",
    "endpoint enable": HOOK,
    "endpoint disable": f"{HOOK} --reason größe",
    "endpoint remove": "shop --yes",
    "endpoint test": HOOK,
    "endpoint new-key": "",
    "dead list": "",
    "dead show": ENDED,
    "dead revive": "--all",
    "dead drop": "--all --yes",
    "replay": f"--endpoint {HOOK} --since 1h",
    "secret new": "",
    "key add": "wire --may read",
    "key list": "",
    "key revoke": "wire",
}
#: Those that need no Redis.
ALONE = {"endpoint new-key", "secret new"}
Try = Callable[..., dict[str, Done]]


def names(group: click.Group, *path: str) -> Iterator[str]:
    """The commands of a group, and of those inside of it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group) and not command.invoke_without_command:
            yield from names(command, *path, name)
        else:
            yield " ".join((*path, name))


def test_every_command_is_tried() -> None:
    assert set(names(cli)) == COMMANDS.keys() | SERVERS


@pytest.fixture
def attempt(store: Store, settings: Settings, client: Client, tmp_path: Path) -> Try:
    """Runs every command in an environment, and looks at how each ended."""
    client.submit([ENDED, PENDING], service=SERVICE, webhook=HOOK, group="größe")
    settle(store, Lane("default", SERVICE), ENDED, state=State.FAILED)
    usual = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "CAVENDISH_REDIS_URL": settings.redis_url,
        "CAVENDISH_DATA_DIR": str(tmp_path / "data"),
        "CAVENDISH_WEBHOOK_ALLOW": "127.0.0.0/8",
    }

    def tried(
        changed: Mapping[str, str | None], streams: Mapping[str, str] = {}, json: str = ""
    ) -> dict[str, Done]:
        given = {name: text for name, text in (usual | changed).items() if text is not None}
        words = [f"{name} {more} {json}".split() for name, more in COMMANDS.items()]
        done = shared().run([(each, given) for each in words], streams=streams)
        found = dict(zip(COMMANDS, done, strict=True))
        for name, one in found.items():
            said = f"{name}: {one}"
            assert one.code in (0, 1, 2), said
            assert "Traceback" not in one.stderr, said
            assert "Exception ignored" not in one.stderr, said
        return found

    return tried


def test_a_reader_that_has_gone_ends_every_command_quietly(attempt: Try) -> None:
    """As `| head -1` does: no word about the pipe."""
    for name, done in attempt({}, {"stdout": "broken"}).items():
        assert "ipe" not in done.stderr, f"{name}: {done}"


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_a_stream_that_is_closed_is_no_traceback(attempt: Try, stream: str) -> None:
    """`<&-` and `>&-`, as some supervisors start programs."""
    attempt({}, {stream: "closed"})


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_whatever_the_encoding_each_command_prints_what_it_can(attempt: Try, encoding: str) -> None:
    """Ids, metadata and reasons that are not in it are shown by numbers."""
    done = attempt({"PYTHONIOENCODING": encoding})
    shown = {"ascii": "gr\\u00f6\\u00dfe>1", "latin-1": "gr\ufffd\ufffde>1", "utf-8": ENDED}
    assert f"id         {shown[encoding]}\n" in done["show"].stdout
    assert [name for name, one in done.items() if one.code == 2] == []


@pytest.mark.parametrize(
    "home", [None, "/nonexistent", "/proc", ""], ids=["none", "missing", "read-only", "empty"]
)
def test_no_home_is_needed(attempt: Try, home: str | None) -> None:
    done = attempt({"HOME": home, "CAVENDISH_DATA_DIR": None})
    assert done["status"].code == 0, done["status"]


def test_a_home_and_a_folder_that_nobody_may_write_are_enough(attempt: Try, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    done = attempt({"HOME": str(folder), "CAVENDISH_DATA_DIR": str(folder / "data")})
    assert done["list"].code == 0, done["list"]


@pytest.mark.parametrize("columns", ["1", "8", "20", "nonsense"])
def test_a_terminal_may_be_as_narrow_as_it_likes(attempt: Try, columns: str) -> None:
    attempt({"COLUMNS": columns, "LINES": columns, "TERM": "dumb"})


def test_without_colours_there_are_none(attempt: Try) -> None:
    for name, done in attempt({"NO_COLOR": "1", "TERM": "xterm"}).items():
        assert "\x1b" not in done.stdout + done.stderr, name


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret-word@127.0.0.1:1",
        "redis://user:secret-word@nobody.invalid:6379",
        "unix:///nonexistent/redis.sock",
        "http://secret-word@127.0.0.1",
        "nonsense",
    ],
)
def test_a_redis_that_is_not_there_is_one_sentence(attempt: Try, url: str) -> None:
    """It names no password. Only what needs no Redis goes on."""
    for name, done in attempt({"CAVENDISH_REDIS_URL": url}).items():
        if name in ALONE or name == "alive":
            continue
        assert done.code in (1, 2), f"{name}: {done}"
        assert "secret-word" not in done.stdout + done.stderr
        if name not in ("doctor", "metrics"):
            assert len(done.stderr.splitlines()) == 1, f"{name}: {done}"
            assert done.stderr.endswith((".\n", "?\n")), f"{name}: {done}"


def test_a_redis_that_refuses_the_password_is_one_sentence(
    attempt: Try, own_server: Server
) -> None:
    connection = redis.Redis(unix_socket_path=str(own_server.socket))
    connection.config_set("requirepass", "right")
    for password in ("", ":wrong-word@"):
        url = own_server.url.replace("unix://", f"unix://{password}")
        for name, done in attempt({"CAVENDISH_REDIS_URL": url}).items():
            if name in ALONE or name in ("alive", "doctor", "metrics"):
                continue
            assert done.code == 1, f"{name}: {done}"
            assert re.fullmatch(r"[^\n]*password[^\n]*\.\n", done.stderr), f"{name}: {done}"
            assert "wrong-word" not in done.stderr


@pytest.fixture
def silent() -> Iterator[tuple[str, queue.Queue[None]]]:
    """The URL of a Redis that takes connections and says nothing; an entry for each of them."""
    came, taken = queue.Queue[None](), list[socket.socket]()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take() -> None:
            with suppress(OSError):
                while True:
                    taken.append(listener.accept()[0])
                    came.put(None)

        thread = threading.Thread(target=take)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}", came
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    for each in taken:
        each.close()


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - ALONE))
def test_ctrl_c_ends_every_command_with_130_and_one_sentence(
    silent: tuple[str, queue.Queue[None]], tmp_path: Path, name: str
) -> None:
    """While it waits for Redis: it says what is done, and shows no traceback."""
    url, came = silent
    environment = {"PATH": os.environ["PATH"], "CAVENDISH_REDIS_URL": url}
    words, log = f"{name} {COMMANDS[name]}".split(), tmp_path / "log"
    process = shared().start("cavendish", words, environment, log)
    came.get(timeout=60)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, log.read_text()
    # The empty line is for the `^C` that a terminal shows.
    assert re.fullmatch(r"\n?Stopped[^\n]*\.\n", log.read_text()), log.read_text()


def stopped(
    command: list[str], environment: dict[str, str], stdin: str, when: Callable[[], Any]
) -> str:
    """What a command says that Ctrl-C ends at a certain moment."""
    with subprocess.Popen(
        [sys.executable, "-m", "cavendish_worker.cli", *command],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(stdin)
        process.stdin.flush()
        if stdin.endswith("\n"):
            process.stdin.close()
        when()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130, said
    assert said.count("\n") == 1, said
    return said


def test_a_submit_that_is_stopped_says_how_many_ids_were_answered(
    client: Client, store: Store, settings: Settings
) -> None:
    """Nothing before stdin is read; then those before the group of ids in which it was stopped."""
    environment = {"CAVENDISH_REDIS_URL": settings.redis_url}
    command = ["submit", "--service", SERVICE, "-"]

    def reading() -> None:
        time.sleep(2)  # until it reads what will not end

    assert stopped(command, environment, "a\nb", reading) == "Stopped; no id was submitted.\n"
    lines = "".join(
        json.dumps({"id": f"id-{n}", "metadata": {"n": n}, "model": f"m{n}"}) + "\n"
        for n in range(20_000)
    )
    said = stopped(
        command, environment, lines, lambda: eventually(client.count, "some are tracked")
    )
    found = re.fullmatch(r"Stopped; at least ([\d,]+) of 20,000 ids were answered, .*\n", said)
    assert found, said
    assert 0 < int(found[1].replace(",", "")) <= client.count() < 20_000


def test_a_cancel_and_a_list_that_are_stopped_say_that_there_is_more(
    client: Client, settings: Settings
) -> None:
    client.submit([f"id-{n}" for n in range(30_000)], service=SERVICE)
    environment = {"CAVENDISH_REDIS_URL": settings.redis_url}
    ended = Filter(state="cancelled")
    said = stopped(
        ["cancel", "--all", "--yes"],
        environment,
        "",
        lambda: eventually(lambda: client.list(ended, limit=1).items, "one is cancelled"),
    )
    found = re.fullmatch(r"Stopped; at least ([\d,]+) ids are cancelled, .* rest\.\n", said)
    assert found, said
    assert int(found[1].replace(",", "")) <= client.count(ended) < 30_000
