"""Redis servers as production has them.

One primary with replicas and Sentinels, or a cluster; real processes on free ports.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import redis

from cavendish_worker.devstack import embedded_redis as embedded
from cavendish_worker.devstack.ports import free_port

PASSWORD, SENTINEL_PASSWORD = "hunter2hunter2", "hunter2-of-the-sentinels"

T = TypeVar("T")


class PortTakenError(Exception):
    """A server could not begin: another process was given its port in the meantime."""


class Node:
    """One server process, which a test may kill."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.port = free_port()
        if "cluster_enabled" in options:  # its other port would be 10,000 higher, and may be taken
            self.bus_port = free_port()
            options["cluster_port"] = str(self.bus_port)
        folder /= str(self.port)
        folder.mkdir()
        shared = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "save": "",
            "loglevel": "warning",
        }
        words = [
            f"{name.replace('_', '-')} {value or chr(34) * 2}"
            for name, value in (shared | options).items()
        ]
        config = folder / "server.conf"
        config.write_text("\n".join([*words, f"logfile {folder}/log", ""]))
        self._command = [
            embedded.binary(),
            str(config),
            *(["--sentinel"] if "sentinel" in options else []),
        ]
        self.redis = redis.Redis(
            port=self.port,
            password=options.get("requirepass"),
            decode_responses=True,
            socket_timeout=5,
        )
        self.start()

    def start(self) -> None:
        """Start it, or start it again with all that it kept."""
        self.process = subprocess.Popen(self._command, env=embedded.environment(), process_group=0)
        eventually(self._answers, "the server answers")

    def _answers(self) -> bool:
        if code := self.process.poll():
            raise PortTakenError(f"the server ended with {code}")
        return bool(self.redis.info("server")["process_id"] == self.process.pid)

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        if number in {signal.SIGKILL, signal.SIGTERM}:
            self.process.wait(10)

    def close(self) -> None:
        self.redis.close()
        self.process.kill()
        self.process.wait(10)


def eventually(asked: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Ask until the answer is truthy; errors of Redis mean not yet."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(redis.RedisError, OSError):
            if answer := asked():
                return answer
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


class Watched:
    """One primary and two replicas, watched by three Sentinels that agree after one second of
    silence.
    """

    def __init__(self, start: Callable[..., Node]) -> None:
        kept = {
            "appendonly": "yes",
            "requirepass": PASSWORD,
            "masterauth": PASSWORD,
            "repl_diskless_sync_delay": "0",
        }
        self.primary = start(**kept)
        self.replicas = [
            start(**kept, replicaof=f"127.0.0.1 {self.primary.port}") for _ in range(2)
        ]
        eventually(lambda: self.primary.redis.wait(2, 100) == 2, "both replicas follow")
        watch = f"monitor store 127.0.0.1 {self.primary.port} 2"
        after = "down-after-milliseconds store 1000\nsentinel failover-timeout store 5000"
        among = f"auth-pass store {PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}"
        config = {
            "sentinel": f"{watch}\nsentinel {among}\nsentinel {after}",
            "requirepass": SENTINEL_PASSWORD,
        }
        self.sentinels = [start(**config) for _ in range(3)]
        for sentinel in self.sentinels:
            eventually(
                lambda one=sentinel: self._state(one)["num-other-sentinels"] == 2,
                "the Sentinels know each other",
            )
            eventually(
                lambda one=sentinel: self._state(one)["num-slaves"] == 2,
                "the Sentinels know the replicas",
            )
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = (
            f"redis+sentinel://:{PASSWORD}@{hosts}/store/0?sentinel_password={SENTINEL_PASSWORD}"
        )
        self.broker_url = self.url.replace("/store/0", "/store/1")

    def _state(self, sentinel: Node) -> dict[str, Any]:
        return cast(dict[str, Any], sentinel.redis.sentinel_master("store"))

    def promoted(self) -> bool:
        """True once the Sentinels name another primary."""
        return bool(self._state(self.sentinels[-1])["port"] != self.primary.port)


class Cluster:
    """Three primaries with one replica each, which take over after about a second of silence."""

    def __init__(self, start: Callable[..., Node]) -> None:
        options = {
            "cluster_enabled": "yes",
            "cluster_node_timeout": "1000",
            "appendonly": "yes",
            "repl_diskless_sync_delay": "0",
        }
        self.nodes = [start(**options) for _ in range(6)]
        self.primaries, self.replicas, first = self.nodes[:3], self.nodes[3:], self.nodes[0]
        edges = [0, 5461, 10923, 16384]
        for number, node in enumerate(self.nodes):
            node.redis.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            node.redis.execute_command("CLUSTER MEET", "127.0.0.1", first.port, first.bus_port)
        for node, low, high in zip(self.primaries, edges, edges[1:], strict=False):
            node.redis.execute_command("CLUSTER ADDSLOTSRANGE", low, high - 1)
        for primary, replica in zip(self.primaries, self.replicas, strict=True):
            name = primary.redis.execute_command("CLUSTER MYID")
            eventually(
                lambda one=replica, of=name: one.redis.execute_command("CLUSTER REPLICATE", of),
                "a replica knows its primary",
            )
        for node in self.nodes:
            eventually(
                lambda one=node: one.redis.execute_command("CLUSTER INFO")["cluster_state"] == "ok",
                "it is whole",
            )
        for primary in self.primaries:
            eventually(lambda one=primary: one.redis.wait(1, 100) == 1, "each replica follows")
        for node in self.nodes:
            eventually(lambda one=node: _followed(one) == 3, "all know all")
        self.url = "redis+cluster://" + ",".join(
            f"127.0.0.1:{node.port}" for node in self.primaries
        )

    def owner(self, key: str) -> Node:
        """The node that is the primary of a key, as the last replica sees it."""
        slot = int(self.replicas[-1].redis.execute_command("CLUSTER KEYSLOT", key))
        slots = self.replicas[-1].redis.execute_command("CLUSTER SLOTS")
        rows = (
            slots.items()
            if isinstance(slots, dict)
            else [((row[0], row[1]), row[2][1]) for row in slots]
        )
        ports = [
            about["primary"][1] if isinstance(about, dict) else about
            for (low, high), about in rows
            if low <= slot <= high
        ]
        return next(node for node in self.nodes if node.port == int(ports[0]))


def _followed(node: Node) -> int:
    """How many primaries a node knows that have a replica."""
    slots = node.redis.execute_command("CLUSTER SHARDS")
    return sum(len(_field(shard, "nodes")) == 2 for shard in slots)


def _field(shard: Any, name: str) -> Any:
    if isinstance(shard, dict):
        return shard[name]
    return dict(zip(shard[::2], shard[1::2], strict=True))[name]


@contextlib.contextmanager
def started(kind: Callable[[Callable[..., Node]], T]) -> Iterator[T]:
    """Start servers in a folder of their own, and end every one of them."""
    folder, running = Path(tempfile.mkdtemp(prefix="cavendish-test-")), list[Node]()

    def start(**options: str) -> Node:
        for _ in range(5):
            with contextlib.suppress(PortTakenError):
                running.append(Node(folder, **options))
                return running[-1]
        raise PortTakenError("five times in turn")

    try:
        yield kind(start)
    finally:
        for node in running:
            node.close()
        shutil.rmtree(folder, ignore_errors=True)


class Rabbit:
    """A RabbitMQ of its own, with its own `epmd`, where Debian's package is installed."""

    PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

    def __init__(self, folder: Path) -> None:
        self.port, epmd = free_port(), free_port()
        config = folder / "rabbitmq.conf"
        config.write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\nlog.console = false\n")
        (folder / "plugins").write_text("[].\n")
        self._environment = embedded.environment() | {
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"cavendish{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        }
        self._log = (folder / "console").open("w")
        self._epmd = subprocess.Popen(
            ["epmd"], env=self._environment, process_group=0
        )  # or Erlang leaves a daemon behind
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        command = [str(self.PROGRAM)]
        self.process = subprocess.Popen(
            command,
            env=self._environment,
            stdout=self._log,
            stderr=self._log,
            process_group=0,
            cwd=self._environment["HOME"],
        )
        eventually(self._answers, "RabbitMQ answers", 60)

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), 1) as connected:
            connected.settimeout(5)
            connected.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(connected.recv(1))

    def freeze(self) -> None:
        """Its connections stay open, and nothing is answered."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def kill(self) -> None:
        """End it at once, with all that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def close(self) -> None:
        self.kill()
        self._epmd.kill()
        self._epmd.wait(10)
        self._log.close()
