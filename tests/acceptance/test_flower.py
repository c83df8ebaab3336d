"""Flower as a person sees it.

In a real browser where one is installed, and started the way that production does.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from celery import Celery

import forked
from acceptance.conftest import SERVICE, Stack, wait_until
from browser import Browser, browser
from cavendish_worker.devstack.ports import free_port
from conftest import Server
from programs import need
from servers import started

PASSWORD = "not: for, everyone"


def seen(window: Browser, url: str, *words: str) -> str:
    """Open the page, anew every few seconds, until all the words are seen; returns its text."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        window.open(url)
        anew = time.monotonic() + 3  # rows come after the page
        while time.monotonic() < anew:
            text = window.text()
            if all(re.search(word, text) for word in words):
                return text
            time.sleep(0.1)
    raise AssertionError(f"not seen: {words}, but {window.text()}")


@pytest.mark.timeout(300)
def test_a_person_with_a_browser_sees_the_worker_the_tasks_with_their_outcomes_and_the_queues(
    start: Callable[..., Stack],
) -> None:
    need("chromium", "chromedriver")
    stack = start("--rate", "20", "--median", "1", CAVENDISH_FLOWER_BASIC_AUTH=f"ada:{PASSWORD}")
    flower = stack.facts["flower"]
    inside = flower.replace("http://", f"http://ada:{quote(PASSWORD)}@")
    wait_until(lambda: httpx.get(flower, trust_env=False).status_code == 401, 60, "Flower answers")
    with browser() as window:
        assert window.open(flower) == ""
        assert (
            window.run("return performance.getEntriesByType('navigation')[0].responseStatus") == 401
        )
        seen(window, f"{inside}/workers", r"worker@\S+\s+Online")
        ids = stack.create(30)
        hook = f"{stack.facts['receiver']}?token=nobodys-business"
        with Celery(broker=stack.facts["broker"], set_as_current=False) as producer:
            options = {"service": SERVICE, "webhook": hook}
            producer.send_task(
                "cavendish.submit", args=[ids], kwargs=options, queue="cavendish.submit"
            )
        tasks = seen(
            window,
            f"{inside}/tasks",
            r"cavendish\.retrieve\s+SUCCESS\s+default/nano-banana/0, \d+ ids\s+first \S+\s+\d+ "
            r"asked · \d+ settled",
            r"cavendish\.deliver\s+SUCCESS\s+\d+ delivered · 0 to retry · 0 buried",
        )
        submit = seen(
            window,
            f"{inside}/tasks?name=cavendish.submit",
            r"SUCCESS\s+\[\['.*'webhook': 'http://127\.0\.0\.1:\d+/…'.*\s30 new\s",
        )
        queues = seen(
            window, f"{inside}/broker", r"cavendish\.retrieve\s+\d", r"cavendish\.submit\s+\d"
        )
        window.open(f"{inside}/tasks")
        one = wait_until(
            lambda: window.run(
                "return document.querySelector('.task-uuid-full')?.closest('a').href"
            ),
            60,
            "a task",
        )
        detail = seen(window, one, r"Task details|TASK DETAILS", "SUCCESS")
        worker = seen(
            window,
            f"{inside}/worker/{re.search(r'worker@[^<>]+', tasks)[0].split()[0]}",
            "Queues|QUEUES",
        )
    for page in (tasks, submit, queues, detail, worker):
        assert not re.search(r"\bETA\b", page)
        assert "nobodys-business" not in page
    assert "cavendish.dispatch" not in tasks


@pytest.mark.timeout(300)
def test_flower_as_production_starts_it_has_our_settings_and_hears_of_workers_that_come_after_it(
    own_server: Server, tmp_path: Path
) -> None:
    port = free_port()
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CAVENDISH_", "FLOWER_"))
    }
    environment |= {
        "CAVENDISH_REDIS_URL": own_server.url,
        "CAVENDISH_BROKER_URL": own_server.url.replace("db=0", "db=3"),
        "CAVENDISH_FLOWER_PORT": str(port),
        "CAVENDISH_FLOWER_BASIC_AUTH": f"ada:{PASSWORD}",
    }
    with (
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, auth=("ada", PASSWORD)
        ) as http,
        ExitStack() as parts,
    ):
        parts.enter_context(running("flower", environment, tmp_path))
        wait_until(lambda: "Workers" in http.get("/workers").text, 60, "Flower answers")
        assert httpx.get(f"{http.base_url}/tasks", trust_env=False).status_code == 401
        assert (
            httpx.get(f"{http.base_url}/tasks", trust_env=False, auth=("ada", "wrong")).status_code
            == 401
        )
        assert listening(port) == {"127.0.0.1"}
        columns = re.findall(r'data-column="(\w+)"', http.get("/tasks").text)
        assert columns == "name state args kwargs result runtime received worker uuid".split()
        with Celery(
            broker=f"redis+socket://{own_server.socket}?virtual_host=3", set_as_current=False
        ) as producer:
            for _ in range(3):
                producer.send_task(
                    "cavendish.submit", args=[["x"]], queue="cavendish.submit"
                )  # of no service
        assert re.search(r"cavendish.submit</td>\s*<td[^>]*>3</td>", http.get("/broker").text)
        parts.enter_context(running("worker", environment, tmp_path))
        wait_until(
            lambda: any(one["status"] for one in http.get("/workers?json=1").json()["data"]),
            60,
            "a worker is online",
        )
        rows = (
            "/tasks/datatable?draw=1&start=0&length=9&order[0][column]=0&"
            "search[value]=state:FAILURE"
        )
        refused = wait_until(
            lambda: http.get(rows).json()["data"], 60, "the refused messages are seen"
        )
        assert refused[0]["result"] == "cavendish.submit needs the keyword 'service'."
    assert PASSWORD not in (tmp_path / "flower.log").read_text()


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    "said", [["--address=0.0.0.0", "--port={}"], ["--port={}", "--url_prefix=flower"], []], ids=str
)
def test_the_health_check_of_the_image_asks_flower_itself_however_it_is_started(
    own_server: Server, tmp_path: Path, said: list[str]
) -> None:
    port = free_port()
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CAVENDISH_", "FLOWER_"))
    }
    environment |= {"CAVENDISH_REDIS_URL": own_server.url} | (
        {} if said else {"CAVENDISH_FLOWER_PORT": str(port)}
    )
    command = [sys.executable, "-m", "celery", "-A", "cavendish_worker", "flower"]
    command += [word.format(port) for word in said]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    words = [sys.executable, "-m", "cavendish_worker.cli", "alive", "--container"]
    words += ["--pid", str(process.pid)]

    def asked() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env=environment, capture_output=True, text=True, check=False, timeout=30
        )

    try:
        wait_until(lambda: asked().returncode == 0, 40, "it is well")
        process.send_signal(signal.SIGSTOP)
        done = asked()
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert "does not answer" in done.stderr
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(10)


@contextmanager
def running(part: str, environment: dict[str, str], folder: Path) -> Iterator[None]:
    """A part as production starts it: `celery -A cavendish_worker PART`."""
    with (folder / f"{part}.log").open("w") as log:
        command = [sys.executable, "-m", "celery", "-A", "cavendish_worker", part]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def listening(port: int) -> set[str]:
    """The addresses of this machine at which somebody listens on this port."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        if state == "0A" and int(local.partition(":")[2], 16) == port:
            found.add(socket.inet_ntoa(bytes.fromhex(local.partition(":")[0])[::-1]))
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSTOP], ids=["Redis is killed", "Redis hangs"]
)
def test_flower_ends_by_itself_on_sigterm_while_redis_is_away(tmp_path: Path, number: int) -> None:
    port = free_port()
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CAVENDISH_", "FLOWER_"))
    }
    with started(lambda begin: begin()) as node:
        environment |= {
            "CAVENDISH_REDIS_URL": f"redis://127.0.0.1:{node.port}/0",
            "CAVENDISH_FLOWER_PORT": str(port),
        }
        words = ["-A", "cavendish_worker", "flower"]
        process = forked.shared().start("celery", words, environment, tmp_path / "log")
        try:
            address = f"http://127.0.0.1:{port}/healthcheck"
            wait_until(lambda: httpx.get(address, trust_env=False).text == "OK", 60, "it answers")
            wait_until(node.redis.pubsub_numpat, 60, "it listens for events")
            node.kill(number)
            # It asks the workers every five seconds, in threads that then wait for Redis.
            time.sleep(12)
            process.terminate()
            assert process.wait(120) == 0
        finally:
            node.process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(10)
