"""A whole run with failures on purpose, and then a search for every secret in all that it wrote,
said or showed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx
import pytest
import redis

import forked
from acceptance.conftest import SERVICE, Stack, wait_until
from cavendish.endpoints.encryption import Encryption, new_key
from cavendish.endpoints.signing import new_secret
from cavendish.store import Store
from cavendish_worker.devstack.emulator.tasks_api import Emulator, EmulatorConfig
from delivering import Served
from forked import Done
from servers import Node

TOKEN = "tok-Ein_Geheimnis/of+the=API"
PASSWORD = "redis/Pass+word=99"
PROXY_PASSWORD = "proxy-Pass-word-77"
FLOWER_PASSWORD = "flower:Pass,word=77"
ALICE = "tok-of-Alice-31415926535"
HEADER = "Bearer of-a-receiver-27182818"


class Api:
    """The emulated API, which knows nobody while `closed`. It keeps what it was asked with."""

    def __init__(self) -> None:
        self.emulator = Emulator(EmulatorConfig(rate=0, median=1, sigma=0.1, tokens=(TOKEN, ALICE)))
        self.closed, self.heard = True, set[str]()

    async def handle(self, request: httpx.Request) -> httpx.Response:
        self.heard.add(request.headers.get("authorization", ""))
        if self.closed and "/emulator/" not in request.url.path:
            return httpx.Response(
                401, json={"error": {"code": "token_invalid", "message": "who are you?"}}
            )
        return await self.emulator.handle(request)


class Guarded(Stack):
    """A running `cavendish up` with a token, in place of an emulated API of its own."""

    def __init__(self, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cavendish-test-"))
        self.log = (self.folder / "log").open("w")
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CAVENDISH_")
        }
        settings |= {
            "DATA_DIR": str(self.folder / "data"),
            "FLOWER_PORT": "0",
            "HTTP_PORT": "0",
            "WEBHOOK_ALLOW": "127.0.0.0/8",
        }
        self.environment |= {f"CAVENDISH_{name}": value for name, value in settings.items()}
        command = [sys.executable, "-m", "cavendish_worker.cli", "up"]
        self.process = subprocess.Popen(
            command, env=self.environment, stdout=self.log, stderr=self.log
        )
        try:
            self.facts = wait_until(self._ready, 60, "the stack is up")
        except BaseException:
            self.close()
            raise

    def _ready(self) -> dict[str, object]:
        assert self.process.poll() is None, self.lines()
        facts: dict[str, object] = json.loads((self.folder / "data" / "stack.json").read_text())
        assert httpx.get(f"{facts['flower']}/", trust_env=False).status_code == 401
        return facts


class Failing:
    """A receiver that answers 500, and keeps the signatures that came."""

    def __init__(self) -> None:
        self.signatures: list[str] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.signatures.append(request.headers["webhook-signature"])
        return httpx.Response(500, text="out of order")


class Overheard:
    """Everything that the server was told while this listened.

    Redis itself shows AUTH and HELLO without their words.
    """

    def __init__(self, port: int) -> None:
        self._socket, self._heard = socket.create_connection(("127.0.0.1", port)), list[bytes]()
        self._socket.sendall(f"AUTH {PASSWORD}\r\nMONITOR\r\n".encode())
        self._hung_up = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        try:
            while said := self._socket.recv(65536):
                self._heard.append(said)
        except ConnectionResetError:  # the server was still speaking
            if not self._hung_up.is_set():
                raise

    def close(self) -> str:
        """Hang up; returns what was heard."""
        self._hung_up.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._listener.join(5)
        self._socket.close()
        return b"".join(self._heard).decode(errors="replace")


def shapes(secret: str) -> set[str]:
    """A secret as it might be written.

    Plain, quoted, inside JSON, encoded once more, without its prefix, as bytes in hex.
    """
    plain = {secret, secret.removeprefix("whsec_").removeprefix("whsk_")}
    raw = set()
    with contextlib.suppress(ValueError):
        raw = {base64.b64decode(word, validate=True) for word in plain if len(word) % 4 == 0}
    words = (
        plain
        | {quote(word, safe="") for word in plain}
        | {quote(word) for word in plain}
        | {quote_plus(word) for word in plain}
    )
    words |= {json.dumps(word)[1:-1] for word in plain} | {
        base64.b64encode(word.encode()).decode() for word in plain
    }
    words |= {base64.urlsafe_b64encode(each).decode() for each in raw} | {
        each.hex() for each in raw
    }
    return {word.rstrip("=") for word in words if len(word.rstrip("=")) > 11}


def dumped(client: redis.Redis) -> str:
    """Every key of a database with its value."""
    lines = []
    for key in client.scan_iter(count=1000):
        kind = client.type(key)
        if kind == "none":  # it has expired meanwhile
            continue
        read = {
            "string": client.get,
            "hash": client.hgetall,
            "list": lambda key: client.lrange(key, 0, -1),
            "set": client.smembers,
            "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
            "stream": client.xrange,
        }[kind]
        with contextlib.suppress(redis.ResponseError):  # gone or changed meanwhile
            lines.append(f"{key} {read(key)!r}")
    return "\n".join(lines)


def with_bodies(text: str) -> str:
    """Messages of Celery carry their arguments in base64: those too, read."""
    found = [text]
    for word in set(re.findall(r'"body\\*": \\*"([A-Za-z0-9+/=]{8,})\\*"', text)):
        with contextlib.suppress(ValueError):
            found.append(base64.b64decode(word).decode(errors="replace"))
    return "\n".join(found)


def command_lines() -> str:
    """The command lines of all processes of this machine but of the test itself."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(lines)


def flower_says(flower: str) -> dict[str, str]:
    """Every page and every answer of Flower's API that needs no task of its own."""
    places = [
        "/",
        "/workers",
        "/tasks",
        "/broker",
        "/metrics",
        "/api/workers?refresh=1",
        "/api/workers",
        "/api/tasks?limit=500",
    ]
    places += [
        "/api/task/types",
        "/api/queues/length",
        "/tasks/datatable?draw=1&start=0&length=500&search[value]=&order[0][column]=0",
    ]
    found = {}
    with httpx.Client(
        base_url=flower, auth=("ada", FLOWER_PASSWORD), trust_env=False, timeout=20
    ) as http:
        for place in places:
            found[place] = http.get(place).raise_for_status().text
        for name in json.loads(found["/api/workers?refresh=1"]):
            found[name] = http.get(f"/worker/{name}").text
        for task_id in list(json.loads(found["/api/tasks?limit=500"]))[:50]:
            found[task_id] = (
                http.get(f"/task/{task_id}").text + http.get(f"/api/task/info/{task_id}").text
            )
    return found


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Node]:
    """A Redis with a password."""
    node = Node(tmp_path, requirepass=PASSWORD, appendonly="yes")
    yield node
    node.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_secret_is_found_in_logs_flower_broker_store_errors_command_lines_or_files(
    served: Served, guarded: Node, tmp_path: Path, log_format: str
) -> None:
    api, failing, overheard = Api(), Failing(), Overheard(guarded.port)
    address = served(api.handle)
    secret, key = new_secret(), new_key()
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"alice": ALICE}))
    settings = {
        "REDIS_URL": f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{guarded.port}/0",
        "BROKER_URL": f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{guarded.port}/1",
        "API_TOKENS_FILE": str(tokens),
        "WEBHOOK_SECRET": secret,
        "SECRET_KEY": key,
        "LOG_FORMAT": log_format,
        "LOG_LEVEL": "debug",
        "OPERATIONS_WEBHOOK": f"{served(failing)}/operations",
        "API_URL": address,
        "API_TOKEN": TOKEN,
        "FLOWER_BASIC_AUTH": f"ada:{FLOWER_PASSWORD}",
    }
    stack = Guarded(**settings)
    secrets = {
        "API token": TOKEN,
        "token of an account": ALICE,
        "password of Redis": PASSWORD,
        "webhook secret": secret,
        "key": key,
    }
    secrets |= {"password of the proxy": PROXY_PASSWORD, "password of Flower": FLOWER_PASSWORD}
    said: list[str] = []

    def all_of(*commands: tuple[list[str], int | None, dict[str, str]]) -> list[Done]:
        """Run commands side by side: words, the expected exit code, more settings."""
        environments = [
            stack.environment | {f"CAVENDISH_{name}": value for name, value in more.items()}
            for _, _, more in commands
        ]
        ends = forked.shared().run(
            (words, environment)
            for (words, _, _), environment in zip(commands, environments, strict=True)
        )
        for (words, exit_code, _), done in zip(commands, ends, strict=True):
            assert exit_code in (None, done.code), (words, done)
        return ends

    def cavendish(*words: str, exit_code: int | None = None, shown: bool = True) -> str:
        (done,) = all_of(([*words], exit_code, {}))
        said.append(done.stderr + (done.stdout if shown else ""))
        return done.stdout

    try:
        wait_until(
            lambda: "worker" in {one["role"] for one in stack.status()["fleet"]},
            60,
            "a worker lives",
        )
        # What is printed once is meant to be seen, and nowhere else.
        printed = cavendish(
            "endpoint", "add", "shop", f"{served(failing)}/shop?key=not-a-secret", shown=False
        )
        printed += cavendish(
            "endpoint", "add", "signed", f"{served(failing)}/v1a", "--ed25519", shown=False
        )
        printed += cavendish("endpoint", "rotate", "shop", "--overlap", "1", shown=False)
        header = tmp_path / "header.txt"
        header.write_text(f"Authorization: {HEADER}\n")
        cavendish("endpoint", "update", "shop", "--header", f"@{header}", exit_code=0)
        secrets |= {"header of an endpoint": HEADER}
        with contextlib.closing(Store(settings["REDIS_URL"])) as store:
            keys = [
                (name, each.encrypted)
                for name, one in store.endpoints.all().items()
                for each in one.keys
            ]
        opened = {Encryption((key,)).decrypt(name, encrypted) for name, encrypted in keys}
        assert (
            len(opened) == 4
        )  # two of shop, one after the other; two of signed, of which the v1a key is never printed
        assert set(re.findall(r"whsec_[A-Za-z0-9+/=]+", printed)) == {
            one for one in opened if one.startswith("whsec_")
        }
        secrets |= {
            f"key {number} of an endpoint": one for number, one in enumerate(sorted(opened))
        }
        ids = api.emulator.create(6)
        hooks = [
            word
            for name in ("shop", "signed", f"{served(failing)}/url")
            for word in ("--webhook", name)
        ]
        cavendish("submit", "--service", SERVICE, *hooks, *ids)
        cavendish(
            "submit", "--service", SERVICE, "--account", "alice", "--deadline", "1", "id-of-alice"
        )
        wait_until(lambda: "account.paused" in stack.lines(), 60, "the API refuses the token")
        api.closed = False
        wait_until(lambda: len(failing.signatures) >= 12, 60, "webhooks were tried and failed")
        wait_until(
            lambda: any("v1a," in each for each in failing.signatures),
            60,
            "one was signed with a key pair",
        )
        wait_until(
            lambda: {f"Bearer {TOKEN}", f"Bearer {ALICE}"} <= api.heard, 60, "both tokens were used"
        )
        nowhere = f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:1/0"
        common = (
            ["status"],
            ["doctor"],
            ["endpoint", "list"],
            ["endpoint", "test", "shop"],
            ["dead", "list"],
        )
        common += (["show", "--service", SERVICE, ids[0]], ["submit", "--service", SERVICE, "x"])
        commands: list[tuple[list[str], int | None, dict[str, str]]] = [
            (words, None, {}) for words in common
        ]
        commands += [(words, None, {"REDIS_URL": nowhere}) for words in common[:3]]
        commands.append(
            (
                ["status"],
                1,
                {"REDIS_URL": settings["REDIS_URL"].replace("redis%2F", "wrong-redis%2F")},
            )
        )
        wrong = {
            "WEBHOOK_SECRET": f"{secret}!",
            "SECRET_KEY": key[:-4],
            "API_TOKEN": f"{TOKEN} x",
            "REDIS_URL": f"http://:{PASSWORD}@x",
            "FLOWER_BASIC_AUTH": f"{FLOWER_PASSWORD.replace(':', '')}",
        }
        wrong |= {
            "BROKER_URL": f"amqp://u:{PASSWORD}@x:99999",
            "EGRESS_PROXY": f"ftp://u:{PROXY_PASSWORD}@127.0.0.1:1",
        }
        commands += [(["status"], 2, {name: value}) for name, value in wrong.items()]
        commands.append(
            (
                ["endpoint", "test", "shop"],
                1,
                {"EGRESS_PROXY": f"http://u:{PROXY_PASSWORD}@127.0.0.1:1"},
            )
        )
        commands.append((["doctor"], None, {"API_PROXY": f"http://u:{PROXY_PASSWORD}@127.0.0.1:1"}))
        commands.append((["status"], 2, {"API_PROXY": f"ftp://u:{PROXY_PASSWORD}@127.0.0.1:1"}))
        commands.append((["endpoint", "test", "shop"], None, {"SECRET_KEY": new_key()}))
        said += [done.stderr + done.stdout for done in all_of(*commands)]
        shown = flower_says(stack.facts["flower"])
        processes = command_lines()
        guarded.redis.config_set("maxmemory", 1)  # errors that show the command which was refused
        cavendish("endpoint", "add", "late", f"{served(failing)}/late", exit_code=1)
        cavendish("endpoint", "rotate", "shop")
        cavendish(
            "submit",
            "--service",
            SERVICE,
            "--webhook",
            f"{served(failing)}/late",
            "late",
            exit_code=1,
        )
        guarded.redis.config_set("maxmemory", 0)
        held = redis.Redis(
            port=guarded.port,
            password=PASSWORD,
            db=0,
            decode_responses=True,
            encoding_errors="replace",
        )
        broker = redis.Redis(
            port=guarded.port,
            password=PASSWORD,
            db=1,
            decode_responses=True,
            encoding_errors="replace",
        )
        places = {
            "logs": stack.lines(),
            "errors and tables": "\n".join(said),
            "command lines": processes,
        }
        places |= {
            "store": dumped(held),
            "broker": with_bodies(dumped(broker)),
            "overheard": with_bodies(overheard.close()),
        }
        places |= {f"Flower {place}": text for place, text in shown.items()}
        for path in (stack.folder / "data").rglob("*"):
            if path.is_file():
                private = {"stack.json", "webhook-secret", "secret-key"}
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.name not in private
                if (
                    path.name != "stack.json"
                ):  # readable by its owner only: it holds the URLs that the parts are started with
                    places[str(path.relative_to(stack.folder))] = path.read_text(errors="replace")
        assert "encrypted:" in places["store"]
        assert "plain:" not in places["store"]
        assert len(places["overheard"]) > 100_000
        leaks = {
            (place, name)
            for place, text in places.items()
            for name, one in secrets.items()
            for shape in shapes(one)
            if shape in text
        }
        assert leaks == set()
    finally:
        stack.close()


@pytest.mark.timeout(300)
def test_each_secret_that_is_kept_for_its_owner_is_in_one_file_which_nobody_else_can_read(
    start: Callable[..., Stack],
) -> None:
    stack = start("--no-flower")
    data = stack.folder / "data"
    for name in ("webhook-secret", "secret-key"):
        kept = (data / name).read_text().strip().removeprefix("whsec_")
        assert [
            path
            for path in data.rglob("*")
            if path.is_file() and kept.encode() in path.read_bytes()
        ] == [data / name]
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600
        assert kept not in stack.lines() + command_lines()
    assert stat.S_IMODE((data / "stack.json").stat().st_mode) == 0o600


@pytest.mark.timeout(300)
def test_commands_beside_up_encrypt_and_sign_with_what_it_keeps(
    start: Callable[..., Stack],
) -> None:
    stack = start("--no-flower", CAVENDISH_WEBHOOK_ALLOW="127.0.0.0/8")
    wait_until(
        lambda: "worker" in {one["role"] for one in stack.status()["fleet"]}, 60, "a worker lives"
    )
    receiver = stack.facts["receiver"]
    added = stack.cavendish("endpoint", "add", "shop", receiver, "--json")
    assert json.loads(added.stdout)["encrypted"] is True
    assert (
        json.loads(stack.cavendish("endpoint", "test", receiver, "--json").stdout)["status"] == 204
    )
    found = {one["what"]: one for one in json.loads(stack.cavendish("doctor", "--json").stdout)}
    assert "endpoint secrets" not in found
    assert found["webhook secret"]["ok"]
