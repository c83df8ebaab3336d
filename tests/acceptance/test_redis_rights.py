"""deploy/redis-users.acl: its rights are enough for each role, and a missing right is named."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import redis
from acedatacloud import AceDataCloud
from click.testing import CliRunner

from acceptance.conftest import SERVICE, wait_until
from acceptance.parts import Parts
from cavendish import Client, Filter, Task
from cavendish.endpoints import encryption
from cavendish.errors import StoreUnavailable
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.store import keys, quarantine
from cavendish.store.keys import LaneKeys
from cavendish_worker.cli import cli
from cavendish_worker.devstack.emulator.tasks_api import EmulatorConfig
from cavendish_worker.devstack.ports import free_port
from cavendish_worker.service.callback_urls import CallbackUrls
from delivering import Served
from servers import Node, started
from serving import caller, service

PAGE = Path(__file__).parents[2] / "deploy" / "redis-users.acl"
PASSWORD = "CHANGE-ME"


def users() -> dict[str, str]:
    """The rules of the page by user."""
    lines = [
        line.split(None, 2) for line in PAGE.read_text().splitlines() if line.startswith("user ")
    ]
    return {name: rules for _, name, rules in lines}


class Guarded:
    """A Redis with the users of the page, and the processes that work with them."""

    def __init__(self, node: Node, served: Served, folder: Path) -> None:
        self.node, self.folder = node, folder
        for name, rules in users().items():
            node.redis.execute_command("ACL", "SETUSER", name, *rules.split())
        self.parts = Parts(
            f"redis://127.0.0.1:{node.port}/0", served, EmulatorConfig(rate=0.0, median=0.1)
        )

    def url(self, user: str) -> str:
        return f"redis://{user}:{PASSWORD}@127.0.0.1:{self.node.port}/0"

    def begin(self, role: str, user: str) -> None:
        self.parts.environment["CAVENDISH_REDIS_URL"] = self.url(user)
        self.parts.celery(role)

    def settings(self, user: str) -> Settings:
        return Settings.load({"CAVENDISH_REDIS_URL": self.url(user)})

    def shell(self, *words: str, stdin: str | None = None, fails: bool = False) -> str:
        """A command of ours in this process, as the user of the command line."""
        environment = self.parts.environment | {"CAVENDISH_REDIS_URL": self.url("cavendish-shell")}
        environment["CAVENDISH_WEBHOOK_ALLOW"] += ",10.0.0.0/8"  # of which the workers know nothing
        done = CliRunner().invoke(cli, list(words), env=environment, input=stdin)
        assert fails or done.exit_code == 0, (words, done.output, done.exception, self.refused())
        return done.stdout

    def refused(self) -> list[tuple[str, str]]:
        """Who was refused what since the last question."""
        rows: list[dict[str, Any]] = self.node.redis.acl_log()
        self.node.redis.acl_log_reset()
        return [(row["username"], row["object"]) for row in rows]

    @contextmanager
    def flower(self) -> Iterator[str]:
        port = free_port()
        ours = {
            "CAVENDISH_REDIS_URL": self.url("cavendish-flower"),
            "CAVENDISH_FLOWER_PORT": str(port),
        }
        environment = self.parts.environment | ours | {"CAVENDISH_FLOWER_BASIC_AUTH": "ada:x"}
        with (self.folder / "flower.log").open("w") as log:
            command = [sys.executable, "-m", "celery", "-A", "cavendish_worker", "flower"]
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()
                process.wait(30)


@pytest.fixture
def guarded(served: Served, tmp_path: Path) -> Iterator[Guarded]:
    with started(
        lambda begin: begin(appendonly="yes", appendfsync="always", maxmemory_policy="noeviction")
    ) as node:
        found = Guarded(node, served, tmp_path)
        yield found
        found.parts.close()


@pytest.mark.timeout(240)
def test_every_role_does_all_of_its_work_with_the_rights_of_the_page(guarded: Guarded) -> None:
    parts = guarded.parts
    guarded.begin("worker", "cavendish-worker")
    guarded.begin("beat", "cavendish-beat")
    assert guarded.refused() == []
    _commands_of_producers(guarded)
    assert guarded.refused() == []
    _commands_of_operators(guarded)
    assert guarded.refused() == []
    _requests_of_programs(guarded)
    assert guarded.refused() == []
    _requests_of_clients(guarded)
    assert guarded.refused() == []
    with (
        guarded.flower() as flower,
        httpx.Client(base_url=flower, trust_env=False, auth=("ada", "x")) as http,
    ):
        wait_until(lambda: http.get("/workers?json=1"), 40, "it answers")
        assert guarded.refused() == []
        wait_until(
            lambda: any(one["status"] for one in http.get("/workers?json=1").json()["data"]),
            40,
            "it hears a worker",
        )
        parts.client.submit(parts.emulator.create(2), service=SERVICE)
        rows = "/tasks/datatable?draw=1&start=0&length=9&order[0][column]=0&search[value]="
        wait_until(lambda: http.get(rows).json()["data"], 30, "it sees messages")
        assert re.search(r"cavendish.submit</td>\s*<td[^>]*>0</td>", http.get("/broker").text)
        assert http.get("/api/workers?refresh=1").json()  # it asks them, as its buttons do
        _pages_of_flower(guarded, http)
    assert guarded.refused() == []
    for process in reversed(parts._processes):
        parts.end(process)
    assert guarded.refused() == []
    assert "Traceback" not in parts.lines()


@pytest.mark.parametrize("user", ["cavendish-client", "cavendish-shell", "cavendish-http"])
def test_producers_and_operators_may_undo_what_was_submitted(guarded: Guarded, user: str) -> None:
    """Without any worker: so each id is pending until it is cancelled."""
    with Client(settings=guarded.settings(user)) as client:
        ids = [Task(f"id-{number}", key=f"order-{number}") for number in range(20)]
        more: dict[str, Any] = {"webhook": "https://example.com/hook", "metadata": {"n": "n" * 100}}
        client.submit(ids, service=SERVICE, group="g", group_size=20, **more)
        assert len(client.set_deadline(Filter(group="g"), 600)) == 20
        assert len(client.set_deadline(["id-1"], 60, service=SERVICE)) == 1
        assert len(client.cancel(["id-1", "id-2"], service=SERVICE)) == 2
        assert len(client.cancel(Filter(key="order-3"), silent=True)) == 1
        guarded.node.redis.delete(LaneKeys(Lane("default", SERVICE)).task("id-4"))
        guarded.node.redis.set(LaneKeys(Lane("default", SERVICE)).task("id-4"), "damaged")
        said = client.forget([f"id-{number}" for number in range(10)], service=SERVICE)
        assert {one.outcome for one in said} == {"done"}
        assert len(client.forget(Filter(service=SERVICE))) == 10
        assert client.count() == 0
    assert guarded.refused() == []


def _requests_of_programs(guarded: Guarded) -> None:
    """Every operation of the HTTP service that asks Redis for something."""
    key = guarded.shell("key", "add", "ops", "--may", "submit,read,operate").strip()
    limited = guarded.shell("key", "add", "shop", "--may", "submit,read", "--own").strip()
    guarded.shell("key", "list")
    ids = guarded.parts.emulator.create(3)
    body = {"service": SERVICE, "ids": ids, "webhook": guarded.parts.receiver}
    grouped = body | {"group": "http", "group_size": 3}
    some, hook = {"service": SERVICE, "ids": ids}, {"name": "web", "url": guarded.parts.receiver}
    with service(guarded.settings("cavendish-http")) as address:
        with caller(address, key) as http:
            assert http.post("/v1/tasks", json=grouped).status_code == 201
            assert http.post("/v1/tasks/get", json={**some, "wait": 20.0}).status_code == 200
            assert http.post("/v1/tasks", json=body | {"restart": True}).is_success
            late = http.post("/v1/tasks/deadline", json={**some, "deadline": 60.0})
            assert late.is_success, guarded.refused()
            for path in ("cancel", "forget"):
                assert http.post(f"/v1/tasks/{path}", json=some).is_success
            assert http.post("/v1/endpoints", json=hook | {"unencrypted": True}).is_success
            for path in ("disable", "enable"):
                assert http.post(f"/v1/endpoints/web/{path}").is_success
            again = {"endpoint": guarded.parts.receiver, "since": 0.0}
            assert http.post("/v1/replays", json=again).is_success
            for path in ("revive", "drop"):
                assert http.post(f"/v1/dead-letters/{path}", json={"all": True}).is_success
            assert http.delete("/v1/endpoints/web").is_success
            assert http.put("/v1/pauses/other").is_success
            assert http.delete("/v1/pauses/other").is_success
            assert http.put("/v1/rate-ceilings/other", json={"calls": 5.0}).is_success
            assert http.delete("/v1/rate-ceilings/other").is_success
            for path in "tasks tasks/count?key=x endpoints dead-letters pauses status".split():
                assert http.get(f"/v1/{path}").is_success, path
            assert "cavendish_store_up 1.0" in http.get("/metrics").text
            assert http.get("/v1/events?after=0&follow=false").is_success
            assert http.get("/v1/groups/http?wait=0.1").is_success
        with caller(address, limited) as http:
            assert http.post("/v1/tasks", json=some).is_success
            assert http.get("/v1/tasks").is_success
    guarded.shell("key", "revoke", "shop")


def _requests_of_clients(guarded: Guarded) -> None:
    """The gateway in the API's place, and the API's callbacks."""
    key, secret = (
        guarded.shell("key", "add", "sdk", "--may", "submit,read").strip(),
        encryption.new_key(),
    )
    here = replace(
        guarded.settings("cavendish-http"),
        api_url=guarded.parts.environment["CAVENDISH_API_URL"],
        api_token="emulated",
        public_url="https://us.example",
        secret_key=(secret,),
    )
    called = urlsplit(CallbackUrls(here.public_url, (secret,)).url("default", SERVICE)).path
    (foreign,) = guarded.parts.emulator.create(1)
    with service(here) as address:
        with AceDataCloud(api_token=key, base_url=address) as sdk:
            handle = sdk.nano_banana.generate(action="generate", prompt="p")
            assert handle.wait(max_wait=60)["id"] == handle.id
            assert sdk.tasks.wait(foreign, service=SERVICE, max_wait=60)["id"] == foreign
        with caller(address, key) as http:
            ids = {"action": "retrieve_batch", "ids": [handle.id, foreign]}
            assert http.post(f"/{SERVICE}/tasks", json=ids).json()["count"] == 2
            history = {"action": "retrieve_batch", "limit": 1}
            assert http.post(f"/{SERVICE}/tasks", json=history).status_code == 400  # it has none
            pending = guarded.parts.emulator.create(1)
            assert http.post(f"/{SERVICE}/tasks", json={"id": pending[0]}).is_success
            for task_id in (*pending, "nobody"):
                assert http.post(called, json={"task_id": task_id}).status_code == 204
            wait_until(lambda: guarded.parts.settled(pending), 60, "it has ended")


def _pages_of_flower(guarded: Guarded, http: httpx.Client) -> None:
    """Each of our pages, and all that their buttons do."""
    client, (task_id,) = guarded.parts.client, guarded.parts.emulator.create(1)
    client.add_endpoint("seen-in-flower", guarded.parts.receiver, unencrypted=True)
    client.submit([task_id], service=SERVICE, webhook="seen-in-flower", key="k")
    client.submit(["another"], service=SERVICE, group="g", metadata={"note": "n" * 100})
    pages = ("", "/ids", f"/id/{SERVICE}/{task_id}", "/webhooks", "/account/default", "/actions")
    for page in pages:
        assert http.get(f"/cavendish{page}").status_code == 200, page
    assert http.get("/cavendish/ids?q=k", follow_redirects=True).status_code == 200
    place, ours = "/cavendish/endpoint/seen-in-flower", {"Sec-Fetch-Site": "same-origin"}
    token = re.search(r'name="token" value="(\w+)"', http.get(place).text)
    assert token
    for verb in ("disable", "enable", "rotate", "test"):
        said = {"token": token[1], "verb": verb}
        assert http.post(place, data=said, headers=ours).status_code == 200, verb
    for verb in ("deadline", "cancel", "replay", "forget"):
        said = {"token": token[1], "verb": verb, "confirmed": "yes", "in": "1h", "service": SERVICE}
        done = http.post("/cavendish/act", data=said, headers=ours, follow_redirects=True)
        wait_until(lambda url=done.url: "running</strong>" not in http.get(url).text, 60, verb)
        assert "done</strong>" in http.get(done.url).text, (verb, guarded.refused())
    for verb in ("revive", "drop"):
        said = {"token": token[1], "verb": verb, "all": "yes"}
        asked = http.post("/cavendish/dead", data=said, headers=ours, follow_redirects=True)
        assert asked.status_code == 200, verb
        said |= {"confirmed": "yes"}
        done = http.post("/cavendish/dead", data=said, headers=ours, follow_redirects=True)
        wait_until(lambda url=done.url: "running</strong>" not in http.get(url).text, 60, verb)
        assert "done</strong>" in http.get(done.url).text, (verb, guarded.refused())
    for verb in ("pause", "resume", "ceiling", "default"):
        said = {"token": token[1], "verb": verb, "calls": "5", "service": "flux"}
        done = http.post("/cavendish/account/default", data=said, headers=ours)
        assert done.status_code == 200, verb
    client.remove_endpoint("seen-in-flower")


def _commands_of_producers(guarded: Guarded) -> None:
    """The Python client, Celery's `send_task`, and a program that only pushes."""
    parts = guarded.parts
    with Client(settings=guarded.settings("cavendish-client")) as client:
        ids = parts.emulator.create(3)
        client.submit(ids, service=SERVICE, webhook=parts.receiver)
        assert set(client.wait(ids, service=SERVICE, timeout=60)) == set(ids)
        assert {event.id for event in client.events(after="0", follow=False)} == set(ids)
        long = {"note": "n" * 100}
        client.submit(ids, service=SERVICE, webhook=f"{parts.receiver}?job=7", metadata=long)
        client.submit(ids, service=SERVICE, metadata=long, restart=True)
        ended = parts.emulator.create(1)
        client.submit(ended, service=SERVICE)
        client.wait(ended, service=SERVICE, timeout=60)
        (again,) = client.submit(ended, service=SERVICE, restart=True)
        assert again.outcome == "new"
        grouped = {"group": "order-7", "webhook": parts.receiver}
        client.submit(parts.emulator.create(1), service=SERVICE, key="mine", **grouped)
        assert len(client.find("mine")) == 1
        client.submit([], service=SERVICE, group="order-7", group_size=1)
        assert client.wait_group("order-7", timeout=60).joined == 1
        client.submit([], service=SERVICE, **grouped)
        assert client.get(ids[0], service=SERVICE) is not None
        assert set(client.get_many(ids, service=SERVICE)) == set(ids)
        client.pause("other", "flux")
        assert client.resume("other", "flux") is not None
        client.set_rate_ceiling("other", 5.0)
        client.set_rate_ceiling("other", None)
    more = parts.emulator.create(2)
    # A process of its own: this one may have our transport, which a producer has not.
    program = (
        "import sys; from celery import Celery\n"
        "with Celery(broker=sys.argv[1], set_as_current=False) as producer:\n"
        "    producer.send_task('cavendish.submit', args=[[sys.argv[2]]],\n"
        "                       kwargs={'service': sys.argv[3]}, queue='cavendish.submit')\n"
    )
    words = [guarded.url("cavendish-celery"), more[0], SERVICE]
    subprocess.run([sys.executable, "-c", program, *words], check=True, timeout=60)
    raw = {
        "headers": {"task": "cavendish.submit", "id": "x"},
        "body": json.dumps([[more[1:]], {"service": SERVICE}, {}]),
    }
    with redis.Redis.from_url(
        guarded.url("cavendish-push"), protocol=2, driver_info=None
    ) as pushing:
        pushing.lpush("cavendish.submit", json.dumps(raw))
    wait_until(lambda: parts.settled(more) and len(parts.tasks(more)) == 2, 40, "both are taken in")


def _commands_of_operators(guarded: Guarded) -> None:
    parts, shell = guarded.parts, guarded.shell
    ids = parts.emulator.create(2)
    shell("submit", "--service", SERVICE, "--webhook", parts.receiver, *ids)
    shell("wait", "--service", SERVICE, *ids, fails=True)  # some fail at the emulated API
    shell("show", "--service", SERVICE, ids[0])
    grouped = parts.emulator.create(1)
    both = ("--key", "mine", "--group", "order-8", "--group-size", "1")
    shell("submit", "--service", SERVICE, "--webhook", parts.receiver, *both, *grouped)
    shell("wait", "--group", "order-8", fails=True)
    shell("submit", "--service", SERVICE, "--webhook", parts.receiver, *both, *grouped)
    shell("group", "order-8")
    for words in (
        "list",
        "events",
        "status",
        "metrics",
        "alive --role worker --ready",
        f"pause --account default --service {SERVICE} --for 1h",
        f"resume --account default --service {SERVICE}",
        "rate-limit --account default --calls 50",
        "rate-limit --account default --default",
        "dead list",
        "endpoint list",
    ):
        shell(*words.split())
    plain = parts.emulator.create(1)
    for words in (["submit"], ["wait", "--timeout", "60"], ["submit", "--restart"]):
        shell(*words, "--service", SERVICE, *plain, fails=words[0] == "wait")
    shell("endpoint", "add", "shop", parts.receiver)
    for words in ("show shop", "rotate shop", "disable shop", "enable shop"):
        shell("endpoint", *words.split())
    shell("endpoint", "test", "shop", fails=True)  # the receiver does not know its secret
    other = parts.emulator.create(1)
    shell("submit", "--service", SERVICE, "--webhook", "shop", *other)
    shell("wait", "--service", SERVICE, *other, fails=True)
    shell("replay", "--endpoint", "shop", "--since", "1h")
    private = ("--webhook", "http://10.0.0.1/private")
    shell("submit", "--service", SERVICE, *private, *parts.emulator.create(1))
    wait_until(
        lambda: json.loads(shell("dead", "list", "--json")),
        40,
        "an address that is refused is a dead letter",
    )
    shell("dead", "revive", "--all")
    wait_until(lambda: json.loads(shell("dead", "list", "--json")), 40, "it is one again")
    shell("dead", "drop", "--all", "--yes")
    shell("endpoint", "remove", "shop", "--yes", fails=True)
    body = json.dumps([[parts.emulator.create(1)], {"service": "flux-next"}, {}])
    raw = json.dumps({"headers": {"task": "cavendish.submit", "id": "x"}, "body": body})
    quarantined = quarantine.entry_of(1.0, "cavendish.submit", "died", 3, raw.encode())
    guarded.node.redis.rpush(keys.QUARANTINE, "one", "two")
    guarded.node.redis.hset(keys.QUARANTINED, mapping=dict.fromkeys(("one", "two"), quarantined))
    shell("refused", "drop", "one")
    shell("refused", "retry", "two")  # a worker takes it, and refuses it
    wait_until(parts.store.refused.list, 40, "it is refused")
    (entry,) = json.loads(shell("refused", "list", "--json"))
    shell("refused", "show", entry["id"])
    shell("refused", "retry", entry["id"], fails=True)
    shell("refused", "drop", "--all", "--yes")
    found = json.loads(shell("doctor", "--offline", "--json", fails=True))
    assert [
        one for one in found if not one["ok"] and one["what"].startswith(("redis", "broker"))
    ] == []
    assert "stray queues" not in {one["what"] for one in found}  # it may look for them


# --- a missing right


def lacking(guarded: Guarded, *rules: str) -> None:
    """Let the environment name a user with all rights but for these rules."""
    guarded.node.redis.execute_command(
        "ACL", "SETUSER", "bare", "on", f">{PASSWORD}", "&*", "+@all", *rules
    )
    guarded.parts.environment["CAVENDISH_REDIS_URL"] = guarded.url("bare")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ("~cavendish* ~_kombu* ~unacked* ~celery*", r"No permissions to access a key"),
        ("~* -psubscribe", "psubscribe"),
        ("~* resetchannels", "No permissions to access a channel"),
    ],
    ids=["keys", "a command", "channels"],
)
def test_a_worker_names_what_it_is_refused_in_one_sentence_and_goes_on_when_it_is_given(
    guarded: Guarded, rules: str, named: str
) -> None:
    lacking(guarded, *rules.split())
    worker = guarded.parts.begin("worker")
    wait_until(
        lambda: len(guarded.parts.lines().split("mingle: searching")) > 2,
        40,
        "it tried more than once",
    )
    said = [
        line
        for line in guarded.parts.lines().splitlines()
        if "The broker refuses this user" in line
    ]
    assert len(said) == 1
    assert re.search(named, said[0])
    assert "Traceback" not in guarded.parts.lines()
    lacking(guarded, "~*", "&*", "+@all")
    wait_until(lambda: guarded.parts._lives(worker, "worker"), 40, "it lives")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("rules", ["~cavendish* ~_kombu* ~unacked* ~celery*", "~* resetchannels"])
def test_doctor_says_what_a_worker_would_be_refused_if_none_lives(
    guarded: Guarded, rules: str
) -> None:
    lacking(guarded, *rules.split())
    words = [sys.executable, "-m", "cavendish_worker.cli", "doctor", "--offline", "--json"]
    done = subprocess.run(
        words,
        env=guarded.parts.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    (found,) = [one for one in json.loads(done.stdout) if one["what"] == "broker rights"]
    assert not found["ok"]
    assert "could not run a worker: No permissions to access a" in found["found"]


@pytest.mark.parametrize(
    ("rule", "named"), [("-hgetall", "hgetall"), ("resetkeys", "No permissions to access a key")]
)
def test_a_command_that_lacks_a_right_says_which_in_one_sentence(
    guarded: Guarded, rule: str, named: str
) -> None:
    lacking(guarded, "~*", rule)
    with (
        Client(settings=guarded.settings("bare")) as client,
        pytest.raises(StoreUnavailable) as refused,
    ):
        client.get("x", service=SERVICE)
    assert re.search(
        rf"refuses \(.*{named}.*\)\. deploy/redis-users\.acl lists the rights", str(refused.value)
    )
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("user", ["nobody", "bare"])
def test_an_http_service_whose_redis_user_may_not_read_keys_answers_with_a_503(
    guarded: Guarded, user: str
) -> None:
    """It knows no user of this name, or one that lacks a right; whoever asks learns neither."""
    lacking(guarded, "~*", "-hgetall")
    here = replace(guarded.settings(user), api_token="emulated")
    text = "cav_00000000_" + "a" * 43
    with service(here) as address, caller(address, text) as http:
        for path in ("/v1/tasks", "/v1/status", "/metrics"):
            answer = http.get(path)
            assert answer.status_code == 503, path
            assert answer.headers["content-type"] == "application/problem+json"
            assert "hgetall" not in answer.text
        for path in ("tasks", "images"):
            answer = http.post(f"/{SERVICE}/{path}", json={"id": "a"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "api_error")
